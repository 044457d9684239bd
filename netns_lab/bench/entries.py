"""What a node's kernel holds for its peers: routes, neighbours, forwarding entries, counted and compared.

Reads rtnetlink dumps by itself, so that the judge of a daemon shares no code with any. A route is one whether it has a
gateway of its own or a nexthop object. Keys are plain bytes: at 50,000 entries richer values would cost seconds.
"""

import socket
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from netns_lab.namespaces import in_network
from netns_lab.routes import (
    RT_TABLE_MAIN,
    RTA_DST,
    RTM_GETROUTE,
    RTMSG,
    decode_attributes,
    dump,
)

RTM_GETNEIGH = 30
NDMSG = struct.Struct("=BBHiHBB")  # family, two paddings, ifindex, state, flags, type (linux/neighbour.h)
NDA_DST = 1
NDA_LLADDR = 2
NUD_INCOMPLETE = 0x01
NUD_FAILED = 0x20
NUD_PERMANENT = 0x80
AF_BRIDGE = 7


@dataclass(frozen=True, slots=True)
class Programmed:
    """Routes as subnet + length, neighbours as address + MAC, forwarding entries as MAC + remote address."""

    routes: frozenset[bytes]
    neighbours: frozenset[bytes]
    forwarding: frozenset[bytes]

    def lacks(self, wanted: "Programmed") -> str:
        """Say what of `wanted` is not here; empty if nothing."""
        gaps = {
            "routes": len(wanted.routes - self.routes),
            "neighbours": len(wanted.neighbours - self.neighbours),
            "forwarding entries": len(wanted.forwarding - self.forwarding),
        }
        return ", ".join(f"{count} {what}" for what, count in gaps.items() if count)

    def holds_any(self, unwanted: "Programmed") -> bool:
        """Tell whether something of `unwanted` is here."""
        return bool(
            self.routes & unwanted.routes
            or self.neighbours & unwanted.neighbours
            or self.forwarding & unwanted.forwarding
        )


class KernelEntries:
    """The tables of one network namespace; close it after use."""

    def __init__(self, network: Path) -> None:
        with in_network(network):
            self._netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
            # Bound to the namespace when opened (fs/proc/proc_net.c); each read counts anew, in under 1 ms at 50,000.
            self._statistics = Path("/proc/self/net/fib_triestat").open(encoding="ascii")  # noqa: SIM115  # closed below
        self._netlink.settimeout(30.0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._netlink.close()
        self._statistics.close()

    def estimate_routes(self) -> int:
        """Return how many IPv4 prefixes the kernel holds, our own and local ones included, without a dump."""
        self._statistics.seek(0)
        return parse_prefix_count(self._statistics.read())

    def count(self, subnet_length: int) -> tuple[int, int, int]:
        """Return the number of routes of that length, neighbours and forwarding entries, by whole messages."""
        routes = self._dump_routes()
        return (
            sum(payload[1] == subnet_length and payload[4] == RT_TABLE_MAIN for payload in routes),
            count_permanent(self._dump_neighbours(socket.AF_INET)),
            count_permanent(self._dump_neighbours(AF_BRIDGE)),
        )

    def read(self) -> Programmed:
        """Return everything."""
        return Programmed(
            decode_all(self._dump_routes(), decode_route_key),
            decode_all(self._dump_neighbours(socket.AF_INET), decode_neighbour_key),
            decode_all(self._dump_neighbours(AF_BRIDGE), decode_forwarding_key),
        )

    def count_unresolved(self) -> int:
        """Return how many neighbours wait for an answer or got none; gc_thresh3 counts them machine-wide."""
        return sum(
            bool(NDMSG.unpack_from(payload)[4] & (NUD_INCOMPLETE | NUD_FAILED))
            for payload in self._dump_neighbours(socket.AF_INET)
        )

    def _dump_routes(self) -> list[bytes]:
        return dump(self._netlink, RTM_GETROUTE, RTMSG.pack(socket.AF_INET, 0, 0, 0, 0, 0, 0, 0, 0))

    def _dump_neighbours(self, family: int) -> list[bytes]:
        return dump(self._netlink, RTM_GETNEIGH, NDMSG.pack(family, 0, 0, 0, 0, 0, 0))


def parse_prefix_count(text: str) -> int:
    """Return the prefixes of the main table, which shares its trie with the local one until somebody adds a rule."""
    _, _, main = text.partition("Main:")
    for line in main.splitlines():
        name, _, number = line.strip().partition(":")
        if name == "Prefixes":
            return int(number)
    return 0  # a namespace without any route has no table yet


def count_permanent(payloads: Iterable[bytes]) -> int:
    """Count the entries that somebody wrote, as against those that the kernel learnt."""
    return sum(bool(NDMSG.unpack_from(payload)[4] & NUD_PERMANENT) for payload in payloads)


def decode_all(payloads: Iterable[bytes], decode: Callable[[bytes], bytes | None]) -> frozenset[bytes]:
    """Decode every message, and leave out what is of no interest."""
    return frozenset(key for payload in payloads if (key := decode(payload)) is not None)


def decode_route_key(payload: bytes) -> bytes | None:
    """Return a main-table route's subnet and length; None for another table's, and for the default route."""
    if payload[4] != RT_TABLE_MAIN:
        return None
    subnet = decode_attributes(payload[RTMSG.size :]).get(RTA_DST)
    return subnet + payload[1:2] if subnet is not None else None


def decode_neighbour_key(payload: bytes) -> bytes | None:
    """Return a permanent neighbour's address and MAC."""
    return _decode_pair(payload, NDA_DST, NDA_LLADDR)


def decode_forwarding_key(payload: bytes) -> bytes | None:
    """Return the MAC and remote address of a vxlan forwarding entry; None for a bridge's or a learnt one."""
    return _decode_pair(payload, NDA_LLADDR, NDA_DST)


def _decode_pair(payload: bytes, first: int, second: int) -> bytes | None:
    if not NDMSG.unpack_from(payload)[4] & NUD_PERMANENT:
        return None
    attributes = decode_attributes(payload[NDMSG.size :])
    if first not in attributes or second not in attributes:
        return None
    return attributes[first] + attributes[second]
