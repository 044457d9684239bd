"""What has been counted of each peer's traffic, by whoever carries or admits its packets: the kernel has no count.

Read when it is asked for, and by this process: a long table costs the daemon nothing.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from flanneld_py.core.peer_traffic import PeerTraffic
from flanneld_py.core.prefix import parse_address, parse_prefix
from flanneld_py.kernel.guard_members import read_received
from flanneld_py.kernel.wireguard_netlink import NetlinkControl
from flanneld_py.kernel.wireguard_uapi import UapiControl

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from flanneld_py.core.prefix import Prefix
    from flanneld_py.kernel.link import Link
    from flanneld_py.kernel.wireguard import Control

DAEMON, WIREGUARD, GUARD = "daemon", "wireguard", "guard"
"""Who has counted."""
RECEIVED, SENT, UNKNOWN = "received", "sent", "-"
_FIELDS = {*PeerTraffic._fields, "counted_by"}
_UNITS = (1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")


class Counted(NamedTuple):
    """What was read: by WireGuard's device and the peer's subnet, and by the guarded device and who sent it."""

    wireguard: Mapping[tuple[str, Prefix], PeerTraffic]
    guard: Mapping[tuple[str, int, int], PeerTraffic]


def read_counted(devices: Iterable[Link]) -> Counted:
    """Return what devices of ours and their guards have counted; what cannot be read is left out."""
    wireguard: dict[tuple[str, Prefix], PeerTraffic] = {}
    guard: dict[tuple[str, int, int], PeerTraffic] = {}
    for link in devices:
        with suppress(OSError):
            # One guard is for both families of a network.
            for name in dict.fromkeys((link.name, link.name.replace("-v6", ""))):
                guard |= {(link.name, *member): traffic for member, traffic in read_received(name).items()}
        with suppress(OSError):
            wireguard |= {(link.name, prefix): traffic for prefix, traffic in _read_wireguard(link)}
    return Counted(wireguard, guard)


def _read_wireguard(link: Link) -> Iterator[tuple[Prefix, PeerTraffic]]:
    control: Control
    if link.kind == WIREGUARD:
        control = NetlinkControl(link.name)
    elif link.kind == "tun":
        control = UapiControl(link.name)
    else:
        return
    for peer in control.read().peers:
        for prefix in peer.allowed:
            yield prefix, PeerTraffic(received_bytes=peer.received, sent_bytes=peer.sent)


def describe_traffic(row: Mapping[str, Any], told: Mapping[str, Any] | None, counted: Counted) -> dict[str, Any]:
    """Return what is known of a peer's traffic as plain JSON data: what the daemon tells comes before what was read."""
    if told:
        return {**told, "counted_by": DAEMON}
    device = row["device"]
    by = WIREGUARD
    found = counted.wireguard.get((device, parse_prefix(row["subnet"])))
    if found is None and row["public_ip"]:
        by = GUARD
        found = counted.guard.get((device, *parse_address(row["public_ip"])))
    return {**(found or PeerTraffic())._asdict(), "counted_by": by if found else None}


def show_traffic(row: Mapping[str, Any], *, whole: bool) -> dict[str, str]:
    """Return a row with its traffic as people read it: how much, and if the `whole` is asked for how many packets."""
    shown = {key: value for key, value in row.items() if key not in _FIELDS}
    for name in (RECEIVED, SENT):
        size, packets = row[f"{name}_bytes"], row[f"{name}_packets"]
        shown[name] = UNKNOWN if size is None else format_bytes(size)
        if whole and packets is not None:
            shown[name] += f" in {packets} packets"
    if whole:
        shown["counted_by"] = row["counted_by"] or UNKNOWN
    return shown


def format_bytes(size: int) -> str:
    """Write a number of bytes in three digits."""
    for unit, name in _UNITS:
        if size >= unit:
            return f"{size / unit:.3g} {name}"
    return f"{size} B"
