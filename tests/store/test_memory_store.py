"""The store in memory keeps the contract; what only it can do is faults on demand."""

import random
from contextlib import aclosing

import pytest

from flanneld_py.core.errors import StoreError
from flanneld_py.core.lease_event import LeaseSnapshot
from tests.fakes.memory_store import MemoryStore
from tests.store.contract import (
    CONFIG,
    UNREADABLE_KEYS,
    FinderContract,
    LeaseContract,
    LeaseRequest,
    WatchContract,
    node,
    value,
)


class MemoryHarness:
    unreadable = UNREADABLE_KEYS

    def __init__(self):
        self.memory = MemoryStore()
        self._seeds = iter(range(1000))

    @staticmethod
    def name(key):
        return key

    def manager(self):
        return self.memory.manager(random.Random(next(self._seeds)))  # noqa: S311 - repeatable

    async def set_config(self, text):
        self.memory.config = text

    async def put(self, key, text, *, expires=True):
        self.memory.put(key, text, expires=expires)

    async def delete(self, key):
        self.memory.delete(key)

    async def records(self):
        return {key: (record.value, record.expires) for key, record in self.memory.records.items()}


@pytest.fixture
def store():
    return MemoryHarness()


class TestWatch(WatchContract):
    pass


class TestLeases(LeaseContract):
    pass


class TestFinder(FinderContract):
    pass


async def test_a_store_that_is_away_fails_calls_and_tells_all_anew_when_it_is_back(store):
    manager = store.manager()
    async with aclosing(manager.watch_leases()) as batches:
        await anext(batches)
        store.memory.away = "etcd at http://127.0.0.1:2379: connection refused"
        with pytest.raises(StoreError, match="connection refused"):
            await manager.acquire(LeaseRequest(CONFIG, node(1)))
        assert manager.trouble == store.memory.away
        store.memory.put("10.5.1.0-24", value(node(2)))
        store.memory.away = None
        (snapshot,) = await anext(batches)
        assert list(snapshot.leases) == ["10.5.1.0-24"]
        store.memory.lose_history()
        assert isinstance((await anext(batches))[0], LeaseSnapshot)
