"""All Nodes of a real kube-apiserver, followed across its failures."""

import asyncio
from contextlib import aclosing

import pytest

from flanneld_py.core.lease_event import LeasePut, LeaseRemoved, LeaseSnapshot
from flanneld_py.store import kube_watch
from tests.store.contract import Watching, node, read_snapshot, value
from tests.store.kube_harness import annotations_of
from tests.waiting import until

pytestmark = pytest.mark.kubernetes

KEY = "10.5.1.0-24"


@pytest.fixture
def impatient(monkeypatch):
    """Have a watch come back soon."""
    monkeypatch.setattr("flanneld_py.store.trouble.LONGEST_DELAY", 0.05)


async def next_event(batches):
    (event,) = await anext(batches)
    return event


async def test_a_long_list_comes_in_pages(kube, monkeypatch):
    monkeypatch.setattr(kube_watch, "PAGE_SIZE", 3)
    for index in range(1, 9):
        await kube.put(f"10.5.{index}.0-24", value(node(index)))
    parts = []
    async with aclosing(kube.manager().watch_leases()) as batches:
        while not parts or not parts[-1].last:
            parts.extend(await anext(batches))
    assert [part.first for part in parts] == [True, False, False]
    assert sum(len(part.leases) for part in parts) == 8


async def test_nodes_change_often_and_their_leases_seldom(kube):
    await kube.put(KEY, value(node(1)))
    name = kube.name(KEY)
    async with aclosing(kube.manager().watch_leases()) as batches:
        await read_snapshot(batches)
        for number in range(3):
            kube.server.patch(name, {"metadata": {"labels": {"number": str(number)}}})
        kube.server.patch(name, {"status": {"conditions": [{"type": "Ready", "status": "True"}]}}, "/status")
        kube.server.annotate(name, backend_data='{"VNI":1,"VtepMAC":"7a:e3:ab:24:37:00"}')
        assert (await next_event(batches)).lease.attrs.backend_data.endswith('00"}')


async def test_a_node_that_gets_its_pod_cidr_after_its_annotations(kube):
    kube.server.add_node("late", annotations=annotations_of(value(node(1))))
    async with aclosing(kube.manager().watch_leases()) as batches:
        assert (await read_snapshot(batches)).leases == {}
        kube.server.patch("late", {"spec": {"podCIDR": "10.5.7.0/24", "podCIDRs": ["10.5.7.0/24"]}})
        event = await next_event(batches)
    assert (event.key, str(event.lease.subnet)) == ("late", "10.5.7.0/24")


async def test_a_node_that_is_made_anew_with_another_pod_cidr(kube):
    kube.server.add_node("moved", "10.5.1.0/24", annotations=annotations_of(value(node(1))))
    async with aclosing(kube.manager().watch_leases()) as batches:
        await read_snapshot(batches)
        kube.server.delete_node("moved")
        kube.server.add_node("moved", "10.5.2.0/24", annotations=annotations_of(value(node(1))))
        assert await next_event(batches) == LeaseRemoved("moved")
        assert str((await next_event(batches)).lease.subnet) == "10.5.2.0/24"


async def test_a_node_that_flannel_no_longer_manages(kube):
    await kube.put(KEY, value(node(1)))
    async with aclosing(kube.manager().watch_leases()) as batches:
        await read_snapshot(batches)
        kube.server.annotate(kube.name(KEY), kube_subnet_manager=None)
        assert await next_event(batches) == LeaseRemoved(kube.name(KEY))


async def test_what_happened_while_the_server_was_away_is_told(kube, make_relay, impatient):
    relay = await make_relay(kube.server.api.port)
    manager = kube.manager(api_url=f"https://127.0.0.1:{relay.port}")
    await kube.put(KEY, value(node(1)))
    async with aclosing(manager.watch_leases()) as batches:
        await read_snapshot(batches)
        await relay.cut()
        await kube.put("10.5.2.0-24", value(node(2)))
        await kube.delete(KEY)
        waiting = asyncio.ensure_future(next_event(batches))
        while manager.trouble is None:  # noqa: ASYNC110 - nobody announces it
            await asyncio.sleep(0.01)
        assert "connection refused" in manager.trouble
        await relay.restore()
        first = await waiting
        assert isinstance(first, LeasePut)  # resumed, with nothing told twice
        assert first.lease.attrs == node(2)
        assert await next_event(batches) == LeaseRemoved(kube.name(KEY))
        assert manager.trouble is None


