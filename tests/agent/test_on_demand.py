"""On demand, on the real kernel: packets of real senders, read off the wire at the other end of the uplink."""

import asyncio
import errno
import struct
import sys
from functools import partial
from pathlib import Path

import pytest

from flanneld_py.agent import on_demand
from flanneld_py.core.entries import Kind
from flanneld_py.core.lease import encode_attrs
from flanneld_py.core.misses import Miss
from tests.agent.on_demand_node import OnDemandNode, arrives, number_of, public_ip
from tests.agent.reconciled_node import ReconciledNode, make_lease, nodes_by
from tests.agent.vandals import RefusingSocket
from tests.fakes.memory_store import MemoryStore
from tests.host import IPV4, number, parse_prefix
from tests.waiting import until

pytestmark = pytest.mark.kernel

A, B = make_lease(2), make_lease(3)
IN_A, IN_B = "10.5.2.7", "10.5.3.7"
MAC_A = "02:00:00:00:01:02"


@pytest.fixture
def store():
    return MemoryStore()


@pytest.fixture
def host(near):
    return near


@pytest.fixture
async def make_node(host, sender, store):
    def make_one(kind=OnDemandNode, **keys):
        return kind(host, store, **keys) if kind is OnDemandNode else kind(host, **keys)

    async with nodes_by(make_one) as make:
        yield make


@pytest.fixture
async def node(make_node):
    return await make_node().ready()


def see_nothing(misses, found):
    for miss in misses:
        found(miss, None)


# Packets


async def test_nothing_is_programmed_before_it_is_asked_for(node, store):
    node.lease_out(A, B)
    await node.settled()
    assert node.state() == node.wanted()
    assert store._finders[0].finds == []


async def test_first_packet_arrives_and_its_peer_is_programmed(node, far, sender):
    node.lease_out(A, B)
    assert await arrives(far, sender, IN_A) == ("172.30.1.2", MAC_A)
    await node.follows(A)
    assert await arrives(far, sender, "10.5.2.200") == ("172.30.1.2", MAC_A)
    assert len(node.finder.finds) == 1
    assert node.unresolved() == []
    assert node.on_demand.counts.answered == 1


@pytest.mark.parametrize("has_nexthops", [True, False], ids=["nexthops", "plain routes"])
async def test_no_packet_to_fifty_new_peers_is_lost(make_node, far, sender, has_nexthops):
    node = await make_node(has_nexthops=has_nexthops).ready()
    leases = [make_lease(index) for index in range(2, 52)]
    node.lease_out(*leases)
    addresses = [f"10.5.{index}.7" for index in range(2, 52)]
    for count in range(5):
        # Ten at once; then these have arrived.
        for start in range(0, 50, 10):
            for address in addresses[start : start + 10]:
                assert sender.send(address, struct.pack("!I", count)) == 0
            await until(partial(lambda expected: len(far.packets) == expected, count * 50 + start + 10))
    for lease in leases:
        index = lease.subnet.address >> 8 & 255
        assert [number_of(payload) for payload in far.payloads(f"10.5.{index}.7")] == list(range(5))
        assert far.paths(f"10.5.{index}.7") == [(public_ip(lease), f"02:00:00:00:01:{index:02x}")]
    await node.follows(*leases)
    assert node.unresolved() == []
    assert len(node.finder.finds) == 50


async def test_addresses_of_one_new_peer_are_looked_up_once(node, far, sender):
    node.lease_out(A)
    addresses = [f"10.5.2.{last}" for last in range(20)]
    for address in addresses:
        assert sender.send(address) == 0
    await until(lambda: len(far.packets) == 20)
    assert {inner for _, _, inner, _ in far.packets} == set(addresses)
    await node.follows(A)
    assert len(node.finder.finds) == 1
    assert node.unresolved() == []


async def test_base_address_of_a_subnet_is_its_gateway_as_well(node, far, sender):
    node.lease_out(A)
    assert await arrives(far, sender, "10.5.2.0") == ("172.30.1.2", MAC_A)
    await node.follows(A)
    assert await arrives(far, sender, IN_A) == ("172.30.1.2", MAC_A)


