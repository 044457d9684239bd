"""The attributes of an IP-in-IP device (include/uapi/linux/if_tunnel.h, IFLA_IPTUN_…; RFC 2003)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flanneld_py.core.errors import KernelError
from flanneld_py.kernel import errnos, netlink
from flanneld_py.kernel.link import create_link

if TYPE_CHECKING:
    from flanneld_py.core.prefix import Address
    from flanneld_py.kernel.device import LinkOptions
    from flanneld_py.kernel.netlink_socket import NetlinkSocket

IFLA_IPTUN_LOCAL = 2
IFLA_IPTUN_REMOTE = 3
IFLA_IPTUN_PROTO = 9
IFLA_IPTUN_PMTUDISC = 10

OVERHEAD = 20
"""Bytes that encapsulation adds: one IPv4 header."""

_NO_PROTOCOL = 255
"""Reserved (RFC 3692), so no protocol that such a device could carry."""


def ipip_options(source: Address) -> LinkOptions:
    """Return the attributes that make two ipip devices the same tunnel end point; outer headers carry `source`, IPv4.

    It has no remote of its own: each route's gateway is one. The inner packet's DF bit is the outer one's.
    """
    return (
        (IFLA_IPTUN_LOCAL, int(source).to_bytes(4, "big")),
        (IFLA_IPTUN_REMOTE, bytes(4)),
        (IFLA_IPTUN_PMTUDISC, b"\0"),
    )


def has_ipip(sock: NetlinkSocket) -> bool:
    """Say whether this kernel has ipip; makes no device.

    A device for a protocol that ipip does not know is refused: as an unknown kind (EOPNOTSUPP) where ipip is missing,
    else for that (net/ipv4/ipip.c, ipip_tunnel_validate).
    """
    try:
        create_link(sock, "flannel-probe", "ipip", netlink.encode_u8(IFLA_IPTUN_PROTO, _NO_PROTOCOL))
    except KernelError as error:
        return not errnos.is_unsupported(error)
    raise AssertionError("unreachable: an ipip device for an unknown protocol is always refused")
