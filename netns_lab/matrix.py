"""The ping matrix: every end point sends echo requests to every other, from a raw socket in its own namespace.

One process does it all, in rounds: in each, every pair's request is sent and then the replies are awaited.
"""

import os
import select
import socket
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import permutations
from pathlib import Path
from statistics import fmean

from netns_lab.icmp import decode_echo_reply, decode_echo_reply6, encode_echo_request, encode_echo_request6
from netns_lab.namespaces import in_network
from netns_lab.topology import IPV4, IPV6

ROUND_SECONDS = 1.0
PAYLOAD = bytes(range(56))  # as ping(8) sends
RECEIVE_SIZE = 65535


@dataclass(frozen=True, slots=True)
class EndPoint:
    """Something that answers: its name, one address of it, and its network namespace."""

    name: str
    address: str
    network: Path

    @property
    def family(self) -> int:
        """The family of its address."""
        return IPV6 if ":" in self.address else IPV4


@dataclass(slots=True)
class Pair:
    """What became of the requests from one end point to another; round-trip times in seconds."""

    source: EndPoint
    destination: EndPoint
    sent: int = 0
    round_trips: list[float] = field(default_factory=list)
    refusal: str | None = None

    @property
    def loss(self) -> float:
        """The share of requests without a reply, 0 to 1."""
        return 1 - len(self.round_trips) / self.sent if self.sent else 0.0

    @property
    def mean(self) -> float | None:
        """The mean round-trip time."""
        return fmean(self.round_trips) if self.round_trips else None


def ping_matrix(end_points: Sequence[EndPoint], rounds: int) -> tuple[Pair, ...]:
    """Return the results of all pairs in one family; a round takes at most ROUND_SECONDS beyond its sending.

    Raises OSError.
    """
    pairs = {
        (source.name, destination.address): Pair(source, destination)
        for source, destination in permutations(end_points, 2)
        if source.family == destination.family and source.name != destination.name
    }
    identifier = os.getpid() & 0xFFFF
    with ExitStack() as stack:
        sockets = {
            (end.name, end.family): stack.enter_context(open_echo_socket(end.network, end.family)) for end in end_points
        }
        for sequence in range(1, rounds + 1):
            Round(sockets, pairs, identifier, sequence).run()
    return tuple(pairs.values())


def open_echo_socket(network: Path, family: int) -> socket.socket:
    """Return a raw ICMP socket in that namespace, which never blocks. Raises OSError."""
    with in_network(network):
        if family == IPV4:
            echo = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
        else:
            echo = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
    echo.setblocking(False)
    return echo


class Round:
    """One request for each pair, with its replies."""

    def __init__(
        self,
        sockets: dict[tuple[str, int], socket.socket],
        pairs: dict[tuple[str, str], Pair],
        identifier: int,
        sequence: int,
    ) -> None:
        self.sockets = sockets
        self.names = {echo.fileno(): key for key, echo in sockets.items()}
        self.pairs = pairs
        self.identifier = identifier
        self.sequence = sequence
        self.sent_at: dict[tuple[str, str], float] = {}

    def run(self) -> None:
        """Send all, then wait for what is missing until the deadline."""
        for key, pair in self.pairs.items():
            self._send(key, pair)
            self._receive(0)
        deadline = time.monotonic() + ROUND_SECONDS
        while self.sent_at and (left := deadline - time.monotonic()) > 0:
            self._receive(left)

    def _send(self, key: tuple[str, str], pair: Pair) -> None:
        pair.sent += 1
        encode = encode_echo_request if pair.source.family == IPV4 else encode_echo_request6
        request = encode(self.identifier, self.sequence, PAYLOAD)
        self.sent_at[key] = time.monotonic()
        try:
            self.sockets[pair.source.name, pair.source.family].sendto(request, (pair.destination.address, 0))
        except OSError as error:
            pair.refusal = error.strerror
            del self.sent_at[key]

    def _receive(self, seconds: float) -> None:
        """Take in what has come, or comes within that time."""
        readable, _, _ = select.select(list(self.sockets.values()), [], [], seconds)
        now = time.monotonic()
        for echo in readable:
            name, family = self.names[echo.fileno()]
            packet, sender = echo.recvfrom(RECEIVE_SIZE)
            reply = decode_echo_reply(packet) if family == IPV4 else decode_echo_reply6(packet, sender[0])
            if reply is None or (reply.identifier, reply.sequence) != (self.identifier, self.sequence):
                continue
            key = (name, str(reply.source))
            if key in self.sent_at:
                self.pairs[key].round_trips.append(now - self.sent_at.pop(key))
