"""What every SubnetManager does, whichever the store. A store's test module derives from these classes.

It gives a fixture `store` with: `manager()`, `await set_config(text or None)`, `await put(key, value)`,
`await delete(key)`, `name(key)` under which the store tells of what was put as `key`, and `unreadable`, keys and values
that are no leases. Where nodes choose their subnets themselves also `await put(key, value, expires=False)` and
`await records()`, a dict of key to (value, expires).
"""

import asyncio
from contextlib import aclosing

import pytest

from flanneld_py.core.allocator import overlap
from flanneld_py.core.errors import LeaseLostError, LeaseTakenError, StoreError
from flanneld_py.core.lease import LeaseAttrs, encode_attrs, parse_key
from flanneld_py.core.lease_event import LeasePut, LeaseRejected, LeaseRemoved, LeaseSnapshot
from flanneld_py.core.misses import Miss
from flanneld_py.core.network_config import parse_network_config
from flanneld_py.core.prefix import parse_address, parse_prefix, prefix_around
from flanneld_py.store.subnet_manager import LeaseRequest

CONFIG = parse_network_config('{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan"}}')
SMALL = parse_network_config(
    '{"Network":"10.5.0.0/24","SubnetLen":26,"SubnetMin":"10.5.0.0","Backend":{"Type":"vxlan"}}'
)
EXACTLY_64 = parse_network_config('{"Network":"10.5.0.0/18","SubnetLen":24,"SubnetMin":"10.5.0.0"}')
DUAL = parse_network_config('{"Network":"10.5.0.0/16","EnableIPv6":true,"IPv6Network":"fd05::/48"}')
DUAL_EXACTLY_16 = parse_network_config(
    '{"Network":"10.5.0.0/20","SubnetLen":24,"SubnetMin":"10.5.0.0",'
    '"EnableIPv6":true,"IPv6Network":"fd05::/60","IPv6SubnetLen":64,"IPv6SubnetMin":"fd05::"}'
)
IPV6_ONLY = parse_network_config('{"EnableIPv4":false,"EnableIPv6":true,"IPv6Network":"fd05::/48"}')

DATA = '{"VNI":1,"VtepMAC":"7a:e3:ab:24:37:fb"}'


def node(number, *, ipv6=None):
    """Return what the node with this number publishes."""
    return LeaseAttrs(0xAC1E0000 + number, ipv6, "vxlan", DATA)


def node_v6(number):
    return LeaseAttrs(None, (0xFD30 << 112) + number, "vxlan", None, DATA)


def value(attrs):
    return encode_attrs(attrs)


def number(text):
    return parse_address(text)[1]


def miss(text):
    return Miss(*parse_address(text))


NETWORK = parse_prefix("10.5.0.0/16")
NETWORKS = {NETWORK: 24}


UNREADABLE_KEYS = {"10.5.3.1-24": value(node(3)), "10.5.1.0-24/nested": value(node(4))}
"""What a store with keys as in etcd may hold besides."""


def pairs(*keys):
    return [parse_key(key) for key in keys]


async def read_snapshot(batches):
    """Return the next snapshot, put together from its parts."""
    leases, rejected = {}, {}
    while True:
        (part,) = await anext(batches)
        assert part.first == (not leases and not rejected)
        leases |= part.leases
        rejected |= part.rejected
        if part.last:
            return LeaseSnapshot(leases, rejected)


async def events_until(batches, count):
    """Return the next events, at least so many."""
    events = []
    while len(events) < count:
        events.extend(await anext(batches))
    return events


async def until(condition):
    """Wait for what other tasks bring about."""
    while not condition():  # noqa: ASYNC110 - it waits for what other tasks do, and they announce nothing
        await asyncio.sleep(0.01)


