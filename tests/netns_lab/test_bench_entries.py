"""The counter of kernel entries against pyroute2, which writes them and reads them too."""

import socket
from pathlib import Path

import pytest
from pyroute2 import IPRoute

from netns_lab.bench.entries import KernelEntries, parse_prefix_count
from netns_lab.bench.leases import expected_entries, make_leases
from netns_lab.bench.listener import RouteListener

NUD_PERMANENT, NUD_STALE = 0x80, 0x04
ONLINK, NTF_SELF = 4, 2


def text_of(number):
    return socket.inet_ntoa(number.to_bytes(4, "big"))


def open_device():
    netlink = IPRoute()
    netlink.link("add", ifname="flannel.1", kind="vxlan", vxlan_id=1, vxlan_port=8472, vxlan_learning=0)
    device = netlink.link_lookup(ifname="flannel.1")[0]
    netlink.addr("add", index=device, address="10.0.1.0", prefixlen=32)
    netlink.link("set", index=device, state="up")
    return netlink, device


def program(leases):
    netlink, device = open_device()
    with netlink:
        for lease in leases:
            subnet, mac = text_of(lease.subnet), lease.mac.hex(":")
            netlink.fdb(
                "replace", ifindex=device, lladdr=mac, dst=text_of(lease.public_ip), state=NUD_PERMANENT, flags=NTF_SELF
            )
            netlink.neigh("add", dst=subnet, lladdr=mac, ifindex=device, state=NUD_PERMANENT)
            netlink.route("add", dst=f"{subnet}/{lease.length}", gateway=subnet, oif=device, flags=ONLINK)
        netlink.neigh("add", dst="10.9.9.9", lladdr="02:00:00:00:00:09", ifindex=device, state=NUD_STALE)
        netlink.route("add", dst="10.200.0.0/24", oif=device, scope=253, table=77)
        netlink.route("add", dst="0.0.0.0/0", oif=device, scope=253)


@pytest.mark.kernel
def test_what_pyroute2_wrote_is_read(namespace):
    leases = make_leases(120, 24)
    network = Path(namespace.path)
    with KernelEntries(network) as kernel:
        assert kernel.read().lacks(expected_entries(leases)) == "120 routes, 120 neighbours, 120 forwarding entries"
        before = kernel.estimate_routes()
        namespace.run(program, leases)
        held = kernel.read()
        assert held == expected_entries(leases)
        assert held.lacks(expected_entries(leases)) == ""
        assert held.holds_any(expected_entries(leases[:1]))
        assert not held.holds_any(expected_entries(make_leases(5, 24, first=500)))
        routes, neighbours, forwarding = kernel.count(24)
        assert (routes, neighbours) == (120, 120)
        assert forwarding >= 120
        assert kernel.estimate_routes() - before >= 121
        assert kernel.count_unresolved() == 0


@pytest.mark.kernel
def test_a_new_route_is_heard(namespace):
    [lease] = make_leases(1, 24)
    with RouteListener(Path(namespace.path)) as listener:
        namespace.run(program, [lease])
        listener.socket.settimeout(10)
        [key] = expected_entries([lease]).routes
        while key not in listener.hear():
            pass


def test_prefixes_of_the_main_table_count():
    main = "Main:\n\tLeaves: 3\n\tPrefixes: 4\n\tInternal nodes: 1\n"
    local = "Local:\n\tLeaves: 8\n\tPrefixes: 9\n"
    assert parse_prefix_count(f"Basic info: size of leaf: 48 bytes.\n{main}{local}") == 4
    assert parse_prefix_count(f"Basic info: size of leaf: 48 bytes.\n{local}{main}") == 4
    assert parse_prefix_count("Basic info: size of leaf: 48 bytes.\n") == 0
