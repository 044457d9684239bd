"""What is ours among the kernel's objects, and what reading, writing and watching make of it."""

import socket
from functools import partial

import pytest

from flanneld_py.core.entries import FdbEntry, Kind, Neighbour, Nexthop, Route, entry_key
from flanneld_py.core.plan import Operation, order
from flanneld_py.core.prefix import Prefix
from flanneld_py.kernel import ndmsg, neighbour, nexthop, route
from flanneld_py.kernel.dataplane import Scope, apply_batch, digest_steps, read_steps
from flanneld_py.kernel.monitor import Change, Monitor
from tests.host import IPV4, IPV6, ONLINK, PERMANENT, SELF, mac, number, parse_prefix

pytestmark = pytest.mark.kernel

MAC, OTHER = "02:00:00:00:00:02", "02:00:00:00:00:03"
IDS = range(0x46100000, 0x46200000)
ID = 0x46100200
SUBNET, SUBNET6 = parse_prefix("10.5.2.0/24"), parse_prefix("fd42:0:0:2::/64")


class Ours:
    """A host with our two devices and a scope, and the entries of one peer in each family."""

    def __init__(self, host):
        self.host = host
        self.device = host.make_vxlan()
        self.device6 = host.make_vxlan("flannel-v6.1", vxlan_local6="fd30::11", mtu=1430)
        self.scope = Scope(
            {IPV4: self.device, IPV6: self.device6},
            host.uplink,
            (parse_prefix("10.5.0.0/16"), parse_prefix("fd42::/48")),
            (24, 64),
            IDS,
            has_nexthops=True,
        )
        self.entries = [
            *self.peer(IPV4, self.device, SUBNET, "172.30.0.12", ID),
            *self.peer(IPV6, self.device6, SUBNET6, "fd30::12", ID + 0x80000),
        ]

    @staticmethod
    def peer(family, device, subnet, remote, ident):
        return [
            FdbEntry(device, mac(MAC), family, number(remote)),
            Neighbour(device, family, subnet.address, mac(MAC)),
            Nexthop(ident, family, subnet.address, device, True),
            Route(subnet, route.default_metric(family), ident, 0, 0, False),
        ]

    def read(self, kind):
        *_, table = read_steps(self.host.sock, self.scope, kind)
        assert all(entry_key(entry) == key for key, entry in table.items())
        return set(table.values())

    def digest(self, kind):
        *_, digest = digest_steps(self.host.sock, self.scope, kind)
        return digest

    def many(self, count):
        """Write the entries of so many peers in IPv4."""
        for i in range(count):
            subnet = Prefix(IPV4, SUBNET.address + (i << 8), 24)
            fdb, neigh, hop, path = self.peer(IPV4, self.device, subnet, f"172.30.{i >> 7}.{i & 127}", ID + i)
            lladdr = (0x020100000000 + i).to_bytes(6, "big")
            self.write([fdb._replace(mac=lladdr), neigh._replace(lladdr=lladdr), hop, path])

    def read_all(self):
        return {entry for kind in Kind for entry in self.read(kind)}

    def write(self, entries=None, *, delete=False, sock=None):
        operations = [Operation(KINDS[type(entry)], delete, entry) for entry in entries or self.entries]
        assert apply_batch(sock or self.host.sock, order(operations)) == {}


KINDS = {FdbEntry: Kind.FDB, Neighbour: Kind.NEIGHBOUR, Nexthop: Kind.NEXTHOP, Route: Kind.ROUTE}


@pytest.fixture
def ours(host):
    return Ours(host)


def test_written_and_read_and_deleted(ours):
    assert ours.read_all() == set()
    ours.write()
    assert ours.read_all() == set(ours.entries)
    ours.write()
    ours.write(delete=True)
    assert ours.read_all() == set()


