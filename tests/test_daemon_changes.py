"""What a running `flanneld` follows: the cluster's configuration, and the uplink of its node."""

import json
import os
import socket

import pytest
from pyroute2.netlink.exceptions import NetlinkError

from tests.host import IPV4
from tests.test_daemon import CONFIG, HUB, cluster, empty_cluster, leads_to, vtep_mac
from tests.waiting import wait_until

__all__ = ["cluster", "empty_cluster"]

pytestmark = [pytest.mark.kernel, pytest.mark.etcd]


@pytest.fixture
def pair(cluster):
    nodes = cluster.add_node(), cluster.add_node()
    daemons = tuple(node.start().is_ready() for node in nodes)
    wait_until(lambda: leads_to(*nodes, daemons[1].key) and leads_to(*reversed(nodes), daemons[0].key))
    return nodes, daemons


def config(**keys):
    told = json.loads(CONFIG)
    return json.dumps(told | {"Backend": told["Backend"] | keys})


def ask_status(daemon):
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(10)
        client.connect(str(daemon.subnet_file.with_suffix(".sock")))
        client.sendall(b"status\n")
        return json.loads(client.makefile().readline())


def eventually(condition):
    """Wait for a condition that reads devices, which may be made anew meanwhile."""

    def holds():
        try:
            return condition()
        except NetlinkError:
            return False

    wait_until(holds)


def test_mtu_and_direct_routing_are_followed(cluster, pair):
    (one, two), (first, second) = pair
    device, mac, base = one.index("flannel.1"), vtep_mac(one), second.key.partition("-")[0]
    cluster.set_config(config(MTU=1400))
    wait_until(lambda: one.link("flannel.1").get_attr("IFLA_MTU") == 1350)
    wait_until(lambda: first.subnet_env["FLANNEL_MTU"] == "1350")
    cluster.set_config(config(MTU=1400, DirectRouting=True))
    wait_until(lambda: one.routes(IPV4).get(f"{base}/24") == (119, two.address, one.uplink, False))
    assert one.fdb(device) == {}
    cluster.set_config(CONFIG)
    wait_until(lambda: leads_to(one, two, second.key))
    wait_until(lambda: one.link("flannel.1").get_attr("IFLA_MTU") == 1450)
    assert (one.index("flannel.1"), vtep_mac(one)) == (device, mac)
    assert ask_status(first)["configuration"] == {"waits_for_restart": [], "refused": None, "uplink": None}


def test_what_is_not_followed_is_told(cluster, pair):
    (one, _), (first, second) = pair
    before = one.routes()
    cluster.set_config(config(VNI=2, MTU=1400))
    first.says("configuration changed, which takes effect at the next start: keys=Backend.VNI")
    wait_until(lambda: ask_status(first)["configuration"]["waits_for_restart"] == ["Backend.VNI"])
    wait_until(lambda: one.link("flannel.1").get_attr("IFLA_MTU") == 1350)
    cluster.set_config('{"Network":')
    first.says("configuration not followed, the former one stays: config: it is no JSON")
    assert ask_status(first)["configuration"]["refused"].startswith("config: it is no JSON")
    cluster.set_config(config(MTU=1))
    first.says("configuration not followed, the former one stays: MTU: the underlay's 1 is too little")
    assert one.index("flannel.2") is None
    assert one.routes() == before
    cluster.set_config(CONFIG)
    wait_until(lambda: ask_status(first)["configuration"]["refused"] is None)
    assert ask_status(first)["configuration"]["waits_for_restart"] == []
    assert second.process.poll() is None


def test_the_address_of_the_node_changes(cluster, pair):
    (one, two), (first, second) = pair
    key, mac = first.key, vtep_mac(one)

    def renumber(ipr):
        ipr.addr("del", index=one.uplink, address=one.address, prefixlen=16)
        ipr.addr("add", index=one.uplink, address="172.30.0.111", prefixlen=16)
        ipr.route("replace", dst="default", gateway=HUB)

    one.do(renumber)
    one.address = "172.30.0.111"
    eventually(lambda: leads_to(two, one, key))
    eventually(lambda: leads_to(one, two, second.key))
    assert list(cluster.leases()) == sorted([key, second.key])
    assert (json.loads(cluster.leases()[key])["PublicIP"], vtep_mac(one)) == (one.address, mac)
    local = one.link("flannel.1").get_attr("IFLA_LINKINFO").get_attr("IFLA_INFO_DATA").get_attr("IFLA_VXLAN_LOCAL")
    assert local == one.address
    assert ask_status(first)["uplink"]["public_ip"] == one.address
    # What it is now is what it is after a restart.
    assert first.stop() == 0
    again = one.start().is_ready()
    assert (again.key, vtep_mac(one)) == (key, mac)


def test_the_uplink_is_replaced_by_another_device(cluster, pair):
    (one, two), (first, second) = pair
    key, mac = first.key, vtep_mac(one)
    one.do(lambda ipr: ipr.link("del", index=one.uplink))
    first.says("uplink not followed, waiting for one that serves")
    assert ask_status(first)["configuration"]["uplink"]
    assert "uplink: " in first.ask("/readyz")[1]
    cluster.hub.plug_in("again", one.namespace)
    one.do(one._make_uplink)
    one.uplink = one.index("eth0")
    eventually(lambda: leads_to(one, two, second.key) and leads_to(two, one, key))
    assert vtep_mac(one) == mac
    assert first.key == key
    wait_until(lambda: first.ask("/readyz")[0] == 200)


def test_the_mtu_of_the_uplink_changes_while_the_store_is_away(cluster, pair):
    (one, two), (first, second) = pair
    cluster.stop_etcd()
    one.do(lambda ipr: ipr.link("set", index=one.uplink, mtu=1300))
    wait_until(lambda: one.link("flannel.1").get_attr("IFLA_MTU") == 1250)
    wait_until(lambda: first.subnet_env["FLANNEL_MTU"] == "1250")
    one.do(lambda ipr: ipr.link("set", index=one.uplink, mtu=100))
    first.says("waiting for one that serves: reason=MTU: the underlay's 100 is too little")
    one.do(lambda ipr: ipr.link("set", index=one.uplink, mtu=1200))
    wait_until(lambda: first.subnet_env["FLANNEL_MTU"] == "1150")
    assert leads_to(one, two, second.key)


def test_on_demand_follows_as_well(cluster):
    node = cluster.add_node()
    daemon = node.start("--on-demand").is_ready()
    cluster.set_config(config(MTU=1400))
    wait_until(lambda: node.link("flannel.1").get_attr("IFLA_MTU") == 1350)
    assert node.routes()["10.5.0.0/16"] == (119, None, node.index("flannel.1"), False)
    assert daemon.process.poll() is None


@pytest.mark.skipif(not os.access("/dev/net/tun", os.R_OK | os.W_OK), reason="no /dev/net/tun: modprobe tun")
def test_udp_goes_on_while_its_uplink_changes(cluster):
    cluster.set_config('{"Network":"10.5.0.0/16","Backend":{"Type":"udp"}}')
    one = cluster.add_node()
    first = one.start().is_ready()
    for mtu in (1400, 1500):
        one.do(lambda ipr, mtu=mtu: ipr.link("set", index=one.uplink, mtu=mtu))
        wait_until(lambda mtu=mtu: first.subnet_env["FLANNEL_MTU"] == str(mtu - 28))
        wait_until(lambda: one.link("flannel0").get_attr("IFLA_CARRIER") == 1)
    assert first.process.poll() is None
    assert first.stop() == 0
