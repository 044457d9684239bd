"""Reads the rows of other nodes from their daemons by the port of the probes: they tell members, and so this node."""

from __future__ import annotations

import os
import select
from typing import TYPE_CHECKING, Self

from flanneld_py.core import probe
from flanneld_py.core.prefix import parse_address
from flanneld_py.core.probe_members import node_addresses
from flanneld_py.kernel.probe_socket import ProbeSocket

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from flanneld_py.core.prefix import Prefix
    from flanneld_py.core.probe_results import PeerResult

_PATIENCE = 0.5
"""Seconds that a node has for each part of its row."""
_TRIES = 2
_MOST_PARTS = 1000


class RowReader:
    """Asks other nodes, from the addresses of this one."""

    def __init__(self, own: Sequence[Prefix], sources: Sequence[str], port: int) -> None:
        """Ask by a UDP port; `own` are this node's subnets, `sources` its addresses on the underlay."""
        self._sockets = {subnet.family: ProbeSocket(subnet.family, 0) for subnet in own}
        self._inner = {subnet.family: node_addresses(subnet) for subnet in own}
        self._outer = dict(map(parse_address, sources))
        self._port = port

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for opened in self._sockets.values():
            opened.close()

    def read(self, subnet: Prefix, public_ip: str) -> list[PeerResult] | None:
        """Return what the node with a subnet has measured, None if it does not tell."""
        family, public = parse_address(public_ip)
        outer = [(public, self._outer[family])] if family in self._outer else []
        inner = [(target, source) for target in node_addresses(subnet) for source in self._inner[family]]
        for target, source in [*outer, *inner]:
            found = self._read_whole(family, target, source)
            if found is not None:
                return found
        return None

    def _read_whole(self, family: int, target: int, source: int) -> list[PeerResult] | None:
        row: list[PeerResult] = []
        for _ in range(_MOST_PARTS):
            part = self._read_part(family, target, source, len(row))
            if part is None:
                return None
            row += part.peers
            if len(row) >= part.total or not part.peers:
                return row
        return row

    def _read_part(self, family: int, target: int, source: int, offset: int) -> probe.RowPart | None:
        opened = self._sockets[family]
        for _ in range(_TRIES):
            token = os.urandom(probe.TOKEN_SIZE)
            try:
                opened.send(probe.encode_row_request(token, offset), target, self._port, source)
            except OSError:
                return None
            for message in self._receive(opened, target):
                if message.kind == probe.ROW and message.token == token:
                    try:
                        return probe.decode_row(message)
                    except ValueError:
                        return None
        return None

    @staticmethod
    def _receive(opened: ProbeSocket, target: int) -> Iterator[probe.Message]:
        while select.select([opened], [], [], _PATIENCE)[0]:
            for datagram in opened.receive(1):
                message = probe.decode_message(datagram.data) if datagram.source == target else None
                if message is not None:
                    yield message
