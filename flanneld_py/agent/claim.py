"""One daemon per device, and one per subnet file: claims that the kernel keeps, and gives up with their process.

The claim on a device is an abstract Unix socket named after it. Such names belong to the network namespace, as devices
do, so daemons in other namespaces never meet, whatever file systems they share (unix(7)). The claim on a subnet file,
and on the sockets beside it, is a lock on a file beside it (flock(2)).
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import socket
import struct
from contextlib import suppress
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from contextlib import AsyncExitStack
    from pathlib import Path

_UCRED = struct.Struct("=iII")


class ClaimedError(Exception):
    """Another daemon holds what we need; `pid` is its process, 0 where that cannot be seen."""

    def __init__(self, claimed: str, pid: int) -> None:
        super().__init__(f"another flanneld (pid {pid or 'unknown'}) holds {claimed}")
        self.pid = pid


def claim_device(device: str) -> socket.socket:
    """Claim a device for as long as the returned socket is open; raise ClaimedError if another holds it."""
    name = f"\0flanneld-py/{device}"
    claim = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    claim.setblocking(False)
    try:
        claim.bind(name)
        claim.listen()
    except OSError as error:
        claim.close()
        raise ClaimedError(device, _read_holder(name)) from error
    return claim


def claim_subnet_file(path: Path) -> IO[str]:
    """Claim a subnet file for as long as the returned file is open; raise ClaimedError if another holds it.

    Raises OSError, naming the file, where the folder cannot be written.
    """
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    lock = path.with_name(f".{path.name}.lock")
    descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    claim = os.fdopen(descriptor, "r+", encoding="utf-8", errors="replace")
    try:
        fcntl.flock(claim, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        holder = claim.read(20).strip()
        claim.close()
        raise ClaimedError(str(path), int(holder) if holder.isdecimal() else 0) from error
    try:
        claim.truncate()
        claim.write(f"{os.getpid()}\n")
        claim.flush()
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(lock)) from error
    return claim


def hold(stack: AsyncExitStack, claim: socket.socket) -> None:
    """Keep a claim on a device until the stack is unwound, and answer those who ask about it."""
    stack.enter_context(claim)
    loop = asyncio.get_running_loop()
    loop.add_reader(claim, turn_away, claim)
    stack.callback(loop.remove_reader, claim)


def turn_away(claim: socket.socket) -> None:
    """Let go of those who have asked who holds the claim; the kernel keeps them waiting, and only so many."""
    with suppress(BlockingIOError):
        while True:
            claim.accept()[0].close()


def _read_holder(name: str) -> int:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(name)
            return int(_UCRED.unpack(probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))[0])
        except OSError:
            # The holder has gone between the two calls, or takes no more connections: its name is not worth more.
            return 0
