"""The tables that are read and written by drivers of their own, side by side as one.

Owns that a driver which fails as a whole holds up nothing else: what it cannot read counts as empty, so all that is
wanted in it is written again; what it cannot write is refused entry by entry.
"""

from __future__ import annotations

import logging
from itertools import islice
from typing import TYPE_CHECKING

from flanneld_py.core.entries import DrivenEntry

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from flanneld_py.core.driver import TableDriver
    from flanneld_py.core.plan import Operation

log = logging.getLogger(__name__)

_READ_AT_ONCE = 1000
"""Entries read before others may run: some milliseconds."""


class DrivenTables:
    """The drivers by the names of their tables."""

    def __init__(self, drivers: Iterable[TableDriver]) -> None:
        self._unread: dict[str, str] = {}
        self.rebase(drivers)

    def rebase(self, drivers: Iterable[TableDriver]) -> None:
        """Go on with these drivers."""
        self._drivers = {driver.table: driver for driver in drivers}

    def __bool__(self) -> bool:
        return bool(self._drivers)

    def read_steps(self) -> Iterator[Sequence[DrivenEntry]]:
        """Yield what the tables hold in pieces, between which others may run; what cannot be read now is left out."""
        for driver in self._drivers.values():
            yield from self._read_steps(driver)

    @property
    def is_readable(self) -> bool:
        """Whether all tables could be read when they were last read."""
        return not self._unread

    def _read_steps(self, driver: TableDriver) -> Iterator[Sequence[DrivenEntry]]:
        try:
            entries = iter(driver.read())
            while piece := list(islice(entries, _READ_AT_ONCE)):
                yield piece
        except OSError as error:
            if self._unread.get(driver.table) != str(error):
                self._unread[driver.table] = str(error)
                log.warning("table not read: table=%s reason=%s", driver.table, error)
        else:
            self._unread.pop(driver.table, None)

    def batch_size(self, table: str) -> int:
        """Return how many operations on a table go at once."""
        return self._drivers[table].batch

    def apply(self, table: str, operations: Sequence[Operation]) -> Mapping[int, tuple[int, str]]:
        """Carry out operations on one table; return errno and reason of each that failed, by its index."""
        try:
            return self._drivers[table].apply(operations)
        except OSError as error:
            reason = error.strerror or str(error)
            return dict.fromkeys(range(len(operations)), (error.errno or 0, reason))


def table_of(operation: Operation) -> str:
    """Return the name of the table that a driver keeps; empty for the kernel's own tables."""
    entry = operation.entry
    return entry.table if isinstance(entry, DrivenEntry) else ""
