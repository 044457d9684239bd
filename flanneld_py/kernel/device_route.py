"""Routes over one device with all that a CNI configuration may say of them (include/uapi/linux/rtnetlink.h).

Other than `route`, which knows what leads to peers and only that, and whose imports the CNI plugin cannot afford.
"""

from __future__ import annotations

import struct

from flanneld_py.core.named_tuple import TYPE_CHECKING, NamedTuple
from flanneld_py.core.prefix import IPV4, Prefix
from flanneld_py.kernel import netlink
from flanneld_py.kernel.families import AF_OF, FAMILY_OF, encode_address
from flanneld_py.kernel.netlink import Message, Request

if TYPE_CHECKING:
    from flanneld_py.kernel.netlink_socket import NetlinkSocket

TABLE_MAIN = 254
SCOPE_UNIVERSE = 0
SCOPE_LINK = 253

_RTM_NEWROUTE = 24
_RTM_GETROUTE = 26
_RTA_DST = 1
_RTA_OIF = 4
_RTA_GATEWAY = 5
_RTA_PRIORITY = 6
_RTA_METRICS = 8
_RTA_TABLE = 15
_RTAX_MTU = 2
_RTAX_ADVMSS = 8
_RTM_F_CLONED = 0x200
_RTN_UNICAST = 1
_RTPROT_BOOT = 3

_RTMSG = struct.Struct("=BBBBBBBBI")


class DeviceRoute(NamedTuple):
    """A unicast route; 0 stands for no gateway, and for the kernel's default of metric, MTU and MSS."""

    dst: Prefix
    ifindex: int
    gateway: int = 0
    metric: int = 0
    table: int = TABLE_MAIN
    scope: int = SCOPE_UNIVERSE
    mtu: int = 0
    mss: int = 0


def encode_add(route: DeviceRoute) -> Request:
    """Write the request that adds a route; the kernel refuses with EEXIST one that is there already."""
    family = route.dst.family
    table = route.table if route.table < 256 else 0
    parts = [
        _RTMSG.pack(AF_OF[family], route.dst.length, 0, 0, table, _RTPROT_BOOT, route.scope, _RTN_UNICAST, 0),
        netlink.encode_attribute(_RTA_DST, encode_address(family, route.dst.address)),
        netlink.encode_u32(_RTA_OIF, route.ifindex),
        netlink.encode_u32(_RTA_TABLE, route.table),
    ]
    if route.gateway:
        parts.append(netlink.encode_attribute(_RTA_GATEWAY, encode_address(family, route.gateway)))
    if route.metric:
        parts.append(netlink.encode_u32(_RTA_PRIORITY, route.metric))
    metrics = [
        netlink.encode_u32(kind, value) for kind, value in ((_RTAX_MTU, route.mtu), (_RTAX_ADVMSS, route.mss)) if value
    ]
    if metrics:
        parts.append(netlink.encode_nested(_RTA_METRICS, *metrics))
    return Request(_RTM_NEWROUTE, netlink.NLM_F_CREATE, b"".join(parts))


def decode_route(message: Message) -> DeviceRoute | None:
    """Read RTM_NEWROUTE; None for another message, one that is not unicast, or one without a single device."""
    if message.kind != _RTM_NEWROUTE:
        return None
    af, length, _, _, table, _, scope, kind, flags = _RTMSG.unpack_from(message.payload)
    attributes = netlink.decode_attributes(message.payload, _RTMSG.size)
    if kind != _RTN_UNICAST or af not in FAMILY_OF or flags & _RTM_F_CLONED or _RTA_OIF not in attributes:
        return None
    family = FAMILY_OF[af]
    metrics = netlink.decode_attributes(attributes.get(_RTA_METRICS, memoryview(b"")))
    return DeviceRoute(
        Prefix(family, int.from_bytes(attributes.get(_RTA_DST, b""), "big"), length),
        netlink.decode_u32(attributes[_RTA_OIF]),
        int.from_bytes(attributes.get(_RTA_GATEWAY, b""), "big"),
        _number(attributes, _RTA_PRIORITY),
        _number(attributes, _RTA_TABLE) or table,
        scope,
        _number(metrics, _RTAX_MTU),
        _number(metrics, _RTAX_ADVMSS),
    )


def _number(attributes: dict[int, memoryview], kind: int) -> int:
    value = attributes.get(kind)
    return 0 if value is None else netlink.decode_u32(value)


def default_scope(family: int, gateway: int) -> int:
    """Return the scope of a route for which none is given: without a gateway its destinations are on the link."""
    return SCOPE_LINK if family == IPV4 and not gateway else SCOPE_UNIVERSE


def read_routes(sock: NetlinkSocket, family: int) -> list[DeviceRoute]:
    """Return the unicast routes of all tables. Raises KernelError."""
    header = _RTMSG.pack(AF_OF[family], 0, 0, 0, 0, 0, 0, 0, 0)
    return sock.dump(Request(_RTM_GETROUTE, 0, header), decode_route, "read routes")