class WatchContract:
    """What every store tells of configuration and leases."""

    async def test_config_now_and_at_each_change(self, store):
        async with aclosing(store.manager().watch_config()) as texts:
            assert await anext(texts) is None
            await store.set_config('{"Network":"10.5.0.0/16"}')
            assert await anext(texts) == '{"Network":"10.5.0.0/16"}'
            await store.set_config("no JSON")
            assert await anext(texts) == "no JSON"
            await store.set_config(None)
            assert await anext(texts) is None

    async def test_config_that_is_there_comes_at_once(self, store):
        await store.set_config("{}")
        async with aclosing(store.manager().watch_config()) as texts:
            assert await anext(texts) == "{}"

    async def test_first_comes_a_snapshot_even_an_empty_one(self, store):
        async with aclosing(store.manager().watch_leases()) as batches:
            assert await read_snapshot(batches) == LeaseSnapshot({}, {})

    async def test_snapshot_then_changes_in_order(self, store):
        names = [store.name(f"10.5.{index}.0-24") for index in range(4)]
        await store.put("10.5.1.0-24", value(node(1)))
        await store.put("10.5.2.0-24", value(node(2)))
        async with aclosing(store.manager().watch_leases()) as batches:
            snapshot = await read_snapshot(batches)
            assert sorted(snapshot.leases) == names[1:3]
            first = snapshot.leases[names[1]]
            assert (str(first.subnet), first.ipv6_subnet, first.attrs) == ("10.5.1.0/24", None, node(1))
            assert not first.reserved
            await store.put("10.5.3.0-24", value(node(3)))
            await store.delete("10.5.1.0-24")
            await store.put("10.5.2.0-24", value(node(4)))
            first, second, third = await events_until(batches, 3)
        assert (first.key, first.lease.attrs) == (names[3], node(3))
        assert second == LeaseRemoved(names[1])
        assert (third.key, third.lease.attrs) == (names[2], node(4))

    async def test_both_families(self, store):
        key, attrs = "10.5.1.0-24&fd05:0:0:1::-64", node(1, ipv6=0xFD30 << 112)._replace(backend_v6_data=DATA)
        await store.put(key, value(attrs))
        async with aclosing(store.manager().watch_leases()) as batches:
            lease = (await read_snapshot(batches)).leases[store.name(key)]
        assert (str(lease.subnet), str(lease.ipv6_subnet)) == ("10.5.1.0/24", "fd05:0:0:1::/64")
        assert lease.attrs == attrs

    async def test_what_cannot_be_read_harms_nothing_else(self, store):
        good, bad = "10.5.1.0-24", "10.5.2.0-24"
        await store.put(good, value(node(1)))
        await store.put(bad, "{")
        for key, text in store.unreadable.items():
            await store.put(key, text)
        worst = min(store.unreadable)
        async with aclosing(store.manager().watch_leases()) as batches:
            snapshot = await read_snapshot(batches)
            assert list(snapshot.leases) == [store.name(good)]
            assert sorted(snapshot.rejected) == sorted(map(store.name, [bad, *store.unreadable]))
            await store.put(good, "poison")
            await store.put(bad, value(node(2)))
            await store.delete(worst)
            poisoned, mended, gone = await events_until(batches, 3)
        assert isinstance(poisoned, LeaseRejected)
        assert poisoned.key == store.name(good)
        assert isinstance(mended, LeasePut)
        assert mended.lease.attrs == node(2)
        assert gone == LeaseRemoved(store.name(worst))

    async def test_our_own_lease_is_told_too(self, store):
        manager = store.manager()
        async with aclosing(manager.watch_leases()) as batches:
            await anext(batches)
            held = await manager.acquire(LeaseRequest(CONFIG, node(1)))
            (event,) = await anext(batches)
        assert event == LeasePut(held.key, held.lease)

    @pytest.mark.parametrize("shared", [True, False])
    async def test_several_watch_at_once(self, store, shared):
        manager = store.manager()
        other = manager if shared else store.manager()
        async with aclosing(manager.watch_leases()) as one, aclosing(other.watch_leases()) as two:
            await anext(one)
            await anext(two)
            await store.put("10.5.1.0-24", value(node(1)))
            assert await anext(one) == await anext(two)

    async def test_each_watch_begins_with_a_snapshot(self, store):
        manager = store.manager()
        for _ in range(2):
            async with aclosing(manager.watch_leases()) as batches:
                assert await read_snapshot(batches) == LeaseSnapshot({}, {})


