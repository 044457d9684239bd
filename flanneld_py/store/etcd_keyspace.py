"""EtcdKeyspace: the single reads and conditional writes of which getting and keeping a lease is made.

Owns the requests; decides nothing. Every write carries its condition, so no write of ours undoes another node's.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, NamedTuple

from flanneld_py.core.allocator import is_same_node
from flanneld_py.core.errors import StoreError
from flanneld_py.core.lease import Lease, encode_attrs, encode_key
from flanneld_py.store import etcd_pb2 as pb
from flanneld_py.store.etcd_api import LEASE_GRANT, LEASE_KEEP_ALIVE, LEASE_REVOKE, RANGE, TXN, KeyRange
from flanneld_py.store.etcd_records import Census, Layout, own_record, read_lease

if TYPE_CHECKING:
    from collections.abc import Iterable

    from flanneld_py.core.allocator import SubnetPair
    from flanneld_py.core.lease import LeaseAttrs
    from flanneld_py.store.etcd_client import EtcdClient
    from flanneld_py.store.etcd_records import OwnRecord

logger = logging.getLogger(__name__)

LEASE_TTL = 86_400
"""Seconds; Go flannel's."""
_CENSUS_PAGE = 5000
"""Keys in a page of which next to nothing is kept; etcd counts all keys for every page."""


class Grant(NamedTuple):
    """An etcd lease and its time to live in seconds; 0 and None stand for a key that has none."""

    etcd_lease: int
    ttl: float | None


class EtcdKeyspace:
    """What lies below `<prefix>/subnets/`, key by key, and the etcd leases behind it."""

    def __init__(self, client: EtcdClient, layout: Layout) -> None:
        self._client = client
        self._layout = layout

    async def census(self, ours: LeaseAttrs) -> Census:
        """Return who holds what now, and which of it carries our address."""
        census = Census(self._layout, ours)
        async for page in self._client.pages(self._layout.leases, size=_CENSUS_PAGE):
            census.revision = census.revision or page.header.revision
            census.count(page.kvs)
        return census

    async def catch_up(self, census: Census) -> dict[str, int]:
        """Add to the census what was created since; return those keys' names with the revision of their creation."""
        created: dict[str, int] = {}
        known = census.revision
        async for page in self._client.pages(self._layout.leases, keys_only=True, created_after=known):
            census.revision = max(census.revision, page.header.revision)
            census.count(page.kvs)
            created.update((self._layout.lease_name(record.key), record.create_revision) for record in page.kvs)
        return created

    async def read_own(self, pairs: Iterable[SubnetPair], ours: LeaseAttrs) -> OwnRecord | None:
        """Return the first of these subnets' keys that carries our address; None where none does."""
        for name in (encode_key(*pair) for pair in pairs):
            record = await self.read(name)
            lease = None if record is None else read_lease(name, record)
            if record is not None and isinstance(lease, Lease) and is_same_node(ours, lease.attrs):
                return own_record(name, lease, record)
        return None

    async def read(self, name: str) -> pb.KeyValue | None:
        """Return one key, None where there is none."""
        response = await self._client.call(RANGE, pb.RangeRequest(key=self._layout.lease_key(name)))
        return response.kvs[0] if response.kvs else None

    async def create(self, pair: SubnetPair, attrs: LeaseAttrs, grant: Grant) -> int | None:
        """Create a key unless one with the same leading subnet exists; return its revision, None if one did."""
        rivals = self._layout.same_base(pair)
        value = encode_attrs(attrs).encode()
        return await self._put(_version_is(rivals, 0), encode_key(*pair), value, grant.etcd_lease)

    async def update(self, name: str, revision: int, value: bytes, etcd_lease: int) -> int | None:
        """Write a key unless somebody has since this revision; return the new revision, None if somebody had."""
        return await self._put(_revision_is(self._layout.lease_key(name), revision), name, value, etcd_lease)

    async def delete(self, name: str, revision: int) -> bool:
        """Delete a key unless somebody has written it since this revision; say whether it was done."""
        key = self._layout.lease_key(name)
        deletion = pb.RequestOp(request_delete_range=pb.DeleteRangeRequest(key=key))
        request = pb.TxnRequest(compare=[_revision_is(key, revision)], success=[deletion])
        return (await self._client.call(TXN, request)).succeeded

    async def grant(self) -> Grant:
        """Return a new etcd lease."""
        response = await self._client.call(LEASE_GRANT, pb.LeaseGrantRequest(TTL=LEASE_TTL))
        return Grant(response.ID, float(response.TTL))

    async def keep_alive(self, etcd_lease: int) -> Grant:
        """Extend an etcd lease; return a new one where it has run out or was granted for less than ours, none for 0."""
        if not etcd_lease:
            return Grant(0, None)
        response = await self._client.exchange(LEASE_KEEP_ALIVE, pb.LeaseKeepAliveRequest(ID=etcd_lease))
        return await self.grant() if response.TTL < LEASE_TTL else Grant(etcd_lease, float(response.TTL))

    async def revoke(self, grant: Grant) -> None:
        """Give an etcd lease back that no key of ours hangs on; a store that does not answer expires it by itself."""
        try:
            await self._client.call(LEASE_REVOKE, pb.LeaseRevokeRequest(ID=grant.etcd_lease))
        except StoreError as error:
            logger.info("unused etcd lease is left to expire: ttl=%s reason=%s", grant.ttl, error)

    async def _put(self, condition: pb.Compare, name: str, value: bytes, etcd_lease: int) -> int | None:
        put = pb.PutRequest(key=self._layout.lease_key(name), value=value, lease=etcd_lease)
        request = pb.TxnRequest(
            compare=[condition],
            success=[pb.RequestOp(request_put=put)],
            failure=[pb.RequestOp(request_range=pb.RangeRequest(key=put.key))],
        )
        response = await self._client.call(TXN, request)
        if response.succeeded:
            return response.header.revision
        # When a first answer got lost and the request was sent again, it is our own write that is in the way.
        for record in response.responses[0].response_range.kvs:
            if record.value == put.value and record.lease == put.lease:
                return record.mod_revision
        return None


def _version_is(keys: KeyRange, version: int) -> pb.Compare:
    return pb.Compare(
        target=pb.Compare.VERSION, result=pb.Compare.EQUAL, key=keys.start, range_end=keys.end, version=version
    )


def _revision_is(key: bytes, revision: int) -> pb.Compare:
    return pb.Compare(target=pb.Compare.MOD, result=pb.Compare.EQUAL, key=key, mod_revision=revision)
