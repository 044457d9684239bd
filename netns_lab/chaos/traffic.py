"""Traffic between all pairs of pods: 100 echo requests a second from each to each, with every loss and its time.

A process of its own inside the lab, so that whatever makes the faults does not hold it up.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import struct
import time
from array import array
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import permutations
from typing import TYPE_CHECKING

from netns_lab.icmp import ECHO_REPLY, HEADER, encode_echo_request
from netns_lab.namespaces import in_network

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from netns_lab.matrix import EndPoint

INTERVAL = 0.01
"""Seconds between two requests of a pair."""
LAST_REPLIES = 1.0
"""Seconds that the last replies are waited for."""
TICK = struct.Struct("!Q40x")
SOL_RAW = 255
ICMP_FILTER = 1
BUFFER = 1 << 22

Names = tuple[str, str]


@dataclass(slots=True)
class PairTally:
    """What became of one pair's requests, by their number; `sent` holds when, on the monotonic clock."""

    sent: array[float] = field(default_factory=lambda: array("d"))
    answered: bytearray = field(default_factory=bytearray)

    def losses(self) -> list[float]:
        """Return when each request was sent that got no reply."""
        return [at for at, got in zip(self.sent, self.answered, strict=True) if not got]


class Traffic:
    """The sockets of all pods, and what went over them."""

    def __init__(self, end_points: Sequence[EndPoint]) -> None:
        """Open a socket in each pod. Raises OSError."""
        self.sockets = {end.name: _open_socket(end.network) for end in end_points}
        addresses = {end.name: end.address for end in end_points}
        self.names = {address: name for name, address in addresses.items()}
        self.by_descriptor = {opened.fileno(): name for name, opened in self.sockets.items()}
        self.pairs: dict[Names, PairTally] = {pair: PairTally() for pair in permutations(addresses, 2)}
        self.targets = [(pair, self.sockets[pair[0]], (addresses[pair[1]], 0)) for pair in self.pairs]
        self.identifier = os.getpid() & 0xFFFF

    def run(self, leash: int) -> None:
        """Send until the descriptor `leash` is readable, then take the last replies."""
        waiting: list[socket.socket | int] = [*self.sockets.values(), leash]
        due = time.monotonic()
        while True:
            self._send_all()
            due = max(due + INTERVAL, time.monotonic())
            while (left := due - time.monotonic()) > 0:
                readable, _, _ = select.select(waiting, [], [], left)
                if leash in readable:
                    return self._take_last()
                self._receive(readable)

    def _send_all(self) -> None:
        for pair, opened, address in self.targets:
            tally = self.pairs[pair]
            number = len(tally.sent)
            request = encode_echo_request(self.identifier, number & 0xFFFF, TICK.pack(number))
            tally.sent.append(time.monotonic())
            tally.answered.append(0)
            # What the kernel refuses to send is lost as well.
            with suppress(OSError):
                opened.sendto(request, address)

    def _receive(self, readable: Sequence[socket.socket | int]) -> None:
        for opened in readable:
            if isinstance(opened, int):
                continue
            source = self.by_descriptor[opened.fileno()]
            with suppress(BlockingIOError):
                while True:
                    self._note_reply(source, opened.recv(256))

    def _note_reply(self, source: str, packet: bytes) -> None:
        start = (packet[0] & 0xF) * 4
        kind, _, _, identifier, _ = HEADER.unpack_from(packet, start)
        if kind != ECHO_REPLY or identifier != self.identifier:
            return
        (number,) = TICK.unpack_from(packet, start + HEADER.size)
        destination = self.names.get(socket.inet_ntoa(packet[12:16]))
        if destination is not None:
            self.pairs[source, destination].answered[number] = 1

    def _take_last(self) -> None:
        deadline = time.monotonic() + LAST_REPLIES
        while (left := deadline - time.monotonic()) > 0:
            self._receive(select.select(list(self.sockets.values()), [], [], left)[0])


def _open_socket(network: Path) -> socket.socket:
    with in_network(network):
        opened = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
    opened.setblocking(False)
    opened.setsockopt(SOL_RAW, ICMP_FILTER, struct.pack("=I", ~(1 << ECHO_REPLY) & 0xFFFFFFFF))
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
    return opened


@dataclass(frozen=True, slots=True)
class RunningTraffic:
    """Traffic under way in a process of its own."""

    pid: int
    leash: int
    file: Path

    def stop(self) -> tuple[int, dict[Names, list[float]]]:
        """End it; return how many requests were sent, and when each was sent that was lost, by pair of pods."""
        os.close(self.leash)
        os.waitpid(self.pid, 0)
        told = json.loads(self.file.read_text())
        return told["sent"], {(source, destination): times for source, destination, times in told["losses"]}


def start_traffic(end_points: Sequence[EndPoint], file: Path) -> RunningTraffic:
    """Start traffic between all pairs; `file` takes the result. Raises OSError."""
    traffic = Traffic(end_points)
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.close(writing)
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            traffic.run(reading)
            file.write_text(_encode(traffic.pairs))
            status = 0
        finally:
            os._exit(status)
    os.close(reading)
    for opened in traffic.sockets.values():
        opened.close()
    return RunningTraffic(pid, writing, file)


def _encode(pairs: Mapping[Names, PairTally]) -> str:
    sent = sum(len(tally.sent) for tally in pairs.values())
    return json.dumps({"sent": sent, "losses": [(*names, tally.losses()) for names, tally in pairs.items()]})
