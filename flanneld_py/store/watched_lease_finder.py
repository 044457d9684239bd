"""WatchedLeaseFinder: leases found by an address in either family, for a store that can only be watched as a whole.

Owns what is known of all leases. The kernel still holds those in use alone: only of what is followed is told.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING, assert_never

from flanneld_py.core.errors import StoreError
from flanneld_py.core.lease_event import LeasePut, LeaseRejected, LeaseRemoved, LeaseSnapshot
from flanneld_py.core.lease_index import LeaseIndex
from flanneld_py.store.waiting import wait_for_either

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence

    from flanneld_py.core.lease import Lease
    from flanneld_py.core.lease_event import LeaseChange, LeaseEvent
    from flanneld_py.core.misses import Miss
    from flanneld_py.core.prefix import Prefix
    from flanneld_py.store.subnet_manager import SubnetManager


class WatchedLeaseFinder:
    """See LeaseFinder. An address costs the store nothing; each lease costs a few hundred bytes here."""

    def __init__(self, store: SubnetManager, networks: Mapping[Prefix, int]) -> None:
        """Prepare for these networks, each with the length that most subnets have there."""
        self._store = store
        self._index = LeaseIndex({network.family: length for network, length in networks.items()})
        self._complete = asyncio.Event()
        self._unseen: set[str] = set()
        self._followed: set[str] = set()
        self._found: dict[str, Lease] = {}
        self._behind: set[str] = set()
        self._changed = asyncio.Event()

    def glance(self, misses: Sequence[Miss], found: Callable[[Miss, LeasePut | None], None]) -> None:
        """Have `found` called with each address and the lease that is known for it."""
        for miss in misses:
            found(miss, self._look(miss))

    async def find_lease(self, miss: Miss) -> LeasePut | None:
        """Return the lease of which a subnet holds an address, once all have been told.

        None if there is none, or none that can be read. Raises StoreError if that is not certain, for the store cannot
        be followed.
        """
        await self._complete.wait()
        found = self._look(miss)
        if found is None and self._store.trouble:
            raise StoreError(self._store.trouble)
        return found

    def _look(self, miss: Miss) -> LeasePut | None:
        found = self._index.find(miss)
        if found is None:
            return None
        key, lease = found
        self._found[key] = lease
        return LeasePut(key, lease)

    def gap_around(self, subnet: Prefix, address: int) -> Prefix:
        """Return the largest part of a subnet, around an address without a lease, that nobody leases."""
        return self._index.gap_around(subnet, address)

    def follow(self, key: str) -> None:
        """Have `watch_followed` tell how a key changes from when it was last found."""
        self._followed.add(key)
        if self._found.pop(key, None) != self._index.get(key):
            self._behind.add(key)
            self._changed.set()

    def unfollow(self, key: str) -> None:
        """Have `watch_followed` tell of a key no longer."""
        self._followed.discard(key)

    async def watch_followed(self) -> AsyncGenerator[Sequence[LeaseChange], None]:
        """Yield batches of changes of the keys that are followed, all of them anew with each snapshot of the store."""
        async with aclosing(self._store.watch_leases()) as batches:
            reading = asyncio.ensure_future(anext(batches))
            try:
                while True:
                    told = self._catch_up()
                    if reading.done():
                        told += self._take(reading.result())
                        reading = asyncio.ensure_future(anext(batches))
                    if told:
                        yield told
                    await wait_for_either(reading, self._changed)
            finally:
                reading.cancel()
                await asyncio.gather(reading, return_exceptions=True)

    def _catch_up(self) -> list[LeaseChange]:
        """Return how keys are now that had changed before they were followed."""
        self._changed.clear()
        behind, self._behind = self._behind & self._followed, set()
        leases = [(key, self._index.get(key)) for key in behind]
        return [LeaseRemoved(key) if lease is None else LeasePut(key, lease) for key, lease in leases]

    def _take(self, events: Sequence[LeaseEvent]) -> list[LeaseChange]:
        """Take note of what the store tells; return what concerns the keys that are followed."""
        changes = (change for event in events for change in self._changes(event))
        return [change for change in changes if self._note(change)]

    def _changes(self, event: LeaseEvent) -> Iterator[LeaseChange]:
        """Yield what an event says of single keys, one at a time."""
        if not isinstance(event, LeaseSnapshot):
            yield event
            return
        if event.first:
            self._unseen = {*self._index, *self._followed}
        self._unseen -= event.leases.keys() | event.rejected.keys()
        yield from (LeasePut(key, lease) for key, lease in event.leases.items())
        yield from (LeaseRejected(key, reason) for key, reason in event.rejected.items())
        if event.last:
            unseen, self._unseen = self._unseen, set()
            yield from map(LeaseRemoved, unseen)
            self._complete.set()

    def _note(self, change: LeaseChange) -> bool:
        """Take note of a change; return whether its key is followed."""
        match change:
            case LeasePut(key=key, lease=lease):
                self._index.put(key, lease)
            case LeaseRemoved(key=key):
                self._index.remove(key)
            case LeaseRejected():
                # What it was before goes on (`LeaseTable`).
                pass
            case _:
                assert_never(change)
        return change.key in self._followed
