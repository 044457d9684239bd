"""The udp backend in a lab: real packets between pods, beside genuine Go flannel where it has been built."""

import json

import pytest
from scapy.layers.inet import ICMP, IP, UDP

from tests.netns_lab.carriers import GO_FLANNEL, needs_go_flannel, require
from tests.netns_lab.exercise import exercise
from tests.netns_lab.test_lab_overlay import Capture, pods_of

pytestmark = [pytest.mark.lab, pytest.mark.etcd, pytest.mark.timeout(180)]

LAB = """
pods = 1
[underlay]
left = "172.20.1.0/24"
right = "172.20.2.0/24"
[nodes.n1]
underlay = "left"
[nodes.n2]
underlay = "right"
{daemon}
[network]
Network = "10.244.0.0/16"
[network.Backend]
Type = "udp"
"""


@pytest.fixture(autouse=True)
def _needs_tun(lab):
    require(lab, "udp")


def test_packets_go_as_bare_ipv4_in_udp(lab):
    lab.up(LAB.format(daemon=""))
    lab.await_reach()
    with Capture(lab) as capture:
        assert "no packet lost" in lab.run("ping").stdout
    inner = [IP(bytes(frame[UDP].payload)) for frame in capture.frames() if UDP in frame and frame[UDP].dport == 8285]
    echoes = {(packet.src, packet.dst) for packet in inner if ICMP in packet and packet[ICMP].type == 8}
    assert {dst for _, dst in echoes} == set(pods_of(lab))


def test_all_sizes_arrive(lab):
    lab.up(LAB.format(daemon=""))
    exercise(lab, mtu=1472)


@needs_go_flannel
def test_go_flannel_is_reached_and_reaches_us(lab):
    daemon = [str(GO_FLANNEL), "--iptables-forward-rules=false"]
    lab.up(LAB.format(daemon=f"daemon = {json.dumps(daemon)}"))
    exercise(lab, mtu=1472)
