"""What the host looks like: its interfaces and its routes, read as core's values."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flanneld_py.core.prefix import IPV4, IPV6, make_address
from flanneld_py.core.underlay import AddressOf, Interface
from flanneld_py.kernel import address as addresses
from flanneld_py.kernel import route as routes
from flanneld_py.kernel.link import IFF_LOOPBACK, read_links

if TYPE_CHECKING:
    from flanneld_py.core.entries import Route
    from flanneld_py.kernel.netlink_socket import NetlinkSocket

_PASSING = addresses.IFA_F_SECONDARY | addresses.IFA_F_DEPRECATED | addresses.IFA_F_TENTATIVE


def read_interfaces(sock: NetlinkSocket) -> list[Interface]:
    """Return the interfaces of the namespace with their addresses, loopback aside. Raises KernelError."""
    by_device: dict[int, list[AddressOf]] = {}
    for entry in addresses.read_addresses(sock):
        lasting = entry.scope == addresses.SCOPE_GLOBAL and not entry.flags & _PASSING
        found = AddressOf(make_address(entry.family, entry.address), entry.length, lasting)
        by_device.setdefault(entry.ifindex, []).append(found)
    return [
        Interface(link.ifindex, link.name, link.mtu, link.is_up, tuple(by_device.get(link.ifindex, ())))
        for link in read_links(sock)
        if not link.flags & IFF_LOOPBACK
    ]


def read_routes(sock: NetlinkSocket) -> list[Route]:
    """Return the main table's routes of both families. Raises KernelError."""
    return [
        route
        for family in (IPV4, IPV6)
        for route in sock.dump(routes.encode_dump(family), routes.decode, "read routes")
    ]
