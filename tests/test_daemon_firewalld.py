"""The daemon beside the real firewalld: what that keeps from pods is named, and goes by the commands that are named."""

import json
import re
import socket
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from tests.firewall import FirewalledNode, need_firewalld
from tests.test_daemon import Cluster
from tests.test_daemon_rules import HANDLE, make_pod, rules_of
from tests.waiting import wait_until

pytestmark = [pytest.mark.kernel, pytest.mark.etcd, pytest.mark.timeout(180)]

FLANNELCTL = Path(sys.executable).with_name("flannelctl")
PORT = 7000
COUNTER = re.compile(r"counter packets \d+ bytes \d+")


class FirewalledCluster(Cluster):
    def add_node(self):
        node = FirewalledNode(self, len(self.nodes) + 11, self._make_namespace())
        self.nodes.append(node)
        return node


@pytest.fixture
def cluster(make_namespace, tmp_path):
    need_firewalld()
    cluster = FirewalledCluster(make_namespace, tmp_path)
    cluster.start_etcd()
    yield cluster
    cluster.close()


class Pair:
    """Two nodes with a pod each."""

    def __init__(self, cluster, make_namespace, backend, *, nftables):
        config = {"Network": "10.5.0.0/16", "EnableNFTables": nftables, "Backend": {"Type": backend}}
        cluster.set_config(json.dumps(config))
        self.nodes = [cluster.add_node(), cluster.add_node()]
        self.pods = {}
        for node in self.nodes:
            daemon = node.start("--ip-masq", "--iptables-resync=100ms").is_ready()
            subnet = daemon.subnet_env["FLANNEL_SUBNET"]
            address = f"{subnet.rpartition('.')[0]}.10"
            self.pods[node] = (address, make_pod(node, make_namespace(), subnet))

    def is_whole(self):
        """Whether each pod reaches the other."""
        ways = (self.nodes, reversed(self.nodes))
        return all(self._arrives(self.pods[node][1], *self.pods[other]) for node, other in ways)

    def _arrives(self, sender, address, receiver):
        listening = receiver.run(socket.create_server, ("", PORT))
        with listening, suppress(OSError), sender.run(socket.create_connection, (address, PORT), 2):
            return True
        return False

    def found(self, node):
        """What doctor finds, by check."""
        words = ["doctor", "--json", f"--subnet-file={node.daemons[-1].subnet_file}"]
        words += [f"--etcd-endpoints={node.cluster.etcd.url}", "--bin-dir=/nowhere", "--conf-dir=/nowhere"]
        done = node.run(FLANNELCTL, *words, check=False)
        assert not done.stderr
        told = json.loads(done.stdout)
        return {finding["check"]: finding for finding in told["findings"]}

    def status(self, node):
        words = ["status", "--json", f"--subnet-file={node.daemons[-1].subnet_file}"]
        return json.loads(node.run(FLANNELCTL, *words, check=False).stdout)


def ours(node):
    """Our rules and chains, with their handles, without their counters."""
    return [COUNTER.sub("", line) for line in rules_of(node).splitlines() if "flannel" in line.lower()]


def mend(node, found):
    for finding in found.values():
        for command in finding["mend"]:
            node.run("sh", "-ec", command)


def plain(lines):
    return [HANDLE.sub("", line) for line in lines]


@pytest.mark.parametrize("nftables", [True, False], ids=["nftables", "iptables"])
@pytest.mark.parametrize("backend", ["vxlan", "udp"])
def test_what_firewalld_stops_is_named_and_passes_by_the_commands_that_are_named(
    cluster, make_namespace, backend, nftables
):
    pair = Pair(cluster, make_namespace, backend, nftables=nftables)
    wait_until(pair.is_whole)
    for node in pair.nodes:
        assert pair.found(node) == {}
        node.start_firewalld()
    assert not pair.is_whole()
    for node in pair.nodes:
        found = pair.found(node)
        assert found.keys() == {"forward-chain", "tunnel-port"}
        assert [one["chain"] for one in pair.status(node)["rules"]["barriers"]] == ["inet firewalld filter_FORWARD"]
        mend(node, found)
    assert pair.is_whole()
    for node in pair.nodes:
        assert pair.found(node) == {}
        assert pair.status(node)["rules"]["barriers"] == []
        # The commands hold over a reload. With all of iptables it also takes away our rules there; they are restored.
        before = ours(node)
        assert before
        node.reload_firewalld()
        if nftables:
            assert ours(node) == before
        wait_until(lambda node=node, before=before: plain(ours(node)) == plain(before))
    assert pair.is_whole()
    assert all(pair.found(node) == {} for node in pair.nodes)


def test_firewalld_that_writes_to_iptables_itself_is_named_as_well(cluster, make_namespace):
    pair = Pair(cluster, make_namespace, "vxlan", nftables=False)
    for node in pair.nodes:
        node.start_firewalld("iptables")
        # What we restore stands before its last rule, behind those of its zones.
        node.reload_firewalld()
        wait_until(lambda node=node: "-j FLANNEL-FWD" in node.run("iptables", "-S", "FORWARD").stdout)
    assert not pair.is_whole()
    for node in pair.nodes:
        found = pair.found(node)
        assert found.keys() == {"forward-chain", "tunnel-port"}
        mend(node, found)
    wait_until(pair.is_whole)
    assert all(pair.found(node) == {} for node in pair.nodes)
