"""The real `flanneld` executable with `--on-demand`, each in a namespace of its own, on a real etcd."""

import socket
from ipaddress import ip_network

import pytest

from tests import test_daemon
from tests.host import IPV4, IPV6
from tests.pod_packets import SOCKETS, Echo, ask, pod_address, subnet
from tests.test_daemon import PREFIX, cluster, empty_cluster
from tests.waiting import wait_until

__all__ = ["cluster", "empty_cluster"]

pytestmark = [pytest.mark.kernel, pytest.mark.etcd]

CONFIGS = {
    (IPV4,): '{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan"}}',
    (IPV6,): '{"EnableIPv4":false,"EnableIPv6":true,"IPv6Network":"fd05::/48","Backend":{"Type":"vxlan"}}',
    (IPV4, IPV6): ('{"Network":"10.5.0.0/16","EnableIPv6":true,"IPv6Network":"fd05::/48","Backend":{"Type":"vxlan"}}'),
}
NAMES = {IPV4: "flannel.1", IPV6: "flannel-v6.1"}
NETWORKS = {IPV4: "10.5.0.0/16", IPV6: "fd05::/48"}


every_family = pytest.mark.parametrize("families", CONFIGS, ids=["IPv4", "IPv6", "dual"])


def give_ipv6(node):
    """Have the node's uplink carry IPv6 as well."""
    node.do(
        lambda ipr: [
            ipr.addr("add", index=node.uplink, address=address6(node), prefixlen=64, flags=0x02),
            ipr.route("add", dst="default", gateway="fd30::1", oif=node.uplink, family=10),
        ]
    )


def address6(node):
    return f"fd30::{node.number}"


def mac_of(node, family):
    return node.link(NAMES[family]).get_attr("IFLA_ADDRESS")


def ways(node, family):
    """What the node's kernel holds of peers: VTEP's MAC → public address, and the subnets that routes lead to."""
    device = node.index(NAMES[family])
    routes = {dst for dst, value in node.routes(family).items() if value[2] == device and value[0] == 119}
    return node.fdb(device), routes - {NETWORKS[family]}


def public(node, family):
    return node.address if family == IPV4 else address6(node)


def knows_just(node, family, *others):
    """Whether the node's kernel holds just these peers, as pairs of node and daemon."""
    return ways(node, family) == (
        {mac_of(other, family): public(other, family) for other, _ in others},
        {str(subnet(daemon, family)) for _, daemon in others},
    )


def first_packets_are_answered(one, first, two, second, families):
    """Exchange a first packet in each family between two nodes that hold no peer yet; return the pods of the one."""
    sources, targets = {}, {}
    for family in families:
        assert ways(one, family) == ways(two, family) == ({}, set())
        assert one.routes(family)[NETWORKS[family]] == (119, None, one.index(NAMES[family]), False)
        sources[family], targets[family] = pod_address(one, first, family), pod_address(two, second, family)
    for family in families:
        with Echo(two, family, targets[family]):
            assert ask(one, sources[family], family, targets[family]) == b"first"
    for family in families:
        # One packet brings a peer into use in both families.
        wait_until(lambda family=family: knows_just(one, family, (two, second)))
        wait_until(lambda family=family: knows_just(two, family, (one, first)))
    return sources


def nobody_is_told_of_at_once(node, sources):
    """Send to a subnet of each family that nobody leases: the first of the network is given to no node."""
    free = {IPV4: "10.5.0.0/24", IPV6: "fd05::/64"}
    for family, source in sources.items():
        with pytest.raises(OSError, match="No route to host"):
            ask(node, source, family, str(ip_network(free[family])[9]))
        # The route is written once the sender has been told.
        wait_until(lambda family=family: unreachable(node, family) == [free[family]])


def unreachable(node, family):
    return [route["dst"] for route in node.ip(f"-json -{family} route show type unreachable")]


@every_family
def test_the_first_packet_is_answered(cluster, families):
    cluster.set_config(CONFIGS[families])
    one, two, third = nodes = [cluster.add_node() for _ in range(3)]
    for node in nodes:
        give_ipv6(node)
    first, second = (node.start("--on-demand").is_ready() for node in (one, two))
    all_of = third.start().is_ready()
    sources = first_packets_are_answered(one, first, two, second, families)
    # Beside those on demand, who programs all peers reaches them, and they answer.
    for family in families:
        wait_until(lambda family=family: knows_just(third, family, (one, first), (two, second)))
        with Echo(one, family, sources[family]):
            assert ask(third, pod_address(third, all_of, family), family, sources[family]) == b"first"
        wait_until(lambda family=family: knows_just(one, family, (two, second), (third, all_of)))
    assert first.stop() == 0
    again = one.start("--on-demand").is_ready()
    for family in families:
        assert knows_just(one, family, (two, second), (third, all_of))
    nobody_is_told_of_at_once(one, sources)
    assert "Traceback" not in again.log


