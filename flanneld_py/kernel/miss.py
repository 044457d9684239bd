"""L3 misses: the kernel asks user space for a neighbour, and is answered (net/core/neighbour.c, neigh_app_ns).

Owns the settings that make the kernel ask, the reading of its question, and the answers. An answered neighbour lives
only until its queued packets are on their way: what comes after follows the peer's route.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from flanneld_py.core.misses import Miss
from flanneld_py.core.prefix import IPV4, IPV6
from flanneld_py.kernel import errnos, netlink
from flanneld_py.kernel.families import AF_BRIDGE, AF_OF, FAMILY_OF, SYSCTL_NAMES, encode_address
from flanneld_py.kernel.link import read_link
from flanneld_py.kernel.ndmsg import NDA_DST, NDA_LLADDR, NDMSG, RTM_DELNEIGH, RTM_GETNEIGH, RTM_NEWNEIGH
from flanneld_py.kernel.neighbour import (
    encode_delete_fdb,
    encode_dump_fdb,
    encode_dump_neighbours,
    encode_replace_fdb,
)
from flanneld_py.kernel.netlink import Request
from flanneld_py.kernel.sysctl import read_sysctl

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flanneld_py.core.entries import FdbEntry
    from flanneld_py.kernel.netlink import Message
    from flanneld_py.kernel.netlink_socket import NetlinkSocket

_RTM_SETNEIGHTBL = 67
_NDTMSG = struct.Struct("=BxH")
_NDTA_NAME = 1
_NDTA_PARMS = 6
_NDTPA_IFINDEX = 1
_TABLES = {IPV4: b"arp_cache\0", IPV6: b"ndisc_cache\0"}
_SETTINGS = {"app_solicit": 9, "ucast_solicit": 10, "mcast_solicit": 11}
"""NDTPA_…: how many questions go to user space, to a known neighbour itself, and to all on the link."""
_ASKING = {"app_solicit": 1, "ucast_solicit": 0, "mcast_solicit": 0}
_NOT_ASKING = {"app_solicit": 0, "ucast_solicit": 3, "mcast_solicit": 3}
"""What a new device has (net/ipv4/arp.c, arp_tbl; net/ipv6/ndisc.c, nd_tbl); a network namespace does not show its own
defaults."""
_NUD_INCOMPLETE = 0x01
_NUD_REACHABLE = 0x02
_NUD_FAILED = 0x20
_NDA_CACHEINFO = 3
_CACHEINFO = struct.Struct("=IIII")
_TICKS = 100
"""USER_HZ: what the kernel counts ages in towards user space."""


def ensure_asking(sock: NetlinkSocket, ifindex: int, name: str, family: int) -> bool:
    """Have the kernel ask us for a device's neighbours of a family, once; return whether it did not.

    It asks nobody else: no ARP, and no neighbour solicitation (net/ipv6/ndisc.c, ndisc_solicit). Raises KernelError.
    """
    if _read_settings(name, family) == _ASKING:
        return False
    _write_settings(sock, ifindex, family, _ASKING)
    return True


def stop_asking(sock: NetlinkSocket, name: str, family: int) -> bool:
    """Undo `ensure_asking`, if it was done: the kernel does by a device's neighbours as on other devices.

    Returns whether it was done. Raises KernelError.
    """
    device = read_link(sock, name)
    if device is None or _read_settings(name, family)["app_solicit"] != _ASKING["app_solicit"]:
        return False
    _write_settings(sock, device.ifindex, family, _NOT_ASKING)
    return True


def _read_settings(name: str, family: int) -> dict[str, int]:
    return {key: int(read_sysctl("net", SYSCTL_NAMES[family], "neigh", name, key)) for key in _SETTINGS}


def _write_settings(sock: NetlinkSocket, ifindex: int, family: int, values: dict[str, int]) -> None:
    """Write settings by netlink: in most containers /proc/sys can be read only."""
    payload = b"".join(
        (
            _NDTMSG.pack(AF_OF[family], 0),
            netlink.encode_attribute(_NDTA_NAME, _TABLES[family]),
            netlink.encode_nested(
                _NDTA_PARMS,
                netlink.encode_u32(_NDTPA_IFINDEX, ifindex),
                *(netlink.encode_u32(_SETTINGS[key], value) for key, value in values.items()),
            ),
        )
    )
    sock.execute(Request(_RTM_SETNEIGHTBL, 0, payload), f"write what is asked for neighbours by {ifindex}")


def decode_miss(message: Message) -> tuple[int, Miss] | None:
    """Read a question into the device it is about and the miss; None for another message."""
    if message.kind != RTM_GETNEIGH:
        return None
    af, ifindex, _, _, _ = NDMSG.unpack_from(message.payload)
    wanted = netlink.decode_attributes(message.payload, NDMSG.size).get(NDA_DST)
    if af not in FAMILY_OF or wanted is None:
        return None
    return ifindex, Miss(FAMILY_OF[af], int.from_bytes(wanted, "big"))


def send_queued(sock: NetlinkSocket, through: FdbEntry, misses: Sequence[Miss]) -> bool:
    """Have the packets that wait for these addresses sent through a tunnel, and those that come until `forget`.

    Returns whether the kernel has done all of it, as `refuse` does.
    """
    lladdr = netlink.encode_attribute(NDA_LLADDR, through.mac)
    answers = [_neighbour(through.ifindex, miss, _NUD_REACHABLE, lladdr) for miss in misses]
    return not sock.execute_batch([encode_replace_fdb(through), *answers])


def forget(sock: NetlinkSocket, through: FdbEntry, misses: Sequence[Miss], *, stays: bool) -> str:
    """Forget these addresses again, and the forwarding entry too unless it is to stay.

    Returns why the kernel has not, empty if it has or there was nothing to forget. An address that stays is asked for
    again when it is stale.
    """
    requests = [_forget(through.ifindex, miss) for miss in misses]
    failed = sock.execute_batch(requests if stays else [*requests, encode_delete_fdb(through)])
    return next((reason for errno, reason in failed.values() if errno not in errnos.ABSENT), "")


def refuse(sock: NetlinkSocket, ifindex: int, misses: Sequence[Miss]) -> bool:
    """Have those who send to these addresses told that the host is unreachable, and forget the addresses again.

    Returns whether the kernel has done all of it: else some of the addresses may stay unresolved.
    """
    requests: list[Request] = []
    for miss in misses:
        requests += [_neighbour(ifindex, miss, _NUD_FAILED, b""), _forget(ifindex, miss)]
    return not sock.execute_batch(requests)


def _neighbour(ifindex: int, miss: Miss, state: int, lladdr: bytes) -> Request:
    wanted = netlink.encode_attribute(NDA_DST, encode_address(miss.family, miss.address))
    payload = NDMSG.pack(AF_OF[miss.family], ifindex, state, 0, 0) + wanted + lladdr
    return Request(RTM_NEWNEIGH, netlink.NLM_F_CREATE | netlink.NLM_F_REPLACE, payload)


def _forget(ifindex: int, miss: Miss) -> Request:
    wanted = netlink.encode_attribute(NDA_DST, encode_address(miss.family, miss.address))
    return Request(RTM_DELNEIGH, 0, NDMSG.pack(AF_OF[miss.family], ifindex, 0, 0, 0) + wanted)


def read_unanswered(sock: NetlinkSocket, ifindex: int, family: int) -> list[Miss]:
    """Return what the kernel has asked for in a family on a device without an answer. Raises KernelError."""

    def decode(message: Message) -> Miss | None:
        if message.kind != RTM_NEWNEIGH:
            return None
        af, _, state, _, _ = NDMSG.unpack_from(message.payload)
        wanted = netlink.decode_attributes(message.payload, NDMSG.size).get(NDA_DST)
        if af not in FAMILY_OF or wanted is None or not state & (_NUD_INCOMPLETE | _NUD_FAILED):
            return None
        return Miss(FAMILY_OF[af], int.from_bytes(wanted, "big"))

    return sock.dump(encode_dump_neighbours(family, ifindex), decode, "read unanswered misses")


def read_idle_times(sock: NetlinkSocket, ifindex: int) -> dict[bytes, float]:
    """Return for each MAC behind a vxlan device for how many seconds nothing was sent to it. Raises KernelError."""

    def decode(message: Message) -> tuple[bytes, float] | None:
        if message.kind != RTM_NEWNEIGH or NDMSG.unpack_from(message.payload)[0] != AF_BRIDGE:
            return None
        attributes = netlink.decode_attributes(message.payload, NDMSG.size)
        if NDA_LLADDR not in attributes or _NDA_CACHEINFO not in attributes:
            return None
        _, used, _, _ = _CACHEINFO.unpack_from(attributes[_NDA_CACHEINFO])
        return bytes(attributes[NDA_LLADDR]), used / _TICKS

    return dict(sock.dump(encode_dump_fdb(ifindex), decode, "read how long peers are idle"))
