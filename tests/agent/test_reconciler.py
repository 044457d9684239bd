"""The reconciler on the real kernel; between full comparisons it hears of changes by notifications only."""

import asyncio
import errno
import struct
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest
from pyroute2.netlink.exceptions import NetlinkError

from flanneld_py.agent import reconciler, table_writer
from flanneld_py.core.entries import PROTOCOL_BOOT, FdbEntry, Nexthop, Route
from flanneld_py.core.lease_event import LeaseRejected
from flanneld_py.kernel import netlink, nexthop
from flanneld_py.kernel.monitor import Change
from flanneld_py.kernel.netlink import Request
from tests.agent.reconciled_node import DUAL, NEVER, OWN_MAC, V6, ReconciledNode, make_lease, nodes_by
from tests.host import IPV4, IPV6, ONLINK, PERMANENT, SELF, UPLINK, number
from tests.waiting import until

pytestmark = pytest.mark.kernel

A, B, C = make_lease(2), make_lease(3), make_lease(4)
MAC_A = "02:00:00:00:01:02"
STRANGER = "02:00:00:00:00:99"
FIRST_ID = 0x46100000
ID_A = FIRST_ID + 0x200


@pytest.fixture
async def make_node(host):
    async with nodes_by(partial(ReconciledNode, host)) as make:
        yield make


@pytest.fixture
async def node(make_node):
    return make_node()


# Leases


async def test_snapshot_is_programmed(node, host):
    await node.begin(A, B)
    await node.follows(A, B)
    told = host.link("flannel.1")
    assert told.get_attr("IFLA_ADDRESS") == OWN_MAC
    assert told.get_attr("IFLA_MTU") == 1450
    assert host.addresses(node.device()) == {"10.5.1.0/32"}
    assert {entry[0] for dst, entry in host.routes().items() if dst.startswith("10.5.")} == {119}


async def test_leases_come_change_and_go(node):
    await node.begin()
    node.put(A)
    await node.follows(A)
    node.put(B, C)
    await node.follows(A, B, C)
    node.put(make_lease(2, mac_index=0x22))
    await node.follows(make_lease(2, mac_index=0x22), B, C)
    node.put(make_lease(3, remote="172.30.9.9"))
    await node.follows(make_lease(2, mac_index=0x22), make_lease(3, remote="172.30.9.9"), C)
    node.remove(A, B)
    await node.follows(C)
    node.tell_all(A)
    await node.follows(A)


async def test_node_that_takes_another_subnet(node):
    moved = make_lease(7, mac_index=2, remote="172.30.1.2")
    await node.begin(A, B)
    node.remove(A)
    node.put(moved)
    await node.follows(moved, B)


async def test_peer_that_turns_unreachable_by_its_own_fault_is_taken_away(node):
    await node.begin(A, B)
    node.put(A._replace(attrs=A.attrs._replace(backend_data='{"VNI":9,"VtepMAC":"02:00:00:00:01:02"}')))
    await node.follows(B)
    assert node.reconciler.leases.skipped == {"10.5.2.0-24": "its VNI is 9, the network's is 1"}
    node.put(A)
    await node.follows(A, B)


async def test_value_that_cannot_be_read_changes_nothing(node):
    await node.begin(A, B)
    node.reconciler.take_events([LeaseRejected("10.5.2.0-24", "no JSON"), LeaseRejected("x", "no key")])
    node.put(C)
    await node.follows(A, B, C)


async def test_many_leases_at_once(node):
    leases = [make_lease(index) for index in range(2, 250)]
    await node.begin()
    node.put(*leases)
    await node.follows(*leases)
    node.remove(*leases[10:])
    await node.follows(*leases[:10])


async def test_kernel_without_nexthop_objects(make_node):
    node = make_node(has_nexthops=False)
    await node.begin(A, B)
    await node.follows(A, B)
    node.remove(A)
    node.put(make_lease(3, mac_index=0x33))
    await node.follows(make_lease(3, mac_index=0x33))


