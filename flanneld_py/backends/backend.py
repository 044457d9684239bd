"""Backend: what carries packets between nodes, as the rest of the daemon sees it.

A backend decides: what this node publishes, which devices it needs, and which kernel objects lead to a peer. It never
changes the kernel; the reconciler does, the same way for all backends.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from flanneld_py.core.entries import Entry, Route
    from flanneld_py.core.lease import Lease, LeaseAttrs
    from flanneld_py.core.peer import Peer
    from flanneld_py.kernel.device import Device
    from flanneld_py.kernel.netlink_socket import NetlinkSocket


@dataclass(frozen=True, slots=True)
class Ground:
    """What the way to a peer depends on besides the peer.

    `devices` maps an address family to the index of our device in it; `routes` are the host's own, ours left out;
    `has_nexthops` says whether the kernel has nexthop objects.
    """

    devices: Mapping[int, int]
    routes: Sequence[Route]
    has_nexthops: bool


class Backend(Protocol):
    """One way to carry packets; `mtu`, in bytes, is what a pod's interface may have."""

    mtu: int
    claim_name: str
    """What no two daemons of one network namespace may use at once: the name of the device, or of the backend."""
    follows_underlay: bool
    """Whether the way to a peer depends on the host's routes."""
    nexthop_ids: range
    """The ids of the nexthop objects that are ours."""

    def publish(
        self, sock: NetlinkSocket, earlier: LeaseAttrs | None, random_bytes: Callable[[int], bytes]
    ) -> LeaseAttrs:
        """Return the attributes to publish, close to those of our earlier lease.

        Raises KernelError where this kernel cannot carry packets this way, before any lease is written.
        """
        ...

    def devices(self, lease: Lease) -> dict[int, Device]:
        """Return the devices that the holder of this lease needs, by the address family that each carries."""
        ...

    def read_peers(self, lease: Lease) -> tuple[Peer, ...]:
        """Return another node's lease as peers, one for each family; raise ValueError saying why it is none."""
        ...

    def desired(self, peer: Peer, ground: Ground) -> tuple[Entry, ...]:
        """Return the kernel objects that lead to a peer."""
        ...
