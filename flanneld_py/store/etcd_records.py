"""Leases as etcd holds them: keys below `<prefix>/subnets/`, and what is read out of them.

Owns the layout of keys and the reading of etcd's messages into leases. A key or value that cannot be read is a
reason, not an error.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from flanneld_py.core.allocator import SubnetPair, is_same_node
from flanneld_py.core.lease import Lease, LeaseAttrs, parse_attrs, parse_key
from flanneld_py.core.lease_event import LeasePut, LeaseRejected, LeaseRemoved, LeaseSnapshot
from flanneld_py.core.prefix import IPV4, format_address
from flanneld_py.store import etcd_pb2 as pb
from flanneld_py.store.etcd_api import KeyRange, keys_below

if TYPE_CHECKING:
    import random
    from collections.abc import Iterable, Iterator

    from flanneld_py.core.lease_event import LeaseChange
    from flanneld_py.core.network_config import SubnetRange
    from flanneld_py.core.prefix import Prefix
    from flanneld_py.store.etcd_watch import Page

_LONGEST_REASON = 200
_SLICE = 250
"""Leases read, and taken in, at a stretch: a few milliseconds."""
_END = b"\n"
_SAMPLES = 64
"""Subnets looked at before all names are read: enough where one in ten is free."""


class Layout:
    """Where things lie in etcd for one network's prefix."""

    def __init__(self, prefix: str) -> None:
        root = prefix.rstrip("/")
        self._subnets = f"{root}/subnets/".encode()
        self.config = KeyRange(f"{root}/config".encode())
        self.leases = keys_below(self._subnets)

    def lease_key(self, name: str) -> bytes:
        """Return etcd's key of the lease with this name, such as `10.5.2.0-24`."""
        return self._subnets + name.encode()

    def lease_name(self, key: bytes) -> str:
        """Return the name of a lease, given etcd's key; one that is no text comes out escaped."""
        return key[len(self._subnets) :].decode(errors="backslashreplace")

    def same_base(self, pair: SubnetPair) -> KeyRange:
        """Return the range of the keys whose leading subnet begins where this pair's does, whatever else they say.

        Two nodes that create keys in one such range exclude each other, though the keys may differ.
        """
        ipv4, ipv6 = pair
        name = "0.0.0.0-0&" if ipv4 is None else ""
        leading = ipv4 or ipv6
        return keys_below(self.lease_key(f"{name}{leading.base}-" if leading else name))


def read_lease(name: str, record: pb.KeyValue) -> Lease | LeaseRejected:
    """Read one lease, or say why it cannot be read."""
    try:
        ipv4, ipv6 = parse_key(name)
        return Lease(ipv4, ipv6, parse_attrs(record.value), reserved=not record.lease)
    except ValueError as error:
        return LeaseRejected(name, str(error)[:_LONGEST_REASON])


def read_leases(layout: Layout, records: Iterable[pb.KeyValue]) -> tuple[dict[str, Lease], dict[str, str]]:
    """Read leases, and why others cannot be read."""
    leases: dict[str, Lease] = {}
    rejected: dict[str, str] = {}
    for record in records:
        name = layout.lease_name(record.key)
        lease = read_lease(name, record)
        if isinstance(lease, LeaseRejected):
            rejected[name] = lease.reason
        else:
            leases[name] = lease
    return leases, rejected


def read_snapshot(layout: Layout, page: Page) -> Iterator[LeaseSnapshot]:
    """Read a page of leases in parts, each small enough to be taken in at a stretch."""
    count = len(page.keys)
    for start in range(0, max(count, 1), _SLICE):
        end = start + _SLICE
        leases, rejected = read_leases(layout, page.keys[start:end])
        yield LeaseSnapshot(leases, rejected, first=page.first and not start, last=page.last and end >= count)


def read_event(layout: Layout, event: pb.Event) -> LeaseChange:
    """Read what happened to one key."""
    name = layout.lease_name(event.kv.key)
    if event.type == pb.Event.DELETE:
        return LeaseRemoved(name)
    lease = read_lease(name, event.kv)
    return lease if isinstance(lease, LeaseRejected) else LeasePut(name, lease, event.kv.mod_revision)


class OwnRecord(NamedTuple):
    """A key that carries our own address; `value` is compared as it stands, for a mark on it is a question to us."""

    name: str
    pair: SubnetPair
    attrs: LeaseAttrs | None  # None where the value cannot be read
    value: bytes
    revision: int
    etcd_lease: int


class Census:
    """Who holds what, as far as it matters for getting a lease: what is taken, and which keys carry our address.

    `revision` is the one as of which it is complete, deletions apart. Of other nodes' keys only the names are kept, as
    one text: a hundred thousand of them are 2 MB.
    """

    def __init__(self, layout: Layout, ours: LeaseAttrs) -> None:
        self.revision = 0
        self.own: list[OwnRecord] = []
        self._layout = layout
        self._ours = ours
        self._names = bytearray(_END)
        # Looking for our address in a value is far cheaper than reading it. In an escape it could hide.
        self._needle = None if ours.public_ip is None else format_address(IPV4, ours.public_ip).encode()

    def is_of(self, ours: LeaseAttrs) -> bool:
        """Say whether `own` holds the keys that carry this address."""
        return is_same_node(self._ours, ours)

    def count(self, records: Iterable[pb.KeyValue]) -> None:
        """Take a page of keys into account."""
        cut = len(self._layout.leases.start)
        for record in records:
            self._names += record.key[cut:] + _END
            value = record.value
            if value and (self._needle is None or self._needle in value or b"\\" in value):
                self._note_own(record)

    def add(self, name: str) -> None:
        """Take note of a key."""
        self._names += name.encode() + _END

    def forget(self, name: str) -> None:
        """Take note that a key is gone."""
        self._names = self._names.replace(_END + name.encode() + _END, _END)

    @property
    def taken(self) -> list[SubnetPair]:
        """What the keys take; one whose value cannot be read still takes its subnet."""
        return list(_read_pairs(self._names.split(_END)))

    def pick_at_random(self, subnets: SubnetRange, rng: random.Random) -> Prefix | None:
        """Return an IPv4 subnet that nobody has, found by looking at a few; None where none of these is free.

        A large network is picked from in no time as long as it is not nearly full, since hardly a name is read.
        """
        # A key excludes others that begin with the same address by its text, and those of other lengths by their size.
        others = rb"(?<=\n)(?![0-9.]+-%d[&\n])[^\n]+" % subnets.subnet_len
        uncommon = [pair[0] for pair in _read_pairs(re.findall(others, self._names)) if pair[0] is not None]
        for _ in range(_SAMPLES):
            subnet = subnets.subnet_at(rng.randrange(subnets.count))
            base = f"\n{format_address(subnet.family, subnet.address)}-".encode()
            if base not in self._names and not any(other.overlaps(subnet) for other in uncommon):
                return subnet
        return None

    def _note_own(self, record: pb.KeyValue) -> None:
        name = self._layout.lease_name(record.key)
        lease = read_lease(name, record)
        if isinstance(lease, Lease) and is_same_node(self._ours, lease.attrs):
            self.own.append(own_record(name, lease, record))


def own_record(name: str, lease: Lease, record: pb.KeyValue) -> OwnRecord:
    """Return a key that has been read and carries our address."""
    pair = (lease.subnet, lease.ipv6_subnet)
    return OwnRecord(name, pair, lease.attrs, record.value, record.mod_revision, record.lease)


def _read_pairs(names: Iterable[bytes | bytearray]) -> Iterator[SubnetPair]:
    for name in names:
        try:
            yield parse_key(name.decode())
        except ValueError:
            continue
