"""The udp backend in a lab: real packets between pods, beside genuine Go flannel where it has been built."""

import pytest
from scapy.layers.inet import ICMP, IP, UDP

from tests.netns_lab.carriers import GO_FLANNEL, needs_go_flannel, require
from tests.netns_lab.exercise import exercise
from tests.netns_lab.test_lab_overlay import Capture, pods_of
from tests.netns_lab.topologies import LEFT, RIGHT, topology

pytestmark = [pytest.mark.lab, pytest.mark.etcd, pytest.mark.timeout(180)]


@pytest.fixture(autouse=True)
def _needs_tun(lab):
    require(lab, "udp")


def test_packets_go_as_bare_ipv4_in_udp(lab):
    lab.up(topology(LEFT, RIGHT, backend="udp"))
    lab.await_reach()
    with Capture(lab) as capture:
        assert "no packet lost" in lab.run("ping").stdout
    inner = [IP(bytes(frame[UDP].payload)) for frame in capture.frames() if UDP in frame and frame[UDP].dport == 8285]
    echoes = {(packet.src, packet.dst) for packet in inner if ICMP in packet and packet[ICMP].type == 8}
    assert {dst for _, dst in echoes} == set(pods_of(lab))


def test_all_sizes_arrive(lab):
    lab.up(topology(LEFT, RIGHT, backend="udp"))
    exercise(lab, mtu=1472)


@needs_go_flannel
def test_go_flannel_is_reached_and_reaches_us(lab):
    go = [GO_FLANNEL, "--iptables-forward-rules=false"]
    lab.up(topology(LEFT, RIGHT, backend="udp", daemons={"n2": go}))
    exercise(lab, mtu=1472)