class FinderContract:
    """What finds single leases, whichever the store."""

    @staticmethod
    def make_finder(store, networks=NETWORKS):
        return store.manager().lease_finder(networks)

    async def test_finds_by_any_address_of_the_subnet(self, store):
        await store.put("10.5.1.0-24", value(node(1)))
        await store.put("10.5.2.0-24", value(node(2)))
        async with Following(self.make_finder(store)) as told:
            for address in ("10.5.1.0", "10.5.1.7", "10.5.1.255"):
                found = await told.finder.find_lease(miss(address))
                assert (found.key, found.lease.attrs) == (store.name("10.5.1.0-24"), node(1))
                assert not found.lease.reserved

    async def test_finds_nothing_where_nobody_leases(self, store):
        await store.put("10.5.1.0-24", value(node(1)))
        await store.put("10.5.11.0-24", value(node(2)))
        async with Following(self.make_finder(store)) as told:
            for address in ("10.5.0.1", "10.5.2.1", "10.5.10.1", "10.5.111.1", "0.0.0.0", "255.255.255.255"):
                assert await told.finder.find_lease(miss(address)) is None

    async def test_what_cannot_be_read_is_not_found(self, store):
        await store.put("10.5.1.0-24", "{")
        for key, text in store.unreadable.items():
            await store.put(key, text)
        async with Following(self.make_finder(store)) as told:
            for address in ("10.5.1.1", "10.5.3.1", "10.5.4.1"):
                assert await told.finder.find_lease(miss(address)) is None
            await store.put("10.5.1.0-24", value(node(1)))
            await told.finds("10.5.1.1", node(1))

    async def test_finds_leases_of_another_length(self, store):
        await store.put("10.5.8.0-22", value(node(1)))
        await store.put("10.5.1.128-25", value(node(2)))
        await store.put("10.5.2.0-26", value(node(3)))
        async with Following(self.make_finder(store)) as told:
            for address, key in (
                ("10.5.8.1", "10.5.8.0-22"),
                ("10.5.11.255", "10.5.8.0-22"),
                ("10.5.1.200", "10.5.1.128-25"),
                ("10.5.2.63", "10.5.2.0-26"),
            ):
                assert (await told.finder.find_lease(miss(address))).key == store.name(key)
            for address in ("10.5.12.1", "10.5.1.5", "10.5.2.64"):
                assert await told.finder.find_lease(miss(address)) is None

    async def test_tells_what_part_of_a_subnet_nobody_leases(self, store):
        for index, key in enumerate(("10.5.1.0-26", "10.5.1.192-27", "10.5.2.0-24", "10.5.8.0-25")):
            await store.put(key, value(node(index)))
        async with Following(self.make_finder(store)) as told:
            for address, gap in (
                ("10.5.1.70", "10.5.1.64/26"),
                ("10.5.1.130", "10.5.1.128/26"),
                ("10.5.1.225", "10.5.1.224/27"),
                ("10.5.3.1", "10.5.3.0/24"),
                ("10.5.8.200", "10.5.8.128/25"),
            ):
                assert await told.finder.find_lease(miss(address)) is None
                subnet = prefix_around(4, miss(address).address, 24)
                assert str(told.finder.gap_around(subnet, miss(address).address)) == gap

    async def test_finds_dual_stack_leases(self, store):
        key = "10.5.1.0-24&fd05:0:0:1::-64"
        await store.put(key, value(node(1, ipv6=0xFD30 << 112)))
        async with Following(self.make_finder(store)) as told:
            assert (await told.finder.find_lease(miss("10.5.1.9"))).key == store.name(key)

    async def test_tells_of_what_is_followed_and_of_nothing_else(self, store):
        one, two, three = (store.name(f"10.5.{index}.0-24") for index in (1, 2, 3))
        for index in (1, 2, 3):
            await store.put(f"10.5.{index}.0-24", value(node(index)))
        async with Following(self.make_finder(store)) as told:
            for index in (1, 2):
                await told.follow(f"10.5.{index}.1")
            await store.put("10.5.3.0-24", value(node(30)))
            await store.put("10.5.2.0-24", value(node(20)))
            await store.put("10.5.1.0-24", value(node(10)))
            await told.until(LeasePut, two, node(20))
            await told.until(LeasePut, one, node(10))
            await store.delete("10.5.2.0-24")
            await told.until(LeaseRemoved, two)
            await store.put("10.5.1.0-24", "poison")
            await told.until(LeaseRejected, one)
        assert three not in {event.key for event in told.events}

    async def test_tells_of_what_is_followed_before_it_is_watched(self, store):
        await store.put("10.5.1.0-24", value(node(1)))
        finder = self.make_finder(store)
        for key in ("10.5.1.0-24", "10.5.2.0-24"):
            finder.follow(store.name(key))
        async with Following(finder) as told:
            await told.until(LeasePut, store.name("10.5.1.0-24"), node(1))
            await told.until(LeaseRemoved, store.name("10.5.2.0-24"))

    async def test_tells_what_happened_between_finding_and_following(self, store):
        one, two, _ = names = [store.name(f"10.5.{index}.0-24") for index in (1, 2, 3)]
        for index in (1, 2, 3):
            await store.put(f"10.5.{index}.0-24", value(node(index)))
        async with Following(self.make_finder(store)) as told:
            found = [await told.finder.find_lease(miss(f"10.5.{index}.1")) for index in (1, 2, 3)]
            assert [event.key for event in found] == names
            await store.delete("10.5.1.0-24")
            await store.put("10.5.2.0-24", value(node(20)))
            for event in found:
                told.finder.follow(event.key)
            await told.until(LeaseRemoved, one)
            await told.until(LeasePut, two, node(20))

    async def test_tells_nothing_any_more_of_what_is_no_longer_followed(self, store):
        one, two = (store.name(f"10.5.{index}.0-24") for index in (1, 2))
        for index in (1, 2):
            await store.put(f"10.5.{index}.0-24", value(node(index)))
            await store.put(f"10.5.{index}.0-24", value(node(index)))
        async with Following(self.make_finder(store)) as told:
            for index in (1, 2):
                await told.follow(f"10.5.{index}.1")
            await store.put("10.5.1.0-24", value(node(10)))
            await told.until(LeasePut, one, node(10))
            told.finder.unfollow(one)
            await store.put("10.5.1.0-24", value(node(11)))
            await store.put("10.5.2.0-24", value(node(20)))
            await told.until(LeasePut, two, node(20))
            await told.follow("10.5.1.1")
            await store.put("10.5.1.0-24", value(node(12)))
            await told.until(LeasePut, one, node(12))
        assert node(11) not in [event.lease.attrs for event in told.events if isinstance(event, LeasePut)]

    async def test_what_is_not_followed_may_be_unfollowed(self, store):
        await store.put("10.5.1.0-24", value(node(1)))
        finder = self.make_finder(store)
        finder.unfollow("n-9")
        async with Following(finder) as told:
            finder.unfollow("n-9")
            await told.follow("10.5.1.1")
            await store.delete("10.5.1.0-24")
            await told.until(LeaseRemoved, store.name("10.5.1.0-24"))


