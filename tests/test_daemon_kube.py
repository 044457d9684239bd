"""The real `flanneld` executable with `--kube-subnet-mgr`, on a real kube-apiserver; what others see of it."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.host import IPV4, IPV6
from tests.kube_server import KubeServer
from tests.store.etcd_server import EtcdServer
from tests.test_daemon import HUB, Cluster, leads_to, vtep_mac
from tests.test_daemon_on_demand import (
    CONFIGS,
    every_family,
    first_packets_are_answered,
    give_ipv6,
    nobody_is_told_of_at_once,
    ways,
)
from tests.waiting import wait_until

pytestmark = [pytest.mark.kernel, pytest.mark.kubernetes]

CONFIG = '{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan"}}'


class KubeCluster(Cluster):
    """A cluster whose hub holds an API server; etcd is that server's alone."""

    def __init__(self, make_namespace, folder):
        super().__init__(make_namespace, folder)
        etcd = folder / "kube-etcd"
        etcd.mkdir()
        self.kube = KubeServer(folder / "kube", HUB, EtcdServer(etcd))
        self.net_config = folder / "net-conf.json"
        self.net_config.write_text(CONFIG)
        self.namespace.run(self.kube.start)

    def ask(self, work, *args, **named):
        return self.namespace.run(lambda: work(*args, **named))

    def start(self, node, *words, **environ):
        return node.start(
            "--kube-subnet-mgr",
            f"--kubeconfig-file={self.kube.kubeconfig}",
            f"--net-config-path={self.net_config}",
            *words,
            NODE_NAME=self.name(node),
            **environ,
        )

    @staticmethod
    def name(node):
        return f"node{node.number}"

    def make_node(self, *cidrs):
        node = self.add_node()
        self.ask(self.kube.add_node, self.name(node), *(cidrs or (f"10.5.{node.number}.0/24",)))
        return node

    def annotations(self, node):
        return self.ask(self.kube.annotations, self.name(node))

    def close(self):
        super().close()
        self.kube.close()


@pytest.fixture
def cluster(make_namespace, tmp_path):
    made = KubeCluster(make_namespace, tmp_path)
    yield made
    made.close()


def key_of(node):
    return f"10.5.{node.number}.0-24"


def test_two_nodes_reach_each_other(cluster):
    one, two = cluster.make_node(), cluster.make_node()
    first, _ = (cluster.start(node).is_ready() for node in (one, two))
    wait_until(lambda: leads_to(one, two, key_of(two)) and leads_to(two, one, key_of(one)))
    assert first.subnet_env == {
        "FLANNEL_NETWORK": "10.5.0.0/16",
        "FLANNEL_SUBNET": "10.5.11.1/24",
        "FLANNEL_MTU": "1450",
        "FLANNEL_IPMASQ": "false",
    }
    for node in (one, two):
        assert cluster.annotations(node) == {
            "kube-subnet-manager": "true",
            "backend-type": "vxlan",
            "backend-data": f'{{"VNI":1,"VtepMAC":"{vtep_mac(node)}"}}',
            "public-ip": node.address,
        }

    def is_available(node):
        conditions = cluster.ask(cluster.kube.node, cluster.name(node))["status"].get("conditions", [])
        return [one["reason"] for one in conditions if one["type"] == "NetworkUnavailable"] == ["FlannelIsUp"]

    wait_until(lambda: is_available(one) and is_available(two))


def test_traffic_is_untouched_while_the_api_server_is_away_and_what_happened_is_caught_up(cluster):
    one, two = cluster.make_node(), cluster.make_node()
    daemon = cluster.start(one).is_ready()
    cluster.start(two).is_ready()
    wait_until(lambda: leads_to(one, two, key_of(two)))
    cluster.kube.stop()
    daemon.says("store does not answer")
    assert leads_to(one, two, key_of(two))
    cluster.ask(cluster.kube.launch)
    cluster.ask(cluster.kube.delete_node, cluster.name(two))
    wait_until(lambda: "10.5.12.0/24" not in one.routes())


def test_a_restart_keeps_the_mac_and_needs_no_write(cluster):
    node = cluster.make_node()
    cluster.start(node).is_ready().stop()
    before, mac = cluster.annotations(node), vtep_mac(node)
    node.do(lambda ipr: ipr.link("del", index=node.index("flannel.1")))
    cluster.start(node).is_ready()
    assert (cluster.annotations(node), vtep_mac(node)) == (before, mac)


def test_a_pod_cidr_that_comes_late_is_waited_for(cluster):
    node = cluster.add_node()
    daemon = cluster.start(node)
    daemon.says('nodes "node11" not found')
    cluster.ask(cluster.kube.add_node, "node11")
    daemon.says("Node node11 has no podCIDR yet")
    cidr = "10.5.99.0/24"
    cluster.ask(cluster.kube.patch, "node11", {"spec": {"podCIDR": cidr, "podCIDRs": [cidr]}})
    assert daemon.is_ready().subnet_env["FLANNEL_SUBNET"] == "10.5.99.1/24"