@pytest.mark.parametrize("kind", [kind for kind in Kind if kind != Kind.DRIVEN])
def test_sum_is_that_of_the_entries_whatever_lies_among_them(ours, kind):
    ours.write()
    ours.many(1000)
    host, device = ours.host, "dev flannel.1"
    for change in (
        lambda: None,
        lambda: host.ip(f"neigh replace 10.5.7.9 lladdr {OTHER} nud stale {device}"),
        lambda: host.ip(f"neigh replace 10.5.7.0 lladdr {OTHER} nud permanent {device}"),
        lambda: host.ip(f"fdb replace {OTHER} dst 172.30.0.9 {device}", "bridge"),
        lambda: host.ip(f"route replace 10.5.7.0/25 via 10.5.7.0 onlink {device}"),
        lambda: ours.write([Nexthop(ID + 5, IPV4, number("172.30.0.9"), host.uplink, True)]),
        lambda: ours.write([Route(SUBNET, 0, ID + 5, 0, 0, False)]),
        lambda: ours.write([Route(parse_prefix("10.7.100.0/25"), 0, ID, 0, 0, False)]),
    ):
        change()
        assert ours.digest(kind) == sum(hash(entry) for entry in ours.read(kind))


@pytest.mark.parametrize(
    ("request_of", "peek", "sum_up"),
    [
        (neighbour.encode_dump_fdb, neighbour.peek_fdb, neighbour.sum_fdb),
        (
            lambda device: neighbour.encode_dump_neighbours(IPV4, device),
            neighbour.peek_neighbour,
            neighbour.sum_neighbours,
        ),
        (lambda _: nexthop.encode_dump(), nexthop.peek, partial(nexthop.sum_up, ids=IDS)),
        (lambda _: route.encode_dump(IPV4), route.peek, partial(route.sum_up, ids=IDS)),
    ],
    ids=["fdb", "neighbour", "nexthop", "route"],
)
def test_many_of_a_kind_are_summed_up_at_once(ours, request_of, peek, sum_up):
    ours.many(2000)
    peeked = []

    def peek_one(data, offset):
        peeked.append(offset)
        return peek(data, offset)

    *_, digest = ours.host.sock.digest_steps(request_of(ours.device), peek_one, "sum up", sum_up)
    *_, one_by_one = ours.host.sock.digest_steps(request_of(ours.device), peek, "sum up")
    assert digest == one_by_one
    # The first routes are the kernel's, and the end of the dump stands behind the last of each table.
    assert len(peeked) < 1500


def test_deleting_what_is_gone_is_no_failure(ours):
    ours.write()
    ours.write(delete=True)
    ours.write(delete=True)


def test_deleting_on_a_device_that_is_gone_is_no_failure(ours):
    ours.write()
    for device in (ours.device, ours.device6):
        ours.host.do(lambda ipr, device=device: ipr.link("del", index=device))
    ours.write(delete=True)
    assert ours.read_all() == set()


def test_refused_operations_are_told_by_index(ours):
    bad = Neighbour(9999, IPV4, 1, mac(MAC))
    operations = [Operation(KINDS[type(entry)], False, entry) for entry in (*ours.entries[:2], bad, *ours.entries[2:])]
    [(index, (errno, reason))] = apply_batch(ours.host.sock, operations).items()
    assert (index, errno, bool(reason)) == (2, 19, True)
    assert ours.read_all() == set(ours.entries)


def test_everything_on_our_devices_is_ours_but_what_the_kernel_makes(ours):
    def write(ipr):
        ipr.addr("add", index=ours.device, address="10.5.1.0", prefixlen=24)
        ipr.addr("add", index=ours.device6, address="fd42:0:0:1::", prefixlen=64)
        ipr.route("add", dst="192.168.9.0/24", oif=ours.device, proto=4, priority=5)
        ipr.route("add", dst="10.5.7.0/24", gateway="10.5.7.0", oif=ours.device, flags=ONLINK, proto=3)
        ipr.fdb("add", ifindex=ours.device, lladdr=OTHER, dst="172.30.0.13", flags=SELF, state=PERMANENT)
        ipr.fdb(
            "append", ifindex=ours.device, lladdr="00:00:00:00:00:00", dst="172.30.0.14", flags=SELF, state=PERMANENT
        )
        ipr.neigh("add", ifindex=ours.device, dst="10.5.7.0", lladdr=OTHER, state=PERMANENT)

    ours.host.do(write)
    assert {str(entry.dst) for entry in ours.read(Kind.ROUTE)} == {"192.168.9.0/24", "10.5.7.0/24"}
    assert {entry.mac.hex(":") for entry in ours.read(Kind.FDB)} == {OTHER, "00:00:00:00:00:00"}
    assert {entry.address for entry in ours.read(Kind.NEIGHBOUR)} == {number("10.5.7.0")}


