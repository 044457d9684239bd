"""Routes of the main table (include/uapi/linux/rtnetlink.h)."""

from __future__ import annotations

import struct
from itertools import repeat

from flanneld_py.core.entries import BLACKHOLE, PROTOCOL_FLANNELD, UNREACHABLE, Route
from flanneld_py.core.named_tuple import TYPE_CHECKING
from flanneld_py.core.prefix import IPV4, Prefix
from flanneld_py.kernel import netlink
from flanneld_py.kernel.families import AF_INET, AF_OF, FAMILY_OF, encode_address
from flanneld_py.kernel.netlink import Message, Request

if TYPE_CHECKING:
    from typing import Any

RTM_NEWROUTE = 24
RTM_DELROUTE = 25
RTM_GETROUTE = 26

RTA_DST = 1
RTA_OIF = 4
RTA_GATEWAY = 5
RTA_PRIORITY = 6
RTA_FLOW = 11
RTA_TABLE = 15
RTA_NH_ID = 30

RTNH_F_ONLINK = 4
_RTM_F_CLONED = 0x200
_TABLE_MAIN = 254
_SCOPE_UNIVERSE = 0
_SCOPE_LINK = 253
_SCOPE_NOWHERE = 255

_RTMSG = struct.Struct("=BBBBBBBBI")

_REPLACE = netlink.NLM_F_CREATE | netlink.NLM_F_REPLACE

# A cluster has as many of these as nodes, so each is written by one struct.
_IPV4_ROUTE = struct.Struct("=BBBBBBBBI HH4s HHI")

# How the kernel writes an IPv4 route by nexthop id, from the start of the message: what `peek` reads at a glance.
_IPV4_BY_NEXTHOP = struct.Struct("=16x BBxBBBxBI HHI HH4s HHI")
_IPV4_ATTRIBUTES = (8, RTA_TABLE, _TABLE_MAIN, 8, RTA_DST, 8, RTA_NH_ID)
# And a dump of nothing else, each with gateway and device of its nexthop: what `sum_up` reads at once.
_ALL_IPV4 = struct.Struct("=12s4x 24s4s4sI 16x")


def default_metric(family: int) -> int:
    """Return the metric that the kernel takes for a route without one (IP6_RT_PRIO_USER in IPv6)."""
    return 0 if family == IPV4 else 1024


def encode_replace(route: Route) -> Request:
    """Write the request that makes or changes a route."""
    dst, metric, nexthop_id, gateway, ifindex, onlink, protocol, kind, realm = route
    if nexthop_id and dst.family == IPV4 and not metric:
        payload = _IPV4_ROUTE.pack(
            *(AF_INET, dst.length, 0, 0, _TABLE_MAIN, protocol, _SCOPE_UNIVERSE, kind, 0),
            *(8, RTA_DST, dst.address.to_bytes(4, "big")),
            *(8, RTA_NH_ID, nexthop_id),
        )
        return Request(RTM_NEWROUTE, _REPLACE, payload)
    scope = _SCOPE_LINK if ifindex and not gateway and dst.family == IPV4 else _SCOPE_UNIVERSE
    header = _RTMSG.pack(
        AF_OF[dst.family], dst.length, 0, 0, _TABLE_MAIN, protocol, scope, kind, RTNH_F_ONLINK if onlink else 0
    )
    parts = [header, netlink.encode_attribute(RTA_DST, encode_address(dst.family, dst.address))]
    if nexthop_id:
        parts.append(netlink.encode_u32(RTA_NH_ID, nexthop_id))
    if gateway:
        parts.append(netlink.encode_attribute(RTA_GATEWAY, encode_address(dst.family, gateway)))
    if ifindex:
        parts.append(netlink.encode_u32(RTA_OIF, ifindex))
    if metric:
        parts.append(netlink.encode_u32(RTA_PRIORITY, metric))
    if realm:
        parts.append(netlink.encode_u32(RTA_FLOW, realm))
    return Request(RTM_NEWROUTE, _REPLACE, b"".join(parts))


