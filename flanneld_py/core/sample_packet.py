"""Packets as a packet filter sees them, to ask what would become of those that a network lives by."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from flanneld_py.core.prefix import IPV4, Prefix

if TYPE_CHECKING:
    from collections.abc import Iterable

POD_BRIDGE = "cni0"
TCP, UDP = 6, 17
_OUTSIDE = {4: 0xC6336401, 6: 0x20010DB8 << 96 | 1}
"""198.51.100.1 and 2001:db8::1, for documentation (RFC 5737, RFC 3849)."""
_SOME_PORT = 40000


class SamplePacket(NamedTuple):
    """The first packet of a connection; `outgoing` is empty where it is for the host itself."""

    family: int
    incoming: str
    outgoing: str
    source: int
    destination: int
    protocol: int
    port: int

    def network_header(self) -> bytes:
        """Return its IP header (RFC 791, RFC 8200)."""
        if self.family == IPV4:
            ends = self.source.to_bytes(4, "big") + self.destination.to_bytes(4, "big")
            return bytes((0x45, 0, 0, 60, 0, 0, 0x40, 0, 64, self.protocol, 0, 0)) + ends
        ends = self.source.to_bytes(16, "big") + self.destination.to_bytes(16, "big")
        return bytes((0x60, 0, 0, 0, 0, 40, self.protocol, 64)) + ends

    def transport_header(self) -> bytes:
        """Return its TCP header, a SYN (RFC 9293), or its UDP header (RFC 768)."""
        ports = _SOME_PORT.to_bytes(2, "big") + self.port.to_bytes(2, "big")
        if self.protocol == UDP:
            return ports + bytes((0, 40, 0, 0))
        return ports + bytes(8) + bytes((0x50, 0x02, 0xFF, 0xFF)) + bytes(4)


def pod_packets(network: Prefix, own: Prefix, tunnel: str, uplink: str) -> list[SamplePacket]:
    """Return what the host forwards for its pods: to and from a pod of another node, and to the outside."""
    family = network.family
    pod = own.address + own.size // 2
    # Any address of the network that is not in our own subnet.
    other = (network.address if own.address != network.address else own.last) + 1
    return [
        SamplePacket(family, POD_BRIDGE, tunnel, pod, other, TCP, 80),
        SamplePacket(family, tunnel, POD_BRIDGE, other, pod, TCP, 80),
        SamplePacket(family, POD_BRIDGE, uplink, pod, _OUTSIDE[family], TCP, 80),
    ]


def tunnel_packets(
    peers: Iterable[tuple[int, int]], ours: Iterable[tuple[int, int]], uplink: str, port: int
) -> list[SamplePacket]:
    """Return what peers send to a port of ours; both are given as family and address."""
    own = dict(ours)
    return [
        SamplePacket(family, uplink, "", address, own[family], UDP, port) for family, address in peers if family in own
    ]
