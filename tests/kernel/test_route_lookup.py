import errno

import pytest

from flanneld_py.core.errors import KernelError
from flanneld_py.kernel.route_lookup import LOCAL, look_up_route
from tests.host import ADDRESS, ADDRESS6, IPV4, IPV6, number

pytestmark = pytest.mark.kernel


def ask_other(host, destination):
    """Device and gateway that pyroute2 is told."""
    [route] = host.do(lambda ipr: ipr.route("get", dst=destination))
    gateway = route.get_attr("RTA_GATEWAY")
    return route.get_attr("RTA_OIF"), number(gateway) if gateway else 0


@pytest.mark.parametrize("destination", ["172.30.0.12", "192.0.2.1", ADDRESS])
def test_says_what_the_kernel_tells_others(host, destination):
    host.do(lambda ipr: ipr.route("add", dst="192.0.2.0/24", gateway="172.30.0.1"))
    found = look_up_route(host.sock, IPV4, number(destination))
    assert (found.ifindex, found.gateway) == ask_other(host, destination)
    assert (found.type == LOCAL) == (destination == ADDRESS)
    # Without rules the kernel keeps the local table with the main one (net/ipv4/fib_frontend.c, fib_unmerge).
    assert found.table in {254, 255 if destination == ADDRESS else 254}


def test_ipv6(host):
    assert look_up_route(host.sock, IPV6, number("fd30::12")).ifindex == host.uplink
    assert look_up_route(host.sock, IPV6, number(ADDRESS6)).type == LOCAL


def test_no_route_is_the_senders_error(host):
    with pytest.raises(KernelError) as caught:
        look_up_route(host.sock, IPV4, number("198.51.100.1"))
    assert caught.value.errno == errno.ENETUNREACH


def test_a_packet_that_comes_in_is_not_forwarded_unless_the_host_does(host):
    host.do(lambda ipr: ipr.link("add", ifname="cni0", kind="bridge", state="up"))
    bridge = host.index("cni0")
    host.do(lambda ipr: ipr.addr("add", index=bridge, address="10.5.1.1", prefixlen=24))
    words = {"source": number("10.5.1.9"), "incoming": bridge}
    with pytest.raises(KernelError) as caught:
        look_up_route(host.sock, IPV4, number("172.30.0.12"), **words)
    assert caught.value.errno == errno.EHOSTUNREACH
