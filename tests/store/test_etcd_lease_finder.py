"""What finding and following single leases costs a real etcd, and how it survives losing it."""

import asyncio
import logging
from contextlib import asynccontextmanager
from types import SimpleNamespace

import pytest

from flanneld_py.core.errors import StoreError
from flanneld_py.core.lease_event import LeasePut, LeaseRemoved
from flanneld_py.store import etcd_client, etcd_lease_finder
from flanneld_py.store.etcd_api import RANGE, WATCH
from tests.store.contract import NETWORK, NETWORKS, Following, miss, node, until, value
from tests.store.test_etcd_watch import compact, through

pytestmark = pytest.mark.etcd

KEY, OTHER = "10.5.1.0-24", "10.5.2.0-24"


@pytest.fixture(autouse=True)
def _impatient(monkeypatch):
    """Faults are noticed and retried at a test's pace."""
    monkeypatch.setattr(etcd_lease_finder, "LONGEST_DELAY", 0.1)
    monkeypatch.setattr(etcd_client, "CALL_TIMEOUT", 2.0)


async def follow(finder, *keys):
    for key in keys:
        found = await finder.find_lease(miss(key.partition("-")[0]))
        finder.follow(found.key)


@pytest.fixture
def count_calls(monkeypatch):
    """A function that has a finder's requests counted: the reads of ranges, the streams and what is sent on them."""

    def count(finder):
        calls = {"lists": 0, "reads": 0, "streams": 0, "creates": 0, "cancels": 0}
        client = finder._client
        call, stream = client.call, client.stream

        async def counted_call(method, request):
            if method is RANGE:
                calls["lists" if request.keys_only else "reads"] += 1
            return await call(method, request)

        @asynccontextmanager
        async def counted_stream(method, **keys):
            assert method is WATCH
            calls["streams"] += 1
            async with stream(method, **keys) as opened:
                write = opened.write

                def counted_write(request):
                    calls["creates"] += request.HasField("create_request")
                    calls["cancels"] += request.HasField("cancel_request")
                    write(request)

                monkeypatch.setattr(opened, "write", counted_write)
                yield opened

        monkeypatch.setattr(client, "call", counted_call)
        monkeypatch.setattr(client, "stream", counted_stream)
        return calls

    return count


# What it costs


async def test_a_lease_of_the_usual_length_costs_one_read(store, count_calls):
    await store.put(KEY, value(node(1)))
    finder = store.manager().lease_finder(NETWORKS)
    calls = count_calls(finder)
    for _ in range(3):
        assert await finder.find_lease(miss("10.5.1.1"))
    assert (calls["reads"], calls["lists"]) == (3, 0)


async def glance(finder, *addresses):
    """Return what a finder sees for each address."""
    seen = {}
    finder.glance([miss(address) for address in addresses], seen.__setitem__)
    await until(lambda: len(seen) == len(addresses))
    return [seen[miss(address)] for address in addresses]


async def test_a_glance_sees_what_there_is(store, count_calls):
    for index in range(1, 31):
        await store.put(f"10.5.{index}.0-24", value(node(index)))
    await store.put("10.5.100.64-26", value(node(100)))
    await store.put("10.5.101.0-24", "no lease")
    finder = store.manager().lease_finder(NETWORKS)
    await finder.find_lease(miss("10.5.1.1"))
    calls = count_calls(finder)
    seen = await glance(finder, *(f"10.5.{index}.9" for index in range(1, 31)))
    assert [event.key for event in seen] == [f"10.5.{index}.0-24" for index in range(1, 31)]
    assert seen[6] == await finder.find_lease(miss("10.5.7.9"))
    # What needs a closer look is not seen.
    assert await glance(finder, "10.5.99.1", "10.5.100.65", "10.5.101.1") == [None] * 3
    assert calls == {"lists": 0, "reads": 1, "streams": 0, "creates": 0, "cancels": 0}


