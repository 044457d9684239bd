"""Ways to peers put together from entries, for each manner in which backends carry packets."""

import pytest

from flanneld_py.core.entries import UNREACHABLE, FdbEntry, Neighbour, Nexthop, Route
from flanneld_py.core.prefix import parse_prefix
from flanneld_py.ctl.node_view import NodeView, find_ways
from flanneld_py.ctl.peers import join, matches
from flanneld_py.kernel.link import Link
from tests.host import IPV4, mac, number

ETH0, VXLAN, TUN, IPIP = 2, 3, 4, 5
LINKS = (
    Link(ETH0, "eth0", 1, 1500, b"", "veth", {}, 0, 0),
    Link(VXLAN, "flannel.1", 1, 1450, b"", "vxlan", {}, 0, 0),
    Link(TUN, "flannel0", 1, 1472, b"", "tun", {}, 0, 0),
    Link(IPIP, "flannel.ipip", 1, 1480, b"", "ipip", {}, 0, 0),
)
NETWORK, SUBNET = parse_prefix("10.5.0.0/16"), parse_prefix("10.5.2.0/24")
PUBLIC = "172.30.0.12"
MAC = "02:00:00:00:00:02"
PEER = {"subnet": str(SUBNET), "public_ip": PUBLIC, "mac": MAC}
NEIGHBOUR = Neighbour(VXLAN, IPV4, SUBNET.address, mac(MAC))
FDB = FdbEntry(VXLAN, mac(MAC), IPV4, number(PUBLIC))
BY_NEXTHOP = Route(SUBNET, 0, 7, 0, 0, onlink=False)
NEXTHOP = Nexthop(7, IPV4, SUBNET.address, VXLAN, onlink=True)


def route(gateway, ifindex, dst=SUBNET, **changes):
    return Route(dst, 0, 0, number(gateway) if gateway else 0, ifindex, onlink=True, **changes)


def state(*routes, nexthops=(), neighbours=(), fdb=(), peer=PEER):
    view = NodeView(LINKS, (), routes, tuple(nexthops), tuple(neighbours), tuple(fdb))
    return [(row["way"], row["state"]) for row in join([peer], find_ways(view))]


@pytest.mark.parametrize(
    ("found", "told"),
    [
        (state(BY_NEXTHOP, nexthops=[NEXTHOP], neighbours=[NEIGHBOUR], fdb=[FDB]), ("tunnel", "ok")),
        (state(route("10.5.2.0", VXLAN, protocol=3), neighbours=[NEIGHBOUR], fdb=[FDB]), ("tunnel", "ok")),
        (state(BY_NEXTHOP), ("none", "no nexthop")),
        (state(BY_NEXTHOP, nexthops=[NEXTHOP], fdb=[FDB]), ("tunnel", "no neighbour")),
        (state(BY_NEXTHOP, nexthops=[NEXTHOP], neighbours=[NEIGHBOUR]), ("tunnel", "no forwarding entry")),
        (
            state(
                BY_NEXTHOP, nexthops=[NEXTHOP], neighbours=[NEIGHBOUR], fdb=[FDB._replace(remote=number("172.30.0.9"))]
            ),
            ("tunnel", "leads to 172.30.0.9"),
        ),
        (state(route(PUBLIC, ETH0)), ("direct", "ok")),
        (state(route("172.30.0.9", ETH0)), ("direct", "leads to 172.30.0.9")),
        (state(route(PUBLIC, IPIP)), ("tunnel", "ok")),
        (state(route("", TUN, dst=NETWORK)), ("tunnel", "ok")),
        (state(route("", VXLAN, dst=NETWORK)), ("none", "no route")),
        (state(route("", 0, type=UNREACHABLE)), ("none", "no route")),
        (state(route("172.30.0.9", ETH0, protocol=3)), ("none", "no route")),
        (state(peer=PEER | {"way": "extension"}), ("extension", "ok")),
    ],
)
def test_ways(found, told):
    assert found == [told]


def test_a_way_that_no_lease_has():
    rows = join([], find_ways(NodeView(LINKS, (), (route(PUBLIC, ETH0),), (), (), ())))
    assert [row["state"] for row in rows] == ["no lease has it"]
    assert join([], find_ways(NodeView(LINKS, (), (route("", TUN, dst=NETWORK),), (), (), ()))) == []


@pytest.mark.parametrize(
    ("text", "is_meant"),
    [
        ("10.5.2.0/24", True),
        ("10.5.2.0-24", True),
        (PUBLIC, True),
        ("10.5.2.77", True),
        ("10.5.3.1", False),
        ("x", False),
    ],
)
def test_names_of_a_peer(text, is_meant):
    [row] = join([PEER], [])
    assert matches(row, text) == is_meant
