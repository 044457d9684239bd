"""What carries packets to peers, as plain values: the kernel's objects, and entries of tables that others keep.

Each has a key, the kernel's own identity of the object; the rest is its value. Two objects of one key exclude each
other; two that are equal need no operation.
"""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING, Any, NamedTuple

from flanneld_py.core.prefix import format_address

if TYPE_CHECKING:
    from flanneld_py.core.prefix import Prefix

UNICAST = 1
BLACKHOLE = 6
UNREACHABLE = 7
"""RTN_…: what becomes of a packet that a route matches."""

PROTOCOL_KERNEL = 2
"""RTPROT_KERNEL: a route that the kernel made for an address."""
PROTOCOL_BOOT = 3
"""RTPROT_BOOT: what Go flannel's routes carry."""
PROTOCOL_FLANNELD = 119
"""What our routes and nexthops carry."""


class Nexthop(NamedTuple):
    """A gateway on a device that routes name by `id`. Key: `id` (net/ipv4/nexthop.c, nh_rb_root)."""

    id: int
    family: int
    gateway: int
    ifindex: int
    onlink: bool


class Route(NamedTuple):
    """A route of the main table. Key: `dst` and `metric`.

    A unicast route has either `nexthop_id`, or `ifindex` with `gateway` (0 for none) and `onlink`. `metric` is 0 in
    IPv4 and 1024 in IPv6, what the kernel takes when none is given. `realm` is what packet filters know those packets
    by that take an IPv4 route (0 for none).
    """

    dst: Prefix
    metric: int
    nexthop_id: int
    gateway: int
    ifindex: int
    onlink: bool
    protocol: int = PROTOCOL_FLANNELD
    type: int = UNICAST
    realm: int = 0


class Neighbour(NamedTuple):
    """A permanent neighbour. Key: `ifindex`, `family`, `address` (net/core/neighbour.c, neigh_lookup)."""

    ifindex: int
    family: int
    address: int
    lladdr: bytes


class FdbEntry(NamedTuple):
    """A vxlan forwarding entry. Key: `ifindex`, `mac` (drivers/net/vxlan, one remote for a unicast MAC)."""

    ifindex: int
    mac: bytes
    family: int
    remote: int


class DrivenEntry(NamedTuple):
    """An entry of a table that is read and written by a driver of its own (`core/driver.py`). Key: `table` and `key`.

    Only the driver knows what `key` and `value` mean; both are hashable, and neither holds a secret.
    """

    table: str
    key: tuple[Any, ...]
    value: Any = None


class Kind(IntEnum):
    """The tables, in the order in which they are written: what a later one needs stands in an earlier one.

    Nothing may point at a peer that cannot be reached yet, so routes come last, and are deleted first.
    """

    DRIVEN = 0
    FDB = 1
    NEIGHBOUR = 2
    NEXTHOP = 3
    ROUTE = 4


KernelEntry = Nexthop | Route | Neighbour | FdbEntry
Entry = KernelEntry | DrivenEntry
Key = tuple[object, ...]


_KINDS: dict[type, tuple[Kind, int]] = {
    DrivenEntry: (Kind.DRIVEN, 2),
    FdbEntry: (Kind.FDB, 2),
    Neighbour: (Kind.NEIGHBOUR, 3),
    Nexthop: (Kind.NEXTHOP, 1),
    Route: (Kind.ROUTE, 2),
}
"""The table of each type, and how many of its first fields are its key."""


def entry_kind(entry: Entry) -> Kind:
    """Return the table that an object belongs to."""
    return _KINDS[type(entry)][0]


def entry_key(entry: Entry) -> Key:
    """Return the kernel's identity of an object."""
    return entry[: _KINDS[type(entry)][1]]


def describe_entry(entry: Entry) -> str:
    """Write an object the way `ip` and `bridge` do, devices by their index."""
    match entry:
        case DrivenEntry():
            return " ".join((entry.table, *(str(part) for part in entry.key)))
        case FdbEntry():
            return f"fdb {entry.mac.hex(':')} dst {format_address(entry.family, entry.remote)} dev {entry.ifindex}"
        case Neighbour():
            address = format_address(entry.family, entry.address)
            return f"neigh {address} lladdr {entry.lladdr.hex(':')} dev {entry.ifindex}"
        case Nexthop():
            return f"nexthop id {entry.id} via {format_address(entry.family, entry.gateway)} dev {entry.ifindex}"
        case Route():
            if entry.nexthop_id:
                return f"route {entry.dst} nhid {entry.nexthop_id}"
            if entry.type == UNREACHABLE:
                return f"route unreachable {entry.dst}"
            via = f" via {format_address(entry.dst.family, entry.gateway)}" if entry.gateway else ""
            return f"route {entry.dst}{via} dev {entry.ifindex}"
