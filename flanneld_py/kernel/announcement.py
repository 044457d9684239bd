"""A new holder of an address made known to those who may remember an earlier one, and would go on sending to that.

For IPv4 by a gratuitous ARP request (RFC 5227, section 3), for IPv6 by an unsolicited neighbour advertisement
(RFC 4861, section 7.2.6). The kernel's own ways, arp_notify and ndisc_notify, speak at other times: when the device
comes up, and when it is given a MAC, which has it forget all its neighbours, with the packets that wait for them.
"""

from __future__ import annotations

import _socket
import struct

from flanneld_py.core.prefix import IPV4
from flanneld_py.kernel import netlink
from flanneld_py.kernel.families import AF_OF, encode_address
from flanneld_py.kernel.ndmsg import NDA_DST, NDA_LLADDR, NDMSG, RTM_DELNEIGH, RTM_NEWNEIGH
from flanneld_py.kernel.netlink import Request

_NUD_NONE = 0
_NUD_STALE = 0x04
_NTF_USE = 0x01

_ICMPV6 = 58
_ICMPV6_FILTER = 1
_BLOCK_ALL = b"\xff" * 32
_IPV6_MULTICAST_HOPS = 18
_IPV6_PKTINFO = 50
_HOPS = 255
_PKTINFO = struct.Struct("=16si")
_ADVERTISEMENT = struct.Struct(">BBHI16sBB6s")
"""Type, code, checksum, flags, target; option type and its length in 8 bytes, MAC."""
_NEIGHBOUR_ADVERTISEMENT = 136
_OVERRIDE = 0x20000000
_TARGET_MAC = 2
_ALL_NODES = "ff02::1"


def encode_learn(ifindex: int, family: int, address: int, mac: bytes) -> Request:
    """Write the request that gives a neighbour which the kernel remembers another MAC, to be verified when it is used.

    It fails with ENOENT, and changes nothing, where the kernel remembers none.
    """
    head = NDMSG.pack(AF_OF[family], ifindex, _NUD_STALE, 0, 0)
    known = netlink.encode_attribute(NDA_DST, encode_address(family, address))
    return Request(RTM_NEWNEIGH, netlink.NLM_F_REPLACE, head + known + netlink.encode_attribute(NDA_LLADDR, mac))


def encode_gratuitous_arp(ifindex: int, address: int) -> tuple[Request, Request]:
    """Write the requests that have a device ask for its own IPv4 address, once: all others hear who has it.

    The kernel is told that a neighbour of this address is in use, looks for it, and is told to forget it again.
    """
    known = netlink.encode_attribute(NDA_DST, encode_address(IPV4, address))
    using, plain = (NDMSG.pack(AF_OF[IPV4], ifindex, _NUD_NONE, flags, 0) + known for flags in (_NTF_USE, 0))
    return Request(RTM_NEWNEIGH, netlink.NLM_F_CREATE, using), Request(RTM_DELNEIGH, 0, plain)


def open_advertiser() -> _socket.socket:
    """Open a socket that sends neighbour advertisements, and receives nothing. Raises OSError."""
    opened = _socket.socket(_socket.AF_INET6, _socket.SOCK_RAW | _socket.SOCK_CLOEXEC, _ICMPV6)
    try:
        opened.setsockopt(_ICMPV6, _ICMPV6_FILTER, _BLOCK_ALL)
        opened.setsockopt(_socket.IPPROTO_IPV6, _IPV6_MULTICAST_HOPS, _HOPS)
    except BaseException:
        opened.close()
        raise
    return opened


def advertise(advertiser: _socket.socket, ifindex: int, address: int, mac: bytes) -> None:
    """Advertise an IPv6 address of a device to all nodes on its link. Raises OSError."""
    target = address.to_bytes(16, "big")
    told = _ADVERTISEMENT.pack(_NEIGHBOUR_ADVERTISEMENT, 0, 0, _OVERRIDE, target, _TARGET_MAC, 1, mac)
    source = (_socket.IPPROTO_IPV6, _IPV6_PKTINFO, _PKTINFO.pack(target, ifindex))
    advertiser.sendmsg((told,), (source,), 0, (_ALL_NODES, 0, 0, ifindex))