def test_direct_routes_of_a_former_go_flannel_are_ours(ours):
    def write(ipr):
        for dst, changes in {
            "10.5.3.0/24": {},
            "10.5.4.0/25": {},
            "10.6.3.0/24": {},
            "10.5.5.0/24": {"proto": 4},
            "10.5.6.0/24": {"priority": 10},
            "fd42:0:0:3::/64": {"gateway": "fd30::12"},
            "fd43:0:0:3::/64": {"gateway": "fd30::12"},
        }.items():
            ipr.route("add", dst=dst, **({"gateway": "172.30.0.12", "proto": 3} | changes))

    ours.host.do(write)
    ours.host.do(lambda ipr: ipr.route("add", dst="10.5.8.0/24", oif=ours.host.uplink, proto=3, scope=253))
    assert {str(entry.dst) for entry in ours.read(Kind.ROUTE)} == {"10.5.3.0/24", "fd42:0:0:3::/64"}


def test_our_own_direct_routes_are_ours_at_any_length(ours):
    routes = [
        Route(parse_prefix(text), 0, 0, number("172.30.0.12"), ours.host.uplink, False)
        for text in ("10.5.3.0/24", "10.5.4.0/26", "10.6.0.0/24")
    ]
    ours.write(routes)
    assert ours.read(Kind.ROUTE) == set(routes[:2])


def test_routes_of_other_tables_and_types_of_service_are_foreign(ours):
    def write(ipr):
        ipr.route("add", dst="10.5.3.0/24", oif=ours.device, table=77)
        ipr.route("add", dst="10.5.4.0/24", oif=ours.device, tos=16)

    ours.host.do(write)
    assert ours.read(Kind.ROUTE) == set()


def test_nexthops_of_others_and_their_routes_are_foreign(ours):
    host = ours.host
    host.ip(f"nexthop add id {ID} via 172.30.0.12 dev eth0 proto zebra")
    host.ip(f"nexthop add id {IDS.stop} via 172.30.0.12 dev eth0 proto 119")
    host.ip(f"nexthop add id {IDS.start - 1} via 172.30.0.12 dev eth0 proto 119")
    host.ip(f"route add 10.5.3.0/24 nhid {ID} proto zebra")
    host.ip(f"route add 10.5.4.0/24 nhid {IDS.stop} proto 119")
    assert ours.read_all() == set()
    host.ip(f"nexthop add id {IDS.stop - 1} via 172.30.0.12 dev eth0 proto 119")
    assert {entry.id for entry in ours.read(Kind.NEXTHOP)} == {IDS.stop - 1}


def test_entries_of_another_flannel_are_foreign(ours):
    second = ours.host.make_vxlan("flannel.2", vni=2)
    other = ours.peer(IPV4, second, parse_prefix("10.7.2.0/24"), "172.30.0.12", 0x46200200)
    ours.write(other)
    assert ours.read_all() == set()


def test_a_kernel_without_nexthops_is_not_asked_for_them(ours):
    scope = Scope(ours.scope.devices, ours.host.uplink, ours.scope.networks, (24, 64), IDS, has_nexthops=False)
    assert list(read_steps(ours.host.sock, scope, Kind.NEXTHOP)) == [{}]


# Watching


@pytest.fixture
def monitor(ours):
    opened = ours.host.namespace.run(Monitor, ours.host.sock.port)
    yield opened
    opened.close()


@pytest.fixture
def watch(ours, monitor):
    def changes(own_fdb=()):
        return monitor.read_changes(ours.scope, set(own_fdb))

    return changes


def test_nothing_has_happened(watch):
    assert watch() == set()


def test_own_changes_are_not_reported(ours, watch):
    # Of a forwarding entry the kernel does not say who changed it.
    fdb = [entry for entry in ours.entries if isinstance(entry, FdbEntry)]
    ours.write()
    assert watch({(ndmsg.RTM_NEWNEIGH, entry) for entry in fdb}) == set()
    ours.write()
    assert watch({(ndmsg.RTM_NEWNEIGH, entry) for entry in fdb}) == set()
    ours.write(delete=True)
    assert watch({(ndmsg.RTM_DELNEIGH, entry) for entry in fdb}) == set()


