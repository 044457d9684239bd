"""`flannelctl status`: what the daemon says of itself; where none answers, what the kernel and the subnet file say."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from flanneld_py.core.errors import KernelError
from flanneld_py.ctl.daemon import NoDaemonError, add_daemon_flags, ask
from flanneld_py.ctl.node_view import describe_devices, find_ways, read_node_view
from flanneld_py.ctl.output import FAILED, NOT_WELL, OK, Table, show, show_json
from flanneld_py.kernel.netlink_socket import NetlinkSocket

if TYPE_CHECKING:
    import argparse
    from pathlib import Path

    from flanneld_py.ctl.subparsers import Subparsers


def register(subcommands: Subparsers[argparse.ArgumentParser]) -> None:
    """Add `status` to the command line."""
    parser = subcommands.add_parser(
        "status",
        help="how the daemon of this node is",
        description="Shows how the daemon is. Exits with 0 when it is ready, 3 when it is not yet, 1 if none answers; "
        "then it shows what the kernel and the subnet file say.",
    )
    add_daemon_flags(parser)
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    try:
        told = ask(options.subnet_file, "status")
    except NoDaemonError as error:
        print(f"flannelctl: {error}", file=sys.stderr)
        left = look_without_daemon(options.subnet_file)
        show_json(left) if options.json else show(describe_left(left))
        return FAILED
    show_json(told) if options.json else show(describe(told))
    return OK if told["ready"] else NOT_WELL


def look_without_daemon(subnet_file: Path) -> dict[str, Any]:
    """Return what a daemon left on this node: its subnet file and what the kernel still carries packets by."""
    left: dict[str, Any] = {"daemon": False, "subnet_file": None}
    try:
        lines = subnet_file.read_text(errors="replace").splitlines()
        left["subnet_file"] = dict(line.split("=", 1) for line in lines if "=" in line)
    except OSError as error:
        left["subnet_file_error"] = f"{subnet_file}: {error.strerror}"
    sock = NetlinkSocket()
    try:
        view = read_node_view(sock)
    except KernelError as error:
        return left | {"kernel_error": str(error)}
    finally:
        sock.close()
    ways = find_ways(view)
    broken = sum(bool(way.missing) for way in ways)
    return left | {"devices": describe_devices(view.devices), "peers": len(ways), "broken_peers": broken}


def describe_left(left: dict[str, Any]) -> list[str | Table]:
    """Write for a reader what a daemon left."""
    lines: list[str | Table] = ["no daemon; what it left carries packets on:"]
    for name in ("subnet_file_error", "kernel_error"):
        lines += [f"  {left[name]}"] if name in left else []
    lines += [f"  {key:<20} {value}" for key, value in (left["subnet_file"] or {}).items()]
    if "devices" in left:
        lines += [f"  {'peers':<20} {left['peers']}, of which {left['broken_peers']} lack an entry"]
        rows = [
            [one["name"], one["kind"], one["mac"], str(one["mtu"]), "up" if one["up"] else "down"]
            for one in left["devices"]
        ]
        lines += [Table("", ("device", "kind", "mac", "mtu", "state"), rows)] if rows else []
    return lines


def describe(told: dict[str, Any]) -> list[str | Table]:
    """Write a status for a reader."""
    state = "ready" if told["ready"] else "not ready"
    lines: list[str | Table] = [f"flanneld {told['version']}: {state}"]
    lines += [f"  missing  {reason}" for reason in told["missing"]]
    if "store" in told:
        lines += [_describe_store(told["store"])]
    if "lease" in told:
        lines += _describe_node(told)
        skipped = sorted(told["skipped"].items())
        unreachable = sorted(told["unreachable"].items())
        failing = [[one["entry"], one["reason"], str(one["attempts"])] for one in told["failing"]]
        lines += [Table("skipped leases", ("lease", "reason"), skipped)] if skipped else []
        lines += [Table("unreachable peers", ("subnet", "reason"), unreachable)] if unreachable else []
        lines += [Table("refused by the kernel", ("entry", "reason", "tries"), failing)] if failing else []
    if told["warnings"]:
        lines += ["last warnings", *(f"  {line}" for line in told["warnings"])]
    return lines


def _describe_store(store: dict[str, Any]) -> str:
    place = store.get("endpoint") or ", ".join(store.get("endpoints", ())) or "-"
    trouble = f"; {store['trouble']}" if store["trouble"] else ""
    return f"  store    {store['type']} at {place}{trouble}"


def _describe_guard(told: dict[str, Any]) -> str:
    if told["reason"]:
        return f"{told['mode']}: {told['reason']}"
    dropped = ", ".join(f"{reason} {count}" for reason, count in told["dropped"].items() if count)
    return f"{told['mode']}, dropped: {dropped or 'none'}{'; ' if told['problem'] else ''}{told['problem']}"


def _describe_probes(states: dict[str, int] | None) -> str:
    if states is None:
        return "none are sent (--probe-interval)"
    return ", ".join(f"{state} {count}" for state, count in states.items()) or "none yet"


def _describe_node(told: dict[str, Any]) -> list[str]:
    lease, uplink, backend = told["lease"], told["uplink"], told["backend"]
    left = "does not expire" if lease["seconds_left"] is None else f"{lease['seconds_left'] / 3600:.1f} h left"
    public = ", ".join(address for address in (uplink["public_ip"], uplink["public_ipv6"]) if address)
    rules = told["rules"]
    drift = ", ".join(f"{kind} {count}" for kind, count in sorted(told["drift"].items()))
    devices = ", ".join(f"{device['name']} {device['mac']}" for device in told["devices"])
    return [
        f"  lease    {lease['key']}, {'lost' if lease['lost'] else left}",
        f"  network  {', '.join(told['networks'])}",
        f"  uplink   {uplink['name']} ({public}, mtu {uplink['mtu']}): {uplink['reason']}",
        f"  backend  {backend['type']}, mtu {backend['mtu']}{f' ({devices})' if devices else ''}",
        f"  peers    {told['peers']}",
        f"  rules    {rules['by']}, restored {rules['restored']} times",
        *([f"  rules    {rules['problem']}"] if rules["problem"] else []),
        *(f"  rules    {one['chain']}: {one['reason']}; {one['remedy']}" for one in rules["barriers"]),
        f"  guard    {_describe_guard(told['guard'])}",
        f"  probes   {_describe_probes(told.get('probes'))}",
        f"  drift    {drift or 'none'}",
    ]
