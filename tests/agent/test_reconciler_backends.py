"""The reconciler with each backend that has no tunnel, with nodes of other backends, and with IPv6 gateways."""

import socket
from functools import partial
from pathlib import Path

import pytest
from scapy.layers.inet6 import ICMPv6ND_RA, IPv6
from scapy.layers.l2 import Ether

from tests.agent.reconciled_node import DUAL, V6, ReconciledNode, make_lease, nodes_by
from tests.host import IPV4, IPV6
from tests.waiting import until

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(60)]

BOTH = (IPV4, IPV6)


@pytest.fixture
async def make_node(host):
    async with nodes_by(partial(ReconciledNode, host)) as make:
        yield make


def announce(lease, backend_type):
    return lease._replace(
        attrs=lease.attrs._replace(backend_type=backend_type, backend_data=None, backend_v6_data=None)
    )


def routes(host, family=IPV4):
    """What is not the kernel's: destination → gateway."""
    return {dst: gateway for dst, (proto, gateway, _, _) in host.routes(family).items() if proto == 119}


def told(node):
    return {str(peer.subnet): reason for peer, reason in node.reconciler.unreachable.items()}


@pytest.mark.parametrize("has_nexthops", [True, False])
async def test_host_gw_in_both_families(make_node, host, has_nexthops):
    node = make_node(DUAL, Type="host-gw", has_nexthops=has_nexthops)
    one, two = (announce(make_lease(index, families=BOTH), "host-gw") for index in (2, 3))
    await node.begin(one, two)
    await until(lambda: routes(host) == {"10.5.2.0/24": "172.30.1.2", "10.5.3.0/24": "172.30.1.3"})
    await until(lambda: routes(host, IPV6) == {"fd42:0:0:2::/64": "fd30::1:2", "fd42:0:0:3::/64": "fd30::1:3"})
    node.remove(one)
    await until(lambda: routes(host) == {"10.5.3.0/24": "172.30.1.3"})
    await until(lambda: routes(host, IPV6) == {"fd42:0:0:3::/64": "fd30::1:3"})
    host.ip("route del 10.5.3.0/24")
    host.ip("-6 route del fd42:0:0:3::/64")
    await until(lambda: routes(host) and routes(host, IPV6))


async def test_peer_that_is_not_on_layer_2_is_told_until_it_is(make_node, host, caplog):
    node = make_node(Type="host-gw")
    far = announce(make_lease(2, remote="172.31.0.2"), "host-gw")
    await node.begin(far, announce(make_lease(3), "host-gw"))
    await until(lambda: routes(host) == {"10.5.3.0/24": "172.30.1.3"})
    reason = "172.31.0.2 is not on this node's layer 2, and there is no tunnel to it"
    assert told(node) == {"10.5.2.0/24": reason}
    assert caplog.text.count(f"peer unreachable: subnet=10.5.2.0/24 public_ip=172.31.0.2 reason={reason}") == 1
    host.ip("route add 172.31.0.0/16 dev eth0")
    await until(lambda: routes(host) == {"10.5.2.0/24": "172.31.0.2", "10.5.3.0/24": "172.30.1.3"})
    assert told(node) == {}
    host.ip("route del 172.31.0.0/16 dev eth0")
    await until(lambda: told(node) == {"10.5.2.0/24": reason})
    node.remove(far)
    await until(lambda: told(node) == {})


async def test_nodes_of_other_backends_beside_a_tunnel(make_node, host):
    node = make_node(DUAL)
    ours, near, plain = (make_lease(index, families=BOTH) for index in (2, 3, 4))
    far = announce(make_lease(5, remote="172.31.0.5"), "ipip")
    await node.begin(ours, announce(near, "host-gw"), announce(plain, ""), far)
    await until(lambda: told(node).keys() == {"10.5.5.0/24"})
    direct = {"10.5.3.0/24": "172.30.1.3", "10.5.4.0/24": "172.30.1.4"}
    await until(lambda: routes(host) == {"10.5.2.0/24": "10.5.2.0", **direct})
    assert {dst: gateway for dst, gateway in routes(host, IPV6).items() if gateway.startswith("fd30")} == {
        "fd42:0:0:3::/64": "fd30::1:3",
        "fd42:0:0:4::/64": "fd30::1:4",
    }
    # It has come over to our backend: from now on there is a tunnel.
    node.put(near)
    await until(lambda: routes(host)["10.5.3.0/24"] == "10.5.3.0")


