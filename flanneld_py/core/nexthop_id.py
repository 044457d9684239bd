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
    start = _first_id(vni)
    return range(start, start + (1 << _PER_NETWORK_BITS))


def _first_id(vni: int) -> int:
    return _BASE + (vni % _NETWORKS << _PER_NETWORK_BITS)


def nexthop_id(vni: int, network: Prefix, subnet: Prefix) -> int | None:
    """Return the id of the nexthop of the peer that holds `subnet`.

    Each family has half of the range, cut into pieces of the network of equal size. None if the subnet is smaller
    than such a piece (half a million fit), since two peers could then share an id: they get plain routes.
    """
    family, base, network_length = network
    width = bits(family)
    shift = max(0, width - network_length - _INDEX_BITS)
    if width - subnet.length < shift:
        return None
    half = 0 if family == IPV4 else 1 << _INDEX_BITS
    return _first_id(vni) + half + (subnet.address - base >> shift)
