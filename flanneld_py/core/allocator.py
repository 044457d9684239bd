"""Which subnets a node should lease: its earlier ones, the ones it would like, or random free ones.

Owns the choice alone. Who else holds what is an argument, and so is the randomness; a network of any size costs only as
much as there are subnets taken in it.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING, NamedTuple

from flanneld_py.core.prefix import bits

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from random import Random

    from flanneld_py.core.lease import LeaseAttrs
    from flanneld_py.core.network_config import NetworkConfig, SubnetRange
    from flanneld_py.core.prefix import Prefix

SubnetPair = tuple["Prefix | None", "Prefix | None"]
"""A node's IPv4 and IPv6 subnet, as in the key of its lease."""


def is_same_node(ours: LeaseAttrs, other: LeaseAttrs) -> bool:
    """Say whether a lease's attributes name the node that ours name.

    A node is known by its PublicIP, and in an IPv6-only network, where nobody has one, by its PublicIPv6.
    """
    if ours.public_ip is not None:
        return other.public_ip == ours.public_ip
    return ours.public_ipv6 is not None and other.public_ip is None and other.public_ipv6 == ours.public_ipv6


def overlap(one: SubnetPair, other: SubnetPair) -> bool:
    """Say whether two leases share an address."""
    return any(a is not None and b is not None and a.overlaps(b) for a, b in zip(one, other, strict=True))


def fits_config(config: NetworkConfig, pair: SubnetPair) -> bool:
    """Say whether a lease is one that the configuration gives: just the families that are on, each in its range."""
    return all(
        subnet is None if part is None else subnet is not None and part.fits(subnet)
        for part, subnet in zip((config.ipv4, config.ipv6), pair, strict=True)
    )


def pick_own(config: NetworkConfig, own: Sequence[SubnetPair], preferred: Sequence[SubnetPair]) -> SubnetPair | None:
    """Return which of the leases that carry our address we go on with, None where none fits.

    With several, the one that our pods use, by the former subnet file, goes before the first in the store's order.
    """
    fitting = [pair for pair in own if fits_config(config, pair)]
    return next((pair for pair in preferred if pair in fitting), fitting[0] if fitting else None)


def pick_subnets(
    config: NetworkConfig, taken: Sequence[SubnetPair], preferred: Sequence[SubnetPair], rng: Random
) -> SubnetPair | None:
    """Return free subnets for a node, None where a family has none left.

    Each family on its own takes its part of the first preferred pair where that is free and fits, so a node keeps its
    IPv4 subnet when IPv6 is switched on; else one at random, every free one being equally likely.
    """
    picked: list[Prefix | None] = []
    for position, part in enumerate((config.ipv4, config.ipv6)):
        if part is None:
            picked.append(None)
            continue
        spans = _taken_spans(part, (pair[position] for pair in taken))
        wanted = (pair[position] for pair in preferred)
        subnet = next((one for one in wanted if one is not None and _is_free(part, spans, one)), None)
        subnet = subnet or _pick_free(part, spans, rng)
        if subnet is None:
            return None
        picked.append(subnet)
    return picked[0], picked[1]


class _Span(NamedTuple):
    """Places of a range, both ends included, of which each shares an address with a subnet that is taken."""

    low: int
    high: int


def _taken_spans(part: SubnetRange, taken: Iterable[Prefix | None]) -> list[_Span]:
    """Return what is taken of a range as ordered spans that do not touch each other's places."""
    shift = bits(part.network.family) - part.subnet_len
    base, end = part.first.address, part.count - 1
    # A subnet longer than ours takes the whole place in which it lies, a shorter one all the places that it covers.
    places = sorted(
        (max((subnet.address - base) >> shift, 0), min((subnet.last - base) >> shift, end))
        for subnet in taken
        if subnet is not None and subnet.last >= base and subnet.address <= part.last.last
    )
    spans: list[_Span] = []
    for low, high in places:
        if spans and low <= spans[-1].high:
            spans[-1] = _Span(spans[-1].low, max(high, spans[-1].high))
        else:
            spans.append(_Span(low, high))
    return spans


def _is_free(part: SubnetRange, spans: Sequence[_Span], subnet: Prefix) -> bool:
    if not part.fits(subnet):
        return False
    place = (subnet.address - part.first.address) >> (bits(part.network.family) - part.subnet_len)
    before = bisect_right(spans, place, key=lambda span: span.low) - 1
    return before < 0 or spans[before].high < place


def _pick_free(part: SubnetRange, spans: Sequence[_Span], rng: Random) -> Prefix | None:
    free = part.count - sum(span.high - span.low + 1 for span in spans)
    if free <= 0:
        return None
    place = rng.randrange(free)
    # The n-th free place lies behind every taken one before it.
    for low, high in spans:
        if place < low:
            break
        place += high - low + 1
    return part.subnet_at(place)
