"""Notifications that forwarding or the like was switched for a device or the host (include/uapi/linux/netconf.h)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flanneld_py.kernel import netlink

if TYPE_CHECKING:
    from flanneld_py.kernel.netlink import Message

RTM_NEWNETCONF = 80
ALL_DEVICES = 0xFFFFFFFF
"""NETCONFA_IFINDEX_ALL: what is said counts for the host."""

_NETCONFA_IFINDEX = 1
_HEADER_SIZE = 4


def decode_ifindex(message: Message) -> int:
    """Return the device that is meant, or ALL_DEVICES; 0 where the message names none."""
    found = netlink.decode_attributes(message.payload, _HEADER_SIZE).get(_NETCONFA_IFINDEX)
    return 0 if found is None else netlink.decode_u32(found)
