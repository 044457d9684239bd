"""On demand: peers are programmed when the kernel first asks for one of their addresses, and go when they are idle.

Owns answering the kernel's misses from the store, and the subnets that nobody leases; in each address family alike.
The reconciler keeps what is in use right, as it keeps all peers in the other mode.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING

from flanneld_py.agent.asked_addresses import AskedAddresses
from flanneld_py.agent.catch_all import CatchAll
from flanneld_py.agent.idle_peers import IdlePeers
from flanneld_py.core.entries import FdbEntry, Neighbour
from flanneld_py.core.errors import KernelError, StoreError
from flanneld_py.core.lease_event import LeaseRemoved
from flanneld_py.core.misses import REFUSED_FOR, MissTable
from flanneld_py.core.prefix import Prefix, prefix_around
from flanneld_py.kernel.miss import forget, read_unanswered, refuse, send_queued

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator, Mapping, Sequence

    from flanneld_py.agent.ground import GroundKeeper
    from flanneld_py.agent.lease_keeper import LeaseKeeper
    from flanneld_py.agent.reconciler import Reconciler
    from flanneld_py.backends.backend import Ground
    from flanneld_py.core.entries import Entry
    from flanneld_py.core.lease_event import LeasePut
    from flanneld_py.core.misses import Miss
    from flanneld_py.core.peer import Peer
    from flanneld_py.kernel.netlink_socket import NetlinkSocket
    from flanneld_py.store.subnet_manager import LeaseFinder

log = logging.getLogger(__name__)

_LOOKUP_PATIENCE = 1.5
"""Seconds after which whoever waits for a store that does not answer is told that the host is unreachable; a glance
has come before."""


@dataclass(slots=True)
class MissCounts:
    """What became of the kernel's questions since the start."""

    answered: int = 0
    refused: int = 0
    evicted: int = 0


class _Part:
    """One address family: its network, what is looked up there, and the routes that belong to no peer."""

    def __init__(self, network: Prefix, subnet_len: int, refused_for: float) -> None:
        self.network = network
        self.table = MissTable(refused_for)
        self.catch_all = CatchAll(network, self.table)
        self.asked = AskedAddresses(network)
        self._subnet_len = subnet_len

    def subnet_of(self, miss: Miss) -> Prefix:
        """Return the subnet that an address is in, if it has the usual length."""
        return prefix_around(miss.family, miss.address, self._subnet_len)


