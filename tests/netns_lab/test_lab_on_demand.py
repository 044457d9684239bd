"""Labs whose daemons program peers as they are needed, in each family and with both stores."""

import json

import pytest

from netns_lab.errors import LabError
from netns_lab.kube_apiserver import find_kubernetes

pytestmark = [pytest.mark.lab, pytest.mark.etcd, pytest.mark.timeout(300)]

FAMILIES = {"IPv4": (), "IPv6": ("--ipv6",), "dual": ("--dual",)}


def tunnel_peers(lab, node):
    """The forwarding entries of a node's tunnels: each is a peer of one family."""

    def ask(*words):
        return json.loads(lab.run("exec", node, "--", *words).stdout)

    tunnels = [link["ifname"] for link in ask("ip", "-json", "link") if link["ifname"].startswith("flannel")]
    found = [(name, entry) for name in tunnels for entry in ask("bridge", "-json", "fdb", "show", "dev", name)]
    return {(name, entry["dst"]) for name, entry in found if "dst" in entry}


def ipv6_of(lab, pod):
    told = lab.run("exec", pod, "--", "ip", "-6", "-json", "address", "show", "dev", "eth0").stdout
    (address,) = [one["local"] for one in json.loads(told)[0]["addr_info"] if one["scope"] == "global"]
    return address


def up(lab, families, *words):
    lab.run("up", "--on-demand", "--backend", "vxlan", *FAMILIES[families], *words)
    assert [tunnel_peers(lab, f"node{number}") for number in (1, 2, 3)] == [set(), set(), set()]


@pytest.mark.parametrize("families", FAMILIES)
def test_every_first_packet_of_the_matrix_arrives(lab, families):
    up(lab, families)
    assert "reach each other, no packet lost" in lab.run("ping", "--count", "2").stdout
    count = 2 if families != "dual" else 4
    assert [len(tunnel_peers(lab, f"node{number}")) for number in (1, 2, 3)] == [count] * 3


@pytest.mark.kubernetes
def test_with_kubernetes_as_well(lab):
    try:
        find_kubernetes("kube-apiserver")
    except LabError as error:
        pytest.skip(str(error))
    up(lab, "dual", "--kubernetes")
    assert "reach each other, no packet lost" in lab.run("ping", "--count", "2").stdout


def test_a_first_packet_in_ipv6_is_traced_from_pod_to_pod(lab):
    up(lab, "dual")
    source, address = (ipv6_of(lab, pod) for pod in ("pod-a", "pod-e"))
    told = lab.run("exec", "node1", "--", "flannelctl", "trace", source, address).stdout
    assert f"the kernel asks the daemon for {address}, and keeps the packet meanwhile" in " ".join(told.split())
    assert "the reply was back after" in lab.run("trace", "-6", "pod-a", "pod-e").stdout
    # One lease is used: its peer is programmed in both families, and no other.
    assert {name for name, _ in tunnel_peers(lab, "node1")} == {"flannel.1", "flannel-v6.1"}
    assert len(tunnel_peers(lab, "node1")) == 2
    assert tunnel_peers(lab, "node2") == set()
