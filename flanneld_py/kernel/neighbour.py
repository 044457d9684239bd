"""Neighbours and vxlan forwarding entries, which share one message (include/uapi/linux/neighbour.h)."""

from __future__ import annotations

import struct
from itertools import repeat

from flanneld_py.core.entries import FdbEntry, Neighbour
from flanneld_py.core.named_tuple import TYPE_CHECKING, NamedTuple
from flanneld_py.core.prefix import IPV4, IPV6
from flanneld_py.kernel import netlink
from flanneld_py.kernel.families import AF_BRIDGE, AF_INET, AF_OF, FAMILY_OF, encode_address
from flanneld_py.kernel.ndmsg import NDA_DST, NDA_LLADDR, NDMSG, RTM_DELNEIGH, RTM_GETNEIGH, RTM_NEWNEIGH
from flanneld_py.kernel.netlink import Message, Request

if TYPE_CHECKING:
    from typing import Any

_NDA_CACHEINFO = 3
_NDA_IFINDEX = 8
_NUD_PERMANENT = 0x80
_NUD_FAILED = 0x20
_NTF_SELF = 0x02
_FAMILY_BY_SIZE = {4: 4, 16: 6}

_REPLACE = netlink.NLM_F_CREATE | netlink.NLM_F_REPLACE

# A cluster has as many of these as nodes, so each is written by one struct: address size, and payload with padding.
_NEIGHBOUR = {
    IPV4: (4, struct.Struct("=BxxxiHBB HH4s HH6sxx")),
    IPV6: (16, struct.Struct("=BxxxiHBB HH16s HH6sxx")),
}
_FDB = {
    IPV4: (4, struct.Struct("=BxxxiHBB HH6sxx HH4s")),
    IPV6: (16, struct.Struct("=BxxxiHBB HH6sxx HH16s")),
}

# How the kernel writes the two for IPv4, from the start of the message: what `peek_…` reads at a glance.
_NEIGHBOUR_IPV4 = struct.Struct("=16x B3xiH2x HH4s HH6s")
_FDB_IPV4 = struct.Struct("=16x B3xiH2x HH6s2x HH4s")
# And a dump of nothing else: what `sum_…` reads at once, with a time at the end.
_NEIGHBOURS_IPV4 = struct.Struct(">12s4x 12s 4sI 4s6s2x 28x")
_FDB_ENTRIES_IPV4 = struct.Struct(">12s4x 12s 4s6s2x 4sI 20x")
_DST_IPV4 = (8, NDA_DST)
_LLADDR = (10, NDA_LLADDR)
_DST_HEAD = struct.pack("=HH", *_DST_IPV4)
_LLADDR_HEAD = struct.pack("=HH", *_LLADDR)


def encode_replace_neighbour(entry: Neighbour) -> Request:
    """Write the request that makes or changes a permanent neighbour."""
    ifindex, family, address, lladdr = entry
    size, layout = _NEIGHBOUR[family]
    value = address.to_bytes(size, "big")
    payload = layout.pack(
        AF_OF[family], ifindex, _NUD_PERMANENT, 0, 0, 4 + size, NDA_DST, value, 4 + len(lladdr), NDA_LLADDR, lladdr
    )
    return Request(RTM_NEWNEIGH, _REPLACE, payload)


def encode_delete_neighbour(entry: Neighbour) -> Request:
    """Write the request that deletes a neighbour."""
    payload = NDMSG.pack(AF_OF[entry.family], entry.ifindex, 0, 0, 0) + netlink.encode_attribute(
        NDA_DST, encode_address(entry.family, entry.address)
    )
    return Request(RTM_DELNEIGH, 0, payload)


def encode_dump_neighbours(family: int, ifindex: int) -> Request:
    """Write the request for the neighbours of one device."""
    return Request(RTM_GETNEIGH, 0, NDMSG.pack(AF_OF[family], 0, 0, 0, 0) + netlink.encode_u32(_NDA_IFINDEX, ifindex))


def decode_neighbour(message: Message) -> Neighbour | None:
    """Read RTM_NEWNEIGH or RTM_DELNEIGH; None unless it is a permanent neighbour.

    What the kernel resolves, or notes for multicast, by itself is its own business.
    """
    if message.kind not in {RTM_NEWNEIGH, RTM_DELNEIGH}:
        return None
    af, ifindex, state, _, _ = NDMSG.unpack_from(message.payload)
    if af not in FAMILY_OF or not state & _NUD_PERMANENT:
        return None
    attributes = netlink.decode_attributes(message.payload, NDMSG.size)
    if NDA_DST not in attributes:
        return None
    address = int.from_bytes(attributes[NDA_DST], "big")
    return Neighbour(ifindex, FAMILY_OF[af], address, bytes(attributes.get(NDA_LLADDR, b"")))


class Resolution(NamedTuple):
    """What the kernel knows of a neighbour, whoever told it; `failed` once nobody has answered its questions."""

    ifindex: int
    family: int
    address: int
    lladdr: bytes
    failed: bool


def decode_resolution(message: Message) -> Resolution | None:
    """Read RTM_NEWNEIGH in whatever state; None unless it is a neighbour by address."""
    af, ifindex, state, _, _ = NDMSG.unpack_from(message.payload)
    attributes = netlink.decode_attributes(message.payload, NDMSG.size)
    if af not in FAMILY_OF or NDA_DST not in attributes:
        return None
    address = int.from_bytes(attributes[NDA_DST], "big")
    return Resolution(
        ifindex, FAMILY_OF[af], address, bytes(attributes.get(NDA_LLADDR, b"")), bool(state & _NUD_FAILED)
    )


