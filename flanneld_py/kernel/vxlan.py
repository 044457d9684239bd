"""The attributes of a vxlan device (include/uapi/linux/if_link.h, IFLA_VXLAN_…; RFC 7348)."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from flanneld_py.core.errors import KernelError
from flanneld_py.core.prefix import IPV4, bits
from flanneld_py.core.tunnel_port import TunnelPort
from flanneld_py.kernel import errnos
from flanneld_py.kernel.link import create_link
from flanneld_py.kernel.netlink import decode_u32

if TYPE_CHECKING:
    from flanneld_py.core.prefix import Address
    from flanneld_py.kernel.device import LinkOptions
    from flanneld_py.kernel.link import Link
    from flanneld_py.kernel.netlink_socket import NetlinkSocket

_LARGEST_VNI = (1 << 24) - 1

IFLA_VXLAN_ID = 1
IFLA_VXLAN_LINK = 3
IFLA_VXLAN_LOCAL = 4
IFLA_VXLAN_LEARNING = 7
IFLA_VXLAN_PORT = 15
IFLA_VXLAN_LOCAL6 = 17
IFLA_VXLAN_GBP = 23

OVERHEAD = {4: 50, 6: 70}
"""Bytes that encapsulation adds by the underlay's family: Ethernet 14, VXLAN 8, UDP 8, and IP 20 or 40."""


def parent_index(link: Link) -> int:
    """Return the index of the device that a vxlan device sends by, 0 where it has none."""
    value = link.data.get(IFLA_VXLAN_LINK)
    return 0 if value is None else decode_u32(value)


def vni(link: Link) -> int:
    """Return the VNI of a vxlan device."""
    return decode_u32(link.data[IFLA_VXLAN_ID])


def udp_port(link: Link) -> int:
    """Return the UDP port of a vxlan device."""
    return int.from_bytes(link.data[IFLA_VXLAN_PORT], "big")


def vxlan_port(port: int, vni: int) -> TunnelPort:
    """Return where frames of a VNI arrive: behind UDP's 8 bytes and VXLAN's 8, whose last four hold the VNI."""
    return TunnelPort(port, 8 + 8 + 14, 8 + 8 + 12, 8 + 4, (vni & _LARGEST_VNI).to_bytes(3, "big"))


def vxlan_options(
    *, vni: int, port: int, learning: bool, group_policy: bool, parent: int, source: Address
) -> LinkOptions:
    """Return the attributes that make two vxlan devices the same tunnel end point.

    `parent` is the uplink's index and `source` its address, which outer headers carry.
    """
    local = IFLA_VXLAN_LOCAL if source.version == IPV4 else IFLA_VXLAN_LOCAL6
    return (
        (IFLA_VXLAN_ID, struct.pack("=I", vni)),
        (IFLA_VXLAN_LINK, struct.pack("=I", parent)),
        (local, int(source).to_bytes(bits(source.version) // 8, "big")),
        (IFLA_VXLAN_LEARNING, bytes((learning,))),
        (IFLA_VXLAN_PORT, struct.pack("!H", port)),
        (IFLA_VXLAN_GBP, b"" if group_policy else None),
    )


def has_vxlan(sock: NetlinkSocket) -> bool:
    """Say whether this kernel has vxlan; makes no device.

    A device without its required attributes is refused: as an unknown kind (EOPNOTSUPP) where vxlan is missing, else
    for what it lacks.
    """
    try:
        create_link(sock, "flannel-probe", "vxlan")
    except KernelError as error:
        return not errnos.is_unsupported(error)
    raise AssertionError("unreachable: a vxlan device without a VNI is always refused")
