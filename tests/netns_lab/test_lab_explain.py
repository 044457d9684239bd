from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest
from pyroute2 import IPRoute

from netns_lab.explain import Cluster, Entry, KernelView, explain, read_kernel
from netns_lab.routes import Route

CLUSTER = Cluster(
    addresses={IPv4Address("172.20.1.11"): "n1", IPv4Address("172.20.1.12"): "n2", IPv4Address("172.20.2.11"): "n3"},
    subnets={IPv4Network("10.1.0.0/24"): "n1", IPv4Network("10.2.0.0/24"): "n2", IPv4Network("10.3.0.0/24"): "n3"},
)
DEVICES = {2: "eth0", 3: "flannel.1", 4: "cni0"}


def route(destination, gateway, ifindex, nexthop_id=None):
    return Route(IPv4Network(destination), gateway and IPv4Address(gateway), ifindex, 119, nexthop_id)


def explained(*routes, neighbours=(), fdb=()):
    return explain(KernelView(routes, neighbours, fdb, DEVICES), CLUSTER, "n1")


def test_a_tunnelled_peer():
    assert explained(route("10.3.0.0/24", "10.3.0.0", 3, 77)) == [
        "route 10.3.0.0/24 via 10.3.0.0 dev flannel.1, nexthop object 77: pods of n3, through the tunnel"
    ]


def test_a_direct_peer():
    assert explained(route("10.2.0.0/24", "172.20.1.12", 2)) == [
        "route 10.2.0.0/24 via 172.20.1.12 dev eth0: pods of n2, on the same subnet, so directly, without a tunnel"
    ]


def test_the_nodes_own_pods():
    assert explained(route("10.1.0.0/24", None, 4)) == [
        "route 10.1.0.0/24 dev cni0: the pods of n1 itself, on its bridge"
    ]


def test_a_device_for_the_whole_network():
    assert explained(route("10.0.0.0/8", None, 3)) == ["route 10.0.0.0/8 dev flannel.1: the pods of all other nodes"]


def test_other_routes_are_left_out():
    assert explained(route("0.0.0.0/0", "172.20.1.1", 2)) == []


def test_a_tunnel_end_and_where_it_is():
    mac = "02:00:00:00:00:03"
    assert explained(
        route("10.3.0.0/24", "10.3.0.0", 3),
        neighbours=(Entry(mac, IPv4Address("10.3.0.0")),),
        fdb=(Entry(mac, IPv4Address("172.20.2.11")),),
    )[1:] == [
        "neighbour 10.3.0.0 is at 02:00:00:00:00:03: the tunnel end of n3",
        "FDB 02:00:00:00:00:03 dst 172.20.2.11: frames to that MAC travel in UDP to n3",
    ]


def test_strangers_are_called_so():
    stranger = Entry("02:00:00:00:00:09", IPv4Address("10.9.0.0"))
    assert all("an unknown node" in line for line in explained(neighbours=(stranger,), fdb=(stranger,)))


@pytest.mark.kernel
def test_the_tunnel_device_is_read(namespace):
    mac = "02:00:00:00:00:03"

    def fill():
        with IPRoute() as netlink:
            netlink.link("add", ifname="flannel.1", kind="vxlan", vxlan_id=1, vxlan_port=8472, vxlan_learning=False)
            index = netlink.link_lookup(ifname="flannel.1")[0]
            netlink.link("set", index=index, state="up")
            netlink.neigh("add", dst="10.3.0.0", lladdr=mac, ifindex=index, state="permanent")
            netlink.fdb("append", ifindex=index, lladdr=mac, dst="172.20.2.11")

    namespace.run(fill)
    view = read_kernel(Path(namespace.path))
    assert view.neighbours == (Entry(mac, IPv4Address("10.3.0.0")),)
    assert view.fdb == (Entry(mac, IPv4Address("172.20.2.11")),)
    assert "flannel.1" in view.devices.values()