async def test_own_changes_are_no_drift(node, far, sender):
    for index in range(2, 12):
        node.lease_out(make_lease(index))
        await arrives(far, sender, f"10.5.{index}.7")
    await node.settled()
    assert not {"fdb", "neighbour", "nexthop", "route"} & node.reconciler.drift.counts.keys()


@pytest.mark.parametrize("subnet", ["10.5.8.0/22", "10.5.9.0/26"])
async def test_lease_of_another_length(node, far, sender, subnet):
    lease = make_lease(8, subnet=subnet)
    node.lease_out(lease)
    assert await arrives(far, sender, "10.5.9.7") == ("172.30.1.8", "02:00:00:00:01:08")
    await node.follows(lease)


async def test_direct_peer_leaves_nothing_of_the_tunnel(make_node, host, far, sender):
    node = await make_node(DirectRouting=True).ready()
    near, remote = make_lease(2, remote="172.30.0.1"), B
    node.lease_out(near, remote)
    assert await arrives(far, sender, IN_A) == ("172.30.0.1", MAC_A)
    await arrives(far, sender, IN_B)
    fdb, neighbours, routes = node.wanted(B)
    routes |= super(OnDemandNode, node).wanted(near, direct=True)[2]
    await until(lambda: node.state() == (fdb, neighbours, routes))
    assert node.unresolved() == []


# What nobody leases


async def test_what_nobody_leases_is_refused_for_a_time(make_node, far, sender, monkeypatch):
    node = await make_node(refused_for=0.3).ready()
    assert await sender.is_refused("10.5.77.7")
    assert node.unresolved() == []
    await until(lambda: node.on_demand.counts.refused == 1)
    await until(lambda: not node.unreachable())
    node.lease_out(make_lease(77))
    await arrives(far, sender, "10.5.77.7")
    await node.follows(make_lease(77))


async def test_what_is_refused_is_not_asked_again(node, sender):
    assert await sender.is_refused("10.5.77.7")
    await until(lambda: node.unreachable() == {"10.5.77.0/24"})
    for last in range(8, 30):
        assert await sender.is_refused(f"10.5.77.{last}")
    assert len(node.finder.finds) == 1
    await node.settled()
    assert node.unreachable() == {"10.5.77.0/24"}


async def test_scan_finds_nobody_and_costs_little(make_node, far, sender):
    node = await make_node(refused_for=1.0).ready()
    node.lease_out(A)
    counts = node.on_demand.counts
    most = 0
    refused_at_once = 0
    for start in range(100, 220, 40):
        # Two addresses in each of 40 subnets nobody has; the count is taken at every turn of the event loop.
        for index in range(start, start + 40):
            refused_at_once += sender.send(f"10.5.{index}.1") != 0
            most = max(most, len(node.unresolved())) if index % 8 == 0 else most
            await asyncio.sleep(0)
        for index in range(start, start + 40):
            refused_at_once += sender.send(f"10.5.{index}.2") != 0
        await until(lambda: not node.pending() and not node.unresolved())
    assert most <= 64
    assert refused_at_once > 60
    assert counts.refused + refused_at_once == 240
    assert len(node.finder.finds) < 160
    assert len(node.unreachable()) > 0
    await arrives(far, sender, IN_A)
    await until(lambda: not node.unreachable())
    await node.settled()
    assert node.state() == node.wanted(A)
    assert {inner for _, _, inner, _ in far.packets} == {IN_A}


@pytest.mark.parametrize("subnets", [1, 60])
async def test_scan_without_a_pause_leaves_nothing_unresolved(node, far, sender, subnets):
    node.lease_out(A)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.agent.scan", "10.5.100.1", str(subnets), "240", stdout=asyncio.subprocess.PIPE
    )
    most, _ = map(int, (await process.communicate())[0].split())
    assert most < 64
    await until(lambda: not node.pending() and not node.unresolved())
    assert await arrives(far, sender, IN_A) == ("172.30.1.2", MAC_A)