async def test_a_lease_that_was_seen_at_a_glance_is_followed_from_then(store):
    await store.put(KEY, value(node(1)))
    finder = store.manager().lease_finder(NETWORKS)
    async with Following(finder) as told:
        await follow(finder, KEY)
        await store.put(OTHER, value(node(2)))
        await glance(finder, "10.5.2.1")
        await store.put(OTHER, value(node(3)))
        finder.follow(OTHER)
        await told.until(LeasePut, OTHER, node(3))


async def test_a_glance_before_there_is_a_connection_sees_nothing_at_once(store):
    await store.put(KEY, value(node(1)))
    finder = store.manager().lease_finder(NETWORKS)
    seen = {}
    finder.glance([miss("10.5.1.1")], seen.__setitem__)
    assert seen == {miss("10.5.1.1"): None}


async def test_a_glance_at_a_silent_store_sees_nothing_in_time(store, shared_etcd, make_relay, monkeypatch):
    monkeypatch.setattr(etcd_lease_finder, "_GLANCE_PATIENCE", 0.05)
    relay = await make_relay(shared_etcd.port)
    await store.put(KEY, value(node(1)))
    finder = store.manager(through(relay, store)).lease_finder(NETWORKS)
    await finder.find_lease(miss("10.5.1.1"))
    relay.freeze()
    assert await glance(finder, "10.5.1.1") == [None]
    await relay.restore()
    assert (await finder.find_lease(miss("10.5.1.1"))).key == KEY


async def test_a_glance_at_a_store_that_goes_away_sees_nothing_at_once(store, shared_etcd, make_relay, monkeypatch):
    monkeypatch.setattr(etcd_lease_finder, "_GLANCE_PATIENCE", 1e6)
    relay = await make_relay(shared_etcd.port)
    finder = store.manager(through(relay, store)).lease_finder(NETWORKS)
    await finder.find_lease(miss("10.5.1.1"))
    relay.freeze()
    seen = {}
    finder.glance([miss("10.5.1.1")], seen.__setitem__)
    await relay.cut()
    await until(lambda: seen)


async def test_all_keys_are_read_at_most_once_a_minute(store, count_calls, monkeypatch):
    finder = store.manager().lease_finder(NETWORKS)
    calls = count_calls(finder)
    now = 1000.0
    monkeypatch.setattr(etcd_lease_finder, "time", SimpleNamespace(monotonic=lambda: now))
    addresses = [miss(f"10.5.{index}.1") for index in range(20)]
    assert not any(await asyncio.gather(*(finder.find_lease(address) for address in addresses)))
    now += 59.0
    await store.put("10.5.8.0-22", value(node(1)))
    assert await finder.find_lease(miss("10.5.9.1")) is None
    assert calls["lists"] == 1
    now += 2.0
    found = await asyncio.gather(*(finder.find_lease(miss(f"10.5.{index}.1")) for index in (8, 9, 10, 11)))
    assert {event.key for event in found} == {"10.5.8.0-22"}
    assert calls["lists"] == 2
    await store.delete("10.5.8.0-22")
    assert await finder.find_lease(miss("10.5.9.1")) is None


async def test_whoever_loses_patience_does_not_stop_the_reading_of_all_keys(store, monkeypatch):
    await store.put("10.5.8.0-22", value(node(1)))
    finder = store.manager().lease_finder(NETWORKS)
    going_on = asyncio.Event()
    pages = finder._client.pages
    readings = 0

    async def slow_pages(*args, **keys):
        nonlocal readings
        readings += 1
        await going_on.wait()
        async for page in pages(*args, **keys):
            yield page

    monkeypatch.setattr(finder._client, "pages", slow_pages)
    for _ in range(3):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await finder.find_lease(miss("10.5.9.1"))
    waiting = asyncio.ensure_future(finder.find_lease(miss("10.5.9.1")))
    await asyncio.sleep(0)
    going_on.set()
    assert (await waiting).key == "10.5.8.0-22"
    assert readings == 1