async def test_alloc_leaves_the_operators_routes_alone(make_node, host):
    host.ip("route add 10.5.9.0/24 via 172.30.0.9 dev eth0")
    node = make_node(Type="alloc", resync_interval=0.1)
    await node.begin(make_lease(2))
    passes = node.reconciler.counts.passes
    await until(lambda: node.reconciler.counts.passes > passes + 2)
    assert host.routes()["10.5.9.0/24"][1] == "172.30.0.9"
    assert routes(host) == {}


@pytest.mark.parametrize("has_nexthops", [True, False])
async def test_ipv6_peer_that_leaves_our_layer_2_is_tunnelled(make_node, host, has_nexthops):
    # Its direct route covers its subnet's base address, which the kernel then takes for no gateway on the tunnel.
    node = make_node(V6, DirectRouting=True, has_nexthops=has_nexthops)
    lease = make_lease(2, families=(IPV6,))
    await node.begin(lease)
    await until(lambda: routes(host, IPV6) == {"fd42:0:0:2::/64": "fd30::1:2"})
    host.ip("-6 route add fd30::1:2 via fd30::99 dev eth0")
    await until(lambda: routes(host, IPV6)["fd42:0:0:2::/64"].startswith("fe80::"))
    host.ip("-6 route del fd30::1:2 via fd30::99 dev eth0")
    await until(lambda: routes(host, IPV6) == {"fd42:0:0:2::/64": "fd30::1:2"})


@pytest.mark.parametrize("has_nexthops", [True, False])
async def test_ipv6_peer_is_tunnelled_though_a_foreign_route_covers_its_subnet(make_node, host, has_nexthops):
    host.ip("-6 route add fd42::/48 via fd30::99 dev eth0")
    node = make_node(V6, has_nexthops=has_nexthops)
    lease = make_lease(2, families=(IPV6,))
    await node.begin(lease)
    await node.settled()
    fdb, neighbours, programmed = node.wanted(lease, family=IPV6)
    await until(lambda: node.state(IPV6)[:2] == (fdb, neighbours))
    await until(lambda: programmed.items() <= node.state(IPV6)[2].items())


def announce_router(host):
    """Announce a default router to the uplink, as one behind it would."""
    router = Ether(src="02:00:00:00:aa:01", dst="33:33:00:00:00:01") / IPv6(src="fe80::aa:1", dst="ff02::1", hlim=255)
    frame = bytes(router / ICMPv6ND_RA(routerlifetime=1800))

    def send():
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as opened:
            opened.bind(("far0", 0))
            opened.send(frame)

    host.namespace.run(send)


def learned(host):
    """The default routers that the kernel has learned of."""
    return [route["gateway"] for route in host.ip("-json -6 route show default proto ra")]


async def test_routes_that_routers_announce_stay_when_the_host_begins_to_forward(make_node, host):
    setting = Path("/proc/sys/net/ipv6/conf/eth0/accept_ra")
    host.namespace.run(setting.write_text, "1")
    announce_router(host)
    await until(lambda: learned(host) == ["fe80::aa:1"])
    node = make_node(V6)
    with host.namespace.entered():
        await node.begin(make_lease(2, families=(IPV6,)))
        await node.settled()
    assert host.namespace.run(Path("/proc/sys/net/ipv6/conf/all/forwarding").read_text) == "1\n"
    assert host.namespace.run(setting.read_text) == "2\n"
    assert learned(host) == ["fe80::aa:1"]
