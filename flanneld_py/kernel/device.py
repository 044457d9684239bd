"""The device that a backend wants, whatever its kind: made, adopted or mended.

Owns the comparison of a wanted device with the one that is there. A device that only differs in what can be changed
in place keeps its peers; one of another make is replaced, and everything on it goes with it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from flanneld_py.core.errors import KernelError
from flanneld_py.kernel import address as addresses
from flanneld_py.kernel import errnos, netlink
from flanneld_py.kernel import link as links

if TYPE_CHECKING:
    from collections.abc import Callable

    from flanneld_py.core.prefix import Prefix
    from flanneld_py.kernel.link import Link
    from flanneld_py.kernel.netlink_socket import NetlinkSocket

Sysctl = tuple[tuple[str, ...], str]
"""A setting below /proc/sys: the parts of its path, and its value."""

LinkOptions = tuple[tuple[int, bytes | None], ...]
"""Attributes of a device's kind with their payload; None stands for one that must be absent."""


@dataclass(frozen=True, slots=True)
class Device:
    """A wanted device: up, with exactly these addresses (link-local ones aside); `mtu` in bytes.

    `mac` is empty for one that has none. `sysctls` holds settings that it wants; to keep them is its owner's business.
    `make` makes it where rtnetlink cannot, and raises OSError. `asks` has the kernel ask us for the neighbours on it,
    which is its owner's business as well (`kernel/miss.py`).
    """

    name: str
    kind: str
    mac: bytes
    mtu: int
    addresses: tuple[Prefix, ...]
    options: LinkOptions
    sysctls: tuple[Sysctl, ...] = ()
    make: Callable[[], None] | None = None
    asks: bool = False


@dataclass(frozen=True, slots=True)
class EnsuredDevice:
    """The device as it is now; `created` if it is a new one, `mended` names what was changed on the old one."""

    ifindex: int
    created: bool
    mended: tuple[str, ...]


def ensure_device(sock: NetlinkSocket, wanted: Device) -> EnsuredDevice:
    """Have the wanted device in the namespace. Raises KernelError."""
    found = links.read_link(sock, wanted.name)
    if found is not None and not _is_same_make(found, wanted):
        links.delete_link(sock, found.ifindex)
        found = None
    mended: list[str] = []
    if found is None:
        found = _find_renamed(sock, wanted)
        if found is not None:
            _rename(sock, found.ifindex, wanted)
            mended.append("name")
    created = found is None
    if found is None:
        found = _create(sock, wanted)
    mended += _mend_addresses(sock, found.ifindex, wanted) + _mend_link(sock, found, wanted)
    return EnsuredDevice(found.ifindex, created, () if created else tuple(mended))


def _find_renamed(sock: NetlinkSocket, wanted: Device) -> Link | None:
    """Return the device if somebody gave it another name: one of a make and a MAC that no other can have.

    Where it has no MAC, its addresses tell: no other has them while they are ours.
    """
    if not wanted.options:
        return None
    alike = [link for link in links.read_links(sock) if _is_same_make(link, wanted)]
    if wanted.mac:
        return next((link for link in alike if link.mac == wanted.mac), None)
    own = {
        entry.ifindex
        for entry in addresses.read_addresses(sock)
        if (entry.family, entry.address, entry.length) in wanted.addresses
    }
    return next((link for link in alike if link.ifindex in own), None)


def _rename(sock: NetlinkSocket, ifindex: int, wanted: Device) -> None:
    name = netlink.encode_text(links.IFLA_IFNAME, wanted.name)
    try:
        links.set_link(sock, ifindex, name)
    except KernelError as error:
        if not errnos.is_busy(error):
            raise
        # What goes with a device that is down is written again, as for each device that was mended.
        links.set_link(sock, ifindex, up=False)
        _set_up(sock, ifindex, wanted, [name])


def _is_same_make(found: Link, wanted: Device) -> bool:
    if found.kind != wanted.kind:
        return False
    return all(
        payload is None if attribute not in found.data else bytes(found.data[attribute]) == payload
        for attribute, payload in wanted.options
    )


def _create(sock: NetlinkSocket, wanted: Device) -> Link:
    if wanted.make is not None:
        wanted.make()
    else:
        data = b"".join(
            netlink.encode_attribute(attribute, payload) for attribute, payload in wanted.options if payload is not None
        )
        attributes = [netlink.encode_attribute(links.IFLA_ADDRESS, wanted.mac)] if wanted.mac else []
        mtu = netlink.encode_u32(links.IFLA_MTU, wanted.mtu)
        try:
            links.create_link(sock, wanted.name, wanted.kind, data, *attributes, mtu)
        except KernelError as error:
            if not errnos.is_present(error):
                raise
            # A tunnel that was moved stays taken where it was made (drivers/net/vxlan/vxlan_core.c, vxlan_find_vni).
            shown = f"`ip -d link show type {wanted.kind}` shows it; one that was moved, in the other network namespace"
            raise KernelError(error.errno or 0, str(error.strerror), shown) from error
    created = links.read_link(sock, wanted.name)
    if created is None:
        raise KernelError(19, f"create device {wanted.name}", "it vanished as soon as it was made")
    return created


def _mend_link(sock: NetlinkSocket, found: Link, wanted: Device) -> list[str]:
    attributes: list[bytes] = []
    mended: list[str] = []
    if wanted.mac and found.mac != wanted.mac:
        attributes.append(netlink.encode_attribute(links.IFLA_ADDRESS, wanted.mac))
        mended.append("mac")
    if found.mtu != wanted.mtu:
        attributes.append(netlink.encode_u32(links.IFLA_MTU, wanted.mtu))
        mended.append("mtu")
    if found.master:
        # A bridge would take what comes out of the tunnel for itself.
        attributes.append(netlink.encode_u32(links.IFLA_MASTER, 0))
        mended.append("master")
    if found.flags & _unwanted_flags(wanted):
        mended.append("arp")
    if not found.is_up:
        mended.append("up")
    if mended:
        _set_up(sock, found.ifindex, wanted, attributes)
    return mended


def _set_up(sock: NetlinkSocket, ifindex: int, wanted: Device, attributes: list[bytes]) -> None:
    try:
        links.set_link(sock, ifindex, *attributes, up=True, off=_unwanted_flags(wanted))
    except KernelError as error:
        if not errnos.is_taken(error):
            raise
        # A tunnel's device opens its port when it goes up (drivers/net/vxlan/vxlan_core.c, vxlan_open).
        reason = "another program has its UDP port: ss -lunp names it"
        raise KernelError(error.errno or 0, f"set {wanted.name} up", reason) from error


def _unwanted_flags(wanted: Device) -> int:
    # For a device that does no ARP the kernel makes up neighbours, each with the device's own MAC, and asks nobody
    # (net/ipv4/arp.c, arp_constructor). One without a MAC is of that kind.
    return links.IFF_NOARP if wanted.mac else 0


def _mend_addresses(sock: NetlinkSocket, ifindex: int, wanted: Device) -> list[str]:
    have = {
        (entry.family, entry.address, entry.length): entry
        for entry in addresses.read_addresses(sock, ifindex)
        if entry.scope != addresses.SCOPE_LINK
    }
    want = {(entry.family, entry.address, entry.length) for entry in wanted.addresses}
    for family, address, length in want - have.keys():
        addresses.ensure_address(sock, addresses.InterfaceAddress(ifindex, family, address, length))
    for key in have.keys() - want:
        addresses.delete_address(sock, have[key])
    return ["address"] if want != have.keys() else []