@pytest.mark.parametrize(("network", "families"), [(V6, (IPV6,)), (DUAL, (IPV4, IPV6))], ids=["IPv6 only", "dual"])
async def test_ipv6(make_node, host, network, families):
    node = make_node(network)
    one, two = make_lease(2, families=families), make_lease(3, families=families)
    await node.begin(one, two)
    for family in families:
        await node.follows(one, two, family=family)
    node.remove(one)
    for family in families:
        await node.follows(two, family=family)
    assert host.addresses(node.device(IPV6)) == {"fd42:0:0:1::/128"}
    assert host.link("flannel-v6.1").get_attr("IFLA_MTU") == 1430


# Leases that share what the kernel has once


async def test_two_leases_with_one_mac_share_the_forwarding_entry(node):
    twin = make_lease(7, mac_index=2, remote="172.30.1.2")
    await node.begin(A, twin)
    await node.follows(A, twin)
    node.remove(A)
    await node.follows(twin)
    node.put(A)
    await node.follows(A, twin)
    node.remove(twin)
    await node.follows(A)


async def test_of_two_leases_with_one_mac_the_one_that_stays_has_it(node):
    # A node with a new address that came back before its former lease has ended.
    moved = make_lease(7, mac_index=2, remote="172.30.9.9")
    await node.begin(moved)
    node.put(A)
    await node.follows(moved, A)
    node.remove(A)
    await node.follows(moved)


async def test_two_leases_of_one_subnet_share_the_route(make_node):
    # A cluster that has become dual-stack: the former key of a node stays until it ends.
    node = make_node(DUAL)
    former, present = make_lease(2), make_lease(2, families=(IPV4, IPV6))
    await node.begin(former, present)
    node.remove(former)
    await node.settled()
    await node.follows(present)
    await node.follows(present, family=IPV6)


# What was there before


def make_stale(host, device):
    """Entries of a peer that is gone, as Go flannel and as we ourselves leave them."""

    def write(ipr):
        ipr.fdb("add", ifindex=device, lladdr=STRANGER, dst="172.30.0.99", flags=SELF, state=PERMANENT)
        ipr.neigh("add", ifindex=device, dst="10.5.77.0", lladdr=STRANGER, state=PERMANENT)
        ipr.route("add", dst="10.5.77.0/24", gateway="10.5.77.0", oif=device, flags=ONLINK, proto=3)
        ipr.route("add", dst="10.5.78.0/24", gateway="172.30.0.99", proto=3)

    host.do(write)
    request = nexthop.encode_replace(Nexthop(FIRST_ID + 0x5000, IPV4, number("10.5.80.0"), device, True))
    host.other.execute(request, "leave a nexthop")


def stale_nexthops(host):
    return [entry.id for entry in host.sock.dump(nexthop.encode_dump(), nexthop.decode, "read")]


async def test_nothing_is_pruned_before_all_leases_are_known(node, host):
    device = host.make_vxlan(mac=OWN_MAC)
    make_stale(host, device)
    before = node.state()
    await node.start()
    node.put(A)
    await until(lambda: host.addresses(device) == {"10.5.1.0/32"} and node.reconciler.busy_since is None)
    assert node.state() == before
    assert stale_nexthops(host) == [FIRST_ID + 0x5000]
    node.tell_all(A, B)
    await node.follows(A, B)
    await node.settled()
    assert FIRST_ID + 0x5000 not in stale_nexthops(host)
    assert node.device() == device


async def test_what_a_go_flannel_made_goes_on_without_a_gap(node, host):
    device = host.make_vxlan(mac=OWN_MAC)

    def fill(ipr):
        ipr.addr("add", index=device, address="10.5.1.0", prefixlen=32)
        ipr.fdb("add", ifindex=device, lladdr=MAC_A, dst="172.30.1.2", flags=SELF, state=PERMANENT)
        ipr.neigh("add", ifindex=device, dst="10.5.2.0", lladdr=MAC_A, state=PERMANENT)
        ipr.route("add", dst="10.5.2.0/24", gateway="10.5.2.0", oif=device, flags=ONLINK, proto=3)

    host.do(fill)
    await node.begin(A)
    await node.follows(A)
    assert node.device() == device
    assert host.routes()["10.5.2.0/24"][0] == 119


