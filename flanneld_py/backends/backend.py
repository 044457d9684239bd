"""Backend: what carries packets between nodes, as the rest of the daemon sees it.

A backend decides: what this node publishes, which devices it needs, and which entries lead to a peer. It never changes
the kernel's tables; the reconciler does, the same way for all backends. What rtnetlink does not know of, it brings
along: the making of a device, the driver of a table, a task that runs as long as the daemon does.
"""

# ruff: noqa: ARG002 - what a method takes is for those who override it
from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from flanneld_py.core.driver import Feedback, TableDriver
    from flanneld_py.core.entries import Entry, Route
    from flanneld_py.core.lease import Lease, LeaseAttrs
    from flanneld_py.core.peer import Peer
    from flanneld_py.core.peer_traffic import PeerTraffic
    from flanneld_py.core.tunnel_port import TunnelPort
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


class UnreachableError(Exception):
    """There is no way from this node to a peer; the message says why."""


class EntrySource(Protocol):
    """What says which entries there should be. Whoever subclasses it wants none but what it says."""

    drivers: Sequence[TableDriver] = ()
    """The drivers of those of its entries that are a `DrivenEntry`."""

    def desired(self, peer: Peer, ground: Ground) -> tuple[Entry, ...]:
        """Return the entries that lead to a peer, or let it in. Raises UnreachableError."""
        return ()

    def standing(self, ground: Ground) -> Sequence[Entry]:
        """Return the entries that belong to no peer."""
        return ()

    async def run(self, lease: Lease, feedback: Feedback) -> None:
        """Do what has to be done as long as the daemon runs, for the holder of this lease; may return early."""
        return


class Backend(EntrySource, Protocol):
    """One way to carry packets; `mtu`, in bytes, is what a pod's interface may have."""

    mtu: int
    overhead: int = 0
    """Bytes, at most, that a packet grows by on the underlay."""
    claim_name: str
    """What no two daemons of one network namespace may use at once: the name of the device, or of the backend."""
    follows_underlay: bool = False
    """Whether the way to a peer depends on the host's routes; may become true when a peer is read."""
    adopts_routes: bool = True
    """Whether routes to peers that Go flannel or an operator has made are ours to change."""
    tunnel_port: TunnelPort | None = None
    """Where packets of the network arrive from anybody, if the guard can tell by them who sent them."""
    nexthop_ids: range = range(0)
    """The ids of the nexthop objects that are ours."""
    answers_misses: bool = False
    """Whether a peer may be programmed when the kernel first asks for one of its addresses (`--on-demand`)."""

    @property
    def ports(self) -> Sequence[int]:
        """The UDP ports that other nodes send packets of the network to."""
        return () if self.tunnel_port is None else (self.tunnel_port.port,)

    async def prepare(self, sock: NetlinkSocket) -> None:
        """Have at hand what this node's lease and devices need: keys, programs, what a command says.

        Raises KernelError where this machine cannot carry packets this way, ConfigError for what the operator has to
        put right: both before any lease is written.
        """
        return

    def publish(
        self, sock: NetlinkSocket, earlier: LeaseAttrs | None, random_bytes: Callable[[int], bytes]
    ) -> LeaseAttrs:
        """Return the attributes to publish, close to those of our earlier lease.

        Raises KernelError where this kernel cannot carry packets this way, before any lease is written.
        """
        ...

    def renew_identity(self, attrs: LeaseAttrs, random_bytes: Callable[[int], bytes]) -> LeaseAttrs:
        """Return our attributes without what another node has published as well, to be published in their place."""
        return attrs

    def devices(self, lease: Lease) -> dict[int, Device]:
        """Return the devices that the holder of this lease needs, by the address family that each carries."""
        ...

    def read_traffic(self, peer: Peer) -> PeerTraffic | None:
        """Return what this process itself has carried to and from a peer; None where it carries nothing."""
        return None

    def read_peers(self, lease: Lease) -> tuple[Peer, ...]:
        """Return another node's lease as peers, one for each family; raise ValueError saying why it is none."""
        ...