def decode_header(message: Message) -> tuple[int, int, bool]:
    """Read of RTM_NEWNEIGH or RTM_DELNEIGH the kernel's address family, the device, and whether it is permanent."""
    af, ifindex, state, _, _ = NDMSG.unpack_from(message.payload)
    return af, ifindex, bool(state & _NUD_PERMANENT)


def encode_replace_fdb(entry: FdbEntry) -> Request:
    """Write the request that makes or changes a vxlan forwarding entry."""
    ifindex, mac, family, remote = entry
    size, layout = _FDB[family]
    value = remote.to_bytes(size, "big")
    payload = layout.pack(
        AF_BRIDGE, ifindex, _NUD_PERMANENT, _NTF_SELF, 0, 10, NDA_LLADDR, mac, 4 + size, NDA_DST, value
    )
    return Request(RTM_NEWNEIGH, _REPLACE, payload)


def encode_delete_fdb(entry: FdbEntry) -> Request:
    """Write the request that deletes the forwarding entry of a MAC, whichever remote it has."""
    payload = NDMSG.pack(AF_BRIDGE, entry.ifindex, 0, _NTF_SELF, 0) + netlink.encode_attribute(NDA_LLADDR, entry.mac)
    return Request(RTM_DELNEIGH, 0, payload)


def encode_dump_fdb(ifindex: int) -> Request:
    """Write the request for the forwarding entries of one device."""
    return Request(RTM_GETNEIGH, 0, NDMSG.pack(AF_BRIDGE, ifindex, 0, 0, 0))


def decode_fdb(message: Message) -> FdbEntry | None:
    """Read RTM_NEWNEIGH or RTM_DELNEIGH; None unless it is a permanent forwarding entry with a remote."""
    if message.kind not in {RTM_NEWNEIGH, RTM_DELNEIGH}:
        return None
    af, ifindex, state, _, _ = NDMSG.unpack_from(message.payload)
    if af != AF_BRIDGE or not state & _NUD_PERMANENT:
        return None
    attributes = netlink.decode_attributes(message.payload, NDMSG.size)
    if NDA_DST not in attributes or NDA_LLADDR not in attributes:
        return None
    remote = attributes[NDA_DST]
    return FdbEntry(ifindex, bytes(attributes[NDA_LLADDR]), _FAMILY_BY_SIZE[len(remote)], int.from_bytes(remote, "big"))


def is_repeated_fdb(message: Message) -> bool:
    """Say whether a notification of a forwarding entry only repeats vxlan's own one, without remote and times.

    Linux before 6.13 sends one for each request, even if nothing has changed (net/core/rtnetlink.c, rtnl_fdb_notify;
    commit 4b42fbc6bd8f "ndo_fdb_add: Add a parameter to report whether notification was sent").
    """
    return _NDA_CACHEINFO not in netlink.decode_attributes(message.payload, NDMSG.size)


def peek_neighbour(data: memoryview, offset: int) -> tuple[Any, ...] | None:
    """Read what `decode_neighbour` would from the message at an offset, as a plain tuple."""
    return _glance_at_neighbour(data, offset) or decode_neighbour(netlink.message_at(data, offset))


def _glance_at_neighbour(data: memoryview, offset: int) -> tuple[Any, ...] | None:
    if len(data) - offset >= _NEIGHBOUR_IPV4.size:
        af, ifindex, state, size, first, address, size2, second, mac = _NEIGHBOUR_IPV4.unpack_from(data, offset)
        if af == AF_INET and (size, first) == _DST_IPV4 and (size2, second) == _LLADDR:
            return (ifindex, IPV4, int.from_bytes(address, "big"), mac) if state & _NUD_PERMANENT else None
    return None


def peek_fdb(data: memoryview, offset: int) -> tuple[Any, ...] | None:
    """Read what `decode_fdb` would from the message at an offset, as a plain tuple."""
    return _glance_at_fdb(data, offset) or decode_fdb(netlink.message_at(data, offset))


def _glance_at_fdb(data: memoryview, offset: int) -> tuple[Any, ...] | None:
    if len(data) - offset >= _FDB_IPV4.size:
        af, ifindex, state, size, first, mac, size2, second, remote = _FDB_IPV4.unpack_from(data, offset)
        if af == AF_BRIDGE and (size, first) == _LLADDR and (size2, second) == _DST_IPV4:
            return (ifindex, mac, IPV4, int.from_bytes(remote, "big")) if state & _NUD_PERMANENT else None
    return None


def sum_neighbours(data: memoryview, sequence: int) -> int | None:
    """Return the sum of the hashes of what `peek_neighbour` reads of each message; None where they are not alike."""
    first = _glance_at_neighbour(data, 0)
    if first is None:
        return None
    alike = bytes(data[16:28]), _DST_HEAD, None, _LLADDR_HEAD, None
    columns = netlink.columns_alike(data, _NEIGHBOURS_IPV4, RTM_NEWNEIGH, sequence, alike)
    if columns is None:
        return None
    addresses, macs = columns
    return sum(map(hash, zip(repeat(first[0]), repeat(IPV4), addresses, macs, strict=False)))


def sum_fdb(data: memoryview, sequence: int) -> int | None:
    """Return the sum of the hashes of what `peek_fdb` reads of each message; None where they are not alike."""
    first = _glance_at_fdb(data, 0)
    if first is None:
        return None
    alike = bytes(data[16:28]), _LLADDR_HEAD, None, _DST_HEAD, None
    columns = netlink.columns_alike(data, _FDB_ENTRIES_IPV4, RTM_NEWNEIGH, sequence, alike)
    if columns is None:
        return None
    macs, remotes = columns
    return sum(map(hash, zip(repeat(first[0]), macs, repeat(IPV4), remotes, strict=False)))