async def test_more_lookups_at_once_than_are_allowed(make_node, store, sender):
    node = make_node()
    slow = asyncio.Event()
    find_lease = node.finder.find_lease

    async def find_slowly(miss):
        await slow.wait()
        return await find_lease(miss)

    node.finder.find_lease, node.finder.glance = find_slowly, see_nothing
    await node.ready()
    refused_by_route = sum(sender.send(f"10.5.{index}.7") != 0 for index in range(100, 150))
    await until(lambda: node.on_demand.counts.refused + refused_by_route == 18)
    assert node.pending() == 32
    assert len(node.unresolved()) == 32
    # No more come to wait: the kernel refuses them by itself.
    assert node.unreachable() == {"10.5.0.0/16"}
    assert [sender.send(f"10.5.{index}.7") for index in range(150, 200)] == [errno.EHOSTUNREACH] * 50
    assert len(node.unresolved()) == 32
    slow.set()
    await until(lambda: node.on_demand.counts.refused + refused_by_route == 50)
    assert node.unresolved() == []
    assert len(node.unreachable()) == 32
    assert node.state()[2]["10.5.0.0/16"] == (None, node.device(), False)
    await node.settled()
    assert not {"fdb", "neighbour", "nexthop", "route"} & node.reconciler.drift.counts.keys()


async def test_own_subnet_without_a_bridge_is_not_unreachable(node, sender):
    assert await sender.is_refused("10.5.1.7")
    assert node.unreachable() == set()
    assert node.unresolved() == []
    assert await sender.is_refused("10.5.1.8")


async def test_lease_that_cannot_be_a_peer_is_refused(node, sender):
    other = make_lease(7)
    node.lease_out(other._replace(attrs=other.attrs._replace(backend_type="wireguard", backend_data=None)))
    assert await sender.is_refused("10.5.7.7")
    await until(lambda: node.unreachable() == {"10.5.7.0/24"})
    assert node.state()[:2] == ({}, {})


async def test_rest_of_a_subnet_that_is_leased_in_parts_is_refused_alone(node, far, sender):
    parts = [make_lease(2, subnet="10.5.9.0/26"), make_lease(3, subnet="10.5.9.192/27")]
    node.lease_out(*parts)
    assert await sender.is_refused("10.5.9.129")
    await until(lambda: node.unreachable() == {"10.5.9.128/26"})
    assert await arrives(far, sender, "10.5.9.7") == ("172.30.1.2", "02:00:00:00:01:02")
    assert await arrives(far, sender, "10.5.9.200") == ("172.30.1.3", "02:00:00:00:01:03")
    await until(lambda: node.state()[:2] == node.wanted(*parts)[:2])


async def test_packets_to_parts_of_a_subnet_at_once_go_where_they_should(node, far, sender):
    parts = [make_lease(2, subnet="10.5.9.0/25"), make_lease(3, subnet="10.5.9.128/26")]
    node.lease_out(*parts)
    for last in (7, 129, 200):
        sender.send(f"10.5.9.{last}")
    await until(lambda: far.paths("10.5.9.7") == [("172.30.1.2", "02:00:00:00:01:02")])
    await until(lambda: far.paths("10.5.9.129") == [("172.30.1.3", "02:00:00:00:01:03")])
    await until(lambda: node.unreachable() == {"10.5.9.192/26"})
    await until(lambda: node.state()[:2] == node.wanted(*parts)[:2])


async def test_what_was_asked_while_nobody_could_hear_is_answered(node, far, sender, monkeypatch):
    node.lease_out(A)
    lost = []

    def lose(message, scope):
        lost.append(message)
        node.reconciler.drift._monitor._lost_misses = True

    monkeypatch.setattr(node.reconciler.drift._monitor, "_note_miss", lose)
    await arrives(far, sender, IN_A)
    assert await sender.is_refused("10.5.77.7")
    assert lost
    assert node.unresolved() == []


async def test_what_was_asked_before_the_start_is_answered(make_node, host, far, sender):
    former = await make_node().ready()
    await former.stop()
    sender.send(IN_A)
    await until(lambda: former.unresolved() == [IN_A])
    node = make_node()
    node.lease_out(A)
    await node.ready()
    await until(lambda: far.paths(IN_A))
    assert node.unresolved() == []


