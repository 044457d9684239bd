"""A watch on a real etcd, through everything that can happen to it."""

import asyncio
import logging
import random
import subprocess
from contextlib import aclosing

import pytest

from flanneld_py.core.lease_event import LeasePut, LeaseSnapshot
from flanneld_py.store import etcd_client, etcd_watch
from flanneld_py.store import etcd_pb2 as pb
from flanneld_py.store.etcd_api import RANGE, TXN
from flanneld_py.store.etcd_options import parse_endpoints
from tests.store.contract import CONFIG, LeaseRequest, events_until, node, read_snapshot, until, value
from tests.store.etcd_server import find_program, free_ports

pytestmark = pytest.mark.etcd


@pytest.fixture(autouse=True)
def _impatient(monkeypatch):
    """Faults are noticed and retried at a test's pace."""
    monkeypatch.setattr(etcd_watch, "LONGEST_DELAY", 0.1)
    monkeypatch.setattr(etcd_client, "CALL_TIMEOUT", 2.0)


async def compact(server, store):
    """Forget all history but the present."""
    revision = (await store.client.call(RANGE, pb.RangeRequest(key=b"a"))).header.revision
    server.ctl("compact", "--physical", str(revision))


def through(relay, store):
    """Return the options of a node that sees etcd through the relay."""
    return store.options.__class__(parse_endpoints(f"http://127.0.0.1:{relay.port}"), prefix=store.options.prefix)


@pytest.fixture
def grpc_proxy(shared_etcd, tmp_path):
    """etcd's own proxy before the shared etcd, as its address."""
    (port,) = free_ports(1)
    command = [find_program("etcd"), "grpc-proxy", "start", f"--endpoints=127.0.0.1:{shared_etcd.port}"]
    with (tmp_path / "proxy.log").open("wb") as log:
        proxy = subprocess.Popen([*command, f"--listen-addr=127.0.0.1:{port}"], stdout=log, stderr=log)
    yield f"http://127.0.0.1:{port}"
    proxy.kill()
    proxy.wait()


async def test_watches_through_a_proxy_that_gathers_them(store, grpc_proxy, caplog):
    options = store.options.__class__(parse_endpoints(grpc_proxy), prefix=store.options.prefix)
    one, two = store.manager(options), store.manager(options)
    async with aclosing(one.watch_leases()) as first, aclosing(two.watch_leases()) as second:
        for batches in (first, second):
            assert await read_snapshot(batches) == LeaseSnapshot({}, {})
        for index in range(1, 4):
            await store.put(f"10.5.{index}.0-24", value(node(index)))
        for batches in (first, second):
            assert [event.key for event in await events_until(batches, 3)] == [f"10.5.{n}.0-24" for n in (1, 2, 3)]
    assert "begins anew" not in caplog.text


async def test_resumes_where_it_was(store, shared_etcd, make_relay):
    relay = await make_relay(shared_etcd.port)
    manager = store.manager(through(relay, store))
    await store.put("10.5.1.0-24", value(node(1)))
    async with aclosing(manager.watch_leases()) as batches:
        await anext(batches)
        await relay.cut()
        await store.put("10.5.2.0-24", value(node(2)))
        waiting = asyncio.ensure_future(anext(batches))
        await until(lambda: "connection refused" in (manager.trouble or ""))
        await relay.restore()
        (event,) = await waiting
        assert event.key == "10.5.2.0-24"
        assert manager.trouble is None


async def test_says_once_what_is_wrong_and_once_that_it_is_over(store, shared_etcd, make_relay, caplog):
    caplog.set_level(logging.INFO)
    relay = await make_relay(shared_etcd.port)
    manager = store.manager(through(relay, store))
    async with aclosing(manager.watch_leases()) as batches:
        await anext(batches)
        await relay.cut()
        waiting = asyncio.ensure_future(anext(batches))
        await until(lambda: manager._watches[0]._failures > 3)
        await relay.restore()
        await store.put("10.5.2.0-24", value(node(2)))
        await waiting
    texts = [record.getMessage() for record in caplog.records if record.name.startswith("flanneld_py")]
    assert len([text for text in texts if "connection refused" in text]) == 1
    assert texts[-1].startswith("store answers again")


async def test_history_that_was_compacted_meanwhile_is_listed_anew(store, shared_etcd, make_relay):
    relay = await make_relay(shared_etcd.port)
    manager = store.manager(through(relay, store))
    await store.put("10.5.1.0-24", value(node(1)))
    async with aclosing(manager.watch_leases()) as batches:
        await anext(batches)
        await relay.cut()
        await store.delete("10.5.1.0-24")
        await store.put("10.5.2.0-24", value(node(2)))
        await compact(shared_etcd, store)
        await relay.restore()
        snapshot = await read_snapshot(batches)
        assert list(snapshot.leases) == ["10.5.2.0-24"]
        await store.put("10.5.3.0-24", value(node(3)))
        assert (await anext(batches))[0].key == "10.5.3.0-24"


async def test_notices_of_progress_spare_a_quiet_watch_the_new_list(make_etcd, make_harness, make_relay):
    server = make_etcd(extra=["--experimental-watch-progress-notify-interval=50ms"])
    store = make_harness(server.options())
    relay = await make_relay(server.port)
    manager = store.manager(through(relay, store))
    async with aclosing(manager.watch_leases()) as batches:
        await anext(batches)
        waiting = asyncio.ensure_future(anext(batches))
        for _ in range(10):
            await store.set_config("{}")
        newest = (await store.client.call(RANGE, pb.RangeRequest(key=b"a"))).header.revision
        await until(lambda: manager._watches[0]._position.revision == newest)
        await compact(server, store)
        await relay.cut()
        await relay.restore()
        await store.put("10.5.1.0-24", value(node(1)))
        assert isinstance((await waiting)[0], LeasePut)