async def test_a_slow_proxy_before_the_server(kube, make_relay):
    """Everything comes in pieces: TLS records, headers, lines of the watch."""
    relay = await make_relay(kube.server.api.port, piece=700, pause=0.005)
    await kube.put(KEY, value(node(1)))
    async with aclosing(kube.manager(api_url=f"https://127.0.0.1:{relay.port}").watch_leases()) as batches:
        assert list((await read_snapshot(batches)).leases) == [kube.name(KEY)]
        await kube.put(KEY, value(node(2)))
        assert (await next_event(batches)).lease.attrs == node(2)
        await kube.delete(KEY)
        assert await next_event(batches) == LeaseRemoved(kube.name(KEY))


async def test_a_silent_watch_is_opened_anew(kube, make_relay, impatient, monkeypatch):
    monkeypatch.setattr(kube_watch, "LONGEST_SILENCE", 0.3)
    monkeypatch.setattr("flanneld_py.store.kube_client.CALL_TIMEOUT", 1.0)
    relay = await make_relay(kube.server.api.port)
    manager = kube.manager(api_url=f"https://127.0.0.1:{relay.port}")
    async with aclosing(manager.watch_leases()) as batches:
        await read_snapshot(batches)
        waiting = asyncio.ensure_future(next_event(batches))
        await asyncio.sleep(0)
        relay.freeze()
        await kube.put(KEY, value(node(1)))
        while manager.trouble is None:  # noqa: ASYNC110 - nobody announces it
            await asyncio.sleep(0.01)
        await relay.restore()
        assert (await waiting).lease.attrs == node(1)


async def test_history_that_is_gone_is_listed_anew(kube, make_relay, impatient):
    """The etcd behind it is compacted while we are away, and the server has started anew without its cache."""
    server = kube.server
    relay = await make_relay(server.api.port)
    manager = kube.manager(api_url=f"https://127.0.0.1:{relay.port}")
    await kube.put(KEY, value(node(1)))
    async with aclosing(manager.watch_leases()) as batches:
        await read_snapshot(batches)
        await relay.cut()
        server.stop()
        server.launch()
        await kube.delete(KEY)
        await kube.put("10.5.2.0-24", value(node(2)))
        revision = server.nodes()[kube.name("10.5.2.0-24")]["metadata"]["resourceVersion"]
        server.etcd.ctl("compact", revision)
        server.stop()
        server.launch()
        await relay.restore()
        snapshot = await read_snapshot(batches)
    assert list(snapshot.leases) == [kube.name("10.5.2.0-24")]


async def test_a_restored_server_is_listed_anew(kube, make_relay, impatient, tmp_path):
    """A watch from a version that has not come yet would be silent until it comes."""
    server = kube.server
    relay = await make_relay(server.api.port)
    manager = kube.manager(api_url=f"https://127.0.0.1:{relay.port}")
    server.etcd.ctl("snapshot", "save", str(tmp_path / "backup"))
    # The server itself writes some dozens of times when it starts.
    await asyncio.to_thread(server.spend_versions, 500)
    await kube.put(KEY, value(node(1)))
    async with aclosing(manager.watch_leases()) as batches:
        assert list((await read_snapshot(batches)).leases) == [kube.name(KEY)]
        await kube.put(KEY, value(node(2)))
        assert (await next_event(batches)).lease.attrs == node(2)
        await relay.cut()
        server.stop()
        server.etcd.restore(tmp_path / "backup")
        server.launch()
        await relay.restore()
        assert (await read_snapshot(batches)).leases == {}


async def test_thousands_of_nodes_at_once(kube):
    """Go flannel's queue holds 5,000 events, and it stops for ever where more come at once."""
    count, gone = 5001, 500
    async with Known(kube.manager()) as known, Known(kube.manager()) as other:
        await asyncio.to_thread(kube.server.write_fakes, count)
        for one in (known, other):
            await until(lambda one=one: len(one.keys) == count)
        await asyncio.to_thread(kube.server.delete_fakes, gone)
        for one in (known, other):
            await until(lambda one=one: len(one.keys) == count - gone)


class Known(Watching):
    """The keys that one watch knows, whether they were told one by one or anew."""

    def __init__(self, manager):
        super().__init__(manager.watch_leases)
        self.keys = set()

    def take(self, event):
        if isinstance(event, LeaseSnapshot):
            self.keys = event.leases.keys() | (set() if event.first else self.keys)
        elif isinstance(event, LeasePut):
            self.keys.add(event.key)
        else:
            self.keys.discard(event.key)