async def test_node_of_another_backend_is_reached_directly_from_the_second_packet_on(node, host, sender):
    other = make_lease(7, remote="172.30.0.77")
    node.lease_out(other._replace(attrs=other.attrs._replace(backend_type="host-gw", backend_data=None)))
    assert await sender.is_refused("10.5.7.7")
    await until(lambda: host.routes(4).get("10.5.7.0/24", ())[1:] == ("172.30.0.77", host.uplink, False))


async def test_subnet_that_is_leased_while_a_part_of_it_is_refused(node, far, sender):
    wide = make_lease(8, subnet="10.5.8.0/22")
    assert await sender.is_refused("10.5.10.7")
    node.lease_out(wide)
    await arrives(far, sender, "10.5.9.7")
    await arrives(far, sender, "10.5.10.7")
    await node.follows(wide)


# Leases in use


async def test_lease_in_use_that_changes_is_followed(node, far, sender):
    node.lease_out(A, B)
    await arrives(far, sender, IN_A)
    await arrives(far, sender, IN_B)
    changed = make_lease(2, mac_index=0x22, remote="172.30.1.99")
    node.lease_out(changed)
    await node.follows(changed, B)
    assert await arrives(far, sender, IN_A) == ("172.30.1.99", "02:00:00:00:01:22")
    node.end(changed)
    await node.follows(B)
    assert node.finder.followed == {node.own_key, "10.5.3.0-24"}
    assert await sender.is_refused(IN_A)


async def test_lease_that_changes_while_it_is_looked_up(node, far, sender, store):
    node.lease_out(A)
    find_lease = node.finder.find_lease
    changed = make_lease(2, mac_index=0x22)

    async def find_late(miss):
        found = await find_lease(miss)
        node.lease_out(changed)
        return found

    node.finder.glance = see_nothing
    node.finder.find_lease = find_late
    sender.send(IN_A)
    await node.follows(changed)


async def test_lease_that_changes_while_it_is_glanced_at(node, far, sender, store):
    node.lease_out(A)
    glance = node.finder.glance
    changed = make_lease(2, mac_index=0x22)

    def glance_late(misses, found):
        def found_late(miss, event):
            node.lease_out(changed)
            found(miss, event)

        glance(misses, found_late)

    node.finder.glance = glance_late
    sender.send(IN_A)
    await node.follows(changed)


async def test_what_is_seen_at_a_glance_is_not_looked_for_again(node, far, sender):
    node.lease_out(A)
    node.finder.find_lease = None
    assert await arrives(far, sender, IN_A) == ("172.30.1.2", MAC_A)
    await node.follows(A)
    assert node.is_running()


async def test_glance_that_sees_nothing_is_no_answer(node, far, sender):
    node.lease_out(A)
    node.finder.glance = see_nothing
    assert await arrives(far, sender, IN_A) == ("172.30.1.2", MAC_A)
    await node.follows(A)


async def test_glance_that_is_answered_after_the_end(make_node, sender):
    node = await make_node().ready()
    node.lease_out(A)
    asked = []
    node.finder.glance = lambda misses, found: asked.append(found)
    sender.send(IN_A)
    await until(lambda: asked)
    await node.stop()
    asked[0](Miss(IPV4, number(IN_A)), None)


async def test_only_leases_in_use_are_followed(node, far, sender):
    node.lease_out(*(make_lease(index) for index in range(2, 30)))
    await arrives(far, sender, IN_A)
    assert node.finder.followed == {node.own_key, "10.5.2.0-24"}


async def test_own_lease_is_looked_after(node, store):
    store.put(node.own_key, encode_attrs(A.attrs))
    assert node.is_running()
    await until(lambda: node.finder.followed == {node.own_key})


# Idle peers


