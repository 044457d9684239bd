"""What must hold once a fault is over: one owner for each subnet, kernels as the leases say, all daemons ready."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from typing import TYPE_CHECKING

from netns_lab.errors import LabError
from netns_lab.etcd import is_healthy
from netns_lab.etcd_keys import SUBNETS, read_below
from netns_lab.explain import read_kernel
from netns_lab.node import answers_ready, daemon_program, read_subnets
from netns_lab.places import node_place

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from netns_lab.explain import KernelView
    from netns_lab.folder import LabFolder
    from netns_lab.topology import Subnet, Topology


@dataclass(frozen=True, slots=True)
class Record:
    """What the store says of one node."""

    subnet: IPv4Network
    public_ip: IPv4Address
    mac: str


def read_records(topology: Topology) -> dict[str, Record]:
    """Return the leases by their key, those left out that cannot be read. Raises LabError."""
    records: dict[str, Record] = {}
    for name, value in read_below(topology, SUBNETS).items():
        with suppress(ValueError, KeyError, TypeError):
            records[name] = _parse(name, value)
    return records


def _parse(name: str, value: bytes) -> Record:
    told = json.loads(value)
    return Record(IPv4Network(name.replace("-", "/")), IPv4Address(told["PublicIP"]), told["BackendData"]["VtepMAC"])


def find_violations(folder: LabFolder, topology: Topology) -> list[str]:
    """Return what is not as it should be, in short sentences; nothing if all is well."""
    try:
        return list(_violations(folder, topology))
    except (LabError, OSError) as error:
        return [str(error)]


def _violations(folder: LabFolder, topology: Topology) -> Iterator[str]:
    for member in topology.etcd:
        if not is_healthy(member):
            yield f"{member.name} is not healthy"
    records = read_records(topology)
    subnets = {node.name: read_subnets(folder, node)[0] for node in topology.nodes}
    for node in topology.nodes:
        if daemon_program(folder, node).pid() is None:
            yield f"the daemon of {node.name} has ended"
        elif not answers_ready(node):
            yield f"{node.name} is not ready"
        owners = {str(record.public_ip) for record in records.values() if record.subnet.overlaps(subnets[node.name])}
        if owners != {str(node.address.ip)}:
            yield f"{subnets[node.name]} of {node.name} is owned by {', '.join(sorted(owners)) or 'nobody'}"
    for node in topology.nodes:
        others = {name: subnet for name, subnet in subnets.items() if name != node.name}
        yield from _kernel_violations(node.name, read_kernel(node_place(node.name).network), others, records, topology)


def _kernel_violations(
    node: str, view: KernelView, others: Mapping[str, Subnet], records: Mapping[str, Record], topology: Topology
) -> Iterator[str]:
    """Compare one node's kernel with the leases of the others, entry by entry."""
    routes = {route.destination: route for route in view.routes}
    wanted_fdb, wanted_neighbours = set(), set()
    for other, subnet in others.items():
        record = next((one for one in records.values() if one.subnet == subnet), None)
        if record is None:
            continue
        route = routes.get(subnet)
        gateway = None if route is None else str(route.gateway)
        is_direct = gateway == str(topology.find_node(other).address.ip)
        if not is_direct:
            wanted_fdb.add((record.mac, str(record.public_ip)))
            wanted_neighbours.add((record.mac, str(subnet.network_address)))
            if gateway != str(subnet.network_address):
                yield f"{node} has no route to {subnet} of {other}"
    for what, wanted, found in (
        ("forwarding entries", wanted_fdb, view.fdb),
        ("neighbours", wanted_neighbours, view.neighbours),
    ):
        have = {(entry.mac, str(entry.address)) for entry in found}
        if have != wanted:
            yield f"{node}: {what}: {len(wanted - have)} missing, {len(have - wanted)} too many"
