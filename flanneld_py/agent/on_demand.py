"""On demand: peers are programmed when the kernel first asks for one of their addresses, and go when they are idle.

Owns answering the kernel's misses from the store, the subnets that nobody leases, and the eviction of idle peers.
The reconciler keeps what is in use right, as it keeps all peers in the other mode.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING

from flanneld_py.agent.catch_all import CatchAll
from flanneld_py.agent.retry import until_it_works
from flanneld_py.core.entries import UNREACHABLE, FdbEntry, Kind, Route
from flanneld_py.core.errors import KernelError, StoreError
from flanneld_py.core.lease_event import LeasePut, LeaseRemoved, LeaseSnapshot
from flanneld_py.core.misses import REFUSED_FOR, MissTable
from flanneld_py.core.prefix import IPV4, Prefix, prefix_around
from flanneld_py.kernel.dataplane import read_steps
from flanneld_py.kernel.miss import forget, read_idle_times, read_unanswered, refuse, send_queued

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

_LOOKUP_PATIENCE = 1.5
"""Seconds after which whoever waits for a store that does not answer is told that the host is unreachable; a glance
has come before."""
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
        self._catch_all = CatchAll(network.network, self._table)
        self._tasks: asyncio.TaskGroup | None = None
        self.counts = MissCounts()

    def standing(self, ground: Ground) -> Sequence[Entry]:
        """Return the entries that belong to no peer: the catch-all route, and the subnets that are nobody's."""
        return self._catch_all.standing(ground.devices.get(IPV4, 0))

    async def run(self, reconciler: Reconciler, ground: GroundKeeper, keeper: LeaseKeeper) -> None:
        """Answer misses until cancelled, together with these parts."""
        self._reconciler, self._ground, self._keeper = reconciler, ground, keeper
        self._catch_all.write_to(reconciler.change_standing)
        await reconciler.grounded.wait()
        try:
            async with asyncio.TaskGroup() as self._tasks:
                self._tasks.create_task(self._follow(), name="follow leases in use")
                self._tasks.create_task(self._catch_all.forget_nobodys(), name="forget nobody's subnets")
                self._tasks.create_task(self._evict_idle(), name="evict idle peers")
                # What was asked before anybody listened.
                self.take_unanswered_misses()
                await self._adopt()
        finally:
            self._tasks = None

    def take_misses(self, misses: list[Miss]) -> None:
        """Look up what the kernel asks for; never waits."""
        if self._tasks is None:
            # There is no device yet that could carry anything; the kernel asks again with a later packet.
            return
        too_many: list[Miss] = []
        new: list[int] = []
        for miss in misses:
            look_up = self._table.take(miss, self._subnet_of(miss.address))
            if look_up is None:
                too_many.append(miss)
            elif look_up:
                new.append(miss.address)
        # First what keeps others from coming, then what frees their places, then what takes longest.
        self._catch_all.follow_waiting()
        if too_many:
            self._refuse(too_many)
        if new:
            self._finder.glance(new, self._take_glance)

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

    def _subnet_of(self, address: int) -> Prefix:
        return prefix_around(IPV4, address, self._network.subnet_len)

    def _take_glance(self, address: int, event: LeasePut | None) -> None:
        """Answer with what was found at a glance; look closer if that is nothing."""
        if self._tasks is None:
            return
        if event is None:
            self._tasks.create_task(self._look_up(address))
        else:
            self._settle(self._subnet_of(address), event)

    async def _look_up(self, address: int) -> None:
        subnet = self._subnet_of(address)
        try:
            async with asyncio.timeout(_LOOKUP_PATIENCE):
                event = await self._finder.find_lease(address)
        except (StoreError, TimeoutError) as error:
            log.debug("miss not answered: subnet=%s reason=%s", subnet, error)
            self._refuse(self._table.settle(subnet))
            self._catch_all.follow_waiting()
        else:
            self._settle(subnet, event)

    def _settle(self, subnet: Prefix, event: LeasePut | None) -> None:
        misses = self._table.settle(subnet)
        try:
            self._answer(event, subnet, misses)
        except OSError as error:
            # What is missing or too much in the kernel after that, the reconciler finds.
            log.warning("miss not answered: subnet=%s reason=%s", subnet, error)
        self._catch_all.follow_waiting()

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
        if subnet is not None:
            self._catch_all.note_leased(subnet)
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
        self._catch_all.note_nobodys(subnet)

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