class Watching:
    """A watch whose events are taken while the test goes on."""

    def __init__(self, watch):
        self._watch = watch

    async def __aenter__(self):
        self._task = asyncio.create_task(self._gather())
        return self

    async def __aexit__(self, *_):
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _gather(self):
        async with aclosing(self._watch()) as batches:
            async for batch in batches:
                for event in batch:
                    self.take(event)


class Following(Watching):
    """What `watch_followed` tells."""

    def __init__(self, finder):
        super().__init__(finder.watch_followed)
        self.events = []
        self.finder = finder
        self.take = self.events.append

    async def follow(self, address):
        """Follow the lease that holds an address."""
        self.finder.follow((await self.finder.find_lease(miss(address))).key)

    async def finds(self, address, attrs):
        """Wait until an address has a lease with these attributes; return it."""
        while True:
            assert not self._task.done(), self._task
            found = await self.finder.find_lease(miss(address))
            if found is not None and found.lease.attrs == attrs:
                return found
            await asyncio.sleep(0.01)

    async def until(self, kind, key, attrs=None):
        """Wait until this is the latest that was told of a key."""

        def is_told():
            assert not self._task.done(), self._task
            latest = next((event for event in reversed(self.events) if event.key == key), None)
            return isinstance(latest, kind) and (attrs is None or latest.lease.attrs == attrs)

        await until(is_told)