async def test_idle_peers_go_and_come_back_with_their_next_packet(make_node, far, sender):
    node = await make_node(idle=0.4).ready()
    node.lease_out(A, B)
    await arrives(far, sender, IN_A)

    async def keep_busy():
        while True:
            sender.send(IN_B)
            await asyncio.sleep(0.02)

    busy = asyncio.create_task(keep_busy())
    try:
        await until(lambda: node.on_demand.counts.evicted >= 1)
        await node.follows(B)
        await until(lambda: node.finder.followed == {node.own_key, "10.5.3.0-24"})
        await arrives(far, sender, IN_A)
        await node.follows(A, B)
    finally:
        busy.cancel()
        await asyncio.gather(busy, return_exceptions=True)
    await node.follows()
    assert node.finder.followed == {node.own_key}
    assert node.is_running()


async def test_packet_that_comes_while_its_peer_is_evicted(make_node, far, sender):
    node = await make_node().ready()
    leases = [make_lease(index) for index in range(2, 102)]
    node.lease_out(*leases)
    for index in range(2, 102):
        await arrives(far, sender, f"10.5.{index}.7")
    await node.settled()
    for lease in leases:
        node.finder.unfollow(f"{lease.subnet.base}-24")
    node.remove(*leases)
    # While the entries of so many go in several batches, there is something to send again.
    await until(lambda: "10.5.2.0/24" not in node.state()[2])
    for index in range(2, 102, 10):
        sender.send(f"10.5.{index}.7", b"again")
    await until(lambda: all(far.payloads(f"10.5.{index}.7")[-1] == b"again" for index in range(2, 102, 10)))
    await node.settled()
    await node.follows(*(make_lease(index) for index in range(2, 102, 10)))


async def test_device_that_is_deleted_while_peers_are_evicted(make_node, host, far, sender):
    node = await make_node(idle=0.02).ready()
    node.lease_out(A)
    for _ in range(10):
        sender.send(IN_A)
        host.do(lambda ipr: ipr.link("del", index=node.device()))
        await until(lambda: node.is_running() and node.device() is not None)
    await node.follows()
    await arrives(far, sender, IN_A)
    assert node.is_running()


# The store


async def test_store_that_is_away_refuses_quickly_and_works_when_it_is_back(node, store, far, sender):
    node.lease_out(A, B)
    await arrives(far, sender, IN_A)
    store.away = "connection refused"
    assert await sender.is_refused(IN_B)
    await arrives(far, sender, IN_A)
    assert node.unreachable() == set()
    assert node.unresolved() == []
    changed = make_lease(2, mac_index=0x22)
    node.lease_out(changed)
    store.away = None
    await arrives(far, sender, IN_B)
    await node.follows(changed, B)


async def test_store_that_does_not_answer_is_not_waited_for(make_node, sender, monkeypatch):
    monkeypatch.setattr(on_demand, "_LOOKUP_PATIENCE", 0.05)
    node = make_node()
    never = asyncio.Event()

    async def find_never(miss):
        await never.wait()

    node.finder.find_lease, node.finder.glance = find_never, see_nothing
    await node.ready()
    assert await sender.is_refused(IN_A)
    assert node.unresolved() == []
    assert node.pending() == 0


# What happens to the kernel


@pytest.mark.parametrize(
    "vandalism",
    ["route del 10.5.0.0/16", "route del 10.5.2.0/24", "link set flannel.1 down", "link del flannel.1"],
)
async def test_vandalism_is_mended(node, host, far, sender, vandalism):
    node.lease_out(A, B)
    await arrives(far, sender, IN_A)
    await node.settled()
    host.ip(vandalism)
    await until(lambda: node.device() is not None)
    await node.follows(A)
    await node.settled()
    await arrives(far, sender, IN_A)
    await arrives(far, sender, IN_B)
    await node.follows(A, B)


async def test_neighbours_that_are_flushed_are_mended(node, host, far, sender):
    node.lease_out(A)
    await arrives(far, sender, IN_A)
    await node.settled()
    host.do(lambda ipr: ipr.neigh("del", ifindex=node.device(), dst="10.5.2.0"))
    await node.follows(A)
    await arrives(far, sender, IN_A)


