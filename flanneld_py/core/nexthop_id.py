"""Which nexthop id belongs to which peer: arithmetic, so that it is the same after every restart."""

from __future__ import annotations

from flanneld_py.core.prefix import IPV4, Prefix, bits

_BASE = 0x46000000
_PER_NETWORK_BITS = 20
_INDEX_BITS = _PER_NETWORK_BITS - 1
_NETWORKS = 2048
"""How many ranges of ids fit above the base in 32 bits, rounded down to a power of two."""


def nexthop_ids(vni: int) -> range:
    """Return the ids that are ours for a VNI; two VNIs share a range only when they differ by a multiple of 2048."""
    start = _BASE + (vni % _NETWORKS << _PER_NETWORK_BITS)
    return range(start, start + (1 << _PER_NETWORK_BITS))


def nexthop_id(vni: int, network: Prefix, subnet: Prefix) -> int | None:
    """Return the id of the nexthop of the peer that holds `subnet`.

    Each family has half of the range, cut into pieces of the network of equal size. None if the subnet is smaller
    than such a piece (half a million fit), since two peers could then share an id: they get plain routes.
    """
    shift = max(0, bits(network.family) - network.length - _INDEX_BITS)
    if subnet.size < 1 << shift:
        return None
    index = (subnet.address - network.address) >> shift
    half = 0 if network.family == IPV4 else 1 << _INDEX_BITS
    return nexthop_ids(vni).start + half + index
