"""Frames as scapy builds them, and what the lab says of them."""

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6EchoRequest, IPv6
from scapy.layers.l2 import ARP, Ether
from scapy.layers.vxlan import VXLAN

from netns_lab.dissect import dissect, dissect_packet

OUTER = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02") / IP(src="172.20.1.11", dst="172.20.2.11", ttl=64)
INNER = IP(src="10.1.0.2", dst="10.2.0.2", ttl=63) / ICMP()
INNER_TEXT = ["IPv4 10.1.0.2 → 10.2.0.2 ttl 63", "ICMP echo request"]
OUTER_TEXT = ["MAC 02:00:00:00:00:01 → 02:00:00:00:00:02", "IPv4 172.20.1.11 → 172.20.2.11 ttl 64"]


@pytest.mark.parametrize(
    ("frame", "layers"),
    [
        (
            OUTER
            / UDP(sport=4000, dport=8472)
            / VXLAN(vni=7)
            / Ether(src="02:00:00:00:00:03", dst="02:00:00:00:00:04")
            / INNER,
            [
                *OUTER_TEXT,
                "UDP 4000 → 8472",
                "VXLAN VNI 7",
                "MAC 02:00:00:00:00:03 → 02:00:00:00:00:04",
                *INNER_TEXT,
            ],
        ),
        (OUTER / INNER, [*OUTER_TEXT, *INNER_TEXT]),
        (OUTER / UDP(sport=8285, dport=8285) / INNER, [*OUTER_TEXT, "UDP 8285 → 8285", *INNER_TEXT]),
        (OUTER / TCP(), [*OUTER_TEXT, "TCP"]),
        (
            Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
            / IPv6(src="fd00::1", dst="fd00::2", hlim=9)
            / ICMPv6EchoRequest(),
            [OUTER_TEXT[0], "IPv6 fd00::1 → fd00::2 hop limit 9", "ICMPv6 echo request"],
        ),
        (Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02") / ARP(), [OUTER_TEXT[0]]),
    ],
    ids=["vxlan", "ipip", "udp", "tcp", "ipv6", "arp"],
)
def test_layers(frame, layers):
    assert [str(layer) for layer in dissect(bytes(frame))] == layers


def test_a_packet_without_ethernet_header():
    assert [str(layer) for layer in dissect_packet(bytes(INNER), 0x0800)] == INNER_TEXT


@pytest.mark.parametrize("size", range(60))
def test_what_is_cut_off_ends_it(size):
    dissect(bytes(OUTER / UDP(dport=8472) / VXLAN() / Ether() / INNER)[:size])
