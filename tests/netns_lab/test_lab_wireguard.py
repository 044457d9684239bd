"""The wireguard backend in a lab, by the kernel's WireGuard, else by one in user space."""

import pytest
from scapy.layers.inet import ICMP, IP, UDP

from tests.netns_lab.carriers import require
from tests.netns_lab.exercise import exercise
from tests.netns_lab.test_lab_overlay import Capture, pods_of

pytestmark = [pytest.mark.lab, pytest.mark.etcd, pytest.mark.guest, pytest.mark.timeout(180)]

LAB = """
pods = 1
[underlay]
left = "172.20.1.0/24"
right = "172.20.2.0/24"
[nodes.n1]
underlay = "left"
[nodes.n2]
underlay = "right"
[network]
Network = "10.244.0.0/16"
[network.Backend]
Type = "wireguard"
"""


@pytest.fixture
def wireguard_lab(lab):
    require(lab, "wireguard")
    lab.up(LAB)
    return lab


def test_all_sizes_arrive(wireguard_lab):
    exercise(wireguard_lab, mtu=1420)


def test_nothing_can_be_read_on_the_underlay(wireguard_lab):
    wireguard_lab.await_reach()
    with Capture(wireguard_lab) as capture:
        assert "no packet lost" in wireguard_lab.run("ping").stdout
    frames = list(capture.frames())
    pods = [bytes(map(int, address.split("."))) for address in pods_of(wireguard_lab)]
    between_nodes = [frame for frame in frames if UDP in frame and frame[UDP].dport == 51820]
    assert between_nodes
    assert not any(ICMP in frame for frame in frames)
    for frame in frames:
        assert frame[IP].src not in pods_of(wireguard_lab) if IP in frame else True
        # No inner header anywhere: no packet carries both pods' addresses side by side.
        assert not any(one + other in bytes(frame) for one in pods for other in pods)
