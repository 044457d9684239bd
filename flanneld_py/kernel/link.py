"""Network devices: read, create, change and delete (include/uapi/linux/if_link.h).

Owns what every device has; what a kind of device has besides stands in a module of its own (vxlan, veth, bridge).
"""

from __future__ import annotations

import struct

from flanneld_py.core.errors import KernelError
from flanneld_py.core.named_tuple import TYPE_CHECKING, NamedTuple
from flanneld_py.kernel import errnos, netlink
from flanneld_py.kernel.netlink import Message, Request

if TYPE_CHECKING:
    from flanneld_py.kernel.netlink_socket import NetlinkSocket

RTM_NEWLINK = 16
RTM_DELLINK = 17
RTM_GETLINK = 18

IFF_UP = 0x1
IFF_LOOPBACK = 0x8
IFF_RUNNING = 0x40
IFF_NOARP = 0x80
IFF_PROMISC = 0x100

IFLA_ADDRESS = 1
IFLA_IFNAME = 3
IFLA_MTU = 4
IFLA_LINK = 5
IFLA_MASTER = 10
IFLA_LINKINFO = 18
IFLA_IFALIAS = 20
IFLA_INFO_KIND = 1
IFLA_INFO_DATA = 2
IFLA_GROUP = 27
IFLA_AF_SPEC = 26
IFLA_NET_NS_FD = 28
_IFLA_EXT_MASK = 29
IFLA_NUM_TX_QUEUES = 31
IFLA_NUM_RX_QUEUES = 32
IFLA_LINK_NETNSID = 37

_RTEXT_FILTER_SKIP_STATS = 8
_AF_INET = 2
_AF_INET6 = 10
_IFLA_INET_CONF = 1
_IPV4_DEVCONF_ARP_NOTIFY = 22
_IFLA_INET6_ADDR_GEN_MODE = 8
_IN6_ADDR_GEN_MODE_NONE = 1

_IFINFOMSG = struct.Struct("=BxHiII")
_EMPTY = memoryview(b"")


class Link(NamedTuple):
    """A device as the kernel holds it; `data` are the attributes of its kind, 0 stands for no master or parent."""

    ifindex: int
    name: str
    flags: int
    mtu: int
    mac: bytes
    kind: str
    data: dict[int, memoryview]
    master: int
    parent: int

    @property
    def is_up(self) -> bool:
        """Whether the device is administratively up."""
        return bool(self.flags & IFF_UP)


def link_message(ifindex: int = 0, *attributes: bytes, flags: int = 0, change: int = 0) -> bytes:
    """Write the payload of a link message."""
    return _IFINFOMSG.pack(0, 0, ifindex, flags, change) + b"".join(attributes)


def encode_get(ifindex: int = 0, *attributes: bytes) -> Request:
    """Write the request for what the kernel knows of devices; without their counters, which are half of it."""
    mask = netlink.encode_u32(_IFLA_EXT_MASK, _RTEXT_FILTER_SKIP_STATS)
    return Request(RTM_GETLINK, 0, link_message(ifindex, *attributes, mask))


def decode_link_attributes(message: Message) -> dict[int, memoryview]:
    """Read the attributes of a link message."""
    return netlink.decode_attributes(message.payload, _IFINFOMSG.size)


def decode_link(message: Message) -> Link | None:
    """Read RTM_NEWLINK or RTM_DELLINK; None for another message."""
    if message.kind not in {RTM_NEWLINK, RTM_DELLINK}:
        return None
    _, _, ifindex, flags, _ = _IFINFOMSG.unpack_from(message.payload)
    attributes = decode_link_attributes(message)
    info = netlink.decode_attributes(attributes.get(IFLA_LINKINFO, _EMPTY))
    return Link(
        ifindex,
        netlink.decode_text(attributes.get(IFLA_IFNAME, _EMPTY)),
        flags,
        _u32(attributes, IFLA_MTU),
        bytes(attributes.get(IFLA_ADDRESS, b"")),
        netlink.decode_text(info.get(IFLA_INFO_KIND, _EMPTY)),
        netlink.decode_attributes(info.get(IFLA_INFO_DATA, _EMPTY)),
        _u32(attributes, IFLA_MASTER),
        _u32(attributes, IFLA_LINK),
    )


def _u32(attributes: dict[int, memoryview], kind: int) -> int:
    value = attributes.get(kind)
    return 0 if value is None else netlink.decode_u32(value)


def read_link(sock: NetlinkSocket, name: str) -> Link | None:
    """Return the device of this name, or None."""
    return _read(sock, encode_get(0, netlink.encode_text(IFLA_IFNAME, name)), f"read device {name}")


