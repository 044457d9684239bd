"""What a captured frame is, from the outside in, in words: Ethernet, IP, the tunnel, and what is inside. Pure.

Knows the headers that the lab's backends use: VXLAN (RFC 7348) in UDP, IP in IP (RFC 2003), and flannel's udp, which
has a bare IP packet as its payload. Anything else is named by its number.
"""

import struct
from ipaddress import IPv4Address, IPv6Address
from typing import NamedTuple

IPV4, IPV6 = 0x0800, 0x86DD
VXLAN_PORTS = frozenset({8472, 4789})
UDP_BACKEND_PORT = 8285
_ICMP, _IPIP, _UDP, _IPV6_IN_IP, _ICMPV6 = 1, 4, 17, 41, 58
_NAMES = {_ICMP: "ICMP", _ICMPV6: "ICMPv6", 6: "TCP"}


class Layer(NamedTuple):
    """A header: its name, and the fields that matter on the way."""

    name: str
    fields: str

    def __str__(self) -> str:
        return f"{self.name} {self.fields}".rstrip()


def dissect(frame: bytes) -> list[Layer]:
    """Return the layers of an Ethernet frame, the outermost first; what is cut off ends it."""
    if len(frame) < 14:
        return []
    kind = int.from_bytes(frame[12:14], "big")
    layer = Layer("MAC", f"{frame[6:12].hex(':')} → {frame[:6].hex(':')}")
    return [layer, *dissect_packet(frame[14:], kind)]


def dissect_packet(packet: bytes, kind: int) -> list[Layer]:
    """Return the layers of a packet without Ethernet header, as on a TUN device."""
    if kind == IPV4 and len(packet) >= 20:
        source, destination = IPv4Address(packet[12:16]), IPv4Address(packet[16:20])
        header, protocol, ttl = (packet[0] & 15) * 4, packet[9], packet[8]
        layer = Layer("IPv4", f"{source} → {destination} ttl {ttl}")
    elif kind == IPV6 and len(packet) >= 40:
        source6, destination6 = IPv6Address(packet[8:24]), IPv6Address(packet[24:40])
        header, protocol, ttl = 40, packet[6], packet[7]
        layer = Layer("IPv6", f"{source6} → {destination6} hop limit {ttl}")
    else:
        return []
    return [layer, *_dissect_payload(packet[header:], protocol)]


def _dissect_payload(data: bytes, protocol: int) -> list[Layer]:
    if protocol == _UDP and len(data) >= 8:
        source, destination = struct.unpack_from("!HH", data)
        layer = Layer("UDP", f"{source} → {destination}")
        if destination in VXLAN_PORTS and len(data) >= 16:
            return [layer, Layer("VXLAN", f"VNI {int.from_bytes(data[12:15], 'big')}"), *dissect(data[16:])]
        if destination == UDP_BACKEND_PORT and len(data) > 8:
            return [layer, *dissect_packet(data[8:], ip_kind(data[8:]))]
        return [layer]
    if protocol in {_IPIP, _IPV6_IN_IP}:
        return dissect_packet(data, ip_kind(data))
    if protocol in {_ICMP, _ICMPV6} and len(data) >= 8:
        return [
            Layer(
                _NAMES[protocol],
                {0: "echo reply", 8: "echo request", 128: "echo request", 129: "echo reply"}.get(
                    data[0], f"type {data[0]}"
                ),
            )
        ]
    return [Layer(_NAMES.get(protocol, f"protocol {protocol}"), "")]


def ip_kind(packet: bytes) -> int:
    """Return the EtherType that a bare IP packet would have."""
    return IPV6 if packet[:1] and packet[0] >> 4 == 6 else IPV4
