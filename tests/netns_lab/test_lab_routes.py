import socket
import struct
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from pathlib import Path

import pytest
from pyroute2 import IPRoute

from netns_lab.routes import Nexthop, Route, decode_attributes, decode_nexthops, decode_route, read_routes

NHA = bytes.fromhex("020000000000000008000100010100460800050003000000080006000a000002")
ROUTE = bytes.fromhex("02180000 fe770001 0000000008000f00 fe00000008000100 0a09000008001e00 01010046")
NEXTHOP_ID = 0x46000101
RTM_NEWROUTE = 24
RTM_NEWNEXTHOP = 104


def test_a_nexthop_object_is_decoded():
    assert decode_nexthops([NHA]) == {NEXTHOP_ID: Nexthop(IPv4Address("10.0.0.2"), 3)}


def test_a_route_takes_gateway_and_device_from_its_nexthop_object():
    assert decode_route(ROUTE, decode_nexthops([NHA])) == Route(
        IPv4Network("10.9.0.0/24"), IPv4Address("10.0.0.2"), 3, 119, NEXTHOP_ID
    )


def test_a_route_whose_nexthop_object_has_just_gone_has_neither():
    assert decode_route(ROUTE, {}) == Route(IPv4Network("10.9.0.0/24"), None, None, 119, NEXTHOP_ID)


def test_a_route_of_another_table_is_left_out():
    assert decode_route(ROUTE[:4] + b"\xff" + ROUTE[5:], {}) is None


def test_attributes_are_aligned_to_four_bytes():
    assert decode_attributes(bytes.fromhex("05000300 6100000004000400")) == {3: b"a", 4: b""}


def request(kind, payload):
    """Have the kernel create an object, in the present namespace."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as netlink:
        netlink.send(struct.pack("=IHHII", 16 + len(payload), kind, 0x405, 1, 0) + payload)  # request, ack, create
        assert struct.unpack_from("=IHHIIi", netlink.recv(4096))[5] == 0


@pytest.mark.kernel
@pytest.mark.parametrize("compat_mode", ["0", "1"])
def test_the_kernel_is_read_as_it_is(namespace, compat_mode):
    def fill():
        # Without the mode, the kernel tells no gateway with a route that uses a nexthop object.
        Path("/proc/sys/net/ipv4/nexthop_compat_mode").write_text(compat_mode)
        with IPRoute() as netlink:
            netlink.link("add", ifname="v0", kind="veth", peer={"ifname": "v1"})
            for name in ("v0", "v1"):
                netlink.link("set", index=netlink.link_lookup(ifname=name)[0], state="up")
            index = netlink.link_lookup(ifname="v0")[0]
            netlink.addr("add", index=index, address="10.0.0.1", prefixlen=24)
            netlink.route("add", dst="fd42::/64", gateway="fe80::9", oif=index, proto=3)
            netlink.route("add", dst="10.8.0.0/24", gateway="10.0.0.9", proto=3)
            return index

    index = namespace.run(fill)
    device = struct.pack("=I", index)
    namespace.run(request, RTM_NEWNEXTHOP, NHA.replace(b"\x03\0\0\0", device))
    namespace.run(request, RTM_NEWROUTE, ROUTE)
    path = Path(namespace.path)
    # The kernel makes link-local routes by and by.
    assert tuple(route for route in read_routes(path) if not route.destination.is_link_local) == (
        Route(IPv4Network("10.0.0.0/24"), None, index, 2, None),
        Route(IPv4Network("10.8.0.0/24"), IPv4Address("10.0.0.9"), index, 3, None),
        Route(IPv4Network("10.9.0.0/24"), IPv4Address("10.0.0.2"), index, 119, NEXTHOP_ID),
        Route(IPv6Network("fd42::/64"), IPv6Address("fe80::9"), index, 3, None),
    )