async def test_route_that_is_appended_to_ours_is_taken_away_and_ours_is_not_written_anew(node, host):
    await node.begin(A, B)
    await node.settled()
    operations = node.reconciler.counts.operations
    host.do(
        lambda ipr: ipr.route("append", dst=str(A.subnet), gateway="10.5.9.0", oif=node.device(), flags=ONLINK, proto=3)
    )

    def routes_to_a():
        found = host.do(lambda ipr: list(ipr.get_routes(family=2, table=254)))
        return [route for route in found if route.get_attr("RTA_DST") == str(A.subnet.base)]

    assert len(routes_to_a()) == 2
    await until(lambda: len(routes_to_a()) == 1)
    await node.settled()
    await node.follows(A, B)
    assert node.reconciler.counts.operations == operations + 1


async def test_what_is_foreign_is_left_alone(node, host):
    second = host.make_vxlan("flannel.2", vni=2)

    def write(ipr):
        ipr.fdb("add", ifindex=second, lladdr=STRANGER, dst="172.30.0.99", flags=SELF, state=PERMANENT)
        ipr.neigh("add", ifindex=host.uplink, dst="172.30.0.99", lladdr=STRANGER, state=PERMANENT)
        ipr.route("add", dst="10.5.99.0/24", gateway="172.30.0.99", proto=4)
        ipr.route("add", dst="10.5.2.0/24", gateway="172.30.0.99", proto=4, priority=77)
        ipr.route("add", dst="10.6.0.0/24", gateway="172.30.0.99", proto=3)

    host.do(write)
    foreign = Nexthop(0x46200000, IPV4, number("10.7.0.0"), second, True)
    host.other.execute(nexthop.encode_replace(foreign), "make another daemon's nexthop")

    def look():
        routes = host.do(lambda ipr: list(ipr.get_routes(family=2, table=254)))
        return (
            host.fdb(second),
            host.neighbours(host.uplink),
            sorted((route.get_attr("RTA_DST"), route["proto"]) for route in routes if route["proto"] in {3, 4}),
            foreign.id in stale_nexthops(host),
        )

    before = look()
    assert before[3]
    await node.begin(A, B)
    node.remove(A)
    node.tell_all()
    await node.settled()
    assert look() == before


# Vandalism


def flush_routes(node, ipr):
    for route in ipr.get_routes(family=2, table=254, proto=119):
        with suppress(NetlinkError):  # mended or gone meanwhile
            ipr.route("del", dst=f"{route.get_attr('RTA_DST')}/{route['dst_len']}")


def flush_neighbours(node, ipr):
    for entry in ipr.get_neighbours(family=2, ifindex=node.device(), state=PERMANENT):
        ipr.neigh("del", ifindex=node.device(), dst=entry.get_attr("NDA_DST"))


