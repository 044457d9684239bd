"""EtcdSubnetManager: the SubnetManager that keeps configuration and leases in etcd.

Owns the putting together of client, watches and writes; each of them has a file of its own.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from flanneld_py.core.prefix import IPV4
from flanneld_py.store import etcd_pb2 as pb
from flanneld_py.store.etcd_client import EtcdClient
from flanneld_py.store.etcd_keyspace import EtcdKeyspace
from flanneld_py.store.etcd_leases import EtcdLeases
from flanneld_py.store.etcd_records import Layout, read_event, read_snapshot
from flanneld_py.store.etcd_watch import Changes, Page, RangeWatch

if TYPE_CHECKING:
    import random
    from collections.abc import AsyncGenerator, Mapping, Sequence

    from flanneld_py.core.allocator import SubnetPair
    from flanneld_py.core.lease import Lease, LeaseAttrs
    from flanneld_py.core.lease_event import LeaseEvent
    from flanneld_py.core.prefix import Prefix
    from flanneld_py.store.counts import StoreCounts
    from flanneld_py.store.etcd_api import KeyRange
    from flanneld_py.store.etcd_lease_finder import EtcdLeaseFinder
    from flanneld_py.store.etcd_options import EtcdOptions
    from flanneld_py.store.subnet_manager import HeldLease, LeaseFinder, LeaseRequest


class EtcdSubnetManager:
    """Configuration and leases of one network under one prefix of etcd."""

    assigns_subnets = False

    def __init__(self, options: EtcdOptions, rng: random.Random) -> None:
        self._client = EtcdClient(options, rng)
        self._layout = Layout(options.prefix)
        self._keys = EtcdKeyspace(self._client, self._layout)
        self._own = EtcdLeases(self._keys, rng)
        self._rng = rng
        self._watches: list[RangeWatch] = []
        self._options = options
        self._finders: list[EtcdLeaseFinder] = []

    @property
    def trouble(self) -> str | None:
        """Why the store cannot be followed at present; None where it can."""
        troubles = [watch.trouble for watch in self._watches] + [finder.trouble for finder in self._finders]
        return next(filter(None, troubles), None)

    @property
    def counts(self) -> StoreCounts:
        """What has been asked of the store."""
        return self._client.counts

    def describe(self) -> dict[str, Any]:
        """Return how etcd is reached, and by which endpoint now; the password is left out."""
        options = self._options
        return {
            "type": "etcd",
            "endpoints": [str(endpoint) for endpoint in options.endpoints],
            "prefix": options.prefix,
            "cafile": options.cafile,
            "certfile": options.certfile,
            "keyfile": options.keyfile,
            "username": options.username,
            "endpoint": None if self._client.endpoint is None else str(self._client.endpoint),
            "trouble": self.trouble,
        }

    async def watch_config(self) -> AsyncGenerator[str | None, None]:
        """Yield the configuration's text, or None, now and whenever it changes."""
        known: list[str | None] = []
        async with aclosing(self._follow(self._layout.config)) as updates:
            async for update in updates:
                text = _last_value(update)
                if known != [text]:
                    known = [text]
                    yield text

    async def read_public(self) -> tuple[int | None, int | None]:
        """Return nothing: etcd holds no node's addresses before the node publishes them."""
        return None, None

    async def find_own(self, attrs: LeaseAttrs, expected: Sequence[SubnetPair] = ()) -> Lease | None:
        """Return the lease that carries our address, if there is one."""
        return await self._own.find(attrs, expected)

    async def acquire(self, request: LeaseRequest) -> HeldLease:
        """Make a lease ours."""
        return await self._own.acquire(request)

    async def renew(self, held: HeldLease, attrs: LeaseAttrs | None = None) -> HeldLease:
        """Extend our lease."""
        return await self._own.renew(held, attrs or held.lease.attrs)

    async def restore(self, held: HeldLease, attrs: LeaseAttrs) -> HeldLease:
        """Write our lease anew."""
        return await self._own.restore(held, attrs)

    async def announce_ready(self) -> None:
        """Do nothing: the lease says all."""

    async def watch_leases(self) -> AsyncGenerator[Sequence[LeaseEvent], None]:
        """Yield a snapshot of all leases in parts, then batches of changes."""
        async with aclosing(self._follow(self._layout.leases)) as updates:
            async for update in updates:
                if isinstance(update, Page):
                    for part in read_snapshot(self._layout, update):
                        yield [part]
                        await asyncio.sleep(0)
                else:
                    yield [read_event(self._layout, event) for event in update.events]

    async def _follow(self, keys: KeyRange) -> AsyncGenerator[Page | Changes, None]:
        watch = RangeWatch(self._client, keys, self._rng)
        self._watches.append(watch)
        try:
            async with aclosing(watch.follow()) as updates:
                async for update in updates:
                    yield update
        finally:
            self._watches.remove(watch)

    def lease_finder(self, networks: Mapping[Prefix, int]) -> LeaseFinder:
        """Return what finds single leases: by reads of single keys where one follows from an address, in IPv4."""
        if any(network.family != IPV4 for network in networks):
            from flanneld_py.store.watched_lease_finder import WatchedLeaseFinder

            return WatchedLeaseFinder(self, networks)
        from flanneld_py.store.etcd_lease_finder import EtcdLeaseFinder

        (subnet_len,) = networks.values()
        finder = EtcdLeaseFinder(self._client, self._layout, subnet_len, self._rng)
        self._finders.append(finder)
        return finder

    def reconnect(self) -> None:
        """Make new connections; what is under way over the former ones is asked again."""
        self._client.reconnect()

    async def close(self) -> None:
        """Close the connection; the lease stays."""
        await self._client.close()


def _last_value(update: Page | Changes) -> str | None:
    """Return what a single key holds after an update."""
    if isinstance(update, Page):
        record = update.keys[-1] if update.keys else None
    else:
        record = update.events[-1].kv if update.events[-1].type == pb.Event.PUT else None
    return None if record is None else record.value.decode(errors="replace")
