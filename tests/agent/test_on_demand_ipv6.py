"""On demand in IPv6, alone and beside IPv4, on the real kernel: packets off the wire, and what the kernel holds."""

import asyncio
import errno
import struct
from functools import partial
from ipaddress import IPv6Address

import pytest

from flanneld_py.backends.vxlan import link_local
from tests.agent.on_demand_node import OnDemandNode, arrives, number_of
from tests.agent.reconciled_node import make_lease as make_lease_of
from tests.agent.reconciled_node import nodes_by
from tests.fakes.memory_store import MemoryStore
from tests.host import IPV4, IPV6, mac
from tests.waiting import until

pytestmark = pytest.mark.kernel

IN_A, IN_B, NOBODYS = "fd42:0:0:2::7", "fd42:0:0:3::7", "fd42:0:0:77::7"
MAC_A = "02:00:00:00:06:02"


@pytest.fixture(params=[(IPV6,), (IPV4, IPV6)], ids=["IPv6", "dual"])
def families(request):
    return request.param


@pytest.fixture
def make_lease(families):
    return partial(make_lease_of, families=families)


@pytest.fixture
def host(near):
    return near


@pytest.fixture
async def make_node(host, families):
    async with nodes_by(partial(OnDemandNode, host, MemoryStore(), families=families)) as make:
        yield make


@pytest.fixture
async def node(make_node):
    return await make_node().ready()


async def follows(node, *leases):
    for family in node.on_demand._parts:
        await node.follows(*leases, family=family)


async def test_first_packet_arrives_and_its_peer_is_programmed(node, far, sender, make_lease):
    a, b = make_lease(2), make_lease(3)
    node.lease_out(a, b)
    await follows(node)
    assert await arrives(far, sender, IN_A) == ("fd30::1:2", MAC_A)
    await follows(node, a)
    assert await arrives(far, sender, "fd42:0:0:2::200") == ("fd30::1:2", MAC_A)
    assert await arrives(far, sender, "fd42:0:0:2::") == ("fd30::1:2", MAC_A)
    assert len(node.finder.finds) == 1
    assert node.unresolved(IPV6) == []
    await node.settled()
    assert not {"fdb", "neighbour", "nexthop", "route"} & node.reconciler.drift.counts.keys()


@pytest.mark.parametrize("has_nexthops", [True, False], ids=["nexthops", "plain routes"])
async def test_no_packet_to_fifty_new_peers_is_lost(make_node, far, sender, make_lease, has_nexthops):
    node = await make_node(has_nexthops=has_nexthops).ready()
    leases = [make_lease(index) for index in range(2, 52)]
    node.lease_out(*leases)
    addresses = [f"fd42:0:0:{index:x}::7" for index in range(2, 52)]
    for count in range(5):
        for start in range(0, 50, 10):
            for address in addresses[start : start + 10]:
                assert sender.send(address, struct.pack("!I", count)) == 0
            await until(partial(lambda expected: len(far.packets) == expected, count * 50 + start + 10))
    for address in addresses:
        assert [number_of(payload) for payload in far.payloads(address)] == list(range(5))
    await follows(node, *leases)
    assert node.unresolved(IPV6) == []
    assert len(node.finder.finds) == 50


async def test_what_nobody_leases_is_refused_for_a_time(make_node, far, sender, make_lease):
    node = await make_node(refused_for=0.3).ready()
    assert await sender.is_refused(NOBODYS)
    assert node.unresolved(IPV6) == []
    await until(lambda: not node.unreachable(IPV6))
    node.lease_out(make_lease(0x77))
    await arrives(far, sender, NOBODYS)
    await follows(node, make_lease(0x77))


async def test_what_is_refused_is_not_asked_again(node, sender):
    assert await sender.is_refused(NOBODYS)
    await until(lambda: node.unreachable(IPV6) == {"fd42:0:0:77::/64"})
    assert [sender.send(f"fd42:0:0:77::{last}") for last in range(8, 30)] == [errno.EHOSTUNREACH] * 22
    assert len(node.finder.finds) == 1
    await node.settled()
    assert node.unreachable(IPV6) == {"fd42:0:0:77::/64"}
    assert node.state(IPV6)[2]["fd42::/48"] == (None, node.device(IPV6), False)


async def test_more_lookups_at_once_than_are_allowed(make_node, sender, families):
    node = make_node()
    slow, find_lease = asyncio.Event(), node.finder.find_lease

    async def find_slowly(miss):
        await slow.wait()
        return await find_lease(miss)

    def see_nothing(misses, found):
        for miss in misses:
            found(miss, None)

    node.finder.find_lease, node.finder.glance = find_slowly, see_nothing
    await node.ready()
    refused_by_route = sum(sender.send(f"fd42:0:0:{index:x}::7") != 0 for index in range(100, 150))
    await until(lambda: node.on_demand.counts.refused + refused_by_route == 18)
    assert len(node.unresolved(IPV6)) == 32
    assert node.unreachable(IPV6) == {"fd42::/48"}
    assert [sender.send(f"fd42:0:0:{index:x}::7") for index in range(150, 200)] == [errno.EHOSTUNREACH] * 50
    assert len(node.unresolved(IPV6)) == 32
    if IPV4 in families:
        # The other family's addresses have a table, and a limit, of their own.
        assert node.unreachable(IPV4) == set()
    slow.set()
    await until(lambda: node.on_demand.counts.refused + refused_by_route == 50)
    assert node.unresolved(IPV6) == []
    assert len(node.unreachable(IPV6)) == 32
    assert node.state(IPV6)[2]["fd42::/48"] == (None, node.device(IPV6), False)
    await node.settled()
    assert not {"fdb", "neighbour", "nexthop", "route"} & node.reconciler.drift.counts.keys()