async def test_many_keys_are_followed_over_one_stream(store, count_calls):
    keys = [f"10.5.{index}.{base}-26" for index in range(100) for base in (0, 64, 128)]
    for index, key in enumerate(keys):
        await store.put(key, value(node(index)), expires=False)
    finder = store.manager().lease_finder({NETWORK: 26})
    calls = count_calls(finder)
    async with Following(finder) as told:
        await follow(finder, *keys)
        await until(lambda: calls["creates"] == 300)
        for key in keys[:299]:
            finder.unfollow(key)
        await until(lambda: calls["cancels"] == 299)
        await store.put(keys[299], value(node(999)))
        await told.until(LeasePut, keys[299], node(999))
        assert calls["streams"] == 1
        assert {event.key for event in told.events} == {keys[299]}


async def test_what_is_on_its_way_when_a_key_is_unfollowed_is_not_told(store, monkeypatch):
    await store.put(KEY, value(node(1)))
    await store.put(OTHER, value(node(2)))
    finder = store.manager().lease_finder(NETWORKS)
    await follow(finder, KEY, OTHER)
    told = []
    batches = finder.watch_followed()
    told += await anext(batches)
    waiting = asyncio.ensure_future(anext(batches))
    await until(lambda: len(finder._watched) == 2)
    # Nothing is sent to etcd from here on: as if it had sent the event just before it heard that nobody wants it.
    monkeypatch.setattr(finder, "_send_changes", lambda stream: asyncio.sleep(0, finder._changed.clear()))
    finder.unfollow(KEY)
    await store.put(KEY, value(node(10)))
    await store.put(OTHER, value(node(20)))
    told += await waiting
    assert [event.key for event in told] == [KEY, OTHER, OTHER]
    await batches.aclose()


async def test_a_key_that_is_unfollowed_while_it_is_read_anew_stays_so(store, monkeypatch):
    await store.put(KEY, value(node(1)))
    await store.put(OTHER, value(node(2)))
    finder = store.manager().lease_finder(NETWORKS)
    await follow(finder, KEY, OTHER)
    call = finder._client.call

    async def call_meanwhile(method, request):
        finder.unfollow(KEY)
        return await call(method, request)

    monkeypatch.setattr(finder._client, "call", call_meanwhile)
    async with Following(finder) as told:
        await told.until(LeasePut, OTHER, node(2))
        await store.put(KEY, value(node(10)))
        await store.put(OTHER, value(node(20)))
        await told.until(LeasePut, OTHER, node(20))
    assert {event.key for event in told.events} == {OTHER}
    assert set(finder._followed) == {OTHER}


# Losing the store


async def test_all_is_told_anew_after_a_restart_of_etcd(make_etcd, make_harness):
    server = make_etcd()
    store = make_harness(server.options())
    keys = [f"10.5.{index}.0-24" for index in range(1, 151)]
    for index, key in enumerate(keys):
        await store.put(key, value(node(index)), expires=False)
    finder = store.manager().lease_finder(NETWORKS)
    async with Following(finder) as told:
        await follow(finder, *keys)
        await until(lambda: len(finder._watched) == 150)
        server.restart()
        for index, key in enumerate(keys):
            await told.until(LeasePut, key, node(index))
        await store.put(keys[0], value(node(1000)))
        await store.delete(keys[149])
        await told.until(LeasePut, keys[0], node(1000))
        await told.until(LeaseRemoved, keys[149])


