"""Nexthop objects (include/uapi/linux/nexthop.h), which kernels have since 5.3."""

from __future__ import annotations

import struct
from itertools import repeat
from typing import TYPE_CHECKING

from flanneld_py.core.entries import PROTOCOL_FLANNELD, Nexthop
from flanneld_py.core.errors import KernelError
from flanneld_py.core.prefix import IPV4, IPV6
from flanneld_py.kernel import errnos, netlink
from flanneld_py.kernel.families import AF_INET, AF_OF, AF_UNSPEC, FAMILY_OF
from flanneld_py.kernel.netlink import Message, Request

if TYPE_CHECKING:
    from typing import Any

    from flanneld_py.kernel.netlink_socket import NetlinkSocket

RTM_NEWNEXTHOP = 104
RTM_DELNEXTHOP = 105
RTM_GETNEXTHOP = 106

_NHA_ID = 1
_NHA_OIF = 5
_NHA_GATEWAY = 6
_RTNH_F_ONLINK = 4

_NHMSG = struct.Struct("=BBBBI")

# A cluster has as many of these as nodes, so each is written by one struct: address size, and payload.
_LAYOUTS = {IPV4: (4, struct.Struct("=BBBBI HHI HHI HH4s")), IPV6: (16, struct.Struct("=BBBBI HHI HHI HH16s"))}

# How the kernel writes one for IPv4, from the start of the message: what `peek` reads at a glance.
_IPV4 = struct.Struct("=16x BxBxI HHI HHI HH4s")
_IPV4_ATTRIBUTES = (8, _NHA_ID, 8, _NHA_OIF, 8, _NHA_GATEWAY)
# And a dump of nothing else: what `sum_up` reads at once.
_ALL_IPV4 = struct.Struct("=12s4x 12sI 12s4s")


def encode_replace(nexthop: Nexthop) -> Request:
    """Write the request that makes or changes a nexthop; routes that use it follow."""
    ident, family, gateway, ifindex, onlink = nexthop
    size, layout = _LAYOUTS[family]
    payload = layout.pack(
        AF_OF[family],
        0,
        PROTOCOL_FLANNELD,
        0,
        _RTNH_F_ONLINK if onlink else 0,
        *(8, _NHA_ID, ident),
        *(8, _NHA_OIF, ifindex),
        *(4 + size, _NHA_GATEWAY, gateway.to_bytes(size, "big")),
    )
    return Request(RTM_NEWNEXTHOP, netlink.NLM_F_CREATE | netlink.NLM_F_REPLACE, payload)


def encode_delete(nexthop: Nexthop) -> Request:
    """Write the request that deletes a nexthop, and with it the routes that use it."""
    return encode_delete_id(nexthop.id)


def encode_delete_id(ident: int) -> Request:
    """Write the request that deletes the nexthop of this id, and with it the routes that use it."""
    return Request(RTM_DELNEXTHOP, 0, _NHMSG.pack(AF_UNSPEC, 0, 0, 0, 0) + netlink.encode_u32(_NHA_ID, ident))


def encode_dump() -> Request:
    """Write the request for all nexthops."""
    return Request(RTM_GETNEXTHOP, 0, _NHMSG.pack(AF_UNSPEC, 0, 0, 0, 0))


def decode(message: Message) -> Nexthop | None:
    """Read RTM_NEWNEXTHOP or RTM_DELNEXTHOP; None for another daemon's, a group or a blackhole."""
    if message.kind not in {RTM_NEWNEXTHOP, RTM_DELNEXTHOP}:
        return None
    af, _, protocol, _, flags = _NHMSG.unpack_from(message.payload)
    attributes = netlink.decode_attributes(message.payload, _NHMSG.size)
    if protocol != PROTOCOL_FLANNELD or af not in FAMILY_OF or not {_NHA_ID, _NHA_OIF, _NHA_GATEWAY} <= set(attributes):
        return None
    return Nexthop(
        netlink.decode_u32(attributes[_NHA_ID]),
        FAMILY_OF[af],
        int.from_bytes(attributes[_NHA_GATEWAY], "big"),
        netlink.decode_u32(attributes[_NHA_OIF]),
        bool(flags & _RTNH_F_ONLINK),
    )


def decode_id(message: Message) -> int:
    """Read the id of RTM_NEWNEXTHOP or RTM_DELNEXTHOP, whoever made the nexthop; 0 if there is none."""
    attributes = netlink.decode_attributes(message.payload, _NHMSG.size)
    return netlink.decode_u32(attributes[_NHA_ID]) if _NHA_ID in attributes else 0


def peek(data: memoryview, offset: int) -> tuple[Any, ...] | None:
    """Read what `decode` would from the message at an offset, as a plain tuple."""
    return _glance(data, offset) or decode(netlink.message_at(data, offset))


def _glance(data: memoryview, offset: int) -> tuple[Any, ...] | None:
    if len(data) - offset >= _IPV4.size:
        af, protocol, flags, a, b, ident, c, d, ifindex, e, f, gateway = _IPV4.unpack_from(data, offset)
        if af == AF_INET and protocol == PROTOCOL_FLANNELD and (a, b, c, d, e, f) == _IPV4_ATTRIBUTES:
            return ident, IPV4, int.from_bytes(gateway, "big"), ifindex, bool(flags & _RTNH_F_ONLINK)
    return None


def sum_up(data: memoryview, sequence: int, ids: range) -> int | None:
    """Return the sum of the hashes of what `peek` reads of each message; None where not all are alike, of these ids."""
    example = _glance(data, 0)
    if example is None:
        return None
    alike = bytes(data[16:28]), None, bytes(data[32:44]), None
    columns = netlink.columns_alike(data, _ALL_IPV4, RTM_NEWNEXTHOP, sequence, alike)
    if columns is None:
        return None
    idents, gateways = columns
    if min(idents) not in ids or max(idents) not in ids:
        return None
    _, _, _, ifindex, onlink = example
    numbers = map(int.from_bytes, gateways)
    return sum(map(hash, zip(idents, repeat(IPV4), numbers, repeat(ifindex), repeat(onlink), strict=False)))


def has_nexthops(sock: NetlinkSocket) -> bool:
    """Say whether this kernel has nexthop objects."""
    try:
        sock.dump(encode_dump(), decode, "read nexthops")
    except KernelError as error:
        if errnos.is_unsupported(error):
            return False
        raise
    return True
