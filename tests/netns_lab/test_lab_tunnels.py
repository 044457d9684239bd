"""ipip and wireguard in whole labs: how packets travel, and what heals."""

import json
from itertools import permutations

import pytest
from scapy.layers.inet import ICMP, IP

from tests.netns_lab.carriers import require
from tests.netns_lab.test_lab_overlay import UPLINKS, Capture, pods_of, same_underlay

pytestmark = [pytest.mark.lab, pytest.mark.etcd, pytest.mark.guest, pytest.mark.timeout(300)]

DEVICES = {"ipip": "flannel.ipip", "wireguard": "flannel-wg"}
MTUS = {"ipip": 1480, "wireguard": 1420}
LAB = """
pods = 1
[underlay]
left = "172.20.1.0/24"
right = "172.20.2.0/24"
[nodes.n1]
underlay = "left"
[nodes.n2]
underlay = "left"
[nodes.n3]
underlay = "right"
[network]
Network = "10.244.0.0/16"
[network.Backend]
Type = "{backend}"
{keys}
"""


@pytest.fixture(params=DEVICES)
def backend(request, lab):
    require(lab, request.param)
    return request.param


def bring_up(lab, backend, keys=""):
    lab.up(LAB.format(backend=backend, keys=keys))
    lab.await_reach()


def break_by_ip(lab, *words):
    lab.run("exec", "n1", "--", "ip", *words)


def test_ipip_is_the_pods_packet_in_another_one(lab):
    require(lab, "ipip")
    bring_up(lab, "ipip", "DirectRouting = true")
    with Capture(lab) as capture:
        assert "all 6 pairs reach each other, no packet lost" in lab.run("ping").stdout
    clear, tunnelled = set(), set()
    for frame in capture.frames():
        if IP in frame and frame[IP].proto == 4:
            outer = frame[IP]
            inner = IP(bytes(outer.payload))
            if ICMP in inner and inner[ICMP].type == 8:
                tunnelled.add((inner.src, inner.dst, outer.src, outer.dst))
        elif ICMP in frame and frame[ICMP].type == 8:
            clear.add((frame[IP].src, frame[IP].dst))
    pods = pods_of(lab)
    pairs = list(permutations(pods, 2))
    assert clear == {(a, b) for a, b in pairs if same_underlay(pods[a], pods[b])}
    assert tunnelled == {
        (a, b, UPLINKS[pods[a]], UPLINKS[pods[b]]) for a, b in pairs if not same_underlay(pods[a], pods[b])
    }


def test_what_is_broken_heals(lab, backend):
    bring_up(lab, backend)
    device = DEVICES[backend]
    network = "10.244.0.0/16" if backend == "wireguard" else pod_subnet(lab, "n3")
    for words in (
        ("link", "del", device),
        ("link", "set", device, "down"),
        ("link", "set", device, "mtu", "1300"),
        ("addr", "flush", "dev", device),
        ("route", "del", network),
    ):
        break_by_ip(lab, *words)
        lab.await_reach()
    link = json.loads(lab.run("exec", "n1", "--", "ip", "-json", "link", "show", device).stdout)
    assert link[0]["mtu"] == MTUS[backend]


def pod_subnet(lab, node):
    address = next(address for address, home in pods_of(lab).items() if home == node)
    return f"{address.rpartition('.')[0]}.0/24"
