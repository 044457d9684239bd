"""The port by which nodes probe each other: who asks is judged here, and requests of our own find their answers.

Owns the sockets. What a stranger can cause is bounded: nothing is answered that comes from no member, no answer is
larger than its request, no member gets more than a few answers a second, and a flood is read for a moment a second.
"""

from __future__ import annotations

import asyncio
import os
import time
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from flanneld_py.core import probe
from flanneld_py.core.probe_members import ProbeMembers, RateLimit
from flanneld_py.core.probe_results import OVERLAY
from flanneld_py.kernel.probe_socket import ProbeSocket

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from flanneld_py.kernel.probe_socket import Datagram

PATIENCE = 1.0
"""Seconds until a probe counts as lost."""
_ANSWERS = 40
"""To one member in a second: a search for its largest packet takes some twenty."""
_READ = 2000
"""Datagrams in a second, all together."""
_AT_ONCE = 64

STRANGER, OTHER_WAY, TOO_MANY, UNREADABLE = "stranger", "other way", "too many", "unreadable"
"""Why a datagram is not answered: its source is no member's address; an address of the overlay has asked by the
underlay; its sender, or all together, ask too often; it is no message of ours."""


class Way(NamedTuple):
    """Where a probe goes, and the addresses of ours that it may come from: the first one that this host has."""

    family: int
    address: int
    sources: tuple[int, ...]


class _Awaited(NamedTuple):
    way: Way
    answered: asyncio.Future[float]


class ProbePort:
    """The sockets, one for each family, while they are open."""

    def __init__(self, port: int, tell_row: Callable[[int, int], probe.RowPart]) -> None:
        """Prepare; `tell_row` returns so many peers of our row from an offset on."""
        self.port = port
        self.members = ProbeMembers((), ())
        self.tunnels: frozenset[int] | None = None
        """The indexes of the devices by which members' overlay addresses may ask, None for any."""
        self.refused: dict[str, int] = dict.fromkeys((STRANGER, OTHER_WAY, TOO_MANY, UNREADABLE), 0)
        self._tell_row = tell_row
        self._sockets: dict[int, ProbeSocket] = {}
        self._awaited: dict[bytes, _Awaited] = {}
        self._answers = RateLimit(_ANSWERS)
        self._read = RateLimit(_READ)

    def open(self, families: Iterable[int]) -> None:
        """Begin to answer. Raises KernelError where the port cannot be had."""
        for family in families:
            self._sockets[family] = ProbeSocket(family, self.port)
            self._listen(self._sockets[family])

    def close(self) -> None:
        """Answer no more."""
        loop = asyncio.get_running_loop()
        for opened in self._sockets.values():
            loop.remove_reader(opened.fileno())
            opened.close()
        self._sockets = {}

    async def exchange(self, way: Way, size: int = probe.SMALLEST, patience: float = PATIENCE) -> float | None:
        """Send a request of so many bytes; return the seconds until its answer, None if none comes in `patience`."""
        token = os.urandom(probe.TOKEN_SIZE)
        answered: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        self._awaited[token] = _Awaited(way, answered)
        try:
            began = time.monotonic()
            if not self._send(way, probe.encode_request(token, size)):
                return None
            async with asyncio.timeout(patience):
                return await answered - began
        except TimeoutError:
            return None
        finally:
            del self._awaited[token]

    def _send(self, way: Way, request: bytes) -> bool:
        for source in way.sources:
            # What fails is lost before it has left: not our address (kernels differ in the errno), no route, too large.
            with suppress(OSError):
                self._sockets[way.family].send(request, way.address, self.port, source)
                return True
        return False

    def _listen(self, opened: ProbeSocket) -> None:
        asyncio.get_running_loop().add_reader(opened.fileno(), self._receive, opened)

    def _receive(self, opened: ProbeSocket) -> None:
        now = time.monotonic()
        for datagram in opened.receive(_AT_ONCE):
            if not self._read.allow(None, now):
                self.refused[TOO_MANY] += 1
                loop = asyncio.get_running_loop()
                loop.remove_reader(opened.fileno())
                loop.call_later(1.0 - now % 1.0, self._resume, opened)
                return
            self._take(opened, datagram, now)

    def _resume(self, opened: ProbeSocket) -> None:
        if self._sockets.get(opened.family) is opened:
            self._listen(opened)

    def _take(self, opened: ProbeSocket, datagram: Datagram, now: float) -> None:
        message = probe.decode_message(datagram.data)
        if message is None:
            self.refused[UNREADABLE] += 1
        elif message.kind == probe.ANSWER:
            awaited = self._awaited.get(message.token)
            is_from_there = awaited and awaited.way[:2] == (opened.family, datagram.source)
            if awaited and is_from_there and not awaited.answered.done():
                awaited.answered.set_result(now)
        elif message.kind != probe.ROW:
            reason = self._judge(opened.family, datagram, now)
            if reason:
                self.refused[reason] += 1
            else:
                self._answer(opened, datagram, message)

    def _judge(self, family: int, datagram: Datagram, now: float) -> str:
        """Return why a request is not answered, the empty text if it is."""
        way = self.members.find_way(family, datagram.source, datagram.destination)
        if not way:
            return STRANGER
        if way == OVERLAY and self.tunnels is not None and datagram.ifindex not in self.tunnels:
            return OTHER_WAY
        return "" if self._answers.allow((family, datagram.source), now) else TOO_MANY

    def _answer(self, opened: ProbeSocket, datagram: Datagram, message: probe.Message) -> None:
        if message.kind == probe.REQUEST:
            answer = probe.encode_answer(message.token)
        else:
            offset, room = probe.read_row_request(message)
            if not room:
                self.refused[UNREADABLE] += 1
                return
            answer = probe.encode_row(message.token, self._tell_row(offset, room))
        # Where it fails, whoever has asked sees that nothing comes.
        with suppress(OSError):
            opened.send(answer, datagram.source, datagram.port, datagram.destination)