async def test_own_subnet_without_a_bridge_is_not_unreachable(node, sender):
    assert await sender.is_refused("fd42:0:0:1::7")
    assert node.unreachable(IPV6) == set()


async def test_lease_in_use_that_changes_and_ends_is_followed(node, far, sender, make_lease):
    a, b = make_lease(2), make_lease(3)
    node.lease_out(a, b)
    await arrives(far, sender, IN_A)
    await arrives(far, sender, IN_B)
    changed = make_lease(2, mac_index=0x22)
    node.lease_out(changed)
    await follows(node, changed, b)
    assert await arrives(far, sender, IN_A) == ("fd30::1:2", "02:00:00:00:06:22")
    node.end(changed)
    await follows(node, b)
    assert await sender.is_refused(IN_A)


async def test_idle_peers_go_and_come_back_with_their_next_packet(make_node, far, sender, make_lease):
    node = await make_node(idle=0.4).ready()
    a, b = make_lease(2), make_lease(3)
    node.lease_out(a, b)
    await arrives(far, sender, IN_A)

    async def keep_busy():
        while True:
            sender.send(IN_B)
            await asyncio.sleep(0.02)

    busy = asyncio.create_task(keep_busy())
    try:
        await until(lambda: node.on_demand.counts.evicted >= 1)
        # A peer that is used in one family is not idle in the other either.
        await follows(node, b)
        await arrives(far, sender, IN_A)
        await follows(node, a, b)
    finally:
        busy.cancel()
        await asyncio.gather(busy, return_exceptions=True)
    await follows(node)
    assert node.is_running()


@pytest.mark.parametrize(
    "vandalism",
    [
        "-6 route del fd42::/48",
        "-6 route del fd42:0:0:2::/64",
        "link set flannel-v6.1 down",
        "link del flannel-v6.1",
        f"-6 neigh del {{gateway}} lladdr {MAC_A} dev flannel-v6.1",
        "-6 neigh flush dev flannel-v6.1 nud permanent",
    ],
)
async def test_vandalism_is_mended(node, host, far, sender, make_lease, vandalism):
    a, b = make_lease(2), make_lease(3)
    node.lease_out(a, b)
    await arrives(far, sender, IN_A)
    await node.settled()
    host.ip(vandalism.format(gateway=IPv6Address(link_local(mac(MAC_A)))))
    await until(lambda: node.device(IPV6) is not None)
    await follows(node, a)
    await node.settled()
    await arrives(far, sender, IN_A)
    await arrives(far, sender, IN_B)
    await follows(node, a, b)
    assert node.unreachable(IPV6) == set()


async def test_packet_that_finds_its_gateway_gone_is_sent_once_it_is_back(node, host, far, sender, make_lease):
    node.lease_out(make_lease(2))
    await arrives(far, sender, IN_A)
    await node.settled()
    refused = node.on_demand.counts.refused
    gateway = str(IPv6Address(link_local(mac(MAC_A))))
    for count in range(20):
        host.do(lambda ipr: ipr.neigh("del", ifindex=node.device(IPV6), dst=gateway))
        assert sender.send(IN_A, struct.pack("!I", count)) == 0
        await until(lambda count=count: struct.pack("!I", count) in far.payloads(IN_A))
        await node.settled()
    assert node.on_demand.counts.refused == refused


async def test_restart_with_traffic_flowing_loses_no_packet(make_node, far, sender, make_lease):
    first = await make_node().ready()
    device = first.device(IPV6)
    a, b = make_lease(2), make_lease(3)
    first.lease_out(a, b)
    await arrives(far, sender, IN_B)
    sent = 0

    async def keep_sending():
        nonlocal sent
        while True:
            assert sender.send(IN_A, struct.pack("!I", sent)) == 0
            sent += 1
            await asyncio.sleep(0.002)

    sending = asyncio.create_task(keep_sending())
    await until(lambda: sent > 20)
    await first.stop()
    await until(lambda: sent > 40)
    second = await make_node().ready()
    await follows(second, a, b)
    assert second.device(IPV6) == device
    await until(lambda: sent > 80)
    sending.cancel()
    await asyncio.gather(sending, return_exceptions=True)
    await until(lambda: len(far.payloads(IN_A)) == sent)
    assert [number_of(payload) for payload in far.payloads(IN_A)] == list(range(sent))
