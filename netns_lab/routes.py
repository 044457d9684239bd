"""The kernel's routes, with the nexthop objects that they use; pyroute2 0.9 reads neither those nor RTA_NH_ID.

A small reader of rtnetlink dumps (include/uapi/linux/rtnetlink.h, nexthop.h) with a pure decoder.
"""

import socket
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from pathlib import Path

from netns_lab.namespaces import in_network
from netns_lab.topology import Subnet

RTM_GETROUTE = 26
RTM_GETNEXTHOP = 106
NLM_F_REQUEST = 0x1
NLM_F_DUMP = 0x300
NLMSG_ERROR = 2
NLMSG_DONE = 3
RT_TABLE_MAIN = 254

NLMSGHDR = struct.Struct("=IHHII")  # length, type, flags, sequence number, port
ADDRESS_SIZES = {socket.AF_INET: 4, socket.AF_INET6: 16}

RTATTR = struct.Struct("=HH")  # length, type
RTMSG = struct.Struct("=BBBBBBBBI")  # family, dst_len, src_len, tos, table, protocol, scope, type, flags
NHMSG = struct.Struct("=BBBBI")  # family, scope, protocol, reserved, flags
U32 = struct.Struct("=I")

RTA_DST = 1
RTA_OIF = 4
RTA_GATEWAY = 5
RTA_NH_ID = 30
NHA_ID = 1
NHA_OIF = 5
NHA_GATEWAY = 6
RECEIVE_SIZE = 1 << 17

Attributes = Mapping[int, bytes]
Address = IPv4Address | IPv6Address


@dataclass(frozen=True, slots=True)
class Nexthop:
    """A nexthop object."""

    gateway: Address | None
    ifindex: int | None


@dataclass(frozen=True, slots=True)
class Route:
    """A route of the main table, its nexthop object (if it uses one) resolved."""

    destination: Subnet
    gateway: Address | None
    ifindex: int | None
    protocol: int
    nexthop_id: int | None


def read_routes(network: Path) -> tuple[Route, ...]:
    """Return the main table in that network namespace, IPv4 first, by destination. Raises OSError."""
    with in_network(network), socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as netlink:
        nexthops = decode_nexthops(dump(netlink, RTM_GETNEXTHOP, NHMSG.pack(socket.AF_UNSPEC, 0, 0, 0, 0)))
        routes = [
            decode_route(payload, nexthops)
            for family in ADDRESS_SIZES
            for payload in dump(netlink, RTM_GETROUTE, RTMSG.pack(family, 0, 0, 0, 0, 0, 0, 0, 0))
        ]
    found = (route for route in routes if route)
    return tuple(sorted(found, key=lambda route: (route.destination.version, int(route.destination[0]))))


def dump(netlink: socket.socket, kind: int, request: bytes) -> list[bytes]:
    """Return the payloads that answer a dump request. Raises OSError."""
    netlink.send(NLMSGHDR.pack(NLMSGHDR.size + len(request), kind, NLM_F_REQUEST | NLM_F_DUMP, 1, 0) + request)
    payloads: list[bytes] = []
    while True:
        for answer, payload in split_messages(netlink.recv(RECEIVE_SIZE)):
            if answer == NLMSG_DONE:
                return payloads
            if answer == NLMSG_ERROR:
                (code,) = struct.unpack_from("=i", payload)
                raise OSError(-code, f"the kernel refuses dump {kind}")
            payloads.append(payload)


def split_messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield type and payload of each netlink message in a datagram."""
    while data:
        length, kind, _, _, _ = NLMSGHDR.unpack_from(data)
        yield kind, data[NLMSGHDR.size : length]
        data = data[_aligned(length) :]


def decode_attributes(data: bytes) -> Attributes:
    """Return the attributes after a message's fixed part."""
    attributes = {}
    while len(data) >= RTATTR.size:
        length, kind = RTATTR.unpack_from(data)
        attributes[kind] = data[RTATTR.size : length]
        data = data[_aligned(length) :]
    return attributes


def _aligned(length: int) -> int:
    return (length + 3) & ~3


def decode_nexthops(payloads: list[bytes]) -> dict[int, Nexthop]:
    """Nexthop objects by their id."""
    attributes = [decode_attributes(payload[NHMSG.size :]) for payload in payloads]
    return {
        U32.unpack(each[NHA_ID])[0]: Nexthop(_decode_address(each.get(NHA_GATEWAY)), _decode_number(each.get(NHA_OIF)))
        for each in attributes
    }


def decode_route(payload: bytes, nexthops: Mapping[int, Nexthop]) -> Route | None:
    """Return a route of the main table; None for one of another table."""
    family, length, _, _, table, protocol, _, _, _ = RTMSG.unpack_from(payload)
    if table != RT_TABLE_MAIN:
        return None
    attributes = decode_attributes(payload[RTMSG.size :])
    destination = ip_network((attributes.get(RTA_DST, bytes(ADDRESS_SIZES[family])), length))
    gateway, ifindex = _decode_address(attributes.get(RTA_GATEWAY)), _decode_number(attributes.get(RTA_OIF))
    nexthop_id = _decode_number(attributes.get(RTA_NH_ID))
    if nexthop_id is not None and nexthop_id in nexthops:
        gateway, ifindex = nexthops[nexthop_id].gateway, nexthops[nexthop_id].ifindex
    return Route(destination, gateway, ifindex, protocol, nexthop_id)


def _decode_address(raw: bytes | None) -> Address | None:
    return ip_address(raw) if raw is not None else None


def _decode_number(raw: bytes | None) -> int | None:
    return U32.unpack(raw)[0] if raw is not None else None
