import asyncio
import random
import time

import pytest

from flanneld_py.agent import lease_keeper
from flanneld_py.agent.lease_keeper import LeaseKeeper
from flanneld_py.core.lease import LeaseAttrs, encode_attrs
from flanneld_py.core.lease_event import LeasePut, LeaseRejected, LeaseRemoved, LeaseSnapshot
from flanneld_py.core.network_config import parse_network_config
from flanneld_py.store.subnet_manager import LeaseRequest
from tests.fakes.memory_store import TTL, MemoryStore
from tests.waiting import until

CONFIG = parse_network_config('{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan"}}')
ATTRS = LeaseAttrs(0xAC1E000B, None, "vxlan", '{"VNI":1,"VtepMAC":"02:00:00:00:00:01"}')
OTHER = LeaseAttrs(0xAC1E000C, None, "vxlan", '{"VNI":1,"VtepMAC":"02:00:00:00:00:02"}')
HOUR = 3600.0


class Clock:
    """The clock by which the lease ages: when the test says so."""

    def __init__(self):
        self.ahead = 0.0

    def read(self):
        return time.monotonic() + self.ahead


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(lease_keeper, "read_clock", clock.read)
    return clock


@pytest.fixture
def store():
    return MemoryStore()


@pytest.fixture
async def keeper(store, clock):
    rng = random.Random(0)  # noqa: S311 - repeatable
    manager = store.manager(rng)
    request = LeaseRequest(CONFIG, ATTRS)
    keeper = LeaseKeeper(manager, ATTRS, await manager.acquire(request), HOUR, rng)
    keeper.task = asyncio.create_task(keeper.run())
    await asyncio.sleep(0)
    yield keeper
    keeper.task.cancel()
    await asyncio.gather(keeper.task, return_exceptions=True)


def is_ours(store, keeper):
    record = store.records.get(keeper.held.key)
    return record is not None and record.value == encode_attrs(ATTRS)


async def restart_wait(keeper, clock, ahead):
    """Let time pass: what waits for a time of the loop is woken to look at it anew."""
    clock.ahead += ahead
    keeper.task.cancel()
    await asyncio.gather(keeper.task, return_exceptions=True)
    keeper.task = asyncio.create_task(keeper.run())


async def test_time_left(keeper, clock):
    assert TTL - 60 < keeper.time_left <= TTL
    clock.ahead = HOUR
    assert keeper.time_left <= TTL - HOUR
    assert not keeper.is_lost
    assert keeper.problem is None
    clock.ahead = TTL + 1
    assert keeper.problem == f"{keeper.held.key} has run out, and the store does not answer"


async def test_renewed_before_its_end(keeper, clock, caplog):
    caplog.set_level("INFO")
    await restart_wait(keeper, clock, TTL - HOUR + 1)
    assert keeper.time_left < HOUR
    await until(lambda: keeper.time_left > TTL - 60)
    assert f"lease renewed: key={keeper.held.key}" in caplog.text


async def test_reservation_is_never_renewed(store, clock):
    store.put("10.5.9.0-24", encode_attrs(ATTRS), expires=False)
    rng = random.Random(0)  # noqa: S311 - repeatable
    manager = store.manager(rng)
    request = LeaseRequest(CONFIG, ATTRS)
    keeper = LeaseKeeper(manager, ATTRS, await manager.acquire(request), HOUR, rng)
    assert keeper.held.key == "10.5.9.0-24"
    assert keeper.time_left is None


async def test_deleted_lease_is_had_again_at_once_with_the_same_subnet(keeper, store, caplog):
    key = keeper.held.key
    store.delete(key)
    keeper.take_events([LeaseRemoved(key)])
    await until(lambda: is_ours(store, keeper) and not keeper.is_lost)
    assert keeper.held.key == key
    assert "lease lost" in caplog.text


async def test_store_that_came_back_empty_has_our_lease_again(keeper, store):
    key = keeper.held.key
    store.delete(key)
    keeper.take_events([LeaseSnapshot({}, {}, last=False), LeaseSnapshot({}, {}, first=False)])
    await until(lambda: is_ours(store, keeper) and not keeper.is_lost)
    assert keeper.held.key == key


@pytest.mark.parametrize("value", ["no JSON", '{"PublicIP":"172.30.0.11"}'])
async def test_value_that_somebody_wrote_over_ours_is_mended(keeper, store, value):
    key = keeper.held.key
    store.put(key, value)
    keeper.take_events([store.read(key)])
    await until(lambda: is_ours(store, keeper))
    assert keeper.held.key == key


