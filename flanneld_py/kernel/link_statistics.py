"""What a device has carried since it was made (include/uapi/linux/if_link.h, struct rtnl_link_stats64)."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, NamedTuple

from flanneld_py.kernel import netlink
from flanneld_py.kernel.link import RTM_GETLINK, decode_link_attributes, link_message
from flanneld_py.kernel.netlink import Request

if TYPE_CHECKING:
    from flanneld_py.kernel.netlink_socket import NetlinkSocket

_IFLA_IFNAME = 3
_IFLA_STATS64 = 23
_FIRST_EIGHT = struct.Struct("=8Q")


class LinkStatistics(NamedTuple):
    """Packets and bytes of a device, received and sent; what was dropped was not carried, errors included or not."""

    name: str
    rx_packets: int
    tx_packets: int
    rx_bytes: int
    tx_bytes: int
    rx_errors: int
    tx_errors: int
    rx_dropped: int
    tx_dropped: int


def read_link_statistics(sock: NetlinkSocket, ifindex: int) -> LinkStatistics:
    """Return the counters of a device. Raises KernelError, ENODEV where it is gone."""
    message = sock.query(Request(RTM_GETLINK, 0, link_message(ifindex)), f"read counters of device {ifindex}")
    attributes = decode_link_attributes(message)
    name = netlink.decode_text(attributes[_IFLA_IFNAME])
    return LinkStatistics(name, *_FIRST_EIGHT.unpack_from(attributes[_IFLA_STATS64]))
