"""Which node holds an address, for the data path in user space, and how much went to and came from each node."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flanneld_py.core.peer_traffic import PeerTraffic
from flanneld_py.core.prefix import IPV4, bits, format_address

if TYPE_CHECKING:
    from flanneld_py.core.prefix import Prefix

Way = tuple[str, int]
"""Where a node listens: address and port."""
UNKNOWN: Way = ("", 0)
_CACHED_WAYS = 1 << 16


class Ways:
    """Which node holds an address: the peers' subnets, written by one thread, read by another."""

    def __init__(self, port: int) -> None:
        """Begin empty; all nodes listen on `port`."""
        self._port = port
        self._by_length: dict[int, dict[int, Way]] = {}
        self.cache: dict[bytes, Way] = {}
        """What has been looked up, by the bytes of the address; another object after each change."""
        self.peers: dict[Prefix, int] = {}
        self.carried: dict[str, list[int]] = {}
        """By a node's address, in the order of `PeerTraffic`: each number is changed by one thread.

        Nobody is forgotten: a node that comes again goes on counting.
        """

    def put(self, subnet: Prefix, public_ip: int) -> None:
        """Send what is for a subnet to a node."""
        self.peers[subnet] = public_ip
        shift = bits(IPV4) - subnet.length
        way = (format_address(IPV4, public_ip), self._port)
        self.carried.setdefault(way[0], [0, 0, 0, 0])
        self._by_length.setdefault(subnet.length, {})[subnet.address >> shift] = way
        self.cache = {}

    def remove(self, subnet: Prefix) -> None:
        """Send what is for a subnet nowhere."""
        if self.peers.pop(subnet, None) is not None:
            del self._by_length[subnet.length][subnet.address >> (bits(IPV4) - subnet.length)]
            self.cache = {}

    def read_traffic(self, public_ip: int) -> PeerTraffic:
        """Return what has been carried to and from a node, without the tunnel's headers."""
        return PeerTraffic(*self.carried.get(format_address(IPV4, public_ip), ()))

    def find(self, address: bytes) -> Way:
        """Return where an address is, by the longest prefix; UNKNOWN for nowhere."""
        number = int.from_bytes(address, "big")
        cache = self.cache
        for length, table in sorted(self._by_length.items(), reverse=True):
            way = table.get(number >> (bits(IPV4) - length))
            if way is not None:
                break
        else:
            return UNKNOWN
        if len(cache) >= _CACHED_WAYS:
            cache.clear()
        cache[address] = way
        return way
