"""A store in memory: what the agent's tests use in place of etcd. It passes the same contract suite.

`MemoryStore` is the cluster's one store, with verbs for what an operator or another node does to it and for faults;
`MemoryStore.manager()` is one node's SubnetManager on it, and `MemoryStore.finder()` its LeaseFinder.
"""

import asyncio
from dataclasses import dataclass
from functools import cache
from itertools import chain

from flanneld_py.core.allocator import fits_config, is_same_node, overlap, pick_own, pick_subnets
from flanneld_py.core.errors import LeaseLostError, LeaseTakenError, StoreError
from flanneld_py.core.lease import Lease, encode_attrs, encode_key, parse_attrs, parse_key
from flanneld_py.core.lease_event import LeasePut, LeaseRejected, LeaseRemoved, LeaseSnapshot
from flanneld_py.core.prefix import gap_around
from flanneld_py.store import subnet_manager
from flanneld_py.store.counts import StoreCounts
from flanneld_py.store.subnet_manager import HeldLease

TTL = 86_400.0


@cache
def _subnets(key):
    try:
        return [subnet for subnet in parse_key(key) if subnet is not None]
    except ValueError:
        return []


@dataclass(frozen=True, slots=True)
class Record:
    """One lease's key as the store holds it; `expires` is false for a reservation."""

    value: str
    revision: int
    expires: bool = True


class MemoryStore:
    """Configuration and records of one network, shared by all managers made from it.

    While `away` says why, nothing answers: calls raise StoreError, watches wait and catch up by a new snapshot.
    """

    def __init__(self):
        self.records: dict[str, Record] = {}
        self.writes: list[str] = []
        self._config: str | None = None
        self._away: str | None = None
        self._revision = 0
        self._watches: list[_Watch] = []
        self._finders: list[MemoryLeaseFinder] = []

    def manager(self, rng):
        return MemorySubnetManager(self, rng)

    def finder(self):
        finder = MemoryLeaseFinder(self)
        self._finders.append(finder)
        return finder

    @property
    def config(self):
        return self._config

    @config.setter
    def config(self, text):
        self._config = text
        for watch in self._watches:
            watch.config_changed.set()

    @property
    def away(self):
        return self._away

    @away.setter
    def away(self, reason):
        self._away = reason
        self.lose_history()

    def put(self, key, value, *, expires=True):
        self._revision += 1
        self.records[key] = Record(value, self._revision, expires)
        self.writes.append(key)
        self._announce(key)
        return self._revision

    def delete(self, key):
        if self.records.pop(key, None) is not None:
            self.writes.append(key)
            self._announce(key)

    def lose_history(self):
        """Do what a compaction does to whoever was away: the next that a watch yields is a new snapshot."""
        for watch in [*self._watches, *self._finders]:
            watch.lose_history()

    def check(self):
        if self._away is not None:
            raise StoreError(self._away)

    def snapshot(self):
        events = [self.read(key) for key in sorted(self.records)]
        return LeaseSnapshot(
            {event.key: event.lease for event in events if isinstance(event, LeasePut)},
            {event.key: event.reason for event in events if isinstance(event, LeaseRejected)},
        )

    def read(self, key):
        record = self.records.get(key)
        if record is None:
            return LeaseRemoved(key)
        try:
            attrs = parse_attrs(record.value)
            return LeasePut(key, Lease(*parse_key(key), attrs, reserved=not record.expires), record.revision)
        except ValueError as error:
            return LeaseRejected(key, str(error))

    def open_watch(self):
        watch = _Watch(self)
        self._watches.append(watch)
        return watch

    def close_watch(self, watch):
        self._watches.remove(watch)

    def _announce(self, key):
        event = self.read(key)
        for watch in self._watches:
            watch.events.append(event)
            watch.changed.set()
        for finder in self._finders:
            if key in finder.followed:
                finder.tell(event)


class _Watch:
    """What one watcher has not seen yet."""

    def __init__(self, store):
        self.events = []
        self.changed = asyncio.Event()
        self.config_changed = asyncio.Event()
        self._store = store
        self._history_lost = True
        self.changed.set()
        self.config_changed.set()

    def lose_history(self):
        self._history_lost = True
        self.changed.set()
        self.config_changed.set()

    async def next_batch(self):
        while True:
            await self.changed.wait()
            self.changed.clear()
            if self._store.away is not None:
                continue
            batch, self.events = self.events, []
            if self._history_lost:
                self._history_lost = False
                return [self._store.snapshot()]
            if batch:
                return batch

    async def next_config(self, known):
        while True:
            await self.config_changed.wait()
            self.config_changed.clear()
            if self._store.away is None and known != [self._store.config]:
                return self._store.config


