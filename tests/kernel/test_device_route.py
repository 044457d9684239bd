import errno

import pytest
from pyroute2 import IPRoute

from flanneld_py.core.errors import KernelError
from flanneld_py.core.prefix import IPV4, IPV6, parse_address, parse_prefix
from flanneld_py.kernel import address, link
from flanneld_py.kernel.device_route import (
    SCOPE_LINK,
    DeviceRoute,
    default_scope,
    encode_add,
    read_routes,
)
from flanneld_py.kernel.netlink_socket import NetlinkSocket

pytestmark = pytest.mark.kernel


@pytest.fixture
def device(namespace):
    """A namespace with a device that is up and has an address of each family; `run` calls with socket and index."""

    def set_up():
        with IPRoute() as writer:
            writer.link("add", ifname="dev0", kind="bridge", state="up")
        with NetlinkSocket() as sock:
            ifindex = link.read_link(sock, "dev0").ifindex
            for text, length in (("10.5.2.2", 24), ("fd42::2", 64)):
                address.ensure_address(sock, address.InterfaceAddress(ifindex, *parse_address(text), length))
        return ifindex

    ifindex = namespace.run(set_up)

    def run(work):
        def inside():
            with NetlinkSocket() as sock:
                return work(sock, ifindex)

        return namespace.run(inside)

    return run


def number(text):
    return parse_address(text)[1]


ROUTES = {
    "all": DeviceRoute(parse_prefix("10.9.0.0/16"), 0, number("10.5.2.1"), 77, 300, 0, 1300, 1200),
    "plain": DeviceRoute(parse_prefix("10.5.0.0/16"), 0, number("10.5.2.1")),
    "on the link": DeviceRoute(parse_prefix("10.8.0.0/16"), 0, scope=SCOPE_LINK),
    "default": DeviceRoute(parse_prefix("0.0.0.0/0"), 0, number("10.5.2.1")),
    "IPv6": DeviceRoute(parse_prefix("fd43::/48"), 0, number("fd42::1"), 5, mtu=1300),
    "IPv6 default": DeviceRoute(parse_prefix("::/0"), 0, number("fd42::1"), 1024),
}


@pytest.mark.parametrize("route", ROUTES.values(), ids=ROUTES.keys())
def test_pyroute2_reads_what_was_added_and_so_do_we(device, route):
    def add(sock, ifindex):
        sock.execute(encode_add(route._replace(ifindex=ifindex)), "add")
        with IPRoute() as reader:
            found = [
                entry
                for entry in reader.get_routes(family={IPV4: 2, IPV6: 10}[route.dst.family])
                if entry["dst_len"] == route.dst.length
                and (entry.get_attr("RTA_DST") or str(route.dst.base)) == str(route.dst.base)
                and entry.get_attr("RTA_OIF") == ifindex
            ]
        return found, read_routes(sock, route.dst.family), ifindex

    (found,), own, ifindex = device(add)
    assert found.get_attr("RTA_TABLE") == route.table
    assert (found.get_attr("RTA_PRIORITY") or 0) == (route.metric or {IPV4: 0, IPV6: 1024}[route.dst.family])
    assert (found.get_attr("RTA_GATEWAY") is None) == (route.gateway == 0)
    if route.gateway:
        assert number(found.get_attr("RTA_GATEWAY")) == route.gateway
    assert found["scope"] == route.scope
    metrics = found.get_attr("RTA_METRICS")
    assert ((metrics and metrics.get_attr("RTAX_MTU")) or 0) == route.mtu
    assert ((metrics and metrics.get_attr("RTAX_ADVMSS")) or 0) == route.mss
    assert route._replace(ifindex=ifindex) in own


def test_a_second_one_of_the_same_kind_is_refused(device):
    def add_twice(sock, ifindex):
        request = encode_add(ROUTES["plain"]._replace(ifindex=ifindex))
        sock.execute(request, "add")
        with pytest.raises(KernelError) as caught:
            sock.execute(request, "add")
        return caught.value.errno

    assert device(add_twice) == errno.EEXIST


def test_the_scope_when_none_is_given():
    assert default_scope(IPV4, 0) == SCOPE_LINK
    assert default_scope(IPV4, 1) == default_scope(IPV6, 0) == default_scope(IPV6, 1) == 0
