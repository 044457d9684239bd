"""The wireguard backend in a lab, by the kernel's WireGuard, else by one in user space."""

import json
from ipaddress import ip_address, ip_interface
from itertools import permutations

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6

from tests.netns_lab.carriers import require
from tests.netns_lab.exercise import exercise
from tests.netns_lab.test_lab_overlay import Capture
from tests.netns_lab.topologies import LEFT, RIGHT, topology

pytestmark = [pytest.mark.lab, pytest.mark.etcd, pytest.mark.guest, pytest.mark.timeout(180)]


@pytest.fixture
def wireguard_lab(lab):
    require(lab, "wireguard")
    lab.up(topology(LEFT, RIGHT, backend="wireguard"))
    return lab


def test_all_sizes_arrive(wireguard_lab):
    exercise(wireguard_lab, mtu=1420)


@pytest.mark.parametrize("families", [(), ("--ipv6",), ("--dual",)], ids=["IPv4", "IPv6", "dual"])
def test_nothing_can_be_read_on_the_underlay(lab, families):
    require(lab, "wireguard")
    lab.run("up", "--backend", "wireguard", *families)
    lab.await_reach()
    with Capture(lab) as capture:
        assert "no packet lost" in lab.run("ping").stdout
    frames = list(capture.frames())
    records = [json.loads(file.read_text()) for file in (lab.root / "pods").glob("*.json")]
    pods = {
        ip_interface(address["address"]).ip.packed: record["node"]
        for record in records
        for address in record["result"]["ips"]
    }
    ports = {frame[UDP].dport for frame in frames if UDP in frame}
    assert ports & {51820, 51821}
    apart = [
        (one, other) for one, other in permutations(pods, 2) if len(one) == len(other) and pods[one] != pods[other]
    ]
    assert len(apart) == (24 * 2 if families == ("--dual",) else 24)
    for frame in frames:
        # No inner header anywhere: no packet carries both pods' addresses side by side.
        assert not any(one + other in bytes(frame) for one, other in apart)
        # What a pod sends is nowhere in the clear; echoes on the underlay itself are the router's and the nodes'.
        outer = frame.payload
        if isinstance(outer, IP | IPv6):
            assert ip_address(outer.src).packed not in pods
            assert ip_address(outer.dst).packed not in pods
