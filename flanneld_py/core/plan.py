"""The difference between what the kernel holds and what it should hold, as ordered operations."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from flanneld_py.core.entries import Entry, Key, Kind, entry_key, entry_kind

if TYPE_CHECKING:
    from collections.abc import Iterable

Table = dict[Key, Entry]
"""Objects of one kind by the kernel's identity."""


class Operation(NamedTuple):
    """One replace (make or change) or one delete."""

    kind: Kind
    delete: bool
    entry: Entry


class TableDiff:
    """The difference between tables as they are and what they should hold, fed piece by piece.

    What should be there is told in any number of pieces; at the end, what was never told is superfluous. So never
    more than the tables as they are is in memory, and they shrink on the way. An entry that is told twice is written
    once more: harmless, and rarer than what it would cost to remember all that was told.
    """

    def __init__(self, have: dict[Kind, Table]) -> None:
        """Take over the tables, all of these kinds; they are used up."""
        self._have = have
        self.sums = dict.fromkeys(have, 0)
        """By kind the sum of the hashes of all that should be there, as far as it was told."""

    def replaces(self, wanted: Iterable[Entry]) -> list[Operation]:
        """Return what must be made or changed of these entries; those of other kinds are passed over."""
        operations: list[Operation] = []
        have, sums = self._have, self.sums
        for entry in wanted:
            kind = entry_kind(entry)
            table = have.get(kind)
            if table is None:
                continue
            sums[kind] += hash(entry)
            if not table or table.pop(entry_key(entry), None) != entry:
                operations.append(Operation(kind, False, entry))
        return operations

    def deletes(self) -> list[Operation]:
        """Return what must be taken away, now that all that should be there has been told."""
        return [Operation(kind, True, entry) for kind, table in self._have.items() for entry in table.values()]


def order(operations: Iterable[Operation]) -> list[Operation]:
    """Put operations into the order in which no packet is lost that could be carried.

    First everything is made, what others need before what needs it; then everything superfluous is taken away, the
    other way round.
    """
    return sorted(operations, key=_rank)


def _rank(operation: Operation) -> int:
    return len(Kind) * 2 - operation.kind if operation.delete else operation.kind


def plan_change(former: Iterable[Entry], current: Iterable[Entry]) -> list[Operation]:
    """Return the ordered operations that turn one set of entries, of all kinds, into another.

    Of several entries with one key the last counts.
    """
    have: dict[Kind, Table] = {kind: {} for kind in Kind}
    for entry in former:
        have[entry_kind(entry)][entry_key(entry)] = entry
    wanted = {(entry_kind(entry), entry_key(entry)): entry for entry in current}
    diff = TableDiff(have)
    return order([*diff.replaces(wanted.values()), *diff.deletes()])
