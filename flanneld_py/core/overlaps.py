"""Which leases share an address, found by looking at a few places however many leases there are."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flanneld_py.core.prefix import bits, prefix_around

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from flanneld_py.core.prefix import Prefix


class Overlaps:
    """Keys by the subnets that they lead to."""

    def __init__(self) -> None:
        # By family and length; nearly always one key has a place alone, and stands there without the room of a tuple.
        self._places: dict[tuple[int, int], dict[int, str | tuple[str, ...]]] = {}

    def add(self, key: str, subnets: Iterable[Prefix]) -> None:
        """Take note that a key leads to subnets."""
        for family, address, length in subnets:
            place = self._places.setdefault((family, length), {})
            there = place.get(address)
            place[address] = key if there is None else (*_keys(there), key)

    def discard(self, key: str, subnets: Iterable[Prefix]) -> None:
        """Take note that a key does not lead to subnets any more."""
        for family, address, length in subnets:
            place = self._places[family, length]
            others = tuple(other for other in _keys(place[address]) if other != key)
            if others:
                place[address] = others
            else:
                del place[address]
                if not place:
                    del self._places[family, length]

    def find(self, subnet: Prefix) -> Iterator[str]:
        """Yield the keys of which a subnet shares an address with this one."""
        for (family, length), place in self._places.items():
            if family != subnet.family:
                continue
            if length == subnet.length:  # as nearly always, and dearer by the general way
                yield from _keys(place.get(subnet.address, ()))
                continue
            if length < subnet.length:
                yield from _keys(place.get(prefix_around(family, subnet.address, length).address, ()))
                continue
            step, count = 1 << (bits(family) - length), 1 << (length - subnet.length)
            # Whatever is fewer is looked at: the places that the subnet covers, or those that are taken.
            if count <= len(place):
                inside: Iterable[int] = range(subnet.address, subnet.address + count * step, step)
            else:
                inside = [address for address in place if subnet.holds(address)]
            for address in inside:
                yield from _keys(place.get(address, ()))


def _keys(there: str | tuple[str, ...]) -> tuple[str, ...]:
    return (there,) if isinstance(there, str) else there