def test_one_nodes_bad_annotation_harms_nobody_else(cluster):
    node = cluster.make_node()
    cluster.start(node).is_ready()
    kube = cluster.kube
    good = {
        "kube-subnet-manager": "true",
        "backend-type": "vxlan",
        "backend-data": '{"VNI":1,"VtepMAC":"7a:e3:ab:24:37:fb"}',
        "public-ip": "172.30.7.7",
    }
    cluster.ask(kube.add_node, "bad", "10.5.70.0/24", annotations=good | {"public-ip": "nonsense"})
    cluster.ask(kube.add_node, "worse", "10.5.71.0/24", annotations=good | {"backend-data": "{"})
    cluster.ask(kube.add_node, "good", "10.5.72.0/24", annotations=good)
    wait_until(lambda: "10.5.72.0/24" in node.routes())
    assert not {"10.5.70.0/24", "10.5.71.0/24"} & node.routes().keys()
    cluster.ask(kube.annotate, "good", public_ip="poison")
    cluster.ask(kube.annotate, "worse", backend_data='{"VNI":1,"VtepMAC":"7e:e3:ab:24:37:fb"}')
    wait_until(lambda: "10.5.71.0/24" in node.routes())
    assert "10.5.72.0/24" in node.routes()


@every_family
def test_on_demand_the_first_packet_is_answered(cluster, families):
    cluster.net_config.write_text(CONFIGS[families])
    cidrs = {IPV4: "10.5.{}.0/24", IPV6: "fd05:0:0:{}::/64"}
    one, two, _ = nodes = [
        cluster.make_node(*(cidrs[family].format(number) for family in families)) for number in (11, 12, 13)
    ]
    for node in nodes:
        give_ipv6(node)
    first, second, _ = (cluster.start(node, "--on-demand").is_ready() for node in nodes)
    sources = first_packets_are_answered(one, first, two, second, families)
    nobody_is_told_of_at_once(one, sources)
    # A Node in use that changes, and that goes; its own daemon would put right what it published.
    second.stop()
    changed = {IPV4: {"public_ip": "172.30.7.7"}, IPV6: {"public_ipv6": "fd30::7:7"}}
    for family in families:
        cluster.ask(cluster.kube.annotate, cluster.name(two), **changed[family])
        remote = next(iter(changed[family].values()))
        wait_until(lambda family=family, remote=remote: set(ways(one, family)[0].values()) == {remote})
    cluster.ask(cluster.kube.delete_node, cluster.name(two))
    wait_until(lambda: all(ways(one, family) == ({}, set()) for family in families))
    assert "Traceback" not in first.log


def test_the_operators_addresses(cluster):
    one, two = cluster.make_node(), cluster.make_node()
    kube = cluster.kube
    cluster.ask(kube.annotate, "node11", public_ip_overwrite="172.30.5.5")
    cluster.ask(kube.annotate, "node12", node_public_ip="172.30.6.6")
    daemons = [cluster.start(node).is_ready() for node in (one, two)]
    assert cluster.annotations(one)["public-ip"] == "172.30.5.5"
    assert cluster.annotations(two)["public-ip"] == "172.30.6.6"
    wait_until(lambda: two.fdb(two.index("flannel.1")) == {vtep_mac(one): "172.30.5.5"})
    cluster.ask(kube.annotate, "node11", public_ip_overwrite=None)
    wait_until(lambda: two.fdb(two.index("flannel.1")) == {vtep_mac(one): one.address})
    assert all(daemon.process.poll() is None for daemon in daemons)


GO_FLANNEL = Path(__file__).parent.parent / ".cache" / "peers" / "flannel"


@pytest.mark.skipif(not GO_FLANNEL.exists(), reason="no genuine Go flannel to compare with: make peers")
def test_go_flannel_and_we_write_the_same_and_may_take_each_others_place(cluster, tmp_path):
    one, two = cluster.make_node(), cluster.make_node()
    # Go flannel cannot annotate a Node that has no annotation at all.
    cluster.ask(cluster.kube.patch, "node12", {"metadata": {"annotations": {"example.com/any": ""}}})
    cluster.start(one).is_ready()
    command = [
        GO_FLANNEL,
        "--kube-subnet-mgr",
        f"--kubeconfig-file={cluster.kube.kubeconfig}",
        f"--net-config-path={cluster.net_config}",
        f"--subnet-file={tmp_path / 'go.env'}",
        "--iptables-forward-rules=false",
    ]
    environ = {**os.environ, "NODE_NAME": "node12"}
    quiet = subprocess.DEVNULL
    go = two.namespace.run(lambda: subprocess.Popen(command, env=environ, stdin=quiet, stdout=quiet, stderr=quiet))

    def reach_each_other():
        devices = [node.index("flannel.1") for node in (one, two)]
        return all(devices) and (
            one.fdb(devices[0]) == {vtep_mac(two): two.address} and two.fdb(devices[1]) == {vtep_mac(one): one.address}
        )

    try:
        wait_until(reach_each_other)
    finally:
        go.kill()
        go.wait()
    theirs = cluster.annotations(two)
    assert theirs == cluster.annotations(one) | {
        "backend-data": f'{{"VNI":1,"VtepMAC":"{vtep_mac(two)}"}}',
        "public-ip": two.address,
    }
    cluster.start(two).is_ready()
    wait_until(lambda: leads_to(one, two, key_of(two)) and leads_to(two, one, key_of(one)))
    assert cluster.annotations(two) == theirs
