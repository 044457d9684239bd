"""The routes of on-demand operation that belong to no peer: the catch-all one, and those to what nobody leases.

Owns when the kernel may ask for new addresses at all, and until when a subnet is nobody's.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from flanneld_py.core.entries import UNREACHABLE, Route
from flanneld_py.kernel.route import default_metric

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from flanneld_py.core.entries import Entry
    from flanneld_py.core.misses import MissTable
    from flanneld_py.core.prefix import Prefix


class CatchAll:
    """The routes, as a table of misses says; each change of them is handed to `write`, as what was and what is."""

    def __init__(self, network: Prefix, table: MissTable) -> None:
        """Begin with the whole network led to no device."""
        self._network = network
        self._table = table
        self._device = 0
        self._write: Callable[[list[Entry], list[Entry]], None] | None = None
        self._expiry_changed = asyncio.Event()
        self._is_barred = False
        self.realm = 0
        """What the kernel knows those packets by that it asks about."""

    def standing(self, device: int) -> Sequence[Entry]:
        """Return the routes as they are to be, with what is asked for by a device."""
        self._device = device
        return (self._whole, *(_unreachable(subnet) for subnet in self._table.nobodys))

    @property
    def _whole(self) -> Route:
        if self._is_barred:
            return _unreachable(self._network)
        metric = default_metric(self._network.family)
        return Route(self._network, metric, 0, 0, self._device, onlink=False, realm=self.realm)

    def write_to(self, write: Callable[[list[Entry], list[Entry]], None]) -> None:
        """Have `write` called with each change from now on."""
        self._write = write

    def follow_waiting(self) -> None:
        """Have the kernel refuse all new addresses by itself while too many wait, so that no more come to wait."""
        if self._is_barred != self._table.is_full:
            before, self._is_barred = self._whole, self._table.is_full
            self._change([before], [self._whole])

    def note_nobodys(self, subnet: Prefix) -> None:
        """Make a subnet that nobody leases unreachable for a time."""
        if self._table.note_nobodys(subnet, time.monotonic()):
            self._change([], [_unreachable(subnet)])
            self._expiry_changed.set()

    def note_leased(self, subnet: Prefix) -> None:
        """Make way for the route of a peer, where one of ours may stand in its place."""
        over = self._table.note_leased(subnet)
        if over:
            self._change([_unreachable(one) for one in over], [])

    async def forget_nobodys(self) -> None:
        """Take away what has been unreachable for its time, until cancelled."""
        while True:
            due = self._table.next_expiry()
            if due is None:
                self._expiry_changed.clear()
                await self._expiry_changed.wait()
                continue
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            self._change([_unreachable(subnet) for subnet in self._table.expire(time.monotonic())], [])

    def _change(self, before: list[Entry], after: list[Entry]) -> None:
        if self._write is not None:
            self._write(before, after)


def _unreachable(subnet: Prefix) -> Route:
    return Route(subnet, default_metric(subnet.family), 0, 0, 0, onlink=False, type=UNREACHABLE)
