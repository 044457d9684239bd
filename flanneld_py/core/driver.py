"""A table that is no part of rtnetlink, as the reconciler sees it: read it, apply operations to it.

WireGuard's peers, the members of a packet filter's set, the peers that a command was run for: whatever holds one entry
a peer. What should be in it is computed, compared, ordered, tried again and healed like the kernel's own tables.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from flanneld_py.core.entries import DrivenEntry

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from flanneld_py.core.plan import Operation


class TableDriver(Protocol):
    """Keeps one table; its entries are written before everything else that leads to a peer, and deleted after it."""

    @property
    def table(self) -> str:
        """The name that its entries carry as `DrivenEntry.table`."""
        ...

    @property
    def batch(self) -> int:
        """How many operations at once block the event loop for about a millisecond."""
        ...

    def read(self) -> Iterable[DrivenEntry]:
        """Return what the table holds of ours: what is not wanted of it will be deleted. Raises OSError.

        What is many is read as it is asked for, and operations may be applied meanwhile.
        """
        ...

    def apply(self, operations: Sequence[Operation]) -> Mapping[int, tuple[int, str]]:
        """Carry out operations in their order; return errno and reason of each that failed, by its index.

        Replacing what is there and deleting what is absent succeed. What takes longer than a few milliseconds is only
        begun; if it fails after all, `Feedback.refused` is told.
        """
        ...


class Feedback(Protocol):
    """What a driver tells the reconciler unasked; called in the event loop's thread."""

    def refused(self, operation: Operation, errno: int, reason: str) -> None:
        """Note that an operation that was begun has failed: it is tried again with growing pauses."""
        ...

    def doubt(self) -> None:
        """Have the tables of all drivers read again: somebody else may have changed one."""
        ...

    async def followed(self) -> None:
        """Return once all that is wanted now, by a complete snapshot of the leases, has been tried."""
        ...


def driven_entry(operation: Operation) -> DrivenEntry:
    """Return what an operation that a driver was given is about."""
    if not isinstance(operation.entry, DrivenEntry):
        raise TypeError(f"{operation.entry} is the kernel's")
    return operation.entry
