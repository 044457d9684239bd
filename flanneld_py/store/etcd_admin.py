"""What an operator does in etcd: the configuration and the leases read once, written, reserved and released.

Owns no connection beyond its own use. As for the daemon, every write carries its condition: nobody's change is undone.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from flanneld_py.core.errors import StoreError
from flanneld_py.core.lease import encode_attrs, encode_key
from flanneld_py.store import etcd_pb2 as pb
from flanneld_py.store.admin import StoredConfig, StoredLease
from flanneld_py.store.etcd_api import LEASE_TIME_TO_LIVE, RANGE, TXN
from flanneld_py.store.etcd_client import EtcdClient
from flanneld_py.store.etcd_records import Layout, read_lease, read_leases

if TYPE_CHECKING:
    from flanneld_py.core.lease import Lease, LeaseAttrs
    from flanneld_py.core.prefix import Prefix
    from flanneld_py.store.etcd_options import EtcdOptions


class EtcdAdmin:
    """Single reads and writes; each raises StoreError where etcd does not answer."""

    assigns_subnets = False

    def __init__(self, options: EtcdOptions) -> None:
        self._client = EtcdClient(options, random.Random())  # noqa: S311 - spreads load, keeps no secret
        self._layout = Layout(options.prefix)

    async def close(self) -> None:
        """Close the connection."""
        await self._client.close()

    async def read_config(self) -> StoredConfig:
        """Return the cluster's configuration."""
        response = await self._client.call(RANGE, pb.RangeRequest(key=self._layout.config.start))
        if not response.kvs:
            return StoredConfig(None, 0)
        return StoredConfig(response.kvs[0].value.decode(errors="replace"), response.kvs[0].mod_revision)

    async def write_config(self, text: str, revision: int) -> bool:
        """Write the configuration unless somebody has since this revision; say whether it was done."""
        put = pb.PutRequest(key=self._layout.config.start, value=text.encode())
        return await self._write_if_unchanged(put, revision)

    async def list_leases(self) -> tuple[dict[str, Lease], dict[str, str]]:
        """Return all leases by key, and why other keys cannot be read."""
        leases: dict[str, Lease] = {}
        rejected: dict[str, str] = {}
        async for page in self._client.pages(self._layout.leases):
            some, others = read_leases(self._layout, page.kvs)
            leases.update(some)
            rejected.update(others)
        return leases, rejected

    async def read_lease(self, name: str) -> StoredLease | None:
        """Return one key with the time that it has left, None where there is none."""
        response = await self._client.call(RANGE, pb.RangeRequest(key=self._layout.lease_key(name)))
        if not response.kvs:
            return None
        record = response.kvs[0]
        left: int | None = None
        if record.lease:
            asked = pb.LeaseTimeToLiveRequest(ID=record.lease)
            left = (await self._client.call(LEASE_TIME_TO_LIVE, asked)).TTL
        text = record.value.decode(errors="replace")
        return StoredLease(name, read_lease(name, record), text, left, record.mod_revision)

    async def reserve(self, subnets: tuple[Prefix | None, Prefix | None], attrs: LeaseAttrs) -> None:
        """Create a key that does not expire. Raises StoreError where another key takes the same subnet."""
        name = encode_key(*subnets)
        rivals = self._layout.same_base(subnets)
        condition = pb.Compare(
            target=pb.Compare.VERSION, result=pb.Compare.EQUAL, key=rivals.start, range_end=rivals.end, version=0
        )
        put = pb.PutRequest(key=self._layout.lease_key(name), value=encode_attrs(attrs).encode())
        if not await self._write(condition, pb.RequestOp(request_put=put)):
            raise StoreError(f"{name} is leased already: flannelctl lease show {name}")

    async def keep_for_ever(self, found: StoredLease) -> bool:
        """Make an existing lease a reservation; False where somebody has written it meanwhile."""
        put = pb.PutRequest(key=self._layout.lease_key(found.name), value=found.value.encode())
        return await self._write_if_unchanged(put, found.revision)

    async def release(self, found: StoredLease) -> bool:
        """Delete a key; False where somebody has written it meanwhile."""
        key = self._layout.lease_key(found.name)
        deletion = pb.RequestOp(request_delete_range=pb.DeleteRangeRequest(key=key))
        return await self._write(_unchanged(key, found.revision), deletion)

    async def _write_if_unchanged(self, put: pb.PutRequest, revision: int) -> bool:
        return await self._write(_unchanged(put.key, revision), pb.RequestOp(request_put=put))

    async def _write(self, condition: pb.Compare, operation: pb.RequestOp) -> bool:
        return (await self._client.call(TXN, pb.TxnRequest(compare=[condition], success=[operation]))).succeeded


def _unchanged(key: bytes, revision: int) -> pb.Compare:
    return pb.Compare(target=pb.Compare.MOD, result=pb.Compare.EQUAL, key=key, mod_revision=revision)