VANDALISM = {
    "device deleted": lambda node, ipr: ipr.link("del", index=node.device()),
    "device down": lambda node, ipr: ipr.link("set", index=node.device(), state="down"),
    "device down and up": lambda node, ipr: [
        ipr.link("set", index=node.device(), state=state) for state in ("down", "up")
    ],
    "another MAC": lambda node, ipr: ipr.link("set", index=node.device(), address=STRANGER),
    "another MTU": lambda node, ipr: ipr.link("set", index=node.device(), mtu=1400),
    "address deleted": lambda node, ipr: ipr.addr("del", index=node.device(), address="10.5.1.0", prefixlen=32),
    "address added": lambda node, ipr: ipr.addr("add", index=node.device(), address="10.5.1.9", prefixlen=32),
    "route deleted": lambda node, ipr: ipr.route("del", dst="10.5.2.0/24"),
    "routes flushed": flush_routes,
    "route replaced on the device": lambda node, ipr: ipr.route(
        "replace", dst="10.5.2.0/24", gateway="10.5.3.0", oif=node.device(), flags=ONLINK, proto=3
    ),
    "route replaced by a foreign one": lambda node, ipr: ipr.route(
        "replace", dst="10.5.2.0/24", gateway="172.30.0.99", proto=4
    ),
    "route added on the device": lambda node, ipr: ipr.route(
        "add", dst="10.5.99.0/24", gateway="10.5.2.0", oif=node.device(), flags=ONLINK
    ),
    "neighbour deleted": lambda node, ipr: ipr.neigh("del", ifindex=node.device(), dst="10.5.2.0"),
    "neighbour changed": lambda node, ipr: ipr.neigh(
        "replace", ifindex=node.device(), dst="10.5.2.0", lladdr=STRANGER, state=PERMANENT
    ),
    "neighbour no longer permanent": lambda node, ipr: ipr.neigh(
        "replace", ifindex=node.device(), dst="10.5.2.0", lladdr=STRANGER, state=4
    ),
    "neighbours flushed": flush_neighbours,
    "neighbour added": lambda node, ipr: ipr.neigh(
        "add", ifindex=node.device(), dst="10.5.99.0", lladdr=STRANGER, state=PERMANENT
    ),
    "FDB entry deleted": lambda node, ipr: ipr.fdb("del", ifindex=node.device(), lladdr=MAC_A, flags=SELF),
    "FDB entry changed": lambda node, ipr: ipr.fdb(
        "replace", ifindex=node.device(), lladdr=MAC_A, dst="172.30.0.99", flags=SELF, state=PERMANENT
    ),
    "FDB entry no longer permanent": lambda node, ipr: ipr.fdb(
        "replace", ifindex=node.device(), lladdr=MAC_A, dst="172.30.0.99", flags=SELF, state=2
    ),
    "FDB entry added": lambda node, ipr: ipr.fdb(
        "add", ifindex=node.device(), lladdr=STRANGER, dst="172.30.0.99", flags=SELF, state=PERMANENT
    ),
    "everything at once": lambda node, ipr: [VANDALISM[name](node, ipr) for name in EVERYTHING],
}
EVERYTHING = ("FDB entry changed", "neighbour deleted", "routes flushed", "another MAC", "address added")


@pytest.mark.parametrize("has_nexthops", [True, False], ids=["nexthops", "plain routes"])
@pytest.mark.parametrize("work", VANDALISM.values(), ids=VANDALISM)
async def test_vandalism_is_mended(make_node, host, work, has_nexthops):
    node = make_node(has_nexthops=has_nexthops)
    await node.begin(A, B)
    await node.follows(A, B)
    host.do(lambda ipr: work(node, ipr))
    await node.follows(A, B)

    def device_is_right():
        told = host.link("flannel.1")
        return (
            told.get_attr("IFLA_ADDRESS") == OWN_MAC
            and told.get_attr("IFLA_MTU") == 1450
            and told["flags"] & 1
            and host.addresses(node.device()) == {"10.5.1.0/32"}
        )

    await until(device_is_right)
    await node.follows(A, B)


@pytest.mark.parametrize(
    ("delete", "change"),
    [(True, {}), (False, {"gateway": number("10.5.3.0")})],
    ids=["deleted", "changed"],
)
async def test_nexthop_is_mended(node, host, delete, change):
    await node.begin(A, B)
    entry = Nexthop(ID_A, IPV4, number("10.5.2.0"), node.device(), True)._replace(**change)
    request = nexthop.encode_delete(entry) if delete else nexthop.encode_replace(entry)
    host.other.execute(request, "vandalise")
    assert node.state() != node.wanted(A, B)
    await node.follows(A, B)


async def test_nexthop_that_another_protocol_took_over_is_mended(node, host):
    await node.begin(A, B)
    host.ip(f"nexthop replace id {ID_A} via 10.5.3.0 dev flannel.1 onlink proto zebra")
    await node.follows(A, B)
    assert ID_A in stale_nexthops(host)


async def test_ipv6_vandalism_is_mended(make_node, host):
    node = make_node(DUAL)
    lease = make_lease(2, families=(IPV4, IPV6))
    await node.begin(lease)
    device = node.device(IPV6)
    [gateway] = host.neighbours(device, IPV6)
    for work in (
        lambda ipr: ipr.route("del", dst="fd42:0:0:2::/64"),
        lambda ipr: ipr.neigh("del", ifindex=device, dst=gateway),
        lambda ipr: ipr.addr("del", index=device, address="fd42:0:0:1::", prefixlen=128),
        lambda ipr: ipr.link("set", index=device, state="down"),
        lambda ipr: ipr.link("del", index=device),
    ):
        host.do(work)
        await node.follows(lease, family=IPV6)
        await node.follows(lease)


