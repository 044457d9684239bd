"""Which of the peers on demand are in use: those that were at the start stay, and those that are idle go.

Owns the reading of what is in use from the kernel; what comes into use is told by its questions.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from flanneld_py.agent.retry import until_it_works
from flanneld_py.core.entries import UNREACHABLE, Kind, Route
from flanneld_py.core.errors import KernelError, StoreError
from flanneld_py.core.lease_event import LeaseRemoved, LeaseSnapshot
from flanneld_py.core.misses import Miss
from flanneld_py.kernel.dataplane import read_steps
from flanneld_py.kernel.miss import read_idle_times

if TYPE_CHECKING:
    import random
    from collections.abc import Collection, Iterable

    from flanneld_py.agent.ground import GroundKeeper
    from flanneld_py.agent.reconciler import Reconciler
    from flanneld_py.core.entries import Entry
    from flanneld_py.core.lease_event import LeasePut
    from flanneld_py.core.prefix import Prefix
    from flanneld_py.kernel.netlink_socket import NetlinkSocket
    from flanneld_py.store.subnet_manager import LeaseFinder

log = logging.getLogger(__name__)

_LOOKUPS_AT_START = 16


class IdlePeers:
    """Tells the peers in use from the idle ones, and lets go of these."""

    def __init__(
        self,
        sock: NetlinkSocket,
        finder: LeaseFinder,
        reconciler: Reconciler,
        ground: GroundKeeper,
        rng: random.Random,
        *,
        idle: float,
    ) -> None:
        """Prepare; a peer that nothing was sent to for `idle` seconds is idle."""
        self._sock = sock
        self._finder = finder
        self._reconciler = reconciler
        self._ground = ground
        self._rng = rng
        self._idle = idle

    async def wait(self) -> None:
        """Return when it is time for a look."""
        await asyncio.sleep(self._idle / 4)

    def evict(self) -> int:
        """Take peers away that are idle; return how many."""
        gone = self._find_idle(self._reconciler.leases.peers)
        for key in gone:
            self._finder.unfollow(key)
        if gone:
            self._reconciler.take_events([LeaseRemoved(key) for key in gone])
        return len(gone)

    def _find_idle(self, keys: Collection[str]) -> list[str]:
        """Return the leases of which all peers are idle; direct ones never are: no route tells when it was last used.

        A peer of a tunnel that is not there at present is not idle either.
        """
        idle = {
            (family, mac): seconds
            for family, device in self._ground.ground.devices.items()
            for mac, seconds in self._read_idle_times(device).items()
        }
        peers = self._reconciler.leases.peers
        return [
            key
            for key in keys
            if all(idle.get((peer.subnet.family, peer.vtep_mac), 0.0) >= self._idle for peer in peers[key])
        ]

    def _read_idle_times(self, device: int) -> dict[bytes, float]:
        try:
            return read_idle_times(self._sock, device)
        except KernelError as error:
            # As when the table changes during each of many reads: nobody goes by mistake, and the next look comes soon.
            log.debug("idle peers not told apart: reason=%s", error)
            return {}

    async def adopt(self, networks: Iterable[Prefix]) -> None:
        """Begin with the peers that the kernel holds from before and that are in use: their traffic goes on."""
        # What is programmed by misses from here on stands beside what is found.
        self._reconciler.take_events([LeaseSnapshot({}, {}, last=False)])
        subnets = await until_it_works("routes in use", lambda: self._read_subnets(networks), OSError, self._rng)
        leases = {}
        for start in range(0, len(subnets), _LOOKUPS_AT_START):
            part = subnets[start : start + _LOOKUPS_AT_START]
            for event in await asyncio.gather(*(self._find(subnet) for subnet in part)):
                if event is not None:
                    leases[event.key] = event.lease
        self._reconciler.take_events([LeaseSnapshot(leases, {}, first=False)])
        gone = self._find_idle(leases.keys() & self._reconciler.leases.peers.keys())
        self._reconciler.take_events([LeaseRemoved(key) for key in gone])
        for key in self._reconciler.leases.peers:
            self._finder.follow(key)

    async def _read_subnets(self, networks: Iterable[Prefix]) -> list[Prefix]:
        """Return where the routes lead that the kernel holds from before."""
        table: dict[tuple[object, ...], Entry] = {}
        for table in read_steps(self._sock, self._ground.scope, Kind.ROUTE):  # noqa: B007 - the last one is complete
            pass
        return [
            entry.dst
            for entry in table.values()
            if isinstance(entry, Route)
            and entry.type != UNREACHABLE
            and any(network.contains(entry.dst) and entry.dst != network for network in networks)
        ]

    async def _find(self, subnet: Prefix) -> LeasePut | None:
        """Find what a route leads to; a store that is away is waited for, for what is in use must not go."""
        miss = Miss(subnet.family, subnet.address)
        return await until_it_works("peers in use", lambda: self._finder.find_lease(miss), StoreError, self._rng)