def read_link_at(sock: NetlinkSocket, ifindex: int) -> Link | None:
    """Return the device of this index, or None."""
    return _read(sock, encode_get(ifindex), f"read device {ifindex}")


def _read(sock: NetlinkSocket, request: Request, operation: str) -> Link | None:
    try:
        return decode_link(sock.query(request, operation))
    except KernelError as error:
        if errnos.is_absent(error):
            return None
        raise


def read_links(sock: NetlinkSocket) -> list[Link]:
    """Return all devices of the namespace."""
    return sock.dump(encode_get(), decode_link, "read devices")


def create_link(sock: NetlinkSocket, name: str, kind: str, data: bytes = b"", *attributes: bytes) -> None:
    """Create a device; `data` is the attributes of its kind. Raises KernelError, EEXIST if the name is taken."""
    info = [netlink.encode_text(IFLA_INFO_KIND, kind)]
    if data:
        info.append(netlink.encode_nested(IFLA_INFO_DATA, data))
    payload = link_message(
        0, netlink.encode_text(IFLA_IFNAME, name), netlink.encode_nested(IFLA_LINKINFO, *info), *attributes
    )
    flags = netlink.NLM_F_CREATE | netlink.NLM_F_EXCL
    sock.execute(Request(RTM_NEWLINK, flags, payload), f"create {kind} device {name}")


def delete_link(sock: NetlinkSocket, ifindex: int) -> None:
    """Delete a device; one that is gone already is no error."""
    try:
        sock.execute(encode_delete(ifindex), f"delete device {ifindex}")
    except KernelError as error:
        if not errnos.is_absent(error):
            raise


def encode_delete(ifindex: int) -> Request:
    """Write the request that deletes a device."""
    return Request(RTM_DELLINK, 0, link_message(ifindex))


def encode_delete_group(group: bytes) -> Request:
    """Write the request that deletes all devices of a group, given as its attribute IFLA_GROUP.

    The kernel waits once for all of them, where each by itself would take it 20 ms (net/core/rtnetlink.c,
    rtnl_group_dellink).
    """
    return Request(RTM_DELLINK, 0, link_message(0, group))


def set_link(sock: NetlinkSocket, ifindex: int, *attributes: bytes, up: bool | None = None, off: int = 0) -> None:
    """Change attributes of a device, bring it up or down unless `up` is None, and take the flags `off` from it."""
    flags = IFF_UP if up else 0
    change = off if up is None else off | IFF_UP
    payload = link_message(ifindex, *attributes, flags=flags, change=change)
    sock.execute(Request(RTM_NEWLINK, 0, payload), f"change device {ifindex}")


def encode_arp_notify(ifindex: int) -> Request:
    """Write the request that has a device tell its neighbours when it comes up (the setting arp_notify of IPv4)."""
    setting = netlink.encode_nested(_IFLA_INET_CONF, netlink.encode_u32(_IPV4_DEVCONF_ARP_NOTIFY, 1))
    attribute = netlink.encode_nested(IFLA_AF_SPEC, netlink.encode_nested(_AF_INET, setting))
    return Request(RTM_NEWLINK, 0, link_message(ifindex, attribute))


def encode_alias(name: str, alias: str) -> Request:
    """Write the request that gives a device another name besides, of up to 255 bytes; "" changes nothing."""
    attributes = [netlink.encode_text(IFLA_IFNAME, name)]
    if alias:
        attributes.append(netlink.encode_attribute(IFLA_IFALIAS, alias.encode()))
    return Request(RTM_NEWLINK, 0, link_message(0, *attributes))


def encode_no_address_of_its_own(name: str) -> Request:
    """Write the request that has a device give itself no IPv6 address when it comes up (the setting addr_gen_mode).

    It fails with EAFNOSUPPORT where the kernel or the device is without IPv6.
    """
    setting = netlink.encode_nested(_AF_INET6, netlink.encode_u8(_IFLA_INET6_ADDR_GEN_MODE, _IN6_ADDR_GEN_MODE_NONE))
    attribute = netlink.encode_nested(IFLA_AF_SPEC, setting)
    return Request(RTM_NEWLINK, 0, link_message(0, netlink.encode_text(IFLA_IFNAME, name), attribute))


def encode_set(ifindex: int, *attributes: bytes, flags: int = 0) -> Request:
    """Write the request that changes attributes of a device and sets the given flags; other flags stay."""
    return Request(RTM_NEWLINK, 0, link_message(ifindex, *attributes, flags=flags, change=flags))