async def test_setting_that_is_switched_off_is_mended(make_node, host, far, sender):
    node = await make_node(resync_interval=0.05).ready()
    node.lease_out(A)
    setting = Path("/proc/sys/net/ipv4/neigh/flannel.1/app_solicit")
    host.namespace.run(setting.write_text, "0")
    await until(lambda: host.namespace.run(setting.read_text) == "1\n")
    await arrives(far, sender, IN_A)


async def test_miss_that_is_answered_while_tables_are_compared(node, host, far, sender):
    leases = [make_lease(index) for index in range(2, 42)]
    node.lease_out(*leases)
    for index in range(2, 42):
        # Every table is read and compared, step by step, while peers come.
        host.do(lambda ipr: ipr.link("set", index=node.device(), mtu=1400))
        sender.send(f"10.5.{index}.7")
        await asyncio.sleep(0)
    await until(lambda: len({inner for _, _, inner, _ in far.packets}) == 40)
    await node.settled()
    await node.follows(*leases)
    assert node.is_running()


# What is written at once, and refused or overtaken: nobody tells of it, and no resync comes here

NOBODYS = parse_prefix("10.5.9.0/24")


@pytest.fixture
def refusals(host, monkeypatch):
    sock = RefusingSocket(host.sock)
    monkeypatch.setattr(host, "sock", sock)
    return sock.refusals


def while_read(node, monkeypatch, which, act):
    """Have `act` called, once, when the reconciler has read a table and not yet done anything about it."""
    read, acts = node.reconciler._tables._reader.read, [act]

    async def read_and_act(kind):
        table = await read(kind)
        if kind == which and acts:
            acts.pop()()
        return table

    monkeypatch.setattr(node.reconciler._tables._reader, "read", read_and_act)


async def test_routes_that_the_kernel_refuses_to_change_at_once_are_tried_again(refusals, node):
    catch_all = node.on_demand._parts[IPV4].catch_all
    refusals.append(errno.ENOMEM)
    catch_all.note_nobodys(NOBODYS)
    assert not refusals
    await until(lambda: node.unreachable() == {str(NOBODYS)})
    refusals.append(errno.ENOMEM)
    catch_all.note_leased(NOBODYS)
    assert not refusals
    await until(lambda: not node.unreachable())


@pytest.mark.parametrize("which", [Kind.NEIGHBOUR, Kind.ROUTE])
@pytest.mark.parametrize("is_leased", [False, True])
async def test_routes_that_are_refused_while_tables_are_read_are_tried_again(
    refusals, node, host, monkeypatch, which, is_leased
):
    catch_all = node.on_demand._parts[IPV4].catch_all
    if is_leased:
        catch_all.note_nobodys(NOBODYS)

    def change():
        refusals.append(errno.ENOMEM)
        (catch_all.note_leased if is_leased else catch_all.note_nobodys)(NOBODYS)

    while_read(node, monkeypatch, which, change)
    host.ip("neigh replace 10.5.20.0 lladdr 02:00:00:00:00:99 dev flannel.1 nud permanent")
    host.ip("route add 10.5.20.0/24 dev flannel.1")
    await until(lambda: "10.5.20.0/24" not in host.routes())
    assert not refusals
    await until(lambda: node.unreachable() == (set() if is_leased else {str(NOBODYS)}))


async def test_route_of_others_goes_that_stands_where_ours_went_while_routes_were_read(node, host, monkeypatch):
    catch_all = node.on_demand._parts[IPV4].catch_all
    catch_all.note_nobodys(NOBODYS)
    while_read(node, monkeypatch, Kind.ROUTE, lambda: catch_all.note_leased(NOBODYS))
    host.ip(f"route replace {NOBODYS} dev flannel.1 proto boot")
    await until(lambda: str(NOBODYS) not in host.routes())


# Restart, and the other mode


