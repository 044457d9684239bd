"""The addresses that the kernel has asked for, as it counts them itself: no more than there is room for.

Owns when an address makes room for another. The count holds without the daemon, so it also holds while that gets no
CPU: then the kernel refuses what is beyond. Only who answers misses imports what it takes.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from flanneld_py.core.errors import KernelError
from flanneld_py.core.misses import MOST_ASKED, MOST_WAITING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from flanneld_py.core.misses import Miss
    from flanneld_py.core.prefix import Prefix
    from flanneld_py.kernel.miss_limit import MissLimit
    from flanneld_py.kernel.nft_monitor import NftMonitor

log = logging.getLogger(__name__)

_TOGETHER = MOST_ASKED - MOST_WAITING
"""Addresses that are taken out at once: as many as leave room for those that may wait."""
_LOOK_EVERY = 2.0
"""Seconds between looks for addresses that nobody will answer, as of packets that another filter has dropped since."""


class AskedAddresses:
    """Takes addresses out of the kernel's count once they are answered; does nothing where there is no such count."""

    def __init__(self, network: Prefix) -> None:
        """Prepare for the addresses of a network."""
        self._network = network
        self._limit: MissLimit | None = None
        self._done: set[int] = set()
        self._is_doubtful = False
        self._is_limit_doubtful = True

    def begin(self, device: str) -> int:
        """Have the kernel count what it asks for about a device; return the realm that the catch-all route needs."""
        from flanneld_py.kernel.miss_limit import REALMS, MissLimit

        limit = None
        try:
            limit = MissLimit(device, self._network)
            limit.ensure()
        except OSError as error:
            if limit is not None:
                limit.close()
            log.warning("bursts of new addresses are not limited while the daemon waits for a CPU: reason=%s", error)
            return 0
        self._limit = limit
        return REALMS[self._network.family]

    def note_asked(self, miss: Miss) -> None:
        """Count an address until it is done."""
        self._done.discard(miss.address)

    def note_done(self, misses: Iterable[Miss]) -> None:
        """Count these no more: they have no unresolved neighbour now."""
        if self._limit is None:
            return
        self._done.update(miss.address for miss in misses)
        if len(self._done) >= _TOGETHER:
            done, self._done = self._done, set()
            self._take_out(self._limit, done)

    def doubt(self) -> None:
        """Have looked for unanswered addresses even if none is counted: the kernel did not take an answer."""
        self._is_doubtful = True

    def _take_out(self, limit: MissLimit, addresses: set[int]) -> None:
        try:
            limit.take_out(addresses)
        except KernelError:
            # Some were asked for before there was a count, or others have emptied it.
            self._take_out_present(limit, addresses)

    def _take_out_present(self, limit: MissLimit, addresses: set[int]) -> None:
        try:
            present = addresses & limit.read()
            if present:
                limit.take_out(present)
        except KernelError as error:
            log.debug("addresses stay counted for now: reason=%s", error)

    async def keep(self, take_unanswered: Callable[[], Iterable[Miss]]) -> None:
        """Keep the count, and have it right, until cancelled.

        `take_unanswered` has all answered that is not, and returns it; it may raise KernelError.
        """
        from flanneld_py.kernel.nft_monitor import NftMonitor

        limit = self._limit
        if limit is None:
            return
        monitor = NftMonitor(frozenset({limit.table}), limit.port)
        loop = asyncio.get_running_loop()
        loop.add_reader(monitor.fileno(), self._restore, limit, monitor)
        try:
            # Of what was done to it before, the monitor does not tell.
            self._restore(limit, monitor)
            while True:
                await asyncio.sleep(_LOOK_EVERY)
                if self._is_limit_doubtful:
                    self._restore(limit, monitor)
                self._look(limit, take_unanswered)
        finally:
            loop.remove_reader(monitor.fileno())
            monitor.close()
            limit.close()

    def _restore(self, limit: MissLimit, monitor: NftMonitor) -> None:
        """Have the limit as it should be if others may have changed it; what fails is tried again at the next look."""
        try:
            self._is_limit_doubtful |= bool(monitor.read_changed())
            if self._is_limit_doubtful and limit.ensure():
                log.info("limit of what the kernel asks for restored: table=%s", limit.table)
            self._is_limit_doubtful = False
        except OSError as error:
            log.warning("limit of what the kernel asks for not restored: reason=%s", error)

    def _look(self, limit: MissLimit, take_unanswered: Callable[[], Iterable[Miss]]) -> None:
        was_doubtful, self._is_doubtful = self._is_doubtful, False
        try:
            asked = limit.read()
            if not asked and not was_doubtful:
                return
            # An address is counted before its neighbour is made: what is not unanswered now will never be.
            over = asked.difference(miss.address for miss in take_unanswered())
        except KernelError as error:
            log.debug("addresses asked for not looked at: reason=%s", error)
            self._is_doubtful |= was_doubtful
            return
        self._done -= over
        if over:
            self._take_out(limit, over)