async def _answer(manager, held):
    """Do what a daemon does that holds this lease: renew it whenever somebody else has written its key."""
    async with aclosing(manager.watch_leases()) as batches:
        async for events in batches:
            for event in events:
                if isinstance(event, LeasePut) and event.key == held.key and event.revision > held.revision:
                    held = await manager.renew(held)


class LeaseContract:
    """What a store does whose nodes choose their subnets themselves."""

    async def test_a_reservation_is_told_as_one(self, store):
        await store.put("10.5.1.0-24", value(node(1)), expires=False)
        async with aclosing(store.manager().watch_leases()) as batches:
            assert (await read_snapshot(batches)).leases["10.5.1.0-24"].reserved
            await store.put("10.5.1.0-24", value(node(2)))
            (event,) = await anext(batches)
        assert not event.lease.reserved

    async def test_find_own(self, store):
        manager = store.manager()
        assert await manager.find_own(node(1)) is None
        await store.put("10.5.1.0-24", value(node(1)))
        await store.put("10.5.2.0-24", "poison")
        lease = await manager.find_own(node(1)._replace(backend_data=None))
        assert (str(lease.subnet), lease.attrs) == ("10.5.1.0/24", node(1))
        assert await manager.find_own(node(2)) is None

    async def test_find_own_looks_where_it_is_expected_first(self, store):
        manager = store.manager()
        for index, owner in ((1, 1), (2, 1), (3, 2)):
            await store.put(f"10.5.{index}.0-24", value(node(owner)))
        for expected, found in (("10.5.2.0-24", "10.5.2.0/24"), ("10.5.3.0-24", "10.5.1.0/24")):
            assert str((await manager.find_own(node(1), pairs(expected))).subnet) == found

    async def test_nodes_of_an_ipv6_only_network_are_told_apart(self, store):
        manager = store.manager()
        await store.put("0.0.0.0-0&fd05:0:0:1::-64", value(node_v6(1)))
        assert await manager.find_own(node_v6(2)) is None
        assert (await manager.find_own(node_v6(1))).attrs == node_v6(1)

    async def test_a_first_lease_fits_the_configuration(self, store):
        held = await store.manager().acquire(LeaseRequest(CONFIG, node(1)))
        assert CONFIG.ipv4.fits(held.lease.subnet)
        assert held.lease.ipv6_subnet is None
        assert held.ttl == 86_400
        assert await store.records() == {held.key: (value(node(1)), True)}

    async def test_the_earlier_lease_is_taken_again_and_republished(self, store):
        first = await store.manager().acquire(LeaseRequest(CONFIG, node(1)))
        changed = node(1)._replace(backend_data='{"VNI":1,"VtepMAC":"7a:e3:ab:24:37:00"}')
        again = await store.manager().acquire(LeaseRequest(CONFIG, changed, pairs("10.5.77.0-24")))
        assert again.key == first.key
        assert await store.records() == {first.key: (value(changed), True)}

    async def test_an_earlier_lease_outside_the_configuration_is_deleted(self, store):
        await store.put("10.6.1.0-24", value(node(1)))
        await store.put("10.5.1.0-25", value(node(2)))
        held = await store.manager().acquire(LeaseRequest(CONFIG, node(1)))
        other = await store.manager().acquire(LeaseRequest(CONFIG, node(2)))
        assert sorted(await store.records()) == sorted({held.key, other.key})

    async def test_what_pods_use_is_kept_when_ipv6_is_switched_on(self, store):
        await store.put("10.5.9.0-24", value(node(1)))
        held = await store.manager().acquire(LeaseRequest(DUAL, node(1, ipv6=0xFD30 << 112)))
        assert str(held.lease.subnet) == "10.5.9.0/24"
        assert DUAL.ipv6.fits(held.lease.ipv6_subnet)
        assert list(await store.records()) == [held.key]

    async def test_of_two_leases_of_ours_the_preferred_is_taken(self, store):
        await store.put("10.5.1.0-24", value(node(1)))
        await store.put("10.5.2.0-24", value(node(1)))
        held = await store.manager().acquire(LeaseRequest(CONFIG, node(1), pairs("10.5.2.0-24")))
        assert held.key == "10.5.2.0-24"
        held = await store.manager().acquire(LeaseRequest(CONFIG, node(1)))
        assert held.key == "10.5.1.0-24"
        assert sorted(await store.records()) == ["10.5.1.0-24", "10.5.2.0-24"]

    @pytest.mark.parametrize(
        ("there", "is_kept"),
        [
            ({}, True),
            ({"10.5.9.0-24": value(node(2))}, False),
            ({"10.5.9.0-24": "poison"}, False),
            ({"10.5.8.0-23": value(node(2))}, False),
            ({"10.5.9.64-26": value(node(2))}, False),
            ({"10.5.10.0-24": value(node(2)), "10.5.9.7-24": "host bits", "x/10.5.9.0-24": ""}, True),
        ],
    )
    async def test_a_preferred_subnet_is_taken_if_it_is_free(self, store, there, is_kept):
        for key, text in there.items():
            await store.put(key, text)
        held = await store.manager().acquire(LeaseRequest(CONFIG, node(1), pairs("10.5.9.0-24")))
        assert (held.key == "10.5.9.0-24") == is_kept
        assert not (await store.records()).keys() - there.keys() - {held.key}

    async def test_a_preferred_subnet_that_does_not_fit_is_not_taken(self, store):
        wanted = pairs("10.6.1.0-24", "10.5.0.0-24", "10.5.1.0-25", "10.5.3.0-24")
        held = await store.manager().acquire(LeaseRequest(CONFIG, node(1), wanted))
        assert held.key == "10.5.3.0-24"

    async def test_a_reservation_is_ours_and_stays_one(self, store):
        manager = store.manager()
        await store.put("10.5.4.0-24", '{"PublicIP":"172.30.0.1"}', expires=False)
        held = await manager.acquire(LeaseRequest(CONFIG, node(1), pairs("10.5.5.0-24")))
        assert (held.key, held.ttl, held.lease.reserved) == ("10.5.4.0-24", None, True)
        again = await manager.renew(held)
        assert (again.ttl, again.lease.reserved) == (None, True)
        assert await store.records() == {"10.5.4.0-24": (value(node(1)), False)}

    async def test_a_reservation_that_does_not_fit_is_the_operators_to_delete(self, store):
        await store.put("10.6.4.0-24", '{"PublicIP":"172.30.0.1"}', expires=False)
        held = await store.manager().acquire(LeaseRequest(CONFIG, node(1)))
        assert CONFIG.ipv4.fits(held.lease.subnet)
        assert "10.6.4.0-24" in await store.records()

    async def test_exhausted_says_so_and_the_next_that_frees_is_taken(self, store):
        keys = [f"10.5.0.{base}-26" for base in (0, 64, 128, 192)]
        for number, key in enumerate(keys):
            await store.put(key, value(node(10 + number)))
        manager = store.manager()
        with pytest.raises(StoreError, match=r"no subnet is free.* 4 leases"):
            await manager.acquire(LeaseRequest(SMALL, node(1)))
        await store.delete(keys[2])
        assert (await manager.acquire(LeaseRequest(SMALL, node(1)))).key == keys[2]

    async def test_renewing_changes_nothing_that_is_right(self, store):
        manager = store.manager()
        held = await manager.acquire(LeaseRequest(CONFIG, node(1)))
        assert await manager.renew(held) == held

    async def test_renewing_says_that_the_lease_is_gone(self, store):
        manager = store.manager()
        held = await manager.acquire(LeaseRequest(CONFIG, node(1)))
        await store.delete(held.key)
        with pytest.raises(LeaseLostError, match="gone"):
            await manager.renew(held)
        assert await store.records() == {}

    async def test_renewing_never_overwrites_another_node(self, store):
        manager = store.manager()
        held = await manager.acquire(LeaseRequest(CONFIG, node(1)))
        await store.put(held.key, value(node(2)))
        with pytest.raises(LeaseLostError, match="held by"):
            await manager.renew(held)
        assert await store.records() == {held.key: (value(node(2)), True)}

    async def test_renewing_mends_what_was_scribbled_over(self, store):
        manager = store.manager()
        held = await manager.acquire(LeaseRequest(CONFIG, node(1)))
        await store.put(held.key, "poison")
        renewed = await manager.renew(held)
        assert renewed.lease == held.lease
        assert (await store.records())[held.key] == (value(node(1)), True)

    async def test_a_lease_that_is_gone_is_restored_with_the_same_subnet(self, store):
        manager = store.manager()
        held = await manager.acquire(LeaseRequest(CONFIG, node(1)))
        await store.delete(held.key)
        again = await manager.restore(held, node(1))
        assert (again.key, again.lease, again.ttl) == (held.key, held.lease, held.ttl)
        assert await store.records() == {held.key: (value(node(1)), True)}
        assert await manager.restore(again, node(1)) == again

    @pytest.mark.parametrize("rival", ["10.5.9.0-24", "10.5.8.0-23", "10.5.9.64-26", "10.5.9.0-24&fd05::-64"])
    async def test_a_lease_is_not_restored_over_another_node(self, store, rival):
        manager = store.manager()
        held = await manager.acquire(LeaseRequest(CONFIG, node(1), pairs("10.5.9.0-24")))
        await store.delete(held.key)
        await store.put(rival, value(node(2)))
        with pytest.raises(LeaseTakenError, match=r"lease 10\.5\.9\.0-24 is held by"):
            await manager.restore(held, node(1))
        assert await store.records() == {rival: (value(node(2)), True)}

    async def test_a_holder_that_lives_keeps_its_lease_from_a_second_node_with_its_address(self, store):
        manager = store.manager()
        held = await manager.acquire(LeaseRequest(CONFIG, node(1)))
        answers = asyncio.create_task(_answer(manager, held))
        try:
            for _ in range(2):
                with pytest.raises(StoreError, match=f"another node that runs has our public address .* {held.key}"):
                    await store.manager().acquire(LeaseRequest(CONFIG, node(1)))
        finally:
            answers.cancel()
            await asyncio.gather(answers, return_exceptions=True)
        assert await store.records() == {held.key: (value(node(1)), True)}
        # This host has used the subnet, so it is the holder, started anew.
        again = await store.manager().acquire(LeaseRequest(CONFIG, node(1), [held.lease[:2]]))
        assert again.key == held.key

    async def test_renewing_publishes_a_changed_address_and_keeps_the_subnet(self, store):
        manager = store.manager()
        held = await manager.acquire(LeaseRequest(CONFIG, node(1)))
        moved = await manager.renew(held, node(2))
        assert (moved.key, moved.lease.attrs) == (held.key, node(2))
        assert await store.records() == {held.key: (value(node(2)), True)}
        assert (await manager.renew(held, node(2))).key == held.key

    @pytest.mark.parametrize(
        ("config", "count", "make"),
        [
            (EXACTLY_64, 64, node),
            (DUAL_EXACTLY_16, 16, lambda number: node(number, ipv6=(0xFD30 << 112) + number)),
            (IPV6_ONLY, 16, node_v6),
        ],
        ids=["64 nodes, 64 subnets", "dual-stack, 16 of each", "IPv6 only"],
    )
    async def test_a_race_is_lost_by_nobody(self, store, config, count, make):
        requests = [LeaseRequest(config, make(number + 1)) for number in range(count)]
        everyone = await asyncio.gather(*(store.manager().acquire(request) for request in requests))
        held = {lease.key: value(lease.lease.attrs) for lease in everyone}
        assert len(held) == count
        taken = [(one.lease.subnet, one.lease.ipv6_subnet) for one in everyone]
        assert not any(overlap(a, b) for place, a in enumerate(taken) for b in taken[:place])
        assert {key: text for key, (text, _) in (await store.records()).items()} == held

    async def test_two_nodes_of_an_ipv6_only_network_get_two_leases(self, store):
        one = await store.manager().acquire(LeaseRequest(IPV6_ONLY, node_v6(1)))
        two = await store.manager().acquire(LeaseRequest(IPV6_ONLY, node_v6(2)))
        assert one.lease.ipv6_subnet != two.lease.ipv6_subnet
        assert one.key.startswith("0.0.0.0-0&fd05:")
        assert (await store.manager().acquire(LeaseRequest(IPV6_ONLY, node_v6(1)))).key == one.key
