"""Asking the kernel which way a packet would go (RTM_GETROUTE without a dump; net/ipv4/route.c, inet_rtm_getroute)."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, NamedTuple

from flanneld_py.core.prefix import IPV4, bits
from flanneld_py.kernel import netlink
from flanneld_py.kernel.families import AF_OF, encode_address
from flanneld_py.kernel.netlink import Request
from flanneld_py.kernel.route import RTA_DST, RTA_GATEWAY, RTA_OIF, RTA_TABLE, RTM_GETROUTE

if TYPE_CHECKING:
    from flanneld_py.kernel.netlink_socket import NetlinkSocket

LOCAL = 2
"""RTN_LOCAL: the packet is for this host."""

_RTA_SRC = 2
_RTA_IIF = 3
_RTM_F_LOOKUP_TABLE = 0x1000
_RTMSG = struct.Struct("=BBBBBBBBI")


class Lookup(NamedTuple):
    """The kernel's choice: RTN_… type, table, device, and gateway, 0 where the packet goes straight."""

    type: int
    table: int
    ifindex: int
    gateway: int


def look_up_route(
    sock: NetlinkSocket, family: int, destination: int, *, source: int = 0, incoming: int = 0, outgoing: int = 0
) -> Lookup:
    """Return the way of a packet, as if it came in by the device `incoming`, or were sent here, by `outgoing` only.

    Addresses and devices that are 0 are left to the kernel. Raises KernelError with the errno that a sender would
    get: ENETUNREACH, EHOSTUNREACH, EINVAL for a blackhole, EACCES for a prohibition, EXDEV where the source is
    refused.
    """
    width = bits(family)
    # IPv6 tells the table without being asked, and refuses to be asked.
    flags = _RTM_F_LOOKUP_TABLE if family == IPV4 else 0
    header = _RTMSG.pack(AF_OF[family], width, width if source else 0, 0, 0, 0, 0, 0, flags)
    parts = [header, netlink.encode_attribute(RTA_DST, encode_address(family, destination))]
    if source:
        parts.append(netlink.encode_attribute(_RTA_SRC, encode_address(family, source)))
    if incoming:
        parts.append(netlink.encode_u32(_RTA_IIF, incoming))
    if outgoing:
        parts.append(netlink.encode_u32(RTA_OIF, outgoing))
    message = sock.query(Request(RTM_GETROUTE, 0, b"".join(parts)), "look up a route")
    _, _, _, _, table, _, _, kind, _ = _RTMSG.unpack_from(message.payload)
    found = netlink.decode_attributes(message.payload, _RTMSG.size)
    return Lookup(
        kind,
        netlink.decode_u32(found[RTA_TABLE]) if RTA_TABLE in found else table,
        netlink.decode_u32(found[RTA_OIF]) if RTA_OIF in found else 0,
        int.from_bytes(found.get(RTA_GATEWAY, b""), "big"),
    )
