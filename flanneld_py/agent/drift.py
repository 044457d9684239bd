"""What others change under us in the kernel: which tables to read again, and who it is that keeps changing them.

Owns the reading of the kernel's notifications, among them what the kernel asks for, and the patience with whoever
undoes our work again and again.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Protocol

from flanneld_py.core.rivalry import Rivalry
from flanneld_py.kernel.monitor import Change, Monitor, describe_port

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractContextManager

    from flanneld_py.agent.ground import GroundKeeper
    from flanneld_py.backends.backend import Ground
    from flanneld_py.core.entries import Entry, FdbEntry
    from flanneld_py.core.misses import Miss

log = logging.getLogger(__name__)


class MissAnswerer(Protocol):
    """What answers the kernel's misses, and has entries of its own that belong to no peer."""

    def standing(self, ground: Ground) -> Sequence[Entry]:
        """Return the entries that belong to no peer."""
        ...

    def take_misses(self, misses: list[Miss]) -> None:
        """Take what the kernel asks for; never wait."""
        ...

    def take_unanswered_misses(self) -> None:
        """Ask the kernel what it has asked for and was not told, because the question got lost; never wait."""
        ...


class Drift:
    """The kernel's notifications, and whether they tell of changes that are not ours; `counts` has these by table."""

    def __init__(self, own_port: int, keeper: GroundKeeper, on_demand: MissAnswerer | None) -> None:
        """Listen, but to what the netlink port `own_port` changed; hand `on_demand` what the kernel asks for."""
        self._monitor = Monitor(own_port)
        self._keeper = keeper
        self._on_demand = on_demand
        self._rivalry = Rivalry()
        self._is_unanswered = False
        self.counts: dict[str, int] = {}
        self._rival = ""

    @property
    def rival(self) -> str:
        """Who keeps changing what is ours, in one line; empty if nobody does, or does any more."""
        return self._rival if self._rivalry.is_on(time.monotonic()) else ""

    def fileno(self) -> int:
        """Return the descriptor to wait on."""
        return self._monitor.fileno()

    def close(self) -> None:
        """Stop listening."""
        self._monitor.close()

    def overlooking_fdb(self) -> AbstractContextManager[None]:
        """Hear of no new forwarding entries meanwhile: whoever writes very many looks at the table afterwards."""
        return self._monitor.overlooking_fdb()

    def read(self, own_fdb: set[tuple[int, FdbEntry]]) -> set[Change]:
        """Read all notifications, and hand over the misses among them while others are still to be read.

        `own_fdb` are message types and forwarding entries of our own latest operations, of which nobody is named.
        """
        changes: set[Change] = set()
        while True:
            changes |= self._monitor.read_changes(self._keeper.scope, own_fdb)
            self._hand_over_misses()
            if self._monitor.is_drained:
                return changes

    def _hand_over_misses(self) -> None:
        misses = self._monitor.take_misses()
        if self._on_demand is None:
            return
        if misses:
            self._on_demand.take_misses(misses)
        if self._monitor.take_lost_misses():
            self._on_demand.take_unanswered_misses()

    def count(self, changes: set[Change]) -> None:
        """Take note of changes that others have made, and that we are about to answer."""
        self._is_unanswered |= changes != {Change.UNDERLAY}
        for change in changes:
            name = change.name.lower()
            self.counts[name] = self.counts.get(name, 0) + 1

    async def hold_back(self) -> None:
        """Answer somebody who keeps undoing our work no more than once a second, and say who it may be."""
        if not self._is_unanswered:
            return
        pause = self._rivalry.pause(time.monotonic())
        if pause:
            self._tell_of_rival()
            await asyncio.sleep(pause)
        else:
            self._rival = ""
        self._is_unanswered = False
        self._rivalry.answer(time.monotonic())

    def _tell_of_rival(self) -> None:
        if not self._rival:
            self._rival = f"{describe_port(self._monitor.stranger)} keeps changing what is ours in the kernel"
            log.error("%s: is another flanneld running here? It is answered once a second", self._rival)
