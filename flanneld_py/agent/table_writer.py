"""Writing operations to the kernel, or to their driver, in small batches, between which the event loop runs.

Owns what has failed and when it is tried again, and which of the kernel's notifications our own operations cause.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import defaultdict
from dataclasses import dataclass, field
from itertools import groupby
from typing import TYPE_CHECKING

from flanneld_py.agent.driven_tables import table_of
from flanneld_py.core.entries import FdbEntry, describe_entry, entry_key
from flanneld_py.core.histogram import Histogram
from flanneld_py.core.retries import RetryQueue
from flanneld_py.kernel.dataplane import apply_batch
from flanneld_py.kernel.ndmsg import RTM_DELNEIGH, RTM_NEWNEIGH

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from flanneld_py.agent.driven_tables import DrivenTables
    from flanneld_py.core.entries import Key, Kind
    from flanneld_py.core.plan import Operation
    from flanneld_py.core.retries import Failure
    from flanneld_py.kernel.netlink_socket import NetlinkSocket

log = logging.getLogger(__name__)

_BATCH_SIZES = (10, 40, 320)
"""Operations in one system call: at least, to begin with, and at most."""
_BATCH_SECONDS = (0.001, 0.004)
"""How long a system call may block the event loop: it takes more operations below this, and fewer above."""


@dataclass(slots=True)
class ReconcileCounts:
    """What has been done since the start.

    `errors` counts by errno what the kernel refused, `durations` times the passes that got to their end.
    """

    passes: int = 0
    operations: int = 0
    errors: defaultdict[int, int] = field(default_factory=lambda: defaultdict(int))
    durations: Histogram = field(default_factory=Histogram)


class TableWriter:
    """Applies operations; what the kernel refuses waits in `retries` for a try of its own."""

    def __init__(
        self, sock: NetlinkSocket, driven: DrivenTables, notice: Callable[[], None], rng: random.Random
    ) -> None:
        """Prepare; `notice` is called after each batch, while `own_fdb` names the forwarding entries in it."""
        self._sock = sock
        self._driven = driven
        self._notice = notice
        self._rng = rng
        self._size = _BATCH_SIZES[1]
        self.retries = RetryQueue()
        self.counts = ReconcileCounts()
        self.own_fdb: set[tuple[int, FdbEntry]] = set()
        self._doubtful: set[Kind] = set()
        self._written_ahead: dict[tuple[Kind, Key], Operation] = {}

    def take_doubtful(self) -> set[Kind]:
        """Return the tables that may hold more than was written, since the last call."""
        doubtful, self._doubtful = self._doubtful, set()
        return doubtful

    def begin_plan(self) -> None:
        """Take note that what is applied from now on is planned by what has been written so far."""
        self._written_ahead.clear()

    async def apply(self, operations: Sequence[Operation]) -> None:
        """Apply operations in their order. What fails does not stop the others.

        Objects that were written ahead since the plan began are left as they are.
        """
        for table, run in self._runs(operations):
            start = 0
            while start < len(run):
                size = self._driven.batch_size(table) if table else self._size
                batch = run[start : start + size]
                start += size
                if self._written_ahead:
                    batch = self._without_outdated(batch)
                self._apply_batch(table, batch)
                await asyncio.sleep(0)

    def _without_outdated(self, batch: Sequence[Operation]) -> Sequence[Operation]:
        kept: list[Operation] = []
        for one in batch:
            latest = self._written_ahead.get((one.kind, entry_key(one.entry)))
            if latest is None:
                kept.append(one)
            elif latest.delete and latest != one:
                # A delete does not find what has another protocol; it may be that which this operation is against.
                self._doubtful.add(one.kind)
        return kept

    def apply_now(self, operations: Sequence[Operation]) -> bool:
        """Apply a few operations at once, ahead of the plan under way.

        Returns whether that is all: else some are to be tried again, or a table is doubtful.
        """
        self._written_ahead.update(((one.kind, entry_key(one.entry)), one) for one in operations)
        done = [self._apply_batch(table, run) for table, run in self._runs(operations)]
        return all(done)

    def _runs(self, operations: Sequence[Operation]) -> Iterator[tuple[str, Sequence[Operation]]]:
        """Cut operations where the next one is written by somebody else; the kernel's own tables have no name."""
        if not self._driven:
            yield "", operations
            return
        for table, run in groupby(operations, table_of):
            yield table, list(run)

    def _apply_batch(self, table: str, batch: Sequence[Operation]) -> bool:
        failed = self._driven.apply(table, batch) if table else self._apply_to_kernel(batch)
        self.counts.operations += len(batch)
        doubtful = self.retries.settle(operation for index, operation in enumerate(batch) if index not in failed)
        self._doubtful |= doubtful
        self._note_failures(self._record(batch[index], *why) for index, why in failed.items())
        if not table:
            # Not earlier: what is noticed may have us write the same objects anew, and fail.
            self._notice_own(batch)
        return not failed and not doubtful

    def _apply_to_kernel(self, batch: Sequence[Operation]) -> Mapping[int, tuple[int, str]]:
        began = time.monotonic()
        failed = apply_batch(self._sock, batch)
        self._pace(len(batch), time.monotonic() - began)
        return failed

    def _notice_own(self, batch: Sequence[Operation]) -> None:
        # One of these calls may come inside another.
        before = self.own_fdb
        self.own_fdb = before | {
            (RTM_DELNEIGH if operation.delete else RTM_NEWNEIGH, operation.entry)
            for operation in batch
            if isinstance(operation.entry, FdbEntry)
        }
        self._notice()
        self.own_fdb = before

    def _pace(self, count: int, seconds: float) -> None:
        """Choose the next batch's size: what an operation takes depends on the kernel, and on how full a table is."""
        smallest, _, largest = _BATCH_SIZES
        short, long = _BATCH_SECONDS
        if seconds > long:
            self._size = max(self._size // 2, smallest)
        elif seconds < short and count >= self._size:
            self._size = min(self._size * 2, largest)

    def note_failure(self, operation: Operation, errno: int, reason: str) -> None:
        """Have an operation tried again that failed."""
        self._note_failures((self._record(operation, errno, reason),))

    def _record(self, operation: Operation, errno: int, reason: str) -> Failure:
        self.counts.errors[errno] += 1
        return self.retries.record(operation, errno, reason, time.monotonic(), self._rng.random())

    def _note_failures(self, failures: Iterable[Failure]) -> None:
        """Name the first of those that have failed for the first time: the others of a batch mostly have its reason."""
        new = [failure for failure in failures if failure.attempts == 1]
        if new:
            operation, _, _, errno, reason = new[0]
            who = table_of(operation) or "kernel"
            verb, what = "delete" if operation.delete else "write", describe_entry(operation.entry)
            more = f", and {len(new) - 1:,} more" if new[1:] else ""
            log.warning("%s refused to %s %s%s: %s (errno %d); trying again", who, verb, what, more, reason, errno)
