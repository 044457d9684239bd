"""All leases of a cluster, to be found by an address, in as little memory as is fair for what is seldom looked at.

Owns how a lease is kept: packed, for Python's objects take a multiple of its room. It never leaves the process.
"""

from __future__ import annotations

import marshal
from typing import TYPE_CHECKING

from flanneld_py.core.lease import Lease, LeaseAttrs
from flanneld_py.core.overlaps import Overlaps
from flanneld_py.core.prefix import Prefix, bits, gap_around

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from flanneld_py.core.misses import Miss


class LeaseIndex:
    """Leases by their keys and by their subnets."""

    def __init__(self, lengths: Mapping[int, int]) -> None:
        """Begin empty; `lengths` says for each address family how long most prefixes are."""
        self._lengths = lengths
        self._records: dict[str, bytes] = {}
        self._overlaps = Overlaps()

    def __len__(self) -> int:
        return len(self._records)

    def __iter__(self) -> Iterator[str]:
        return iter(self._records)

    def put(self, key: str, lease: Lease) -> None:
        """Take note of a key's lease, in place of the one that it had."""
        record = _pack(lease)
        if self._records.get(key) == record:
            return
        self.remove(key)
        self._records[key] = record
        self._overlaps.add(key, lease.subnets)

    def remove(self, key: str) -> None:
        """Forget a key, if it is known."""
        record = self._records.pop(key, None)
        if record is not None:
            self._overlaps.discard(key, _unpack(record).subnets)

    def get(self, key: str) -> Lease | None:
        """Return a key's lease, None where it has none."""
        record = self._records.get(key)
        return None if record is None else _unpack(record)

    def find(self, miss: Miss) -> tuple[str, Lease] | None:
        """Return the lease of which a subnet holds an address, with its key.

        Of several it is the one that goes before the others (`LeaseTable`).
        """
        found = [
            (subnet.length != self._lengths.get(miss.family), -subnet.length, key, lease)
            for key, lease in self._near(Prefix(miss.family, miss.address, bits(miss.family)))
            for subnet in lease.subnets
            if miss.is_in(subnet)
        ]
        return min(found)[2:] if found else None

    def gap_around(self, subnet: Prefix, address: int) -> Prefix:
        """Return the largest part of a subnet, around an address in it, that nobody leases."""
        return gap_around(subnet, address, (one for _, lease in self._near(subnet) for one in lease.subnets))

    def _near(self, subnet: Prefix) -> Iterator[tuple[str, Lease]]:
        for key in self._overlaps.find(subnet):
            yield key, _unpack(self._records[key])


def _pack(lease: Lease) -> bytes:
    subnet, ipv6_subnet, attrs, reserved = lease
    return marshal.dumps((subnet and tuple(subnet), ipv6_subnet and tuple(ipv6_subnet), tuple(attrs), reserved))


def _unpack(record: bytes) -> Lease:
    subnet, ipv6_subnet, attrs, reserved = marshal.loads(record)  # noqa: S302 - by `_pack`, in this process
    return Lease(subnet and Prefix(*subnet), ipv6_subnet and Prefix(*ipv6_subnet), LeaseAttrs(*attrs), reserved)