async def test_what_changed_while_the_store_was_away_is_told(store, shared_etcd, make_relay, caplog):
    caplog.set_level(logging.INFO)
    relay = await make_relay(shared_etcd.port)
    await store.put(KEY, value(node(1)))
    await store.put(OTHER, value(node(2)))
    finder = store.manager(through(relay, store)).lease_finder(NETWORKS)
    async with Following(finder) as told:
        await follow(finder, KEY, OTHER)
        await until(lambda: len(finder._watched) == 2)
        await relay.cut()
        await until(lambda: "leases in use are not followed" in caplog.text)
        with pytest.raises(StoreError):
            await finder.find_lease(miss("10.5.1.1"))
        await store.put(KEY, value(node(10)))
        await store.delete(OTHER)
        finder.follow("10.5.3.0-24")
        await relay.restore()
        await told.until(LeasePut, KEY, node(10))
        await told.until(LeaseRemoved, OTHER)
        await told.until(LeaseRemoved, "10.5.3.0-24")
        assert (await finder.find_lease(miss("10.5.1.1"))).lease.attrs == node(10)
    assert caplog.text.count("leases in use are not followed") <= 2


async def test_a_store_that_is_away_at_first(store, shared_etcd, make_relay, caplog):
    relay = await make_relay(shared_etcd.port)
    await relay.cut()
    manager = store.manager(through(relay, store))
    finder = manager.lease_finder(NETWORKS)
    assert manager.trouble is None
    async with Following(finder) as told:
        finder.follow(KEY)
        await until(lambda: "leases in use are not followed" in caplog.text)
        await until(lambda: "etcd at" in manager.trouble)
        await store.put(KEY, value(node(1)))
        await relay.restore()
        await told.until(LeasePut, KEY, node(1))
        assert manager.trouble is None


async def test_history_that_was_compacted_between_finding_and_following(store, shared_etcd):
    await store.put(KEY, value(node(1)))
    await store.put(OTHER, value(node(2)))
    finder = store.manager().lease_finder(NETWORKS)
    async with Following(finder) as told:
        found = await finder.find_lease(miss("10.5.1.1"))
        await store.put(KEY, value(node(10)))
        await store.put(OTHER, value(node(20)))
        await compact(shared_etcd, store)
        finder.follow(found.key)
        await told.until(LeasePut, KEY, node(10))
        await store.delete(KEY)
        await told.until(LeaseRemoved, KEY)


async def test_a_store_that_comes_back_empty(make_etcd, make_harness):
    server = make_etcd()
    store = make_harness(server.options())
    for _ in range(8):
        await store.put(KEY, value(node(1)))
    finder = store.manager().lease_finder(NETWORKS)
    async with Following(finder) as told:
        await follow(finder, KEY)
        await until(lambda: finder._watched)
        server.forget_everything()
        await told.until(LeaseRemoved, KEY)
        await store.put(KEY, value(node(2)))
        await told.until(LeasePut, KEY, node(2))


async def test_a_lease_that_expires_is_told(store):
    await store.put(KEY, value(node(1)), ttl=1)
    finder = store.manager().lease_finder(NETWORKS)
    async with Following(finder) as told:
        await follow(finder, KEY)
        await told.until(LeaseRemoved, KEY)


async def test_a_reservation_is_found_as_one(store):
    await store.put(KEY, value(node(1)), expires=False)
    assert (await store.manager().lease_finder(NETWORKS).find_lease(miss("10.5.1.1"))).lease.reserved


async def test_many_leases_are_followed(store):
    keys = [f"10.5.{index}.0-26" for index in range(1, 251)] + [f"10.5.{index}.64-26" for index in range(1, 51)]
    for index, key in enumerate(keys):
        await store.put(key, value(node(index)), expires=False)
    async with Following(store.manager().lease_finder({NETWORK: 26})) as told:
        await follow(told.finder, *keys)
        for index, key in enumerate(keys):
            await store.put(key, value(node(1000 + index)), expires=False)
        for index, key in enumerate(keys):
            await told.until(LeasePut, key, node(1000 + index))


async def test_nothing_is_left_running_when_following_ends(store):
    await store.put(KEY, value(node(1)))
    finder = store.manager().lease_finder(NETWORKS)
    await follow(finder, KEY)
    before = asyncio.all_tasks()
    async with Following(finder):
        await until(lambda: finder._watched)
        assert asyncio.all_tasks() > before
    await until(lambda: {task for task in asyncio.all_tasks() - before if "_poll" not in str(task)} == set())
