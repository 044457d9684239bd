"""Leases found in a watch of all of them: the contract on a real etcd, and what a store does that is lost."""

import asyncio

import pytest

from flanneld_py.core.errors import StoreError
from flanneld_py.core.lease_event import LeasePut, LeaseRejected, LeaseRemoved
from flanneld_py.core.prefix import parse_prefix, prefix_around
from flanneld_py.store.etcd_lease_finder import EtcdLeaseFinder
from flanneld_py.store.watched_lease_finder import WatchedLeaseFinder
from tests.store.contract import DATA, NETWORK, NETWORKS, FinderContract, Following, miss, node, until, value
from tests.store.test_memory_store import MemoryHarness

DUAL = NETWORKS | {parse_prefix("fd05::/48"): 64}
KEY, OTHER = "10.5.1.0-24&fd05:0:0:1::-64", "10.5.2.0-24&fd05:0:0:2::-64"


@pytest.mark.etcd
class TestOnEtcd(FinderContract):
    @staticmethod
    def make_finder(store, networks=NETWORKS):
        return WatchedLeaseFinder(store.manager(), networks)

    async def test_reads_of_single_keys_are_for_ipv4_alone(self, store):
        ipv6_only = {network: length for network, length in DUAL.items() if network != NETWORK}
        kinds = [type(store.manager().lease_finder(networks)) for networks in (NETWORKS, DUAL, ipv6_only)]
        assert kinds == [EtcdLeaseFinder, WatchedLeaseFinder, WatchedLeaseFinder]


@pytest.fixture
def memory():
    return MemoryHarness()


@pytest.fixture
async def told(memory):
    async with Following(WatchedLeaseFinder(memory.manager(), DUAL)) as following:
        yield following


def dual(number):
    return node(number, ipv6=(0xFD30 << 112) + number)._replace(backend_v6_data=DATA)


async def glance(finder, *addresses):
    seen = {}
    finder.glance([miss(address) for address in addresses], seen.__setitem__)
    return [seen[miss(address)] for address in addresses]


async def test_finds_by_an_address_of_either_family(memory, told):
    ipv6_only = node(3, ipv6=5)._replace(public_ip=None, backend_data=None, backend_v6_data=DATA)
    await memory.put(KEY, value(dual(1)))
    await memory.put("0.0.0.0-0&fd05:0:0:3::-64", value(ipv6_only))
    await memory.put("10.5.4.0-24", value(node(4)))
    await told.finds("10.5.4.1", node(4))
    for address, attrs in (("10.5.1.1", dual(1)), ("fd05:0:0:1::9", dual(1)), ("fd05:0:0:3::1", ipv6_only)):
        found = await told.finder.find_lease(miss(address))
        assert found.lease.attrs == attrs
        assert await glance(told.finder, address) == [found]
    for address in ("fd05:0:0:4::1", "fd05::1", "10.5.3.1", "0.0.0.1", "::1"):
        assert await told.finder.find_lease(miss(address)) is None
        assert await glance(told.finder, address) == [None]


async def test_tells_what_part_of_an_ipv6_subnet_nobody_leases(memory, told):
    await memory.put("10.5.1.0-24&fd05:0:0:1::-66", value(dual(1)))
    await told.finds("10.5.1.1", dual(1))
    beside = miss("fd05:0:0:1:8000::1")
    assert await told.finder.find_lease(beside) is None
    assert str(told.finder.gap_around(prefix_around(6, beside.address, 64), beside.address)) == "fd05:0:0:1:8000::/65"


async def test_of_several_leases_that_goes_before_the_others_which_does_so_everywhere(memory, told):
    for key, number in (("10.5.0.0-22", 1), ("10.5.1.0-24", 2), (KEY, 3), ("10.5.1.0-25", 4)):
        await memory.put(key, value(dual(number)))
    await told.finds("fd05:0:0:1::1", dual(3))
    assert (await told.finder.find_lease(miss("10.5.1.1"))).key == "10.5.1.0-24"
    assert (await told.finder.find_lease(miss("10.5.2.1"))).key == "10.5.0.0-22"
    await memory.delete("10.5.1.0-24")
    await told.finds("10.5.1.1", dual(3))
    await memory.delete(KEY)
    await told.finds("10.5.1.1", dual(4))


async def test_what_is_asked_before_all_is_known_waits(memory):
    await memory.put(KEY, value(dual(1)))
    finder = WatchedLeaseFinder(memory.manager(), DUAL)
    assert await glance(finder, "fd05:0:0:1::1") == [None]
    waiting = [asyncio.ensure_future(finder.find_lease(miss(address))) for address in ("fd05:0:0:1::1", "10.5.9.1")]
    await asyncio.sleep(0)
    assert not any(one.done() for one in waiting)
    async with Following(finder):
        found, nothing = await asyncio.gather(*waiting)
    assert (found.key, nothing) == (KEY, None)


async def test_what_is_known_is_found_while_the_store_is_away_and_nothing_is_said_to_be_nobodys(memory, told):
    await memory.put(KEY, value(dual(1)))
    await told.finds("10.5.1.1", dual(1))
    await told.follow("10.5.1.1")
    memory.memory.away = "connection refused"
    await memory.put(KEY, value(dual(10)))
    await memory.put(OTHER, value(dual(2)))
    assert (await told.finder.find_lease(miss("fd05:0:0:1::1"))).lease.attrs == dual(1)
    with pytest.raises(StoreError, match="connection refused"):
        await told.finder.find_lease(miss("fd05:0:0:2::1"))
    memory.memory.away = None
    await told.until(LeasePut, KEY, dual(10))
    await told.finds("fd05:0:0:2::1", dual(2))
    assert OTHER not in {event.key for event in told.events}


async def test_a_new_snapshot_tells_what_is_followed_and_lacks_what_is_gone(memory, told):
    for key, number in ((KEY, 1), (OTHER, 2), ("10.5.3.0-24", 3), ("10.5.4.0-24", 4)):
        await memory.put(key, value(dual(number)))
    await told.finds("10.5.4.1", dual(4))
    for address in ("10.5.1.1", "10.5.2.1", "10.5.3.1"):
        await told.follow(address)
    told.finder.unfollow("10.5.3.0-24")
    memory.memory.away = "compacted"
    for key in (KEY, "10.5.3.0-24", "10.5.4.0-24"):
        await memory.delete(key)
    await memory.put(OTHER, "{")
    memory.memory.away = None
    await told.until(LeaseRemoved, KEY)
    await told.until(LeaseRejected, OTHER)
    assert await told.finder.find_lease(miss("10.5.4.1")) is None
    assert len(told.finder._index) == 1
    # What cannot be read any more goes on as what it was.
    assert (await told.finder.find_lease(miss("10.5.2.1"))).lease.attrs == dual(2)
    assert "10.5.3.0-24" not in {event.key for event in told.events}


async def test_nothing_is_left_running_when_following_ends(memory):
    before = asyncio.all_tasks()
    async with Following(WatchedLeaseFinder(memory.manager(), DUAL)) as told:
        await told.finder.find_lease(miss("10.5.1.1"))
        assert asyncio.all_tasks() > before
    await until(lambda: asyncio.all_tasks() == before)
    assert memory.memory._watches == []