async def test_restart_with_traffic_flowing_loses_no_packet(make_node, host, far, sender):
    first = await make_node().ready()
    device = first.device()
    first.lease_out(A, B)
    await arrives(far, sender, IN_B)
    sent = 0

    def send():
        nonlocal sent
        assert sender.send(IN_A, struct.pack("!I", sent)) == 0
        sent += 1

    async def keep_sending():
        while True:
            send()
            await asyncio.sleep(0.002)

    sending = asyncio.create_task(keep_sending())
    await until(lambda: sent > 20)
    await first.stop()
    await until(lambda: sent > 40)
    second = await make_node().ready()
    await second.follows(A, B)
    assert second.device() == device
    assert second.finder.followed == {second.own_key, "10.5.2.0-24", "10.5.3.0-24"}
    await until(lambda: sent > 80)
    sending.cancel()
    await asyncio.gather(sending, return_exceptions=True)
    await until(lambda: len(far.payloads(IN_A)) == sent)
    assert [number_of(payload) for payload in far.payloads(IN_A)] == list(range(sent))


async def test_restart_adopts_peers_in_use_and_no_others(make_node, host, far, sender):
    first = await make_node().ready()
    first.lease_out(A, B)
    await arrives(far, sender, IN_A)
    await arrives(far, sender, IN_B)
    assert await sender.is_refused("10.5.77.7")
    await first.stop()
    changed = make_lease(3, mac_index=0x33)
    first.lease_out(changed)
    second = await make_node().ready()
    await second.follows(A, changed)
    await second.stop()
    second.end(A)
    third = await make_node(idle=0.001).ready()
    await third.follows()
    assert third.finder.followed == {third.own_key}
    assert third.unreachable() == set()


async def test_store_that_is_away_at_a_restart_costs_no_peer_in_use(make_node, store, far, sender):
    first = await make_node().ready()
    first.lease_out(A, B)
    await arrives(far, sender, IN_A)
    await first.stop()
    before = first.state()
    store.away = "connection refused"
    second = make_node()
    await second.start()
    await until(lambda: second.finder.finds)
    assert await arrives(far, sender, IN_A)
    assert second.state() == before
    store.away = None
    await second.settled()
    await second.follows(A)
    await arrives(far, sender, IN_B)


async def test_misses_are_answered_while_peers_in_use_are_still_looked_up(make_node, store, far, sender):
    first = await make_node().ready()
    first.lease_out(A, B)
    await arrives(far, sender, IN_A)
    await first.stop()
    second = make_node()
    find_lease, going_on = second.finder.find_lease, asyncio.Event()

    async def find(miss):
        if miss.is_in(A.subnet):
            await going_on.wait()
        return await find_lease(miss)

    second.finder.find_lease = find
    await second.start()
    await arrives(far, sender, IN_B)
    assert not second.reconciler.leases.complete
    going_on.set()
    await second.settled()
    await second.follows(A, B)
    assert second.finder.followed == {second.own_key, "10.5.2.0-24", "10.5.3.0-24"}


async def test_device_that_cannot_be_made_is_waited_for(make_node, host, far, sender, caplog):
    other = host.make_vxlan("calico.1", mac="02:00:00:00:99:99")
    node = make_node()
    await node.start()
    await until(lambda: "VNI already exists" in caplog.text)
    assert node.is_running()
    host.do(lambda ipr: ipr.link("del", index=other))
    node.lease_out(A)
    await until(lambda: node.device() is not None)
    await node.settled()
    await arrives(far, sender, IN_A)
    await node.follows(A)


async def test_proactive_then_on_demand_then_proactive(make_node, host, far, sender):
    leases = [make_lease(index) for index in range(2, 22)]
    first = make_node(ReconciledNode)
    await first.begin(*leases)
    plain = (
        *first.wanted(*leases)[:2],
        first.wanted(*leases)[2] | {"172.30.1.0/24": ("172.30.0.1", host.uplink, False)},
    )
    assert first.state() == plain
    await first.stop()
    second = make_node(idle=0.4)
    second.lease_out(*leases)
    await second.ready()

    async def keep_busy():
        while True:
            sender.send(IN_A)
            await asyncio.sleep(0.02)

    busy = asyncio.create_task(keep_busy())
    await second.follows(A)
    assert await sender.is_refused("10.5.77.7")
    busy.cancel()
    await asyncio.gather(busy, return_exceptions=True)
    await second.stop()
    third = make_node(ReconciledNode)
    await third.begin(*leases)
    assert third.state() == plain
    assert second.unreachable() == set()
    assert third.device() == first.device()
