"""What each table should hold, as one number: the sum of the hashes of its entries.

A table whose own sum is the same needs no comparison object by object. Entries come and go one by one, and the sum
with them; of a table that has never been compared there is none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from flanneld_py.core.entries import entry_kind

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from flanneld_py.core.entries import Entry, Kind


class TableSums:
    """The sums by table."""

    def __init__(self) -> None:
        self._sums: dict[Kind, int] = {}

    def begin(self, kinds: Iterable[Kind]) -> None:
        """Begin anew for these tables: what they should hold is about to be told from the first entry to the last."""
        self._sums.update(dict.fromkeys(kinds, 0))

    def forget(self) -> None:
        """Know nothing of any table."""
        self._sums.clear()

    def add(self, sums: Mapping[Kind, int]) -> None:
        """Add sums that were taken elsewhere."""
        for kind, part in sums.items():
            self._sums[kind] += part

    def change(self, before: Iterable[Entry], after: Iterable[Entry]) -> None:
        """Take note that tables should hold other entries than before."""
        for entries, sign in ((before, -1), (after, 1)):
            for entry in entries:
                kind = entry_kind(entry)
                if kind in self._sums:
                    self._sums[kind] += sign * hash(entry)

    def is_as_told(self, kind: Kind, held: int | None) -> bool:
        """Say whether a table that holds entries of this sum is as it should be; None where that cannot be told."""
        return self._sums.get(kind) == held
