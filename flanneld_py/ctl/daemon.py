"""Asking the daemon over its control socket, the subnet file's path with `.sock` in place of `.env`."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flanneld_py.ctl.errors import CtlError

if TYPE_CHECKING:
    import argparse

SUBNET_FILE = Path("/run/flannel/subnet.env")
_PATIENCE = 5.0
"""Seconds that the daemon has to answer."""
_RECEIVE_SIZE = 1 << 16


class NoDaemonError(CtlError):
    """No daemon answers at the socket."""


def add_daemon_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags by which the daemon is found, and the one for JSON."""
    parser.add_argument("--subnet-file", type=Path, default=SUBNET_FILE, help="the daemon's (%(default)s)")
    parser.add_argument("--json", action="store_true", help="print JSON")


def ask(subnet_file: Path, request: str) -> dict[str, Any]:
    """Return the daemon's answer to a request. Raises NoDaemonError."""
    path = subnet_file.with_suffix(".sock")
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(_PATIENCE)
            connection.connect(str(path))
            connection.sendall(request.encode() + b"\n")
            answer = b"".join(iter(lambda: connection.recv(_RECEIVE_SIZE), b""))
        told = json.loads(answer)
    except PermissionError as error:
        raise NoDaemonError(f"only root may ask the daemon at {path}") from error
    except (OSError, ValueError) as error:
        raise NoDaemonError(
            f"no daemon answers at {path} ({error}); is flanneld running, with this --subnet-file?"
        ) from error
    if not isinstance(told, dict):
        raise NoDaemonError(f"what answers at {path} is no flanneld")
    return told