class MemorySubnetManager:
    """One node's view of a MemoryStore."""

    assigns_subnets = False

    def __init__(self, store, rng):
        self._store = store
        self._rng = rng
        self.counts = StoreCounts()
        self.reconnects = 0

    @property
    def trouble(self):
        return self._store.away

    def describe(self):
        return {"type": "memory", "trouble": self.trouble}

    async def watch_config(self):
        watch = self._store.open_watch()
        known = []
        try:
            while True:
                known = [await watch.next_config(known)]
                yield known[0]
        finally:
            self._store.close_watch(watch)

    async def watch_leases(self):
        watch = self._store.open_watch()
        try:
            while True:
                yield await watch.next_batch()
        finally:
            self._store.close_watch(watch)

    async def read_public(self):
        return None, None

    async def find_own(self, attrs, expected=()):
        self._store.check()
        own = self._own(attrs)
        own.sort(key=lambda found: (found[1].subnet, found[1].ipv6_subnet) not in expected)
        return next((lease for _, lease in own), None)

    async def acquire(self, request):
        await asyncio.sleep(0)  # where other nodes come in between
        self._store.check()
        own = self._own(request.attrs)
        pairs = [(lease.subnet, lease.ipv6_subnet) for _, lease in own]
        keep = pick_own(request.config, pairs, request.preferred)
        for key, lease in own:
            if not lease.reserved and not fits_config(request.config, (lease.subnet, lease.ipv6_subnet)):
                self._store.delete(key)
        if keep is not None:
            if not any(overlap(keep, pair) for pair in request.preferred):
                await self._ask_holder(encode_key(*keep))
            return self._write(encode_key(*keep), request.attrs)
        pair = pick_subnets(request.config, self._taken(), [*request.preferred, *pairs], self._rng)
        if pair is None:
            raise StoreError(f"no subnet is free: {len(self._store.records)} leases take all of them")
        return self._write(encode_key(*pair), request.attrs)

    async def announce_ready(self):
        self._store.check()

    async def renew(self, held, attrs=None):
        self._store.check()
        attrs = attrs or held.lease.attrs
        found = self._store.read(held.key)
        if isinstance(found, LeaseRemoved):
            raise LeaseLostError(f"lease {held.key} is gone")
        if isinstance(found, LeasePut) and not any(
            is_same_node(ours, found.lease.attrs) for ours in (held.lease.attrs, attrs)
        ):
            raise LeaseTakenError(held.key, "another")
        return self._write(held.key, attrs)

    async def restore(self, held, attrs):
        self._store.check()
        if held.key in self._store.records:
            return await self.renew(held, attrs)
        if any(overlap(held.lease[:2], pair) for pair in self._taken()):
            raise LeaseTakenError(held.key, "another")
        return self._write(held.key, attrs)

    async def _ask_holder(self, key):
        record = self._store.records[key]
        revision = self._store.put(key, record.value.rstrip() + " ", expires=record.expires)
        await asyncio.sleep(subnet_manager.CHALLENGE_PATIENCE)
        if self._store.records[key].revision != revision:
            raise StoreError(f"another node that runs has our public address and holds lease {key}")

    def lease_finder(self, networks):
        return self._store.finder()

    def reconnect(self):
        self.reconnects += 1

    async def close(self):
        pass

    def _own(self, attrs):
        leases = self._store.snapshot().leases
        return [(key, lease) for key, lease in leases.items() if is_same_node(attrs, lease.attrs)]

    def _taken(self):
        taken = []
        for key in self._store.records:
            try:
                taken.append(parse_key(key))
            except ValueError:
                continue
        return taken

    def _write(self, key, attrs):
        value = encode_attrs(attrs)
        record = self._store.records.get(key)
        expires = record is None or record.expires
        if record is None or record.value != value:
            self._store.put(key, value, expires=expires)
        lease = Lease(*parse_key(key), attrs, reserved=not expires)
        return HeldLease(key, lease, TTL if expires else None, self._store.records[key].revision)


class MemoryLeaseFinder:
    """One node's LeaseFinder; `finds` lists what was looked up."""

    def __init__(self, store):
        self.finds = []
        self.followed = set()
        self._store = store
        self._found = {}
        self._events = []
        self._changed = asyncio.Event()
        self._history_lost = False

    def glance(self, misses, found):
        for miss in misses:
            event = None if self._store.away is not None else self._read(miss)
            if event is not None:
                self.finds.append(miss)
            found(miss, event)

    async def find_lease(self, miss):
        self.finds.append(miss)
        await asyncio.sleep(0)  # where others come in between
        self._store.check()
        return self._read(miss)

    def _read(self, miss):
        for key, record in self._store.records.items():
            event = self._store.read(key) if any(map(miss.is_in, _subnets(key))) else None
            if isinstance(event, LeasePut):
                self._found[key] = record
                return event
        return None

    def gap_around(self, subnet, address):
        return gap_around(subnet, address, chain.from_iterable(map(_subnets, self._store.records)))

    def follow(self, key):
        self.followed.add(key)
        found = self._found.pop(key, None)
        if found is not None and self._store.records.get(key) != found:
            self.tell(self._store.read(key))

    def unfollow(self, key):
        self.followed.discard(key)

    def tell(self, event):
        self._events.append(event)
        self._changed.set()

    def lose_history(self):
        self._history_lost = True
        self._changed.set()

    async def watch_followed(self):
        self.lose_history()
        while True:
            await self._changed.wait()
            self._changed.clear()
            if self._store.away is not None:
                continue
            events, self._events = self._events, []
            if self._history_lost:
                self._history_lost = False
                events = [self._store.read(key) for key in sorted(self.followed)]
            batch = [event for event in events if event.key in self.followed]
            if batch:
                yield batch
