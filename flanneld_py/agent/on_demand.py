"""On demand: peers are programmed when the kernel first asks for one of their addresses, and go when they are idle.

Owns answering the kernel's misses from the store, the subnets that nobody leases, and the eviction of idle peers.
The reconciler keeps what is in use right, as it keeps all peers in the other mode.
"""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING

from flanneld_py.agent.retry import until_it_works
from flanneld_py.core.entries import UNREACHABLE, FdbEntry, Kind, Route
from flanneld_py.core.errors import KernelError, StoreError
from flanneld_py.core.lease_event import LeasePut, LeaseRemoved, LeaseSnapshot
from flanneld_py.core.misses import REFUSED_FOR, MissTable
from flanneld_py.core.prefix import IPV4, Prefix, prefix_around
from flanneld_py.kernel.dataplane import read_steps
from flanneld_py.kernel.miss import forget, read_idle_times, read_unanswered, refuse, send_queued
from flanneld_py.kernel.route import default_metric

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator, Sequence

    from flanneld_py.agent.ground import GroundKeeper
    from flanneld_py.agent.lease_keeper import LeaseKeeper
    from flanneld_py.agent.reconciler import Reconciler
    from flanneld_py.backends.backend import Ground
    from flanneld_py.core.entries import Entry
    from flanneld_py.core.misses import Miss
    from flanneld_py.core.network_config import SubnetRange
    from flanneld_py.core.peer import Peer
    from flanneld_py.kernel.netlink_socket import NetlinkSocket
    from flanneld_py.store.subnet_manager import LeaseFinder

log = logging.getLogger(__name__)

_LOOKUP_PATIENCE = 2.0
"""Seconds after which whoever waits for a store that does not answer is told that the host is unreachable."""
_LOOKUPS_AT_START = 16


@dataclass(slots=True)
class MissCounts:
    """What became of the kernel's questions since the start."""

    answered: int = 0
    refused: int = 0
    evicted: int = 0


