"""Datagrams both ways between two nodes at a steady pace, with their losses counted.

It lives in the caller's process: whoever waits does so in `flow`, so that no packet is late.
"""

import select
import socket
import struct
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import pairwise
from typing import Self

from netns_lab.bench.cases.pair import PORT, End

PER_SECOND = 100
NUMBER = struct.Struct("!Q")
DRAIN_SECONDS = 0.3


@dataclass(frozen=True, slots=True)
class Losses:
    """What became of the packets of a while; silence in seconds between two that arrived, one way."""

    sent: int
    lost: int
    silence: float


class Stream:
    """Packets from each of two ends to the other; close it after use."""

    def __init__(self, one: End, two: End) -> None:
        self._open = ExitStack()
        sockets = [self._open.enter_context(end.open_socket(socket.SOCK_DGRAM, PORT)) for end in (one, two)]
        for each, other in zip(sockets, (two, one), strict=True):
            each.setblocking(False)
            each.connect((other.address, PORT))
        self._sockets = sockets
        self._sent = 0
        self._arrived: dict[socket.socket, dict[int, float]] = {each: {} for each in sockets}
        self._next = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def flow(self, seconds: float, until: Callable[[], bool] = lambda: False) -> None:
        """Keep the packets flowing for so long, or until the condition holds."""
        end = time.monotonic() + seconds
        while time.monotonic() < end and not until():
            self._receive(min(self._next, end))
            if time.monotonic() >= self._next:
                self._send()

    def count(self) -> Losses:
        """Wait for what is on its way, and tell of the packets since the last count."""
        end = time.monotonic() + DRAIN_SECONDS
        while time.monotonic() < end:
            self._receive(end)
        losses = judge([list(arrived.items()) for arrived in self._arrived.values()], self._sent)
        self._sent = 0
        for arrived in self._arrived.values():
            arrived.clear()
        self._next = time.monotonic()
        return losses

    def _send(self) -> None:
        for each in self._sockets:
            try:
                each.send(NUMBER.pack(self._sent))
            except OSError:  # no route, or the other end refused the former one: this packet is lost
                continue
        self._sent += 1
        self._next += 1 / PER_SECOND

    def _receive(self, until: float) -> None:
        readable, _, _ = select.select(self._sockets, [], [], max(0.0, until - time.monotonic()))
        for each in readable:
            try:
                (number,) = NUMBER.unpack(each.recv(64))
            except OSError:  # an ICMP error for a packet of ours
                continue
            self._arrived[each].setdefault(number, time.monotonic())


def judge(ways: list[list[tuple[int, float]]], sent: int) -> Losses:
    """Return the losses of packets 0 … `sent` - 1 on each way, from the number and time of those that arrived."""
    silence = 0.0
    for arrived in ways:
        times = sorted(moment for _, moment in arrived)
        silence = max([silence, *(later - earlier for earlier, later in pairwise(times))])
    lost = sum(sent - len(arrived) for arrived in ways)
    return Losses(sent * len(ways), lost, silence)