@pytest.mark.parametrize(
    "make",
    [
        lambda held: LeaseRemoved("10.5.77.0-24"),
        lambda held: LeaseRejected("10.5.77.0-24", "no JSON"),
        lambda held: LeasePut("10.5.77.0-24", held.lease),
        lambda held: LeasePut(held.key, held.lease),
        lambda held: LeaseSnapshot({held.key: held.lease}, {}),
    ],
)
async def test_what_concerns_others_or_is_as_it_should_be_is_no_reason_to_look(keeper, store, make):
    before = list(store.writes)
    keeper.take_events([make(keeper.held)])
    assert not keeper._state.is_due(time.monotonic())
    assert store.writes == before


async def test_our_lease_in_the_first_of_several_parts_is_not_missing(keeper):
    held = keeper.held
    keeper.take_events([LeaseSnapshot({held.key: held.lease}, {}, last=False), LeaseSnapshot({}, {}, first=False)])
    assert not keeper._state.is_due(time.monotonic())
    keeper.take_events([LeaseSnapshot({}, {})])
    assert keeper._state.is_due(time.monotonic())


async def test_subnet_that_another_node_took_is_not_fought_for(keeper, store, caplog):
    key = keeper.held.key
    store.delete(key)
    store.put(key, encode_attrs(OTHER))
    writes = list(store.writes)
    keeper.take_events([store.read(key)])
    await until(lambda: keeper.is_lost)
    keeper.take_events([store.read(key)])
    await until(lambda: not keeper._state.is_due(time.monotonic()))
    assert keeper.problem.startswith(f"{key} is held by another: our pods stay as they are; delete that lease")
    assert keeper.time_left is None
    assert store.writes == writes
    assert caplog.text.count("lease is another node's") == 1
    # When the other gives it up, it is ours again.
    store.delete(key)
    keeper.take_events([LeaseRemoved(key)])
    await until(lambda: is_ours(store, keeper) and not keeper.is_lost)
    assert keeper.problem is None


async def test_a_second_node_that_asks_whether_we_live_is_answered(keeper, store):
    key = keeper.held.key
    store.put(key, encode_attrs(ATTRS) + " ")
    keeper.take_events([store.read(key)])
    await until(lambda: is_ours(store, keeper))
    assert keeper.foreign_writes == 1
    keeper.take_events([store.read(key)])
    assert not keeper._state.is_due(time.monotonic())


async def test_what_we_publish_changes(keeper, store):
    changed = ATTRS._replace(public_ip=0xAC1E0063)
    key = keeper.held.key
    keeper.publish(changed)
    await until(lambda: store.records[key].value == encode_attrs(changed))
    await until(lambda: keeper.held.lease.attrs == changed)
    assert keeper.held.key == key
    keeper.publish(changed)
    assert not keeper._state.is_due(time.monotonic())


async def test_waking_up_after_the_lease_has_expired(keeper, store, clock, monkeypatch):
    monkeypatch.setattr(lease_keeper, "_LONGEST_SLEEP", 0.01)
    await restart_wait(keeper, clock, 3 * TTL)
    store.delete(keeper.held.key)
    await until(lambda: is_ours(store, keeper) and keeper.time_left > TTL - 60)


async def test_store_that_is_away_is_waited_for(keeper, store, caplog):
    key = keeper.held.key
    store.away = "etcd is gone"
    keeper.take_events([LeaseRemoved(key)])
    await until(lambda: "lease not looked after, trying again: reason=etcd is gone" in caplog.text)
    assert not keeper.is_lost
    store.delete(key)
    store.away = None
    await until(lambda: is_ours(store, keeper) and not keeper.is_lost)
    # Each reason is said once, however often it was tried.
    assert caplog.text.count("lease not looked after") == 1


async def test_lost_while_it_cannot_be_had_again(keeper, store):
    key = keeper.held.key
    store.delete(key)
    restore = keeper._store.restore

    async def fail_once(held, attrs):
        keeper._store.restore = restore
        store.away = "etcd is gone"
        return await restore(held, attrs)

    keeper._store.restore = fail_once
    keeper.take_events([LeaseRemoved(key)])
    await until(lambda: keeper.is_lost and store.away)
    store.away = None
    await until(lambda: not keeper.is_lost)
    assert keeper.held.key == key
