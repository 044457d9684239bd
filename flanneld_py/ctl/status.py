"""`flannelctl status`: what the daemon says of itself, asked over its control socket."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flanneld_py.ctl.errors import CtlError

if TYPE_CHECKING:
    import argparse

    from flanneld_py.ctl.subparsers import Subparsers

_SUBNET_FILE = Path("/run/flannel/subnet.env")
_PATIENCE = 5.0
"""Seconds that the daemon has to answer."""
_RECEIVE_SIZE = 1 << 16
_NOT_READY = 3


def register(subcommands: Subparsers[argparse.ArgumentParser]) -> None:
    """Add `status` to the command line."""
    parser = subcommands.add_parser(
        "status",
        help="how the daemon of this node is",
        description="Shows how the daemon is. Exits with 0 when it is ready, 3 when it is not yet, 1 if none answers.",
    )
    parser.add_argument("--subnet-file", type=Path, default=_SUBNET_FILE, help="the daemon's (%(default)s)")
    parser.add_argument("--json", action="store_true", help="print what the daemon answers as JSON")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    told = ask(options.subnet_file.with_suffix(".sock"), "status")
    print(json.dumps(told, indent=2) if options.json else "\n".join(describe(told)))
    return 0 if told["ready"] else _NOT_READY


def ask(path: Path, request: str) -> dict[str, Any]:
    """Return the daemon's answer to a request. Raises CtlError where no daemon answers."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(_PATIENCE)
            connection.connect(str(path))
            connection.sendall(request.encode() + b"\n")
            answer = b"".join(iter(lambda: connection.recv(_RECEIVE_SIZE), b""))
        told = json.loads(answer)
    except (OSError, ValueError) as error:
        raise CtlError(
            f"no daemon answers at {path} ({error}); is flanneld running, with this --subnet-file?"
        ) from error
    if not isinstance(told, dict):
        raise CtlError(f"what answers at {path} is no flanneld")
    return told


def describe(told: dict[str, Any]) -> list[str]:
    """Write a status for a reader, a line for each thing."""
    lines = [f"flanneld {told['version']}: {'ready' if told['ready'] else 'not ready'}"]
    lines += [f"  missing  {reason}" for reason in told["missing"]]
    if "lease" not in told:
        return lines
    lease, uplink, backend = told["lease"], told["uplink"], told["backend"]
    left = "does not expire" if lease["seconds_left"] is None else f"{lease['seconds_left'] / 3600:.1f} h left"
    public = ", ".join(address for address in (uplink["public_ip"], uplink["public_ipv6"]) if address)
    lines += [
        f"  lease    {lease['key']}, {'lost' if lease['lost'] else left}",
        f"  uplink   {uplink['name']} ({public}, mtu {uplink['mtu']}): {uplink['reason']}",
        f"  backend  {backend['type']}, mtu {backend['mtu']}",
        f"  peers    {told['peers']}",
    ]
    lines += [f"  skipped  {key}: {reason}" for key, reason in sorted(told["skipped"].items())]
    lines += [f"  failing  {one['entry']}: {one['reason']} ({one['attempts']} tries)" for one in told["failing"]]
    drift = ", ".join(f"{kind} {count}" for kind, count in sorted(told["drift"].items()))
    return [*lines, f"  drift    {drift or 'none'}"]