async def test_mended_again_and_again(node, host):
    await node.begin(A, B)
    for _ in range(5):
        host.do(lambda ipr: ipr.link("del", index=node.device()))
        await until(lambda: node.device() is not None)
        await node.follows(A, B)
        assert host.link("flannel.1").get_attr("IFLA_ADDRESS") == OWN_MAC


async def test_nothing_is_written_to_a_device_that_is_gone(node, host, monkeypatch):
    await node.begin(A, B)
    await node.follows(A, B)
    former, drift = node.device(), node.reconciler.drift
    read = drift.read

    def read_of_entries(own_fdb):
        """What the kernel tells first of a device that goes."""
        monkeypatch.setattr(drift, "read", read)
        return read(own_fdb) & {Change.FDB}

    monkeypatch.setattr(drift, "read", read_of_entries)
    host.do(lambda ipr: ipr.link("del", index=former))
    await until(lambda: node.device() not in {None, former})
    await node.follows(A, B)
    assert not node.reconciler.counts.errors


async def test_device_that_somebody_undoes_after_each_try_is_mended_in_the_end(node, host, monkeypatch):
    await node.begin(A)
    mend, undone = node.ground.mend_devices, []

    def mend_and_undo():
        changed = mend()
        if changed and len(undone) < 3:
            undone.append(host.ip("link set flannel.1 down"))
        return changed

    monkeypatch.setattr(node.ground, "mend_devices", mend_and_undo)
    host.ip("link set flannel.1 down")
    await until(lambda: len(undone) == 3 and host.link("flannel.1")["flags"] & 1)
    await node.follows(A)


async def test_vandalism_while_leases_change(node, host):
    await node.begin(A, B)
    for index in range(10, 30):
        node.put(make_lease(index))
        host.do(lambda ipr: flush_routes(node, ipr))
        await asyncio.sleep(0)
        if index % 5 == 0:
            host.do(lambda ipr: ipr.link("del", index=node.device()) if node.device() else None)
    await node.follows(A, B, *(make_lease(index) for index in range(10, 30)))


async def test_full_comparison_mends_what_nobody_was_told_of(make_node, host, monkeypatch):
    node = make_node(resync_interval=0.05)
    monkeypatch.setattr(node.reconciler.drift._monitor, "read_changes", lambda scope, own_fdb: set())
    await node.begin(A, B)
    for name in ("route deleted", "FDB entry changed", "neighbour added", "device deleted"):
        host.do(lambda ipr, name=name: VANDALISM[name](node, ipr))
        await until(lambda: node.device() is not None)
        await node.follows(A, B)


async def test_vandalism_while_a_new_device_is_filled(node, host, monkeypatch):
    others = [make_lease(index) for index in range(10, 60)]

    def write_and_vandalise(sock, batch, apply=table_writer.apply_batch):
        monkeypatch.setattr(table_writer, "apply_batch", apply)
        assert isinstance(batch[0].entry, FdbEntry)
        failed = apply(sock, batch)
        host.do(lambda ipr: VANDALISM["FDB entry changed"](node, ipr))
        return failed

    monkeypatch.setattr(table_writer, "apply_batch", write_and_vandalise)
    await node.begin(A, *others)
    await node.follows(A, *others)


async def test_own_changes_are_no_drift(node):
    await node.begin(A)
    for index in range(10, 40):
        node.put(make_lease(index))
        await asyncio.sleep(0)
    node.remove(A)
    await node.settled()
    assert not {"fdb", "neighbour", "nexthop", "route"} & node.reconciler.drift.counts.keys()


# Direct routing


async def test_direct_peers_beside_tunnelled_ones(make_node, host):
    node = make_node(DirectRouting=True)
    far = make_lease(9, remote="198.51.100.9")
    await node.begin(A, far)
    fdb, neighbours, routes = node.wanted(far)
    routes |= node.wanted(A, direct=True)[2]
    await until(lambda: node.state() == (fdb, neighbours, routes))


