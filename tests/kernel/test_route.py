import pytest

from flanneld_py.core.entries import BLACKHOLE, PROTOCOL_FLANNELD, UNREACHABLE, Nexthop, Route
from flanneld_py.core.errors import KernelError
from flanneld_py.kernel import nexthop, route
from tests.host import IPV4, IPV6, ONLINK, number, parse_prefix

pytestmark = pytest.mark.kernel

SUBNET, SUBNET6 = parse_prefix("10.5.2.0/24"), parse_prefix("fd42:0:0:2::/64")


@pytest.fixture
def device(host):
    return host.make_vxlan()


def read(host, family=IPV4):
    found = host.sock.dump(route.encode_dump(family), route.decode, "read")
    return {entry for entry in found if entry.protocol == PROTOCOL_FLANNELD}


def cases(device, uplink):
    base, base6 = number("10.5.2.0"), number("fd42:0:0:2::")
    return {
        "onlink": (
            Route(SUBNET, 0, 0, base, device, True),
            {"10.5.2.0/24": (119, "10.5.2.0", device, True)},
        ),
        "direct": (
            Route(SUBNET, 0, 0, number("172.30.0.12"), uplink, False),
            {"10.5.2.0/24": (119, "172.30.0.12", uplink, False)},
        ),
        "device only": (Route(SUBNET, 0, 0, 0, device, False), {"10.5.2.0/24": (119, None, device, False)}),
        "metric": (
            Route(SUBNET, 77, 0, base, device, True),
            {"10.5.2.0/24": (119, "10.5.2.0", device, True)},
        ),
        "IPv6 onlink": (
            Route(SUBNET6, 1024, 0, base6, device, True),
            {"fd42:0:0:2::/64": (119, "fd42:0:0:2::", device, True)},
        ),
        "IPv6 direct": (
            Route(SUBNET6, 1024, 0, number("fd30::12"), uplink, False),
            {"fd42:0:0:2::/64": (119, "fd30::12", uplink, False)},
        ),
    }


@pytest.mark.parametrize("name", ["onlink", "direct", "device only", "metric", "IPv6 onlink", "IPv6 direct"])
def test_written_read_by_others_read_by_us_and_deleted(host, device, name):
    entry, expected = cases(device, host.uplink)[name]
    family = entry.dst.family
    before = host.routes(family)
    for _ in range(2):  # replacing it by itself is no error
        host.sock.execute(route.encode_replace(entry), "write")
        assert host.routes(family) == before | expected
    assert read(host, family) == {entry}
    host.sock.execute(route.encode_delete(entry), "delete")
    assert host.routes(family) == before
    with pytest.raises(KernelError) as caught:
        host.sock.execute(route.encode_delete(entry), "delete it again")
    assert caught.value.errno == 3


@pytest.mark.parametrize("subnet", [SUBNET, SUBNET6])
def test_by_nexthop_object(host, device, subnet):
    family, onlink = subnet.family, True
    hop = Nexthop(0x46100200, family, subnet.address, device, onlink)
    host.sock.execute(nexthop.encode_replace(hop), "write the nexthop")
    entry = Route(subnet, route.default_metric(family), hop.id, 0, 0, False)
    host.sock.execute(route.encode_replace(entry), "write")
    assert host.routes(family)[str(subnet)] == (119, str(subnet.base), device, onlink)
    assert read(host, family) == {entry}
    host.sock.execute(route.encode_delete(entry), "delete")
    assert str(subnet) not in host.routes(family)


@pytest.mark.parametrize("subnet", [SUBNET, SUBNET6])
def test_a_route_changes_between_gateway_and_nexthop_object_in_place(host, device, subnet):
    family = subnet.family
    metric = route.default_metric(family)
    host.sock.execute(nexthop.encode_replace(Nexthop(0x46100200, family, subnet.address, device, True)), "write")
    plain = Route(subnet, metric, 0, subnet.address, device, True)
    by_id = Route(subnet, metric, 0x46100200, 0, 0, False)
    for entry in (plain, by_id, plain):
        host.sock.execute(route.encode_replace(entry), "write")
        assert read(host, family) == {entry}


