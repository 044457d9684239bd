"""Addresses of devices (include/uapi/linux/if_addr.h)."""

from __future__ import annotations

import struct

from flanneld_py.core.errors import KernelError
from flanneld_py.core.named_tuple import TYPE_CHECKING, NamedTuple
from flanneld_py.core.prefix import IPV4
from flanneld_py.kernel import errnos, netlink
from flanneld_py.kernel.families import AF_OF, FAMILY_OF, encode_address
from flanneld_py.kernel.netlink import Message, Request

if TYPE_CHECKING:
    from flanneld_py.kernel.netlink_socket import NetlinkSocket

RTM_NEWADDR = 20
RTM_DELADDR = 21
RTM_GETADDR = 22

IFA_ADDRESS = 1
IFA_LOCAL = 2
IFA_BROADCAST = 4
IFA_FLAGS = 8
_IFA_TARGET_NETNSID = 10
IFA_F_NODAD = 0x02
IFA_F_SECONDARY = 0x01
IFA_F_DEPRECATED = 0x20
IFA_F_TENTATIVE = 0x40
IFA_F_DADFAILED = 0x08

SCOPE_GLOBAL = 0
SCOPE_LINK = 253

_IFADDRMSG = struct.Struct("=BBBBI")


class InterfaceAddress(NamedTuple):
    """An address of a device, with its prefix length; host bits are part of it."""

    ifindex: int
    family: int
    address: int
    length: int
    scope: int = SCOPE_GLOBAL
    flags: int = 0


def decode_address(message: Message) -> InterfaceAddress | None:
    """Read RTM_NEWADDR or RTM_DELADDR; None for another message or family."""
    if message.kind not in {RTM_NEWADDR, RTM_DELADDR}:
        return None
    af, length, flags, scope, ifindex = _IFADDRMSG.unpack_from(message.payload)
    if af not in FAMILY_OF:
        return None
    attributes = netlink.decode_attributes(message.payload, _IFADDRMSG.size)
    # On a point-to-point device IFA_ADDRESS is the other end, IFA_LOCAL ours.
    value = attributes.get(IFA_LOCAL, attributes.get(IFA_ADDRESS))
    if value is None:
        return None
    if IFA_FLAGS in attributes:
        flags = netlink.decode_u32(attributes[IFA_FLAGS])
    return InterfaceAddress(ifindex, FAMILY_OF[af], int.from_bytes(value, "big"), length, scope, flags)


def read_addresses(sock: NetlinkSocket, ifindex: int = 0) -> list[InterfaceAddress]:
    """Return the addresses of a device, or of all devices for 0."""

    def decode(message: Message) -> InterfaceAddress | None:
        found = decode_address(message)
        return found if found is not None and ifindex in {0, found.ifindex} else None

    # Since Linux 4.20 the kernel looks at the index (NETLINK_GET_STRICT_CHK); before, it tells all.
    return sock.dump(Request(RTM_GETADDR, 0, _IFADDRMSG.pack(0, 0, 0, 0, ifindex)), decode, "read addresses")


def read_addresses_elsewhere(sock: NetlinkSocket, namespace: int) -> list[InterfaceAddress]:
    """Return the addresses of all devices in another namespace, by its id as seen from here.

    Raises KernelError; kernels before 4.20 ignore the id, and answers about this namespace are left out.
    """
    payload = _IFADDRMSG.pack(0, 0, 0, 0, 0) + netlink.encode_u32(_IFA_TARGET_NETNSID, namespace)

    def decode(message: Message) -> InterfaceAddress | None:
        attributes = netlink.decode_attributes(message.payload, _IFADDRMSG.size)
        return decode_address(message) if _IFA_TARGET_NETNSID in attributes else None

    return sock.dump(Request(RTM_GETADDR, 0, payload), decode, "read addresses in another namespace")


def encode_add(entry: InterfaceAddress, *, detects_duplicates: bool = False) -> Request:
    """Write the request that adds an address; an IPv6 one is usable at once, unless duplicates are to be detected."""
    attributes = [b""]
    if entry.family == IPV4 and entry.length < 31:
        broadcast = entry.address | ((1 << (32 - entry.length)) - 1)
        attributes.append(netlink.encode_attribute(IFA_BROADCAST, encode_address(IPV4, broadcast)))
    flags = IFA_F_NODAD if entry.family != IPV4 and not detects_duplicates else 0
    if flags:
        attributes.append(netlink.encode_u32(IFA_FLAGS, flags))
    payload = _payload(entry) + b"".join(attributes)
    return Request(RTM_NEWADDR, netlink.NLM_F_CREATE | netlink.NLM_F_REPLACE, payload)


def encode_delete(entry: InterfaceAddress) -> Request:
    """Write the request that deletes an address."""
    return Request(RTM_DELADDR, 0, _payload(entry))


def _payload(entry: InterfaceAddress) -> bytes:
    value = encode_address(entry.family, entry.address)
    return (
        _IFADDRMSG.pack(AF_OF[entry.family], entry.length, 0, entry.scope, entry.ifindex)
        + netlink.encode_attribute(IFA_LOCAL, value)
        + netlink.encode_attribute(IFA_ADDRESS, value)
    )


def ensure_address(sock: NetlinkSocket, entry: InterfaceAddress) -> None:
    """Have the device carry this address."""
    sock.execute(encode_add(entry), f"add an address to device {entry.ifindex}")


def delete_address(sock: NetlinkSocket, entry: InterfaceAddress) -> None:
    """Take an address from its device; one that is gone already is no error."""
    try:
        sock.execute(encode_delete(entry), f"delete an address from device {entry.ifindex}")
    except KernelError as error:
        if not errnos.is_absent(error):
            raise