def test_the_kernel_asks_where_its_settings_can_only_be_read(cluster, tmp_path, monkeypatch):
    """As in a container that has no more rights than it needs."""
    program = tmp_path / "flanneld"
    program.write_text(
        "#!/bin/sh\n"
        "exec unshare --mount -- sh -ec '\n"
        "mount --bind /proc/sys /proc/sys\n"
        "mount -o remount,bind,ro /proc/sys\n"
        f'exec {test_daemon.FLANNELD} "$@"\' flanneld "$@"\n'
    )
    program.chmod(0o755)
    monkeypatch.setattr(test_daemon, "FLANNELD", program)
    families = (IPV4, IPV6)
    cluster.set_config(CONFIGS[families])
    one, two = nodes = [cluster.add_node() for _ in range(2)]
    for node in nodes:
        give_ipv6(node)
    first, second = (node.start("--on-demand").is_ready() for node in nodes)
    assert "Read-only file system" in first.log
    first_packets_are_answered(one, first, two, second, families)


def test_a_lease_in_use_is_followed(cluster):
    node = cluster.add_node()
    daemon = node.start("--on-demand", "--on-demand-idle=600").is_ready()
    address = pod_address(node, daemon, IPV4)
    value = (
        '{"PublicIP":"172.30.7.7","PublicIPv6":null,"BackendType":"vxlan",'
        '"BackendData":{"VNI":1,"VtepMAC":"7a:e3:ab:24:37:fb"}}'
    )
    follow_a_lease(cluster, node, daemon, [f"10.5.{index}.0-24" for index in (250, 251)], value, address, IPV4)


def test_a_lease_in_use_is_followed_in_ipv6(cluster):
    cluster.set_config(CONFIGS[IPV6,])
    node = cluster.add_node()
    give_ipv6(node)
    daemon = node.start("--on-demand", "--on-demand-idle=600").is_ready()
    address = pod_address(node, daemon, IPV6)
    value = (
        '{"PublicIP":"0.0.0.0","PublicIPv6":"fd30::7:7","BackendType":"vxlan",'
        '"BackendV6Data":{"VNI":1,"VtepMAC":"7a:e3:ab:24:37:fb"}}'
    )
    keys = [f"0.0.0.0-0&fd05:0:0:{index}::-64" for index in (250, 251)]
    follow_a_lease(cluster, node, daemon, keys, value, address, IPV6)


def follow_a_lease(cluster, node, daemon, keys, value, source, family):
    """Send to the lease of the first key, and change and delete it, also across a loss of the store."""
    used, unused = (key.rpartition("&")[2].replace("-", "/") for key in keys)
    own = next(iter(cluster.leases()))
    for key in keys:
        cluster.ctl("put", f"{PREFIX}/subnets/{key}", value)

    def send():
        with socket.socket(SOCKETS[family][0], socket.SOCK_DGRAM) as client:
            client.bind((source, 0))
            client.sendto(b"x", (str(ip_network(used)[7]), 9))

    node.namespace.run(send)
    remote = "172.30.7.7" if family == IPV4 else "fd30::7:7"
    mac = "7a:e3:ab:24:37:fb"
    wait_until(lambda: ways(node, family) == ({mac: remote}, {used}))
    cluster.ctl("put", f"{PREFIX}/subnets/{keys[0]}", value.replace(remote, f"{remote}8"))
    wait_until(lambda: ways(node, family) == ({mac: f"{remote}8"}, {used}))
    cluster.stop_etcd()
    cluster.start_etcd()
    cluster.ctl("del", f"{PREFIX}/subnets/{keys[0]}")
    wait_until(lambda: ways(node, family) == ({}, set()))
    assert unused not in node.routes(family)
    # Our own lease is followed as well.
    before = cluster.leases()[own]
    cluster.ctl("del", f"{PREFIX}/subnets/{own}")
    wait_until(lambda: cluster.leases().get(own) == before)
    assert daemon.process.poll() is None