def test_ip_reads_the_nexthop_id(host, device):
    host.sock.execute(nexthop.encode_replace(Nexthop(0x46100200, IPV4, SUBNET.address, device, True)), "write")
    host.sock.execute(route.encode_replace(Route(SUBNET, 0, 0x46100200, 0, 0, False)), "write")
    [told] = host.ip("-json route show 10.5.2.0/24")
    assert (told["nhid"], told["protocol"], told["dev"]) == (0x46100200, "119", "flannel.1")


@pytest.mark.parametrize(("kind", "told"), [(BLACKHOLE, "blackhole"), (UNREACHABLE, "unreachable")])
def test_route_that_drops(host, kind, told):
    entry = Route(SUBNET, 0, 0, 0, 0, False, type=kind)
    host.sock.execute(route.encode_replace(entry), "write")
    assert read(host) == {entry}
    assert f"{told} 10.5.2.0/24 proto 119" in host.ip("route show")


def test_what_others_write(host, device):
    def write(ipr):
        ipr.route("add", dst="10.5.2.0/24", gateway="10.5.2.0", oif=device, flags=ONLINK)
        ipr.route("add", dst="10.5.3.0/24", gateway="172.30.0.13", priority=50)
        ipr.route("add", dst="10.5.4.0/24", oif=device, table=77)
        ipr.route("add", dst="10.5.5.0/24", oif=device, tos=16)
        ipr.route("add", dst="default", gateway="172.30.0.1")
        ipr.route("add", dst="10.6.0.0/16", multipath=[{"gateway": "172.30.0.2"}, {"gateway": "172.30.0.3"}])
        ipr.route("add", dst="fd42:0:0:2::/64", gateway="fd30::12")

    host.do(write)
    found = [
        entry
        for family in (IPV4, IPV6)
        for entry in host.sock.dump(route.encode_dump(family), route.decode, "read")
        if not str(entry.dst).startswith("fe80") and entry.protocol != 2
    ]
    assert set(found) == {
        Route(SUBNET, 0, 0, number("10.5.2.0"), device, True, 4),
        Route(parse_prefix("10.5.3.0/24"), 50, 0, number("172.30.0.13"), host.uplink, False, 4),
        Route(parse_prefix("0.0.0.0/0"), 0, 0, number("172.30.0.1"), host.uplink, False, 4),
        Route(parse_prefix("10.6.0.0/16"), 0, 0, 0, 0, False, 4),
        Route(SUBNET6, 1024, 0, number("fd30::12"), host.uplink, False, 4),
    }


def test_what_ip_writes(host, device):
    host.ip("route add 10.5.2.0/24 via 10.5.2.0 dev flannel.1 onlink")
    host.ip("-6 route add fd42:0:0:2::/64 via fd42:0:0:2:: dev flannel.1 onlink")
    host.ip("nexthop add id 77 via 172.30.0.12 dev eth0")
    host.ip("route add 10.5.3.0/24 nhid 77")
    found = host.sock.dump(route.encode_dump(IPV4), route.decode, "read")
    found += host.sock.dump(route.encode_dump(IPV6), route.decode, "read")
    assert {entry for entry in found if entry.protocol == 3} == {
        Route(SUBNET, 0, 0, number("10.5.2.0"), device, True, 3),
        Route(parse_prefix("10.5.3.0/24"), 0, 77, 0, 0, False, 3),
        Route(SUBNET6, 1024, 0, number("fd42:0:0:2::"), device, True, 3),
    }


@pytest.mark.parametrize(("subnet", "gateway"), [(SUBNET, "172.30.0.12"), (SUBNET6, "fd30::12")])
def test_deleting_ours_leaves_a_foreign_route_of_another_metric(host, device, subnet, gateway):
    ours = Route(subnet, route.default_metric(subnet.family), 0, subnet.address, device, True)
    host.sock.execute(route.encode_replace(ours), "write")
    host.do(lambda ipr: ipr.route("add", dst=str(subnet), gateway=gateway, priority=2000, proto=186))
    host.sock.execute(route.encode_delete(ours), "delete")
    with pytest.raises(KernelError):
        host.sock.execute(route.encode_delete(ours), "delete what is gone")
    assert host.routes(subnet.family)[str(subnet)][:2] == (186, gateway)


def test_a_namespace_in_which_no_route_was_ever_made(namespace):
    from flanneld_py.kernel.host import read_interfaces, read_routes
    from flanneld_py.kernel.netlink_socket import NetlinkSocket

    with namespace.run(NetlinkSocket) as sock:
        assert read_routes(sock) == []
        assert read_interfaces(sock) == []
