"""Reading and writing the tables of kernel objects that carry packets to peers.

Owns which of the kernel's objects are ours (`formats.md`, "Kernel state"): only those are read, so only those can be
pruned. Decides nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from flanneld_py.core.entries import (
    PROTOCOL_BOOT,
    PROTOCOL_FLANNELD,
    PROTOCOL_KERNEL,
    FdbEntry,
    KernelEntry,
    Kind,
    Neighbour,
    Nexthop,
    Route,
    entry_key,
)
from flanneld_py.core.prefix import Prefix
from flanneld_py.kernel import errnos, neighbour, nexthop, route

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from typing import Any

    from flanneld_py.core.plan import Operation, Table
    from flanneld_py.kernel.netlink import Message, Request
    from flanneld_py.kernel.netlink_socket import NetlinkSocket


@dataclass(frozen=True, slots=True)
class Scope:
    """What is ours: everything on our devices, nexthops by id, and some routes inside our networks elsewhere.

    `devices` maps an address family to the index of the device that carries it, `uplink` is the index of the host's
    interface towards the other nodes. `subnet_lengths` holds for each
    network, in the same order, the length of Go flannel's direct routes in it. `has_nexthops` says whether the
    kernel has nexthop objects at all.
    """

    devices: Mapping[int, int]
    uplink: int
    networks: tuple[Prefix, ...]
    subnet_lengths: tuple[int, ...]
    nexthop_ids: range
    has_nexthops: bool

    def owns(self, entry: KernelEntry) -> bool:
        """Say whether an object of the kernel is ours to change or to delete."""
        match entry:
            case FdbEntry() | Neighbour():
                return entry.ifindex in self.devices.values()
            case Nexthop():
                return entry.id in self.nexthop_ids
            case Route():
                return self._owns_route(entry)

    def may_replace_ours(self, entry: Route) -> bool:
        """Say whether a route that is not ours may stand where one of ours should."""
        return (
            entry.protocol != PROTOCOL_KERNEL
            and entry.metric == route.default_metric(entry.dst.family)
            and any(network.contains(entry.dst) for network in self.networks)
        )

    def _owns_route(self, entry: Route) -> bool:
        if entry.nexthop_id:
            # Others may use the same range of ids, but not our protocol.
            return entry.nexthop_id in self.nexthop_ids and entry.protocol == PROTOCOL_FLANNELD
        if entry.ifindex in self.devices.values():
            return entry.protocol != PROTOCOL_KERNEL
        if entry.metric != route.default_metric(entry.dst.family):
            return False
        for network, length in zip(self.networks, self.subnet_lengths, strict=True):
            if network.contains(entry.dst):
                ours = entry.protocol == PROTOCOL_FLANNELD
                return ours or (entry.protocol == PROTOCOL_BOOT and entry.dst.length == length and entry.gateway != 0)
        return False


def read_steps(sock: NetlinkSocket, scope: Scope, kind: Kind) -> Iterator[Table]:
    """Read our objects of one kind by key; yields at every read, the last time the whole table.

    An asynchronous caller may pause in between. Raises KernelError.
    """
    table: Table = {}
    for request in _dumps(scope, kind):
        found: list[KernelEntry] = []
        steps: Iterator[list[KernelEntry]] = sock.dump_steps(
            request, _decode_ours(_DECODERS[kind], scope), f"read {kind.name.lower()} entries"
        )
        for found in steps:  # noqa: B007 - the last one is the result
            yield table
        for entry in found:
            key = entry_key(entry)
            # A route that was appended to one of the same key is used by nobody, but is there: superfluous, by a key of
            # its own, as long as the first one is as it should be.
            table[key if key not in table else (*key, entry)] = entry
    yield table


def _decode_ours(
    decode: Callable[[Message], KernelEntry | None], scope: Scope
) -> Callable[[Message], KernelEntry | None]:
    def decode_ours(message: Message) -> KernelEntry | None:
        entry = decode(message)
        return entry if entry is not None and scope.owns(entry) else None

    return decode_ours


def digest_steps(sock: NetlinkSocket, scope: Scope, kind: Kind) -> Iterator[int]:
    """Return the sum of the hashes of our objects of one kind without keeping any; yields as `read_steps` does.

    What is ours by other signs than the usual ones is told apart by `read_steps` only: it makes the sums differ.
    Raises KernelError.
    """
    digest = 0
    for request in _dumps(scope, kind):
        part = 0
        what = f"sum up {kind.name.lower()} entries"
        steps = sock.digest_steps(request, _peek_ours(scope, kind), what, _sum_up_ours(scope, kind))
        for part in steps:  # noqa: B007 - the last one is the result
            yield digest
        digest += part
    yield digest


def _peek_ours(scope: Scope, kind: Kind) -> Callable[[memoryview, int], tuple[Any, ...] | None]:
    if kind in {Kind.FDB, Kind.NEIGHBOUR}:
        # Such a dump is of our device alone.
        return neighbour.peek_fdb if kind == Kind.FDB else neighbour.peek_neighbour
    first, last = scope.nexthop_ids.start, scope.nexthop_ids.stop - 1
    if kind == Kind.NEXTHOP:

        def peek_nexthop(data: memoryview, offset: int) -> tuple[Any, ...] | None:
            entry = nexthop.peek(data, offset)
            return entry if entry is not None and first <= entry[0] <= last else None

        return peek_nexthop

    def peek_route(data: memoryview, offset: int) -> tuple[Any, ...] | None:
        entry = route.peek(data, offset)
        if entry is None or (first <= entry[2] <= last and entry[6] == PROTOCOL_FLANNELD):
            return entry
        return entry if scope.owns(Route(Prefix(*entry[0]), *entry[1:])) else None

    return peek_route


def _sum_up_ours(scope: Scope, kind: Kind) -> Callable[[memoryview, int], int | None]:
    match kind:
        case Kind.FDB:
            return neighbour.sum_fdb
        case Kind.NEIGHBOUR:
            return neighbour.sum_neighbours
        case Kind.NEXTHOP:
            return partial(nexthop.sum_up, ids=scope.nexthop_ids)
        case _:
            return partial(route.sum_up, ids=scope.nexthop_ids)


_DECODERS: dict[Kind, Callable[[Message], KernelEntry | None]] = {
    Kind.FDB: neighbour.decode_fdb,
    Kind.NEIGHBOUR: neighbour.decode_neighbour,
    Kind.NEXTHOP: nexthop.decode,
    Kind.ROUTE: route.decode,
}


def _dumps(scope: Scope, kind: Kind) -> list[Request]:
    match kind:
        case Kind.DRIVEN:
            # Not the kernel's: read by drivers of their own.
            return []
        case Kind.FDB:
            return [neighbour.encode_dump_fdb(device) for device in scope.devices.values()]
        case Kind.NEIGHBOUR:
            return [neighbour.encode_dump_neighbours(family, device) for family, device in scope.devices.items()]
        case Kind.NEXTHOP:
            return [nexthop.encode_dump()] if scope.has_nexthops else []
        case Kind.ROUTE:
            return [route.encode_dump(network.family) for network in scope.networks]


def apply_batch(sock: NetlinkSocket, operations: Sequence[Operation]) -> dict[int, tuple[int, str]]:
    """Carry out operations in their order by one system call.

    Returns for each that failed, by its index, errno and reason. A delete of what is gone is no failure.
    """
    failed = sock.execute_batch([_ENCODERS[kind][delete](entry) for kind, delete, entry in operations])
    return {
        index: failure
        for index, failure in failed.items()
        if not (operations[index].delete and failure[0] in errnos.ABSENT)
    }


_ENCODERS: dict[Kind, tuple[Callable[[Any], Request], Callable[[Any], Request]]] = {
    Kind.FDB: (neighbour.encode_replace_fdb, neighbour.encode_delete_fdb),
    Kind.NEIGHBOUR: (neighbour.encode_replace_neighbour, neighbour.encode_delete_neighbour),
    Kind.NEXTHOP: (nexthop.encode_replace, nexthop.encode_delete),
    Kind.ROUTE: (route.encode_replace, route.encode_delete),
}
"""What writes the request of an operation: at 0 to replace, at 1 to delete."""