async def test_a_store_that_comes_back_empty_is_listed_anew(make_etcd, make_harness, caplog):
    server = make_etcd()
    store = make_harness(server.options())
    manager = store.manager()
    for number in range(1, 9):
        await store.put(f"10.5.{number}.0-24", value(node(number)))
    async with aclosing(manager.watch_leases()) as batches:
        await anext(batches)
        server.forget_everything()
        assert await read_snapshot(batches) == LeaseSnapshot({}, {})
        await store.put("10.5.1.0-24", value(node(1)))
        assert (await anext(batches))[0].key == "10.5.1.0-24"
    assert "etcd was restored" in caplog.text


async def test_a_store_restored_from_a_backup_is_listed_anew(make_etcd, make_harness, tmp_path):
    server = make_etcd()
    store = make_harness(server.options())
    manager = store.manager()
    await store.put("10.5.1.0-24", value(node(1)))
    server.ctl("snapshot", "save", str(tmp_path / "backup"))
    await store.put("10.5.2.0-24", value(node(2)))
    async with aclosing(manager.watch_leases()) as batches:
        snapshot = await read_snapshot(batches)
        assert len(snapshot.leases) == 2
        server.restore(tmp_path / "backup")
        snapshot = await read_snapshot(batches)
        assert list(snapshot.leases) == ["10.5.1.0-24"]


async def test_a_restarted_store_goes_on_without_a_new_list(make_etcd, make_harness):
    server = make_etcd()
    store = make_harness(server.options())
    async with aclosing(store.manager().watch_leases()) as batches:
        await anext(batches)
        server.restart()
        await store.put("10.5.1.0-24", value(node(1)))
        assert isinstance((await anext(batches))[0], LeasePut)


async def test_a_dead_stream_is_noticed_and_another_endpoint_taken(store, shared_etcd, make_relay, monkeypatch):
    monkeypatch.setattr(etcd_watch, "LONGEST_SILENCE", 0.05)
    monkeypatch.setattr(etcd_watch, "LONGEST_ANSWER", 0.1)
    relay = await make_relay(shared_etcd.port)
    both = parse_endpoints(f"http://127.0.0.1:{relay.port},{shared_etcd.url}")
    options = store.options.__class__(both, prefix=store.options.prefix)
    manager = store.manager(options, seed=_seed_that_begins_with(0, both))
    async with aclosing(manager.watch_leases()) as batches:
        await anext(batches)
        waiting = asyncio.ensure_future(anext(batches))
        await until(lambda: manager._watches[0]._position is not None)
        relay.freeze()
        await store.put("10.5.1.0-24", value(node(1)))
        assert (await waiting)[0].key == "10.5.1.0-24"


def _seed_that_begins_with(index, endpoints):
    return next(seed for seed in range(100) if random.Random(seed).randrange(len(endpoints)) == index)  # noqa: S311


async def test_a_member_that_dies_is_replaced_by_another(etcd_cluster, make_harness):
    endpoints = parse_endpoints(",".join(member.url for member in etcd_cluster))
    store = make_harness(etcd_cluster[0].options(endpoints=endpoints))
    manager = store.manager()
    held = await manager.acquire(LeaseRequest(CONFIG, node(1)))
    async with aclosing(manager.watch_leases()) as batches:
        await anext(batches)
        for number, member in enumerate(etcd_cluster, 2):
            member.stop()
            await _until_it_works(store.put, f"10.6.{number}.0-24", value(node(number)))
            events = await events_until(batches, 1)
            assert isinstance(events[0], LeasePut)
            assert (await _until_it_works(manager.renew, held)).key == held.key
            member.launch()
            member.wait_until_healthy()


async def _until_it_works(work, *args):
    """Do what a caller does: try again while a new leader is elected."""
    while True:
        try:
            return await work(*args)
        except etcd_watch.StoreError:
            await asyncio.sleep(0.05)


async def test_ending_a_watch_ends_its_stream(store):
    manager = store.manager()
    task = asyncio.ensure_future(_drain(manager.watch_leases()))
    await until(lambda: manager._watches and manager._watches[0]._position is not None)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def _drain(batches):
    async with aclosing(batches):
        async for _ in batches:
            pass


async def test_more_than_a_page_and_more_than_a_message(store, shared_etcd, make_relay):
    relay = await make_relay(shared_etcd.port)
    manager = store.manager(through(relay, store))
    count = 2 * etcd_client.PAGE_SIZE + 1
    for start in range(0, count, 100):
        puts = [
            pb.PutRequest(
                key=store.key(f"10.{5 + (number >> 8)}.{number & 255}.0-24"), value=value(node(number)).encode()
            )
            for number in range(start, min(start + 100, count))
        ]
        request = pb.TxnRequest(success=[pb.RequestOp(request_put=put) for put in puts])
        await store.client.call(TXN, request)
    async with aclosing(manager.watch_leases()) as batches:
        snapshot = await read_snapshot(batches)
        assert len(snapshot.leases) == count
        await relay.cut()
        big = node(1)._replace(backend_data='"' + "x" * 500_000 + '"')
        for number in range(20):
            await store.put(f"10.99.{number}.0-24", value(big), expires=False)
        await relay.restore()
        events = await events_until(batches, 20)
    assert [event.key for event in events] == [f"10.99.{number}.0-24" for number in range(20)]
