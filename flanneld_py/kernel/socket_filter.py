"""Notifications that the kernel is not even to queue for a netlink socket, by a classic BPF program (linux/filter.h).

Whoever changes a great many entries would be told of each, and lose what others do in between.
"""

from __future__ import annotations

import socket
import struct
import sys
from array import array
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import _socket
    from collections.abc import Iterator, Sequence

_SO_ATTACH_FILTER = 26
_STEP = struct.Struct("=HBBI")
_PROGRAM = struct.Struct("@HP")
_LOAD = {1: 0x30, 2: 0x28, 4: 0x20}
"""Operations that load so many bytes."""
_JUMP_EQUAL = 0x15
_RETURN = 0x06
_DROP = (_RETURN, 0, 0, 0)
_KEEP = (_RETURN, 0, 0, 0xFFFFFFFF)


class Holds(NamedTuple):
    """That a message holds a number, in the machine's byte order, of `size` bytes at an offset."""

    number: int
    size: int
    offset: int


def is_sent_by(port: int) -> Holds:
    """Test for what a netlink port has changed (`nlmsg_pid`), where the kernel says who it was."""
    return Holds(port, 4, 12)


def is_of_type(kind: int) -> Holds:
    """Test for a type of message (`nlmsg_type`)."""
    return Holds(kind, 2, 4)


def leave_out(opened: _socket.socket, *kinds: Sequence[Holds]) -> None:
    """Have messages dropped that pass all tests of a kind; replaces what was left out before.

    Where several messages come in one piece, as nf_tables' of one transaction do, the first stands for all.
    """
    steps = [step for kind in kinds for step in _drop(kind)] + [_KEEP]
    program = array("B", b"".join(_STEP.pack(*step) for step in steps))
    address, length = program.buffer_info()
    opened.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, _PROGRAM.pack(length // _STEP.size, address))


def _drop(kind: Sequence[Holds]) -> Iterator[tuple[int, int, int, int]]:
    for left, test in zip(range(len(kind) - 1, -1, -1), kind, strict=True):
        yield _LOAD[test.size], 0, 0, test.offset
        # Classic BPF reads numbers in the network's byte order. What does not pass goes on behind this kind.
        yield _JUMP_EQUAL, 0, 2 * left + 1, int.from_bytes(test.number.to_bytes(test.size, sys.byteorder), "big")
    yield _DROP