def test_fdb_changes_of_others_are_told_from_ours(ours, watch):
    fdb = ours.entries[0]
    own = {(ndmsg.RTM_NEWNEIGH, fdb)}
    ours.write([fdb])
    ours.write([fdb._replace(remote=number("172.30.0.99"))], sock=ours.host.other)
    assert watch(own) == {Change.FDB}
    ours.write([fdb], delete=True, sock=ours.host.other)
    assert watch(own) == {Change.FDB}


def test_new_fdb_entries_alone_are_overlooked_where_that_is_asked_for(ours, monitor, watch):
    with monitor.overlooking_fdb():
        ours.write()
        ours.write([ours.entries[0]], sock=ours.host.other)
        assert watch() == set()
        ours.write([ours.entries[0]], delete=True, sock=ours.host.other)
        assert watch() == {Change.FDB}
        ours.write([ours.entries[1]], delete=True, sock=ours.host.other)
        assert watch() == {Change.NEIGHBOUR}
    ours.write([ours.entries[0]], sock=ours.host.other)
    assert watch() == {Change.FDB}


FOREIGN_CHANGES = {
    "neighbour deleted": (
        lambda ours, ipr: ipr.neigh("del", ifindex=ours.device, dst="10.5.2.0"),
        {Change.NEIGHBOUR},
    ),
    "neighbour changed": (
        lambda ours, ipr: ipr.neigh("replace", ifindex=ours.device, dst="10.5.2.0", lladdr=OTHER, state=PERMANENT),
        {Change.NEIGHBOUR},
    ),
    "neighbour permanent no more": (
        lambda ours, ipr: ipr.neigh("replace", ifindex=ours.device, dst="10.5.2.0", lladdr=MAC, state=4),
        {Change.NEIGHBOUR},
    ),
    "IPv6 neighbour deleted": (
        lambda ours, ipr: ipr.neigh("del", ifindex=ours.device6, dst="fd42:0:0:2::"),
        {Change.NEIGHBOUR},
    ),
    "FDB entry deleted": (
        lambda ours, ipr: ipr.fdb("del", ifindex=ours.device, lladdr=MAC, flags=SELF),
        {Change.FDB},
    ),
    "FDB entry changed": (
        lambda ours, ipr: ipr.fdb(
            "replace", ifindex=ours.device, lladdr=MAC, dst="172.30.0.99", flags=SELF, state=PERMANENT
        ),
        {Change.FDB},
    ),
    "FDB entry permanent no more": (
        lambda ours, ipr: ipr.fdb("replace", ifindex=ours.device, lladdr=MAC, dst="172.30.0.12", flags=SELF, state=2),
        {Change.FDB},
    ),
    "FDB entry added": (
        lambda ours, ipr: ipr.fdb(
            "add", ifindex=ours.device, lladdr=OTHER, dst="172.30.0.99", flags=SELF, state=PERMANENT
        ),
        {Change.FDB},
    ),
    "route deleted": (lambda ours, ipr: ipr.route("del", dst="10.5.2.0/24"), {Change.ROUTE}),
    "IPv6 route deleted": (lambda ours, ipr: ipr.route("del", dst="fd42:0:0:2::/64"), {Change.ROUTE}),
    "route replaced by Go flannel": (
        lambda ours, ipr: ipr.route(
            "replace", dst="10.5.2.0/24", gateway="10.5.2.0", oif=ours.device, flags=ONLINK, proto=3
        ),
        {Change.ROUTE},
    ),
    "route replaced by a foreign one": (
        lambda ours, ipr: ipr.route("replace", dst="10.5.2.0/24", gateway="172.30.0.99", proto=4),
        {Change.ROUTE, Change.UNDERLAY},
    ),
    "foreign route added": (
        lambda ours, ipr: ipr.route("add", dst="192.168.0.0/24", gateway="172.30.0.99"),
        {Change.UNDERLAY},
    ),
    "device down": (lambda ours, ipr: ipr.link("set", index=ours.device, state="down"), {Change.DEVICE}),
    "device deleted": (lambda ours, ipr: ipr.link("del", index=ours.device), {Change.DEVICE}),
    "device's MAC changed": (lambda ours, ipr: ipr.link("set", index=ours.device, address=OTHER), {Change.DEVICE}),
    "device's MTU changed": (lambda ours, ipr: ipr.link("set", index=ours.device, mtu=1400), {Change.DEVICE}),
    "address added to the device": (
        lambda ours, ipr: ipr.addr("add", index=ours.device, address="10.5.9.1", prefixlen=32),
        {Change.DEVICE},
    ),
    "uplink down": (
        lambda ours, ipr: ipr.link("set", index=ours.host.uplink, state="down"),
        {Change.UNDERLAY, Change.NEXTHOP, Change.ROUTE},
    ),
    "uplink's address deleted": (
        lambda ours, ipr: ipr.addr("del", index=ours.host.uplink, address="172.30.0.11", prefixlen=16),
        {Change.UNDERLAY, Change.NEXTHOP, Change.ROUTE},
    ),
    "address added to the uplink": (
        lambda ours, ipr: ipr.addr("add", index=ours.host.uplink, address="172.30.0.77", prefixlen=32),
        {Change.UNDERLAY},
    ),
}


