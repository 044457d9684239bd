"""The reconciler: the one task that changes the kernel's tables.

Leases and notifications only mark what may be wrong; this task decides when which table is looked at, and how often
the ground below them is mended. How a table is compared and written is in `table_keeper.py`; what should be there is
decided in `wanted.py`; who else changes it is told by `drift.py`. Nothing is pruned before the first complete snapshot
of the leases has come.
"""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from flanneld_py.agent.drift import Drift
from flanneld_py.agent.skipped_log import log_skipped
from flanneld_py.agent.table_keeper import TableKeeper
from flanneld_py.agent.wanted import EntryChange, Wanted
from flanneld_py.core.peer import OWN_MAC
from flanneld_py.kernel.monitor import Change

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterable, Sequence

    from flanneld_py.agent.drift import MissAnswerer
    from flanneld_py.agent.ground import GroundKeeper
    from flanneld_py.backends.backend import EntrySource
    from flanneld_py.core.entries import Entry
    from flanneld_py.core.lease_event import LeaseEvent, LeasePut
    from flanneld_py.core.lease_table import LeaseTable
    from flanneld_py.core.peer import Peer
    from flanneld_py.core.plan import Operation
    from flanneld_py.kernel.netlink_socket import NetlinkSocket

log = logging.getLogger(__name__)

_DEVICE_TRIES = 3
"""How often a device is mended at a stretch; somebody who undoes it each time is answered at the next pass."""
_PAUSE = 1.0
"""Seconds until everything is tried again after the kernel refused a device or the reading of a table."""


