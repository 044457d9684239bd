"""SubnetManager: the port to a store, whichever it is.

Owns no implementation. Every store, and the in-memory fake, passes one contract suite (`tests/store/contract.py`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Mapping, Sequence

    from flanneld_py.core.allocator import SubnetPair
    from flanneld_py.core.lease import Lease, LeaseAttrs
    from flanneld_py.core.lease_event import LeaseChange, LeaseEvent, LeasePut
    from flanneld_py.core.misses import Miss
    from flanneld_py.core.network_config import NetworkConfig
    from flanneld_py.core.prefix import Prefix
    from flanneld_py.store.counts import StoreCounts


@dataclass(frozen=True, slots=True)
class HeldLease:
    """Our own lease as the store holds it.

    `ttl` is the time to live in seconds that the store granted at the last acquire or renew, None for a reservation
    and for a store whose leases do not expire. `revision` is what a compare-and-set compares; `etcd_lease` is the
    etcd lease behind the key, 0 where there is none.
    """

    key: str
    lease: Lease
    ttl: float | None
    revision: int = 0
    etcd_lease: int = 0


@dataclass(frozen=True, slots=True)
class LeaseRequest:
    """What we want to lease: attributes to publish and the subnets that we would like, the best first.

    `preferred` holds the (IPv4, IPv6) pairs that this host is known to have used, by its former subnet file or by an
    address on one of its devices.
    """

    config: NetworkConfig
    attrs: LeaseAttrs
    preferred: Sequence[tuple[Prefix | None, Prefix | None]] = ()


CHALLENGE_PATIENCE = 2.0
"""Seconds that the holder of a lease has to show that it lives, when another node asks for it."""


class SubnetManager(Protocol):
    """Configuration and leases of one network.

    Both watches hold connections: end one by closing its iterator (`contextlib.aclosing`) or cancelling its task.
    """

    assigns_subnets: bool
    """Whether the store gives each node its subnets, so that the configuration's limits do not count."""

    @property
    def trouble(self) -> str | None:
        """Why the store cannot be followed at present, in one line; None where it can."""
        ...

    @property
    def counts(self) -> StoreCounts:
        """What has been asked of the store since the start."""
        ...

    def describe(self) -> dict[str, Any]:
        """Return how the store is reached, as plain JSON data: its `type`, its `trouble`, and what else helps an
        operator; never a secret.
        """
        ...

    def watch_config(self) -> AsyncGenerator[str | None, None]:
        """Yield the raw configuration text now (None where there is none), then again at each change.

        Never ends and never raises for a store that is away: it waits, says so in the log, and goes on.
        """
        ...

    async def read_public(self) -> tuple[int | None, int | None]:
        """Return the public addresses, IPv4 and IPv6, that the store tells us to have in place of the uplink's.

        Raises StoreError where the store does not answer.
        """
        ...

    async def find_own(self, attrs: LeaseAttrs, expected: Sequence[SubnetPair] = ()) -> Lease | None:
        """Return our node's lease, if there is one.

        Where nodes are no objects of the store, it is the one with our PublicIP (PublicIPv6 in an IPv6-only network).

        Where it is among the `expected`, the store is asked for nothing else, which matters in a large cluster. Raises
        StoreError where the store does not answer.
        """
        ...

    async def acquire(self, request: LeaseRequest) -> HeldLease:
        """Make a lease ours: our earlier one, else a preferred one that is free and fits, else a random free one.

        A race with other nodes is lost by nobody: another subnet is picked. An earlier lease that this host is not
        known to have used may be that of a second node with our PublicIP, so its key is marked: a holder that lives
        mends it by a renewal, for it watches its key. Raises StoreError where one does, where the store does not
        answer, or where no subnet is free.
        """
        ...

    async def renew(self, held: HeldLease, attrs: LeaseAttrs | None = None) -> HeldLease:
        """Extend our lease; a reservation has no time to live that could be extended, and stays one.

        With `attrs`, publish these from now on, also where our address has changed. Raises LeaseTakenError where the
        key is another node's, LeaseLostError where it is gone, StoreError where the store does not answer.
        """
        ...

    async def restore(self, held: HeldLease, attrs: LeaseAttrs) -> HeldLease:
        """Write our lease anew, for the same subnets, where it has gone; publish `attrs` with it.

        Raises LeaseTakenError where another lease has an address of these subnets, StoreError where the store does
        not answer.
        """
        ...

    async def announce_ready(self) -> None:
        """Tell the store, where it wants to know, that packets are carried now. Raises StoreError."""
        ...

    def watch_leases(self) -> AsyncGenerator[Sequence[LeaseEvent], None]:
        """Yield a snapshot of all leases, our own too, then batches of changes in the store's order.

        A snapshot may come in several parts, from the one marked `first` to the one marked `last`; one that is cut
        short is followed by a new first part. A new snapshot comes whenever changes may have been missed. Never ends
        and never raises for a store that is away.
        """
        ...

    def lease_finder(self, networks: Mapping[Prefix, int]) -> LeaseFinder:
        """Return what finds single leases in these networks, each with the length that most subnets have there."""
        ...

    def reconnect(self) -> None:
        """Make new connections: nothing comes any more over those from an address that the host has lost.

        What is under way over them is asked again, as after any loss of a connection.
        """
        ...

    async def close(self) -> None:
        """Let go of the store's connections; the lease stays."""
        ...


class LeaseFinder(Protocol):
    """What on-demand operation needs of a store besides: single leases, found by an address, and followed.

    All of it may need `watch_followed` to run.
    """

    def glance(self, misses: Sequence[Miss], found: Callable[[Miss, LeasePut | None], None]) -> None:
        """Have `found` called once with each address and the lease that holds it, as far as is known close by.

        With None where that is not known, or not in time: `find_lease` says more. Never waits; `found` may be called
        before this returns, and must not raise.
        """
        ...

    async def find_lease(self, miss: Miss) -> LeasePut | None:
        """Return the lease of which a subnet holds an address; None if there is none, or none that can be read.

        Raises StoreError.
        """
        ...

    def gap_around(self, subnet: Prefix, address: int) -> Prefix:
        """Return the largest part of a subnet, around an address for which no lease was found, that nobody leases.

        By what was read to find that; asks the store for nothing.
        """
        ...

    def follow(self, key: str) -> None:
        """Have `watch_followed` tell from now on, or from when the key was last found, how a key changes."""
        ...

    def unfollow(self, key: str) -> None:
        """Have `watch_followed` tell of a key no longer."""
        ...

    def watch_followed(self) -> AsyncGenerator[Sequence[LeaseChange], None]:
        """Yield batches of changes of the keys that are followed, each key as it is anew whenever some may be missed.

        Never ends and never raises for a store that is away.
        """
        ...
