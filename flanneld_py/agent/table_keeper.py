"""Bringing the kernel's tables, and those of drivers, to what is wanted.

Owns what each table should hold as a sum, how a table is compared, and that nothing of former peers is pruned too
early. When any of this is done is decided in `reconciler.py`.
"""

from __future__ import annotations

import logging
import time
from contextlib import nullcontext
from typing import TYPE_CHECKING

from flanneld_py.agent.driven_tables import DrivenTables
from flanneld_py.agent.table_reader import TableReader
from flanneld_py.agent.table_sums import TableSums
from flanneld_py.agent.table_writer import TableWriter
from flanneld_py.core.entries import Kind
from flanneld_py.core.plan import TableDiff, order

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Sequence

    from flanneld_py.agent.drift import Drift
    from flanneld_py.agent.ground import GroundKeeper
    from flanneld_py.agent.wanted import EntryChange, Wanted
    from flanneld_py.backends.backend import EntrySource
    from flanneld_py.core.lease_table import LeaseTable
    from flanneld_py.core.plan import Operation
    from flanneld_py.kernel.netlink_socket import NetlinkSocket

log = logging.getLogger(__name__)


class TableKeeper:
    """Compares tables with what is wanted, and writes what differs.

    `kinds` are those of the tables that there are, `writer` is what has been written and refused.
    """

    def __init__(
        self,
        sock: NetlinkSocket,
        wanted: Wanted,
        *,
        leases: LeaseTable,
        ground: GroundKeeper,
        drift: Drift,
        notice: Callable[[], None],
        rng: random.Random,
    ) -> None:
        """Prepare; `notice` is called after each write, to read what the kernel tells of it."""
        self._wanted = wanted
        self._leases = leases
        self._ground = ground
        self._drift = drift
        self._driven = DrivenTables(())
        self._reader = TableReader(ground, self._driven)
        self._sums = TableSums()
        self.writer = TableWriter(sock, self._driven, notice, rng)
        self.take_sources(wanted.sources)

    def close(self) -> None:
        """Read no more."""
        self._reader.close()

    def take_sources(self, sources: Sequence[EntrySource]) -> None:
        """Go on with what these sources want, and with the tables of their drivers."""
        self._wanted.sources = sources
        self._driven.rebase(driver for source in sources for driver in source.drivers)
        self.kinds = [kind for kind in Kind if kind != Kind.DRIVEN or self._driven]

    def forget(self) -> None:
        """Take no table to be as it should until it was compared anew."""
        self._sums.forget()

    def write_ahead(self, change: EntryChange) -> bool:
        """Write a change at once, ahead of all else.

        Returns whether that is all: else some of it is to be tried again, or a table is doubtful. Raises OSError when
        none of it could be written.
        """
        try:
            return self.writer.apply_now(change.plan())
        finally:
            self._sums.change(change.before, change.after)

    async def is_as_wanted(self, kind: Kind) -> bool:
        """Compare a table's sum with what it was when the table was last compared, and has become by our changes."""
        return self._sums.is_as_told(kind, await self._reader.digest(kind))

    async def bring(self, kinds: Sequence[Kind]) -> set[Kind]:
        """Follow the leases that have changed, compare these tables whole, and try again what is due.

        Returns the tables that have to be compared once more. Raises OSError.
        """
        await self._follow_leases()
        unheard = await self._compare(kinds) if kinds else set()
        self.writer.begin_plan()
        await self.writer.apply(order(self.writer.retries.due(time.monotonic())))
        return unheard | self.writer.take_doubtful()

    async def _follow_leases(self) -> None:
        """Bring the kernel to what the leases that have changed say."""
        for change in self._wanted.take_changes():
            self.writer.begin_plan()
            await self.writer.apply(change.plan())
            self._sums.change(change.before, change.after)

    async def _compare(self, kinds: Sequence[Kind]) -> set[Kind]:
        """Read tables, and apply how they differ from what they should be; return those that others changed unheard.

        One table after the other, so that only one is in memory at a time; those of a new device are empty, and all
        are written in one go.
        """
        is_new = self._ground.device_is_new
        deletes: list[Operation] = []
        # All of this at once: what is written ahead from here on, and may be refused, is in no plan of this pass.
        self.writer.begin_plan()
        self.writer.retries.forget(kinds)
        tell_whole = self._wanted.whole()
        self._sums.begin(kinds)
        with self._drift.overlooking_fdb() if is_new else nullcontext():
            for group in [kinds] if is_new else [[kind] for kind in kinds]:
                diff = TableDiff({kind: await self._reader.read(kind) for kind in group})
                for wanted in tell_whole():
                    await self.writer.apply(order(diff.replaces(wanted)))
                self._sums.add(diff.sums)
                deletes += diff.deletes()
        unheard = {Kind.FDB} if is_new and not await self.is_as_wanted(Kind.FDB) else set()
        if time.monotonic() >= self._leases.prune_after:
            await self.writer.apply(order(deletes))
        elif deletes:
            # The sums are not as wanted, so these are found again by the next resync.
            log.warning("store has no leases of others: entries of former peers stay for now: count=%d", len(deletes))
        self._ground.device_is_new = False
        return unheard