class Reconciler:
    """Keeps the kernel's tables as the leases say they should be.

    `grounded` is set once our devices are there, `synced` once everything that was wanted has been tried,
    `underlay_changed` whenever something was told of the host's own network, and `identity_taken` when another node's
    lease came that has our VTEP's MAC, both for whoever clears them; `busy_since` is when the pass that runs now began,
    on the monotonic clock, None between passes; `broken_off` is why the last pass did not come to its end, empty if it
    did.
    """

    def __init__(
        self,
        sock: NetlinkSocket,
        sources: Sequence[EntrySource],
        keeper: GroundKeeper,
        leases: LeaseTable,
        *,
        resync_interval: float,
        rng: random.Random,
        on_demand: MissAnswerer | None = None,
    ) -> None:
        """Prepare; the tables are compared with what `sources` want at least each `resync_interval` seconds.

        `on_demand` is handed what the kernel asks for.
        """
        self._keeper = keeper
        self._wanted = Wanted(sources, keeper, leases, on_demand.standing if on_demand else None)
        self._resync_interval = resync_interval
        self._dirty: set[Change] = {Change.DEVICE, Change.UNDERLAY}
        self._wake = asyncio.Event()
        self._rebased = asyncio.Event()
        self._next_resync = time.monotonic() + resync_interval
        self.drift = Drift(sock.port, keeper, on_demand)
        self._tables = TableKeeper(
            sock, self._wanted, leases=leases, ground=keeper, drift=self.drift, notice=self._notice, rng=rng
        )
        self.leases = leases
        self.unreachable = self._wanted.unreachable
        self.retries = self._tables.writer.retries
        self.counts = self._tables.writer.counts
        self.grounded = asyncio.Event()
        self.synced = asyncio.Event()
        self.underlay_changed = asyncio.Event()
        self.identity_taken = asyncio.Event()
        self._followers: list[asyncio.Event] = []
        self.busy_since: float | None = None
        self.broken_off = ""

    @property
    def _all_tables(self) -> set[Change]:
        return {Change(kind) for kind in self._tables.kinds}

    def _mark(self, changes: Iterable[Change]) -> None:
        """Have these looked at by a pass that begins as soon as it can."""
        self._dirty.update(changes)
        self._wake.set()

    def rebase(self, former: EntrySource, source: EntrySource) -> None:
        """Go on with another source in the place of a former one; all is compared with what it wants."""
        self._tables.take_sources([source if one is former else one for one in self._wanted.sources])
        self._rebased.set()
        self._mark({*self._all_tables, Change.DEVICE, Change.UNDERLAY})

    def take_events(self, events: Sequence[LeaseEvent]) -> None:
        """Take over what the store says of the leases; the kernel follows in the reconciler's task."""
        was_complete = self.leases.complete
        self._wanted.note(self._apply(events))
        if not self.leases.complete:
            # The first snapshot comes in many parts, and is one line in the log.
            return
        news = self.leases.take_news()
        log_skipped(news)
        if self.leases.is_refused_as(OWN_MAC, news):
            self.identity_taken.set()
        if not was_complete:
            self._dirty |= self._all_tables
        self._wake.set()

    def _apply(self, events: Sequence[LeaseEvent]) -> dict[str, tuple[Peer, ...]]:
        followed_underlay = self._keeper.follows_underlay
        former = self.leases.apply(events, time.monotonic())
        if self._keeper.follows_underlay and not followed_underlay:
            self._mark({Change.UNDERLAY})
        return former

    def program(self, event: LeasePut, before: Callable[[tuple[Peer, ...]], None]) -> tuple[Peer, ...]:
        """Take over one lease and write its peers' entries at once, ahead of all else; return its peers.

        `before` is called with them before anything is written.
        """
        formers = self._apply((event,))
        peers = self.leases.peers.get(event.key, ())
        try:
            before(peers)
        finally:
            self._write_ahead(self._wanted.take_change_of(formers))
        return peers

    def change_standing(self, before: list[Entry], after: list[Entry]) -> None:
        """Write at once how the entries that belong to no peer have changed."""
        self._write_ahead(EntryChange(before, after))

    def _write_ahead(self, change: EntryChange) -> None:
        try:
            if not self._tables.write_ahead(change):
                # Whoever sleeps knows of nothing that is to be tried again.
                self._wake.set()
        except OSError as error:
            log.warning("not written at once: reason=%s", error)
            self._mark(self._all_tables)

    def desired(self, peers: Iterable[Peer]) -> list[Entry]:
        """Return the entries that lead to peers."""
        return self._wanted.desired(peers)

    def refused(self, operation: Operation, errno: int, reason: str) -> None:
        """Have an operation tried again that a driver had begun and that has failed since."""
        self._tables.writer.note_failure(operation, errno, reason)
        self._wake.set()

    def doubt(self) -> None:
        """Have the tables of all drivers read again."""
        self._mark({Change.DRIVEN})

    async def followed(self) -> None:
        """Return once all that is wanted now, by a complete snapshot of the leases, has been tried."""
        done = asyncio.Event()
        self._followers.append(done)
        self._wake.set()
        await done.wait()

    async def run(self) -> None:
        """Reconcile until cancelled."""
        loop = asyncio.get_running_loop()
        loop.add_reader(self.drift.fileno(), self._notice)
        try:
            while True:
                await self.drift.hold_back()
                self._wake.clear()
                self._rebased.clear()
                self.busy_since = began = time.monotonic()
                try:
                    await self._reconcile()
                except OSError as error:
                    await self._start_over(error)
                else:
                    self.counts.durations.observe(time.monotonic() - began)
                    self.busy_since = None
                    self._note_success()
                    await self._sleep()
        finally:
            loop.remove_reader(self.drift.fileno())
            self.drift.close()
            self._tables.close()

    async def _start_over(self, error: OSError) -> None:
        """Have everything done anew after a pause; what comes meanwhile waits, for there may be no device for it."""
        # What failed is no single entry: the device cannot be made, or a table cannot be read.
        if str(error) != self.broken_off:
            log.error("reconcile broken off: %s; tried again every %.0f s", error, _PAUSE)
        self.broken_off = str(error)
        self.counts.errors[error.errno or 0] += 1
        self._next_resync = 0.0
        self._tables.forget()
        self.busy_since = None
        # Another source may want what the kernel does not refuse, as after the uplink was replaced.
        with suppress(TimeoutError):
            async with asyncio.timeout(_PAUSE):
                await self._rebased.wait()

    def _note_success(self) -> None:
        if self.broken_off:
            log.info("reconcile goes on: what broke it off is over")
        self.broken_off = ""

    def _notice(self) -> None:
        changes = self.drift.read(self._tables.writer.own_fdb)
        if changes:
            self._mark(changes)
            self.drift.count(changes)
            if Change.UNDERLAY in changes:
                self.underlay_changed.set()

    async def _sleep(self) -> None:
        due = (self._next_resync, self.retries.next_due(), self.leases.next_expiry())
        until = min(when for when in due if when is not None)
        try:
            async with asyncio.timeout(max(0.0, until - time.monotonic())):
                await self._wake.wait()
        except TimeoutError:
            return

    async def _reconcile(self) -> None:
        self.counts.passes += 1
        followers = list(self._followers)
        dirty, self._dirty = self._dirty, set()
        now = time.monotonic()
        is_resync = now >= self._next_resync
        if is_resync:
            self._next_resync = now + self._resync_interval
        dirty = self._mend_ground(dirty, is_resync=is_resync)
        if not self.leases.complete:
            return
        self._wanted.note(self.leases.expire(now))
        if is_resync:
            unread = [kind for kind in self._tables.kinds if Change(kind) not in dirty]
            dirty |= {Change(kind) for kind in unread if not await self._tables.is_as_wanted(kind)}
        kinds = [kind for kind in self._tables.kinds if Change(kind) in dirty]
        if len(kinds) == len(self._tables.kinds):
            # All tables are about to be compared with the leases as they are now.
            self._wanted.forget_changes()
        doubtful = {Change(kind) for kind in await self._tables.bring(kinds)}
        if doubtful:
            self._mark(doubtful)
        self.synced.set()
        for done in followers:
            self._followers.remove(done)
            done.set()

    def _mend_ground(self, dirty: set[Change], *, is_resync: bool) -> set[Change]:
        """Mend the devices and look at the underlay; return what is to be compared after that."""
        # A device that goes takes its entries along, which is told first: all that is written to it before it is made
        # anew would be refused.
        if is_resync or Change.DEVICE in dirty or dirty & self._all_tables:
            # A device that went down and came up again has lost its routes, though nothing is wrong with it now.
            doubtful = self._mend_devices() or Change.DEVICE in dirty
            self.grounded.set()
            # What was told meanwhile, most of it about our own mending, belongs to this pass.
            dirty |= self._dirty | (self._all_tables if doubtful else frozenset())
            self._dirty &= {Change.DEVICE}
        if (is_resync or Change.UNDERLAY in dirty) and self._keeper.look_at_underlay():
            dirty |= self._all_tables
        return dirty

    def _mend_devices(self) -> bool:
        # What we change here is told to us as well; so once more after that has been read, until all is as it should.
        for tries in range(_DEVICE_TRIES):
            if not self._keeper.mend_devices():
                return tries > 0
            changes = self.drift.read(self._tables.writer.own_fdb) - {Change.DEVICE}
            if Change.UNDERLAY in changes:
                self.underlay_changed.set()
            self._dirty |= changes
        # Whether it has been undone once more was not looked at.
        self._mark({Change.DEVICE})
        self.drift.count({Change.DEVICE})
        return True
