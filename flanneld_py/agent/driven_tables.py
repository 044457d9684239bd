"""The tables that are read and written by drivers of their own, side by side as one.

Owns that a driver which fails as a whole holds up nothing else: what it cannot read counts as empty, so all that is
wanted in it is written again; what it cannot write is refused entry by entry.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from flanneld_py.core.entries import DrivenEntry, entry_key

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from flanneld_py.core.driver import TableDriver
    from flanneld_py.core.entries import Entry, Key
    from flanneld_py.core.plan import Operation

log = logging.getLogger(__name__)


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

    def read(self) -> dict[Key, Entry]:
        """Return what the tables hold, those left out that cannot be read now."""
        return {entry_key(entry): entry for driver in self._drivers.values() for entry in self._read(driver)}

    def digest(self) -> int | None:
        """Return the sum of the hashes of all entries; None if a table cannot be read."""
        digest = sum(hash(entry) for driver in self._drivers.values() for entry in self._read(driver))
        return None if self._unread else digest

    def _read(self, driver: TableDriver) -> Iterable[DrivenEntry]:
        try:
            entries = driver.read()
        except OSError as error:
            if self._unread.get(driver.table) != str(error):
                self._unread[driver.table] = str(error)
                log.warning("table not read: table=%s reason=%s", driver.table, error)
            return ()
        self._unread.pop(driver.table, None)
        return entries

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