async def test_direct_routes_follow_the_underlay(make_node, host):
    node = make_node(DirectRouting=True)
    await node.begin(A)
    await node.follows(A, direct=True)
    host.do(lambda ipr: ipr.route("add", dst="172.30.1.0/24", gateway="172.30.0.1"))
    await until(lambda: node.state()[0] == node.wanted(A)[0] and node.state()[2]["10.5.2.0/24"][1] == node.device())
    host.do(lambda ipr: ipr.route("del", dst="172.30.1.0/24"))
    await node.follows(A, direct=True)


@pytest.mark.parametrize("has_nexthops", [True, False], ids=["nexthops", "plain routes"])
@pytest.mark.parametrize("states", [("down", "up"), ("down", "up", "down", "up")])
async def test_direct_routes_are_back_after_the_uplink_was_down(make_node, host, states, has_nexthops):
    # Without IPv6 the host's routes are the same as before, and there is nothing else to tell by.
    setting = Path("/proc/sys/net/ipv6/conf") / UPLINK / "disable_ipv6"
    host.namespace.run(setting.write_text, "1")
    node = make_node(DirectRouting=True, has_nexthops=has_nexthops)
    await node.begin(A)
    await node.follows(A, direct=True)
    host.do(lambda ipr: [ipr.link("set", index=host.uplink, state=state) for state in states])
    await node.follows(A, direct=True)


async def test_underlay_that_changes_while_the_device_is_mended(make_node, host, monkeypatch):
    node = make_node(DirectRouting=True)
    await node.begin(A)
    await node.follows(A, direct=True)
    keeper = node.reconciler._keeper
    mend_devices = keeper.mend_devices

    def mend():
        monkeypatch.setattr(keeper, "mend_devices", mend_devices)
        mended = mend_devices()
        host.do(lambda ipr: ipr.route("add", dst="172.30.1.0/24", gateway="172.30.0.1"))
        return mended

    monkeypatch.setattr(keeper, "mend_devices", mend)
    host.do(lambda ipr: ipr.link("set", index=node.device(), mtu=1400))
    await until(lambda: node.state()[0] == node.wanted(A)[0] and node.state()[2]["10.5.2.0/24"][1] == node.device())


# What the kernel refuses


def occupy(host, ident):
    """Make the id a group's: the kernel refuses to replace it by a plain nexthop."""
    member = Nexthop(0x77, IPV4, number("10.9.0.0"), host.index("flannel.1"), True)
    host.other.execute(nexthop.encode_replace(member), "make a member")
    group = struct.pack("=BBBBI", 0, 0, 4, 0, 0) + netlink.encode_u32(1, ident)
    group += netlink.encode_attribute(2, struct.pack("=IBBH", 0x77, 0, 0, 0))
    host.other.execute(Request(nexthop.RTM_NEWNEXTHOP, netlink.NLM_F_CREATE, group), "make a group")


async def test_peer_that_the_kernel_refuses_holds_up_nobody_and_is_tried_again(node, host, caplog):
    await node.begin()
    occupy(host, ID_A)
    await node.settled()
    node.put(A, B)
    node.put(*(make_lease(index) for index in range(10, 60)))
    others = [B, *(make_lease(index) for index in range(10, 60))]

    def others_are_there():
        routes = node.state()[2]
        return all(str(lease.subnet) in routes for lease in others)

    await until(others_are_there)
    assert len(node.reconciler.retries) >= 1
    assert any("kernel refused" in record.message and "trying again" in record.message for record in caplog.records)
    assert node.state()[2].get(str(A.subnet)) != node.wanted(A)[2][str(A.subnet)]
    host.other.execute(nexthop.encode_delete(Nexthop(0x77, IPV4, 0, 0, False)), "free the id")
    await node.follows(A, *others)
    await until(lambda: len(node.reconciler.retries) == 0)


async def test_new_peer_goes_before_everything_that_was_refused(node, host, monkeypatch):
    await node.begin()
    occupy(host, ID_A)
    node.put(A)
    retries = node.reconciler.retries
    await until(lambda: len(retries) > 0)
    await node.settled()
    written = []

    def write_down(sock, batch, apply=table_writer.apply_batch):
        written.extend(operation.entry for operation in batch)
        return apply(sock, batch)

    monkeypatch.setattr(table_writer, "apply_batch", write_down)
    monkeypatch.setattr(retries, "due", lambda _: [failure.operation for failure in retries])
    refused = [failure.operation.entry for failure in retries]
    node.put(B)
    await until(lambda: set(refused) <= set(written))
    new = [entry for entry in written if entry not in refused]
    assert written[: len(new)] == new
    assert len(new) >= 4