class OnDemand:
    """Answers misses of one IPv4 network, from when `run` is called on."""

    def __init__(
        self,
        sock: NetlinkSocket,
        finder: LeaseFinder,
        network: SubnetRange,
        rng: random.Random,
        *,
        idle: float,
        refused_for: float = REFUSED_FOR,
    ) -> None:
        """Prepare; a peer that nothing was sent to for `idle` seconds goes.

        What nobody leases is refused without asking for `refused_for` seconds.
        """
        self._sock = sock
        self._finder = finder
        self._network = network
        self._rng = rng
        self._idle = idle
        self._table = MissTable(refused_for)
        self._tasks: asyncio.TaskGroup | None = None
        self._expiry_changed = asyncio.Event()
        self.counts = MissCounts()

    def standing(self, ground: Ground) -> Sequence[Entry]:
        """Return the entries that belong to no peer: the catch-all route, and the subnets that are nobody's."""
        device = ground.devices.get(IPV4, 0)
        catch_all = Route(self._network.network, default_metric(IPV4), 0, 0, device, onlink=False)
        return (catch_all, *(_unreachable(subnet) for subnet in self._table.nobodys))

    async def run(self, reconciler: Reconciler, ground: GroundKeeper, keeper: LeaseKeeper) -> None:
        """Answer misses until cancelled, together with these parts."""
        self._reconciler, self._ground, self._keeper = reconciler, ground, keeper
        await reconciler.grounded.wait()
        async with asyncio.TaskGroup() as self._tasks:
            self._tasks.create_task(self._follow(), name="follow leases in use")
            self._tasks.create_task(self._forget_nobodys(), name="forget nobody's subnets")
            self._tasks.create_task(self._evict_idle(), name="evict idle peers")
            # What was asked before anybody listened.
            self.take_unanswered_misses()
            await self._adopt()

    def take_misses(self, misses: list[Miss]) -> None:
        """Look up what the kernel asks for; never waits."""
        if self._tasks is None:
            # There is no device yet that could carry anything; the kernel asks again with a later packet.
            return
        too_many: list[Miss] = []
        for miss in misses:
            subnet = prefix_around(miss.family, miss.address, self._network.subnet_len)
            look_up = self._table.take(miss, subnet)
            if look_up is None:
                too_many.append(miss)
            elif look_up:
                self._tasks.create_task(self._look_up(subnet, miss.address))
        if too_many:
            self._refuse(too_many)

    def take_unanswered_misses(self) -> None:
        """Look up what the kernel has asked for while its question could not be heard."""
        device = self._ground.ground.devices.get(IPV4) if self._tasks is not None else None
        if device is None:
            return
        try:
            self.take_misses(read_unanswered(self._sock, device))
        except KernelError as error:
            # As when the table changes during each of many reads: the kernel gives up by itself, and asks again.
            log.debug("unanswered misses not read: reason=%s", error)

    async def _look_up(self, subnet: Prefix, address: int) -> None:
        try:
            async with asyncio.timeout(_LOOKUP_PATIENCE):
                event = await self._finder.find_lease(address)
        except (StoreError, TimeoutError) as error:
            log.debug("miss not answered: subnet=%s reason=%s", subnet, error)
            self._refuse(self._table.settle(subnet))
            return
        misses = self._table.settle(subnet)
        try:
            self._answer(event, subnet, misses)
        except OSError as error:
            # What is missing or too much in the kernel after that, the reconciler finds.
            log.warning("miss not answered: subnet=%s reason=%s", subnet, error)

    def _answer(self, event: LeasePut | None, subnet: Prefix, misses: list[Miss]) -> None:
        """Program what was found, if it leads to where the kernel wants to send; else refuse it. Raises OSError."""
        address = misses[0].address
        peers = () if event is None else self._program(event, misses)
        peer = next((peer for peer in peers if peer.subnet.holds(address)), None)
        found = self._extent(event, subnet, address) if peer is None else peer.subnet
        concerned = [miss for miss in misses if found.holds(miss.address)]
        if event is None or peer is None:
            self._refuse(concerned)
            self._note_nobodys(found)
        else:
            self._finder.follow(event.key)
            if peer.direct_only:
                # What waits in the tunnel's queue cannot go there; what comes next takes the direct route.
                self._refuse(concerned)
        # Several nodes may share what most often is one node's.
        self.take_misses([miss for miss in misses if not found.holds(miss.address)])

    def _extent(self, event: LeasePut | None, subnet: Prefix, address: int) -> Prefix:
        """Return the part of a subnet that leads nowhere: nobody leases it, or one whom we cannot reach."""
        if event is None:
            return self._finder.gap_around(subnet, address)
        leased = event.lease.subnet
        return leased if leased is not None and subnet.contains(leased) else subnet

    def _program(self, event: LeasePut, misses: list[Miss]) -> Sequence[Peer]:
        """Have what waits for a lease's peers sent, then write the peers' entries; return the peers."""
        subnet = event.lease.subnet
        over = [] if subnet is None else self._table.note_leased(subnet)
        if over:
            # One of these may stand in the place of the peer's own route.
            self._reconciler.change_standing([_unreachable(one) for one in over], [])
        sent: list[tuple[FdbEntry, list[Miss]]] = []
        peers = self._reconciler.program(event, lambda peers: sent.extend(self._send_queued(peers, misses)))
        for through, addresses in sent:
            forget(self._sock, through, addresses, stays=through in self._reconciler.desired(peers))
        return peers

    def _send_queued(self, peers: Sequence[Peer], misses: list[Miss]) -> Iterator[tuple[FdbEntry, list[Miss]]]:
        """Have the first packets sent; through the tunnel also where the peer is direct from now on.

        Yields what is to be forgotten once the peers' entries are written, so that no packet in between has to wait.
        """
        for peer in peers:
            waiting = [miss for miss in misses if peer.subnet.holds(miss.address)]
            if peer.direct_only or not waiting:
                continue
            self.counts.answered += len(waiting)
            through = FdbEntry(self._ground.ground.devices[IPV4], peer.vtep_mac, IPV4, peer.public_ip)
            if through in self._reconciler.desired((peer,)):
                # The gateway of the peer's route will be written with it, to stay.
                waiting = [miss for miss in waiting if miss.address != peer.subnet.address]
            send_queued(self._sock, through, waiting)
            yield through, waiting

    def _refuse(self, misses: list[Miss]) -> None:
        self.counts.refused += len(misses)
        device = self._ground.ground.devices.get(IPV4)
        if device is None:
            return
        try:
            refuse(self._sock, device, misses)
        except OSError as error:
            # The kernel gives up by itself, in its own time.
            log.warning("misses not refused: reason=%s", error)

    def _note_nobodys(self, subnet: Prefix) -> None:
        lease = self._keeper.held.lease
        # Our own subnet is nobody else's, but the bridge of our pods may come at any time.
        if lease.subnet is not None and lease.subnet.overlaps(subnet):
            return
        if self._table.note_nobodys(subnet, time.monotonic()):
            self._reconciler.change_standing([], [_unreachable(subnet)])
            self._expiry_changed.set()

    async def _forget_nobodys(self) -> None:
        while True:
            due = self._table.next_expiry()
            if due is None:
                self._expiry_changed.clear()
                await self._expiry_changed.wait()
                continue
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            over: list[Entry] = [_unreachable(subnet) for subnet in self._table.expire(time.monotonic())]
            self._reconciler.change_standing(over, [])

    async def _follow(self) -> None:
        self._finder.follow(self._keeper.held.key)
        async with aclosing(self._finder.watch_followed()) as batches:
            async for events in batches:
                self._reconciler.take_events(events)
                self._keeper.take_events(events)
                for event in events:
                    if isinstance(event, LeaseRemoved) and event.key != self._keeper.held.key:
                        self._finder.unfollow(event.key)

    async def _evict_idle(self) -> None:
        """Take peers away that are idle; direct ones stay, for the kernel does not say when it last used a route."""
        while True:
            await asyncio.sleep(self._idle / 4)
            device = self._ground.ground.devices.get(IPV4)
            if device is None:
                continue
            idle = self._read_idle_times(device)
            gone = [
                key
                for key, peers in self._reconciler.leases.peers.items()
                if all(idle.get(peer.vtep_mac, 0.0) >= self._idle for peer in peers)
            ]
            for key in gone:
                self._finder.unfollow(key)
            if gone:
                self.counts.evicted += len(gone)
                self._reconciler.take_events([LeaseRemoved(key) for key in gone])

    def _read_idle_times(self, device: int) -> dict[bytes, float]:
        try:
            return read_idle_times(self._sock, device)
        except KernelError as error:
            # As when the table changes during each of many reads: nobody goes by mistake, and the next look comes soon.
            log.debug("idle peers not told apart: reason=%s", error)
            return {}

    async def _adopt(self) -> None:
        """Begin with the peers that the kernel holds from before and that are in use: their traffic goes on."""
        # What is programmed by misses from here on stands beside what is found.
        self._reconciler.take_events([LeaseSnapshot({}, {}, last=False)])
        subnets = await until_it_works("routes in use", self._read_subnets, OSError, self._rng)
        leases = {}
        for start in range(0, len(subnets), _LOOKUPS_AT_START):
            part = subnets[start : start + _LOOKUPS_AT_START]
            for event in await asyncio.gather(*(self._find(subnet) for subnet in part)):
                if event is not None:
                    leases[event.key] = event.lease
        idle = self._read_idle_times(self._ground.ground.devices[IPV4])
        self._reconciler.take_events([LeaseSnapshot(leases, {}, first=False)])
        gone = [
            key
            for key in leases.keys() & self._reconciler.leases.peers.keys()
            if all(idle.get(peer.vtep_mac, 0.0) >= self._idle for peer in self._reconciler.leases.peers[key])
        ]
        self._reconciler.take_events([LeaseRemoved(key) for key in gone])
        for key in self._reconciler.leases.peers:
            self._finder.follow(key)

    async def _read_subnets(self) -> list[Prefix]:
        """Return where the routes lead that the kernel holds from before."""
        table: dict[tuple[object, ...], Entry] = {}
        for table in read_steps(self._sock, self._ground.scope, Kind.ROUTE):  # noqa: B007 - the last one is complete
            pass
        return [
            entry.dst
            for entry in table.values()
            if isinstance(entry, Route)
            and self._network.network.contains(entry.dst)
            and entry.dst != self._network.network
            and entry.type != UNREACHABLE
        ]

    async def _find(self, subnet: Prefix) -> LeasePut | None:
        """Find what a route leads to; a store that is away is waited for, for what is in use must not go."""
        return await until_it_works(
            "peers in use", lambda: self._finder.find_lease(subnet.address), StoreError, self._rng
        )


def _unreachable(subnet: Prefix) -> Route:
    return Route(subnet, default_metric(subnet.family), 0, 0, 0, onlink=False, type=UNREACHABLE)
