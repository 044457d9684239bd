"""The node as its kernel holds it: our devices, and the ways to peers put together from the single entries.

Reading is one function; how entries make a way is decided by a pure one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from flanneld_py.core.entries import PROTOCOL_FLANNELD, PROTOCOL_KERNEL, UNICAST, FdbEntry, Neighbour, Nexthop, Route
from flanneld_py.core.prefix import IPV4, IPV6, Prefix, format_address
from flanneld_py.kernel import address as addresses
from flanneld_py.kernel import neighbour, nexthop
from flanneld_py.kernel.host import read_routes
from flanneld_py.kernel.link import Link, read_links
from flanneld_py.kernel.nexthop import has_nexthops
from flanneld_py.kernel.own_devices import is_own_device

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flanneld_py.kernel.address import InterfaceAddress
    from flanneld_py.kernel.netlink_socket import NetlinkSocket


class NodeView(NamedTuple):
    """All that is read, once; `links` of the whole namespace, entries of our devices only, routes of the main table."""

    links: tuple[Link, ...]
    addresses: tuple[InterfaceAddress, ...]
    routes: tuple[Route, ...]
    nexthops: tuple[Nexthop, ...]
    neighbours: tuple[Neighbour, ...]
    fdb: tuple[FdbEntry, ...]

    def link(self, name: str) -> Link | None:
        """Return the device of this name."""
        return next((link for link in self.links if link.name == name), None)

    @property
    def devices(self) -> list[Link]:
        """Our devices."""
        return [link for link in self.links if is_own_device(link)]


class Way(NamedTuple):
    """How the kernel reaches a subnet: `kind` is tunnel, direct or none; `missing` names what it lacks.

    Without a `remote` the subnet is that of all nodes: which of them it is, the device's owner knows (udp, wireguard).
    """

    subnet: Prefix
    kind: str
    device: str
    gateway: str
    mac: str
    remote: str
    missing: tuple[str, ...]


def read_node_view(sock: NetlinkSocket) -> NodeView:
    """Read it. Raises KernelError."""
    links = read_links(sock)
    devices = [link for link in links if is_own_device(link)]
    neighbours: list[Neighbour] = []
    fdb: list[FdbEntry] = []
    for link in devices:
        for family in (IPV4, IPV6):
            dump = neighbour.encode_dump_neighbours(family, link.ifindex)
            neighbours += sock.dump(dump, neighbour.decode_neighbour, "read neighbours")
        if link.kind == "vxlan":
            fdb += sock.dump(neighbour.encode_dump_fdb(link.ifindex), neighbour.decode_fdb, "read forwarding entries")
    return NodeView(
        tuple(links),
        tuple(addresses.read_addresses(sock)),
        tuple(read_routes(sock)),
        tuple(sock.dump(nexthop.encode_dump(), nexthop.decode, "read nexthops") if has_nexthops(sock) else ()),
        tuple(neighbours),
        tuple(fdb),
    )


def find_ways(view: NodeView) -> list[Way]:
    """Return the ways to peers that the kernel holds, as far as it has them, by their subnets."""
    names = {link.ifindex: link for link in view.links}
    tunnels = {link.ifindex for link in view.devices}
    nexthops = {entry.id: entry for entry in view.nexthops}
    macs = {(entry.ifindex, entry.address): entry.lladdr for entry in view.neighbours}
    remotes = {(entry.ifindex, entry.mac): entry for entry in view.fdb}
    ways = []
    for route in view.routes:
        if route.type != UNICAST or route.protocol == PROTOCOL_KERNEL:
            continue
        if route.protocol != PROTOCOL_FLANNELD and route.ifindex not in tunnels:
            continue
        through = nexthops.get(route.nexthop_id) if route.nexthop_id else route
        if through is None:
            ways.append(Way(route.dst, "none", "", "", "", "", ("nexthop",)))
            continue
        gateway, link = through.gateway, names.get(through.ifindex)
        if link is None or (not gateway and (link.kind == "vxlan" or link.ifindex not in tunnels)):
            continue  # the catch-all route of on-demand operation, or none of ours
        if not gateway:
            ways.append(Way(route.dst, "tunnel", link.name, "", "", "", ()))
            continue
        shown = format_address(route.dst.family, gateway)
        if link.ifindex not in tunnels:
            ways.append(Way(route.dst, "direct", link.name, shown, "", shown, ()))
        elif link.kind == "vxlan":
            ways.append(_tunnel_way(route.dst, link, gateway, macs, remotes))
        else:
            ways.append(Way(route.dst, "tunnel", link.name, shown, "", shown, ()))
    return sorted(ways)


def _tunnel_way(
    subnet: Prefix,
    link: Link,
    gateway: int,
    macs: dict[tuple[int, int], bytes],
    remotes: dict[tuple[int, bytes], FdbEntry],
) -> Way:
    shown = format_address(subnet.family, gateway)
    mac = macs.get((link.ifindex, gateway))
    entry = None if mac is None else remotes.get((link.ifindex, mac))
    missing = ("neighbour",) if mac is None else ("forwarding entry",) if entry is None else ()
    remote = "" if entry is None else format_address(entry.family, entry.remote)
    return Way(subnet, "tunnel", link.name, shown, mac.hex(":") if mac else "", remote, missing)


def describe_devices(devices: Sequence[Link]) -> list[dict[str, object]]:
    """Return our devices as plain JSON data."""
    return [
        {"name": link.name, "kind": link.kind, "mac": link.mac.hex(":"), "mtu": link.mtu, "up": link.is_up}
        for link in devices
    ]