@pytest.mark.parametrize("refusals", [1, 2])
async def test_route_of_others_that_could_not_be_replaced_goes_with_its_lease(node, host, monkeypatch, refusals):
    """The first refusal is of our route in its place, the second of its deletion."""
    await node.begin()
    node.put(A)
    await node.follows(A)
    await node.settled()
    left = refusals

    def refuse(sock, batch, apply=table_writer.apply_batch):
        nonlocal left
        if left and any(isinstance(operation.entry, Route) for operation in batch):
            left -= 1
            return dict.fromkeys(range(len(batch)), (errno.EBUSY, "refused for the test"))
        return apply(sock, batch)

    monkeypatch.setattr(table_writer, "apply_batch", refuse)
    device = node.device()
    host.do(
        lambda ipr: ipr.route(
            "replace", dst=str(A.subnet), gateway="10.5.99.0", oif=device, flags=ONLINK, proto=PROTOCOL_BOOT
        )
    )
    await until(lambda: len(node.reconciler.retries) == 1)
    node.remove(A)
    await node.follows()
    assert left == 0


async def test_refused_peer_that_goes_away_is_no_longer_tried(node, host):
    await node.begin(B)
    occupy(host, ID_A)
    node.put(A)
    await until(lambda: len(node.reconciler.retries) > 0)
    node.remove(A)
    await until(lambda: not [one for one in node.reconciler.retries if not one.operation.delete])
    await node.follows(B)


async def test_device_that_cannot_be_made_is_waited_for(make_node, host, caplog):
    other = host.make_vxlan("calico.1", mac=STRANGER)
    caplog.set_level("INFO")
    node = make_node()
    await node.start()
    await until(lambda: "VNI already exists" in caplog.text)
    node.tell_all(A)
    node.put(B)
    await until(lambda: sum(node.reconciler.counts.errors.values()) > 1)
    host.do(lambda ipr: ipr.link("del", index=other))
    await node.follows(A, B)
    assert caplog.text.count("VNI already exists") == 1  # it was tried again and again, and told once
    await until(lambda: "reconcile goes on" in caplog.text)


def usurp(node, host):
    """Have a stranger's device in the place of ours: the kernel lets us make no other."""

    def swap(ipr):
        ipr.link("del", index=node.device())
        ipr.link("add", ifname="calico.1", kind="vxlan", vxlan_id=1, vxlan_port=8472, vxlan_link=host.uplink)

    host.do(swap)


def give_way(host):
    host.do(lambda ipr: ipr.link("del", index=ipr.link_lookup(ifname="calico.1")[0]))


async def test_device_that_cannot_be_made_again_is_waited_for(node, host):
    await node.begin(A)
    usurp(node, host)
    node.put(B)
    await asyncio.sleep(0)
    node.put(C)
    give_way(host)
    await until(lambda: node.device() is not None)
    await node.follows(A, B, C)


async def test_another_source_is_not_kept_waiting_by_what_the_former_one_was_refused(make_node, host, monkeypatch):
    monkeypatch.setattr(reconciler, "_PAUSE", NEVER)
    node = make_node()
    (source,) = node.reconciler._wanted.sources
    await node.begin(A)
    usurp(node, host)
    await until(lambda: node.reconciler.broken_off)
    give_way(host)
    node.reconciler.rebase(source, source)
    await node.follows(A)


# The end


async def test_what_was_programmed_stays_when_the_daemon_stops(node):
    await node.begin(A, B)
    await node.stop()
    assert node.state() == node.wanted(A, B)


async def test_next_daemon_takes_over_and_takes_away_what_has_gone(make_node, host):
    first = make_node()
    await first.begin(A, B)
    await first.stop()
    second = make_node()
    device = first.device()
    await second.begin(B, C)
    await second.follows(B, C)
    assert second.device() == device
    assert second.reconciler.counts.operations <= 8
