"""What the kernel of one node holds for the overlay, in plain sentences: routes, neighbours, FDB.

Reading is here at the bottom and thin; the sentences are pure.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address
from typing import TYPE_CHECKING

from netns_lab.routes import Route, read_routes
from netns_lab.underlay import open_netlink

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from pyroute2 import IPRoute

    from netns_lab.routes import Address
    from netns_lab.topology import Subnet

AF_INET = 2
AF_INET6 = 10
NUD_PERMANENT = 0x80


@dataclass(frozen=True, slots=True)
class Entry:
    """A neighbour (key: an overlay address) or an FDB entry (value: an underlay address) of the tunnel device."""

    mac: str
    address: Address


@dataclass(frozen=True, slots=True)
class KernelView:
    """What one node's kernel holds."""

    routes: tuple[Route, ...]
    neighbours: tuple[Entry, ...]
    fdb: tuple[Entry, ...]
    devices: Mapping[int, str]


@dataclass(frozen=True, slots=True)
class Cluster:
    """Whose addresses are whose: each node's underlay address and, where known, its subnet for pods."""

    addresses: Mapping[Address, str]
    subnets: Mapping[Subnet, str]


def explain(view: KernelView, cluster: Cluster, node: str) -> list[str]:
    """Return the sentences about a node's overlay, in the order that a packet meets the tables."""
    routes = [route for route in view.routes if route.destination in cluster.subnets]
    return [
        *(explain_route(route, view.devices, cluster, node) for route in routes),
        *(
            f"route {route.destination} dev {view.devices.get(route.ifindex or 0, '?')}: the pods of all other nodes"
            for route in view.routes
            if leads_to_all(route, cluster)
        ),
        *explain_neighbours(view.neighbours, routes, cluster),
        *explain_fdb(view.fdb, cluster),
    ]


def leads_to_all(route: Route, cluster: Cluster) -> bool:
    """Tell whether a route is for the network as a whole, as with a device that finds the way to each node itself."""
    here = route.destination
    inside = (subnet for subnet in cluster.subnets if subnet.version == here.version)
    return bool(here.prefixlen) and any(
        subnet.prefixlen > here.prefixlen and subnet.network_address in here for subnet in inside
    )


def explain_route(route: Route, devices: Mapping[int, str], cluster: Cluster, node: str) -> str:
    """One sentence about the route to a node's pods."""
    owner = cluster.subnets[route.destination]
    device = devices.get(route.ifindex or 0, "?")
    via = f" via {route.gateway}" if route.gateway else ""
    nexthop = f", nexthop object {route.nexthop_id}" if route.nexthop_id else ""
    rule = f"route {route.destination}{via} dev {device}{nexthop}"
    if owner == node:
        return f"{rule}: the pods of {node} itself, on its bridge"
    if route.gateway in cluster.addresses:
        return f"{rule}: pods of {owner}, on the same subnet, so directly, without a tunnel"
    return f"{rule}: pods of {owner}, through the tunnel"


def explain_neighbours(neighbours: Iterable[Entry], routes: Iterable[Route], cluster: Cluster) -> list[str]:
    """One sentence for each neighbour on the tunnel device: it is whose pods' route goes by way of it."""
    owners = {route.gateway: cluster.subnets[route.destination] for route in routes}
    return [
        f"neighbour {entry.address} is at {entry.mac}: the tunnel end of {owners.get(entry.address, 'an unknown node')}"
        for entry in neighbours
    ]


def explain_fdb(fdb: Iterable[Entry], cluster: Cluster) -> list[str]:
    """One sentence for each FDB entry with a remote."""
    return [
        f"FDB {entry.mac} dst {entry.address}: frames to that MAC travel in UDP to "
        f"{cluster.addresses.get(entry.address, 'an unknown node')}"
        for entry in fdb
    ]


def read_kernel(network: Path) -> KernelView:
    """Read a node's tables. Raises OSError."""
    routes = read_routes(network)
    with open_netlink(network) as netlink:
        devices = {link["index"]: link.get("ifname") for link in netlink.get_links()}
        tunnels = {link["index"] for link in netlink.get_links(kind="vxlan")}
        neighbours = [
            Entry(entry.get("lladdr"), ip_address(entry.get("dst")))
            for family in (AF_INET, AF_INET6)
            for entry in netlink.get_neighbours(family=family)
            if entry["ifindex"] in tunnels and entry["state"] & NUD_PERMANENT
        ]
        return KernelView(routes, tuple(neighbours), _read_fdb(netlink, tunnels), devices)


def _read_fdb(netlink: IPRoute, tunnels: set[int]) -> tuple[Entry, ...]:
    found = ((entry.get("lladdr"), entry.get("dst")) for entry in netlink.fdb("dump") if entry["ifindex"] in tunnels)
    return tuple(Entry(mac, ip_address(remote)) for mac, remote in found if remote is not None)