def encode_delete(route: Route) -> Request:
    """Write the request that deletes the route of this key and protocol, whatever the rest of its value is.

    IPv4 takes metric 0 for any metric: without the protocol a foreign route would go where ours has gone already.
    """
    dst = route.dst
    header = _RTMSG.pack(AF_OF[dst.family], dst.length, 0, 0, _TABLE_MAIN, route.protocol, _SCOPE_NOWHERE, 0, 0)
    parts = [header, netlink.encode_attribute(RTA_DST, encode_address(dst.family, dst.address))]
    if route.metric:
        parts.append(netlink.encode_u32(RTA_PRIORITY, route.metric))
    return Request(RTM_DELROUTE, 0, b"".join(parts))


def encode_dump(family: int) -> Request:
    """Write the request for all routes of the main table."""
    header = _RTMSG.pack(AF_OF[family], 0, 0, 0, 0, 0, 0, 0, 0)
    return Request(RTM_GETROUTE, 0, header + netlink.encode_u32(RTA_TABLE, _TABLE_MAIN))


def decode(message: Message) -> Route | None:
    """Read RTM_NEWROUTE or RTM_DELROUTE; None for another table, a cloned route, or one by type of service.

    A route by nexthop object says only its id: gateway and device are the nexthop's. One with several gateways of
    its own has neither gateway nor device here.
    """
    if message.kind not in {RTM_NEWROUTE, RTM_DELROUTE}:
        return None
    payload = message.payload
    af, length, _, tos, table, protocol, _, kind, flags = _RTMSG.unpack_from(payload)
    if table != _TABLE_MAIN or tos or af not in FAMILY_OF or flags & _RTM_F_CLONED:
        return None
    attributes = netlink.decode_attributes(payload, _RTMSG.size)
    family = FAMILY_OF[af]
    dst = Prefix(family, int.from_bytes(attributes.get(RTA_DST, b""), "big"), length)
    metric = netlink.decode_u32(attributes[RTA_PRIORITY]) if RTA_PRIORITY in attributes else 0
    if RTA_NH_ID in attributes:
        return Route(dst, metric, netlink.decode_u32(attributes[RTA_NH_ID]), 0, 0, False, protocol, kind)
    gateway = int.from_bytes(attributes.get(RTA_GATEWAY, b""), "big")
    # IPv6 names the loopback device for a route that leads nowhere (net/ipv6/route.c, fib6_is_reject).
    leads_on = RTA_OIF in attributes and kind not in {BLACKHOLE, UNREACHABLE}
    ifindex = netlink.decode_u32(attributes[RTA_OIF]) if leads_on else 0
    realm = netlink.decode_u32(attributes[RTA_FLOW]) if RTA_FLOW in attributes else 0
    return Route(dst, metric, 0, gateway, ifindex, bool(flags & RTNH_F_ONLINK), protocol, kind, realm)


def peek(data: memoryview, offset: int) -> tuple[Any, ...] | None:
    """Read what `decode` would from the message at an offset, as a plain tuple."""
    return _glance(data, offset) or decode(netlink.message_at(data, offset))


def _glance(data: memoryview, offset: int) -> tuple[Any, ...] | None:
    if len(data) - offset >= _IPV4_BY_NEXTHOP.size:
        af, length, tos, table, protocol, kind, flags, a, b, c, d, e, dst, f, g, ident = _IPV4_BY_NEXTHOP.unpack_from(
            data, offset
        )
        plain = af == AF_INET and table == _TABLE_MAIN and not tos and not flags & _RTM_F_CLONED
        if plain and (a, b, c, d, e, f, g) == _IPV4_ATTRIBUTES:
            return (IPV4, int.from_bytes(dst, "big"), length), 0, ident, 0, 0, False, protocol, kind, 0
    return None


def sum_up(data: memoryview, sequence: int, ids: range) -> int | None:
    """Return the sum of the hashes of what `peek` reads of each message; None where they are not alike and ours.

    `ids` are those of our nexthops.
    """
    example = _glance(data, 0)
    if example is None or example[6] != PROTOCOL_FLANNELD:
        return None
    alike = bytes(data[16:40]), None, bytes(data[44:48]), None
    columns = netlink.columns_alike(data, _ALL_IPV4, RTM_NEWROUTE, sequence, alike)
    if columns is None:
        return None
    addresses, idents = columns
    if min(idents) not in ids or max(idents) not in ids:
        return None
    (_, _, length), metric, _, *rest = example
    numbers = map(int.from_bytes, addresses)
    prefixes = zip(repeat(IPV4), numbers, repeat(length), strict=False)
    return sum(map(hash, zip(prefixes, repeat(metric), idents, *map(repeat, rest), strict=False)))