class OnDemand:
    """Answers misses in one network of each address family, from when `run` is called on."""

    def __init__(
        self,
        sock: NetlinkSocket,
        finder: LeaseFinder,
        networks: Mapping[Prefix, int],
        rng: random.Random,
        *,
        idle: float,
        refused_for: float = REFUSED_FOR,
    ) -> None:
        """Prepare for these networks, each with the length that most subnets have there.

        A peer that nothing was sent to for `idle` seconds goes. What nobody leases is refused without asking for
        `refused_for` seconds.
        """
        self._sock = sock
        self._finder = finder
        self._parts = {network.family: _Part(network, length, refused_for) for network, length in networks.items()}
        self._rng = rng
        self._idle = idle
        self._tasks: asyncio.TaskGroup | None = None
        self.counts = MissCounts()

    def standing(self, ground: Ground) -> Sequence[Entry]:
        """Return the entries that belong to no peer: the catch-all route, and the subnets that are nobody's."""
        return [
            entry
            for family, part in self._parts.items()
            for entry in part.catch_all.standing(ground.devices.get(family, 0))
        ]

    async def run(self, reconciler: Reconciler, ground: GroundKeeper, keeper: LeaseKeeper) -> None:
        """Answer misses until cancelled, together with these parts."""
        self._reconciler, self._ground, self._keeper = reconciler, ground, keeper
        peers = IdlePeers(self._sock, self._finder, reconciler, ground, self._rng, idle=self._idle)
        for part in self._parts.values():
            part.catch_all.write_to(reconciler.change_standing)
        await reconciler.grounded.wait()
        for family, part in self._parts.items():
            part.catch_all.realm = part.asked.begin(ground.names[family])
        try:
            async with asyncio.TaskGroup() as self._tasks:
                self._tasks.create_task(self._follow(), name="follow leases in use")
                for part in self._parts.values():
                    self._tasks.create_task(part.catch_all.forget_nobodys(), name="forget nobody's subnets")
                    self._tasks.create_task(self._keep_room(part), name="keep room for addresses")
                self._tasks.create_task(self._evict_idle(peers), name="evict idle peers")
                # What was asked before anybody listened.
                self.take_unanswered_misses()
                await peers.adopt([part.network for part in self._parts.values()])
        finally:
            self._tasks = None

    def take_misses(self, misses: list[Miss]) -> None:
        """Look up what the kernel asks for; never waits."""
        if self._tasks is None:
            # There is no device yet that could carry anything; the kernel asks again with a later packet.
            return
        too_many: list[Miss] = []
        new: list[Miss] = []
        for miss in misses:
            part = self._parts.get(miss.family)
            if part is None or not miss.is_in(part.network):
                # A peer's gateway in IPv6, whose neighbour somebody has deleted: it is about to be written anew.
                continue
            part.asked.note_asked(miss)
            look_up = part.table.take(miss, part.subnet_of(miss))
            if look_up is None:
                too_many.append(miss)
            elif look_up:
                new.append(miss)
        # First what keeps others from coming, then what frees their places, then what takes longest.
        for part in self._parts.values():
            part.catch_all.follow_waiting()
        if too_many:
            self._refuse(too_many)
        if new:
            self._finder.glance(new, self._take_glance)

    def take_unanswered_misses(self) -> None:
        """Look up what the kernel has asked for while its question could not be heard."""
        for family, part in self._parts.items():
            try:
                self._take_unanswered(family)
            except KernelError as error:
                # As when the table changes during each of many reads.
                log.debug("unanswered misses not read: reason=%s", error)
                part.asked.doubt()

    def _take_unanswered(self, family: int) -> list[Miss]:
        device = self._ground.ground.devices.get(family) if self._tasks is not None else None
        if device is None:
            return []
        unanswered = read_unanswered(self._sock, device, family)
        self.take_misses(unanswered)
        return unanswered

    async def _keep_room(self, part: _Part) -> None:
        await part.asked.keep(lambda: self._take_unanswered(part.network.family))

    def _take_glance(self, miss: Miss, event: LeasePut | None) -> None:
        """Answer with what was found at a glance; look closer if that is nothing."""
        if self._tasks is None:
            return
        if event is None:
            self._tasks.create_task(self._look_up(miss))
        else:
            self._settle(miss, event)

    async def _look_up(self, miss: Miss) -> None:
        try:
            async with asyncio.timeout(_LOOKUP_PATIENCE):
                event = await self._finder.find_lease(miss)
        except (StoreError, TimeoutError) as error:
            part = self._parts[miss.family]
            log.debug("miss not answered: subnet=%s reason=%s", part.subnet_of(miss), error)
            self._refuse(part.table.settle(part.subnet_of(miss)))
            part.catch_all.follow_waiting()
        else:
            self._settle(miss, event)

    def _settle(self, miss: Miss, event: LeasePut | None) -> None:
        part = self._parts[miss.family]
        subnet = part.subnet_of(miss)
        misses = part.table.settle(subnet)
        try:
            self._answer(event, subnet, misses)
        except OSError as error:
            # What is missing or too much in the kernel after that, the reconciler finds.
            log.warning("miss not answered: subnet=%s reason=%s", subnet, error)
        part.catch_all.follow_waiting()

    def _answer(self, event: LeasePut | None, subnet: Prefix, misses: list[Miss]) -> None:
        """Program what was found, if it leads to where the kernel wants to send; else refuse it. Raises OSError."""
        first = misses[0]
        peers = () if event is None else self._program(event, misses)
        peer = next((peer for peer in peers if first.is_in(peer.subnet)), None)
        found = self._extent(event, subnet, first) if peer is None else peer.subnet
        concerned = [miss for miss in misses if miss.is_in(found)]
        if event is None or peer is None:
            self._refuse(concerned)
            self._note_nobodys(found)
        else:
            self._finder.follow(event.key)
            if peer.direct_only:
                # What waits in the tunnel's queue cannot go there; what comes next takes the direct route.
                self._refuse(concerned)
            else:
                self._parts[first.family].asked.note_done(concerned)
        # Several nodes may share what most often is one node's.
        self.take_misses([miss for miss in misses if not miss.is_in(found)])

    def _extent(self, event: LeasePut | None, subnet: Prefix, miss: Miss) -> Prefix:
        """Return the part of a subnet that leads nowhere: nobody leases it, or one whom we cannot reach."""
        if event is None:
            return self._finder.gap_around(subnet, miss.address)
        leased = (one for one in event.lease.subnets if miss.is_in(one) and subnet.contains(one))
        return next(leased, subnet)

    def _program(self, event: LeasePut, misses: list[Miss]) -> Sequence[Peer]:
        """Have what waits for a lease's peers sent, then write the peers' entries; return the peers."""
        for subnet in event.lease.subnets:
            if subnet.family in self._parts:
                self._parts[subnet.family].catch_all.note_leased(subnet)
        sent: list[tuple[FdbEntry, list[Miss]]] = []
        peers = self._reconciler.program(event, lambda peers: sent.extend(self._send_queued(peers, misses)))
        for through, addresses in sent:
            if reason := forget(self._sock, through, addresses, stays=through in self._reconciler.desired(peers)):
                log.warning("answered addresses stay for now: mac=%s reason=%s", through.mac.hex(":"), reason)
        return peers

    def _send_queued(self, peers: Sequence[Peer], misses: list[Miss]) -> Iterator[tuple[FdbEntry, list[Miss]]]:
        """Have the first packets sent; through the tunnel also where the peer is direct from now on.

        Yields what is to be forgotten once the peers' entries are written, so that no packet in between has to wait.
        """
        for peer in peers:
            waiting = [miss for miss in misses if miss.is_in(peer.subnet)]
            if peer.direct_only or not waiting:
                continue
            self.counts.answered += len(waiting)
            family = peer.subnet.family
            through = FdbEntry(self._ground.ground.devices[family], peer.vtep_mac, family, peer.public_ip)
            # The gateway of the peer's route will be written with it, to stay.
            desired = self._reconciler.desired((peer,))
            gateways = {entry.address for entry in desired if isinstance(entry, Neighbour)}
            waiting = [miss for miss in waiting if miss.address not in gateways]
            if not send_queued(self._sock, through, waiting):
                self._parts[peer.subnet.family].asked.doubt()
            yield through, waiting

    def _refuse(self, misses: list[Miss]) -> None:
        self.counts.refused += len(misses)
        for family, part in self._parts.items():
            device, concerned = self._ground.ground.devices.get(family), [it for it in misses if it.family == family]
            if device is None or not concerned:
                continue
            try:
                if not refuse(self._sock, device, concerned):
                    part.asked.doubt()
            except OSError as error:
                log.warning("misses not refused: reason=%s", error)
                part.asked.doubt()
            else:
                part.asked.note_done(concerned)

    def _note_nobodys(self, subnet: Prefix) -> None:
        lease = self._keeper.held.lease
        # Our own subnet is nobody else's, but the bridge of our pods may come at any time.
        if not any(own.overlaps(subnet) for own in lease.subnets):
            self._parts[subnet.family].catch_all.note_nobodys(subnet)

    async def _follow(self) -> None:
        self._finder.follow(self._keeper.held.key)
        async with aclosing(self._finder.watch_followed()) as batches:
            async for events in batches:
                self._reconciler.take_events(events)
                self._keeper.take_events(events)
                for event in events:
                    if isinstance(event, LeaseRemoved) and event.key != self._keeper.held.key:
                        self._finder.unfollow(event.key)

    async def _evict_idle(self, peers: IdlePeers) -> None:
        while True:
            await peers.wait()
            self.counts.evicted += peers.evict()