@pytest.mark.parametrize(("work", "expected"), FOREIGN_CHANGES.values(), ids=FOREIGN_CHANGES)
def test_changes_of_others_are_reported(ours, watch, work, expected):
    ours.write()
    watch()
    ours.host.do(lambda ipr: work(ours, ipr))
    found = watch()
    # With a device goes what is on it, and some of that is told as well.
    assert expected <= found if expected & {Change.DEVICE, Change.UNDERLAY} else found == expected


@pytest.mark.parametrize(
    ("entry", "change", "expected"),
    [
        (2, {}, {Change.NEXTHOP, Change.ROUTE}),
        (6, {}, {Change.NEXTHOP, Change.ROUTE}),
        (2, {"gateway": number("10.5.2.9")}, {Change.NEXTHOP}),
    ],
    ids=["deleted", "IPv6 deleted", "changed"],
)
def test_nexthop_changes_of_others_are_reported(ours, watch, entry, change, expected):
    ours.write()
    watch()
    ours.write([ours.entries[entry]._replace(**change)], delete=not change, sock=ours.host.other)
    # Newer kernels tell of the routes that follow a changed nexthop.
    assert expected <= watch() <= {Change.NEXTHOP, Change.ROUTE}


def test_nexthop_that_another_protocol_takes_over_is_reported(ours, watch):
    ours.write()
    watch()
    ours.host.ip(f"nexthop replace id {ID} via 10.5.2.0 dev flannel.1 onlink proto zebra")
    assert Change.NEXTHOP in watch()


def test_what_does_not_concern_us_is_not_reported(ours, watch):
    second = ours.host.make_vxlan("flannel.2", vni=2)
    watch()

    def busy(ipr):
        ipr.link("add", ifname="veth0", kind="veth", peer="veth1")
        pod = ipr.link_lookup(ifname="veth0")[0]
        ipr.link("set", index=pod, state="up")
        ipr.addr("add", index=pod, address="192.168.77.1", prefixlen=32)
        ipr.neigh("add", ifindex=ours.host.uplink, dst="172.30.0.12", lladdr=OTHER, state=PERMANENT)
        ipr.fdb("add", ifindex=second, lladdr=OTHER, dst="172.30.0.13", flags=SELF, state=PERMANENT)
        ipr.link("del", index=pod)

    ours.host.do(busy)
    ours.host.ip("nexthop add id 77 via 10.9.9.9 dev flannel.2 onlink")
    assert watch() == set()


def test_what_the_kernel_resolves_by_itself_is_not_reported(ours, watch):
    ours.host.do(lambda ipr: ipr.addr("add", index=ours.device, address="10.5.1.1", prefixlen=24))
    watch()

    def ask():
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.sendto(b"", ("10.5.1.77", 9))

    ours.host.namespace.run(ask)
    assert watch() == set()


def test_lost_notifications_mean_everything(ours, watch):
    device = ours.device
    for start in range(0, 20_000, 200):
        entries = [Neighbour(device, IPV4, 0x0A050000 + index, mac(MAC)) for index in range(start, start + 200)]
        ours.write(entries, sock=ours.host.other)
    assert watch() == set(Change)
    # The kernel drops nothing more, though nothing was read in between.
    ours.host.ip("route add 10.5.200.0/24 dev flannel.1")
    assert watch() == {Change.ROUTE}
    assert watch() == set()
