"""`flannelctl peers`: the other nodes as the leases have them, beside the way to each as the kernel has it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from flanneld_py.core.prefix import parse_address, parse_prefix
from flanneld_py.ctl.daemon import NoDaemonError, add_daemon_flags, ask
from flanneld_py.ctl.errors import CtlError
from flanneld_py.ctl.node_view import Way, find_ways, read_node_view
from flanneld_py.ctl.output import NOT_WELL, OK, Table, show, show_json
from flanneld_py.ctl.traffic import RECEIVED, SENT, UNKNOWN, describe_traffic, read_counted, show_traffic
from flanneld_py.kernel.netlink_socket import NetlinkSocket

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable, Mapping, Sequence

    from flanneld_py.ctl.subparsers import Subparsers


def register(subcommands: Subparsers[argparse.ArgumentParser]) -> None:
    """Add `peers` to the command line."""
    parser = subcommands.add_parser(
        "peers",
        help="the other nodes, and how the kernel reaches them",
        description="Lists the peers: by the daemon's leases, or where none answers by the kernel alone. Exits with 0 "
        "when the kernel has all that leads to them, with 3 when something lacks or differs.",
    )
    parser.add_argument("peer", nargs="?", help="one of them: its address, its subnet, or the address of a pod there")
    add_daemon_flags(parser)
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    sock = NetlinkSocket()
    try:
        view = read_node_view(sock)
    finally:
        sock.close()
    try:
        told = ask(options.subnet_file, "peers")["peers"]
    except NoDaemonError as error:
        print(f"flannelctl: {error}; this is what the kernel has", file=sys.stderr)
        told = None
    rows = join(told, find_ways(view))
    if options.peer:
        rows = [row for row in rows if matches(row, options.peer)]
        if not rows:
            raise CtlError(f"there is no peer {options.peer}; flannelctl peers lists them, flannelctl leases all nodes")
    carried = {peer["subnet"]: peer.get("traffic") for peer in told or ()}
    counted = read_counted(view.devices)
    rows = [row | describe_traffic(row, carried.get(row["subnet"]), counted) for row in rows]
    if options.json:
        show_json(rows)
    else:
        show(_describe(rows, one=bool(options.peer)))
    return OK if all(row["state"] == "ok" for row in rows) else NOT_WELL


def join(told: Sequence[dict[str, Any]] | None, ways: Iterable[Way]) -> list[dict[str, Any]]:
    """Put the daemon's peers (None where none answers) and the kernel's ways together, one row for each subnet."""
    by_subnet = {str(way.subnet): way for way in ways}
    for_all = [way for way in by_subnet.values() if way.kind == "tunnel" and not way.gateway]
    for way in for_all:
        del by_subnet[str(way.subnet)]
    if told is None:
        return [_row(subnet, way.remote, way, _lacks(way)) for subnet, way in by_subnet.items()]
    rows = [_row(peer["subnet"], peer["public_ip"], _find(peer, by_subnet, for_all), None, peer) for peer in told]
    known = {peer["subnet"] for peer in told}
    rows += [
        _row(subnet, way.remote, way, "no lease has it") for subnet, way in by_subnet.items() if subnet not in known
    ]
    return rows


def _find(peer: dict[str, Any], by_subnet: Mapping[str, Way], for_all: Sequence[Way]) -> Way | None:
    subnet = parse_prefix(peer["subnet"])
    return by_subnet.get(peer["subnet"]) or next((way for way in for_all if way.subnet.contains(subnet)), None)


def _row(
    subnet: str, public_ip: str, way: Way | None, problem: str | None, peer: dict[str, Any] | None = None
) -> dict[str, Any]:
    if problem is None:
        problem = _compare(peer or {}, way)
    return {
        "subnet": subnet,
        "public_ip": public_ip,
        "way": way.kind if way else (peer or {}).get("way", "none"),
        "state": problem or "ok",
        "probed": (peer or {}).get("probed", ""),
        "device": way.device if way else "",
        "gateway": way.gateway if way else "",
        "mac": way.mac if way else "",
        "remote": way.remote if way else "",
    }


def _lacks(way: Way) -> str:
    return f"no {way.missing[0]}" if way.missing else ""


def _compare(peer: dict[str, Any], way: Way | None) -> str:
    if way is None:
        return "" if "way" in peer else "no route"
    if way.missing:
        return _lacks(way)
    if way.gateway and way.remote != peer["public_ip"]:
        return f"leads to {way.remote}"
    if way.mac and way.mac != peer["mac"]:
        return f"has the MAC {way.mac}"
    return ""


def matches(row: dict[str, Any], text: str) -> bool:
    """Say whether a row is the one that is meant: by its address, its subnet or key, or an address in its subnet."""
    if text in {row["subnet"], row["subnet"].replace("/", "-"), row["public_ip"]}:
        return True
    try:
        family, value = parse_address(text)
    except ValueError:
        return False
    subnet = parse_prefix(row["subnet"])
    return subnet.family == family and subnet.holds(value)


def _describe(rows: Sequence[dict[str, Any]], *, one: bool) -> list[str | Table]:
    shown = [show_traffic(row, whole=one) for row in rows]
    if one:
        return [f"  {key.replace('_', ' '):<10} {value}" for row in shown for key, value in row.items()]
    columns = ["subnet", "public_ip", "way", "device", "state"]
    columns += [name for name in ("probed", RECEIVED, SENT) if any(row[name] not in {"", UNKNOWN} for row in shown)]
    table = Table("", [name.replace("_", " ") for name in columns], [[row[name] for name in columns] for row in shown])
    wrong = sum(row["state"] != "ok" for row in rows)
    return [table, f"{len(rows)} peers{f', {wrong} of them not as they should be' if wrong else ''}"]
