"""Real daemons and the real CNI plugin: what travels, and how."""

import json
import struct
import subprocess
import sys
from ipaddress import ip_address
from itertools import permutations
from pathlib import Path

import pytest
from scapy.layers.inet import ICMP, IP, UDP
from scapy.layers.l2 import Ether
from scapy.layers.vxlan import VXLAN

from tests.netns_lab.topologies import LEFT, RIGHT, topology

pytestmark = [pytest.mark.lab, pytest.mark.etcd, pytest.mark.timeout(180)]

UPLINKS = {"n1": "172.20.1.11", "n2": "172.20.1.12", "n3": "172.20.2.11", "n4": "172.20.2.12"}
HERE = Path(__file__).parent


def four_nodes(**options):
    return topology(LEFT, LEFT, RIGHT, RIGHT, network={"SubnetLen": 24}, DirectRouting=True, **options)


def pods_of(lab):
    """Address and node of every pod."""
    records = [json.loads(file.read_text()) for file in (lab.root / "pods").glob("*.json")]
    return {record["result"]["ips"][0]["address"].partition("/")[0]: record["node"] for record in records}


def same_underlay(one, other):
    return ip_address(UPLINKS[one]).packed[:3] == ip_address(UPLINKS[other]).packed[:3]


class Capture:
    """All frames that pass the router, which is where the underlay's switches are."""

    def __init__(self, lab):
        self.file = lab.folder / "frames"
        script = (sys.executable, HERE / "capture.py", self.file)
        self.process = lab.start("exec", "router", "--", *script, stdin=subprocess.PIPE)

    def __enter__(self):
        assert self.process.stdout.readline() == "capturing\n"
        return self

    def __exit__(self, *_):
        _, errors = self.process.communicate(timeout=150)
        assert self.process.returncode == 0, errors

    def frames(self):
        data = self.file.read_bytes()
        while data:
            (length,) = struct.unpack_from("!I", data)
            yield Ether(data[4 : 4 + length])
            data = data[4 + length :]


def echoes(frames):
    """Sort the pods' echo requests: (source, destination) in the clear; the same with both outer addresses."""
    clear, tunnelled = set(), set()
    for frame in frames:
        if ICMP in frame and UDP not in frame:
            clear.add((frame[IP].src, frame[IP].dst))
        elif UDP in frame and frame[UDP].dport == 8472:
            vxlan = VXLAN(bytes(frame[UDP].payload))
            assert vxlan.vni == 1
            inner = vxlan[Ether]
            if ICMP in inner and inner[ICMP].type == 8:
                tunnelled.add((inner[IP].src, inner[IP].dst, frame[IP].src, frame[IP].dst))
    return clear, tunnelled


def test_pairs_on_one_subnet_go_in_the_clear_and_the_others_through_the_tunnel(lab):
    lab.up(four_nodes())
    lab.await_reach()
    with Capture(lab) as capture:
        assert "all 12 pairs reach each other, no packet lost" in lab.run("ping").stdout
    clear, tunnelled = echoes(capture.frames())
    pods = pods_of(lab)
    pairs = list(permutations(pods, 2))
    assert clear == {(a, b) for a, b in pairs if same_underlay(pods[a], pods[b])}
    assert tunnelled == {
        (a, b, UPLINKS[pods[a]], UPLINKS[pods[b]]) for a, b in pairs if not same_underlay(pods[a], pods[b])
    }


def test_a_node_with_a_lease_as_go_flannel_writes_it_is_reached_both_ways(lab):
    lab.up(four_nodes(daemons={"n4": [sys.executable, HERE / "go_format_node.py"]}))
    lab.await_reach()
    assert "all 12 pairs reach each other, no packet lost" in lab.run("ping").stdout
    assert "10.244.200.2" in pods_of(lab)


def test_pods_come_and_go(lab):
    lab.up(four_nodes())
    assert "web on n1 has 10.244." in lab.run("pod", "add", "web", "n1").stdout
    lab.await_reach()
    assert "all 20 pairs" in lab.run("ping").stdout
    devices = lab.run("exec", "web", "--", "cat", "/proc/net/dev").stdout
    assert "eth0:" in devices
    assert "cni0:" not in devices
    assert "web is there already" in lab.run("pod", "add", "web", "n2", status=2).stderr
    assert "no node is named n9" in lab.run("pod", "add", "other", "n9", status=2).stderr
    lab.run("pod", "del", "web")
    assert "no pod is named web" in lab.run("pod", "del", "web", status=2).stderr
    assert "all 12 pairs" in lab.run("ping").stdout
