"""Reading tables by and by, the event loop running in between: the kernel's own, and those that drivers keep."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from flanneld_py.core.entries import Kind, entry_key
from flanneld_py.kernel.dataplane import digest_steps, read_steps
from flanneld_py.kernel.netlink_socket import NetlinkSocket

if TYPE_CHECKING:
    from flanneld_py.agent.driven_tables import DrivenTables
    from flanneld_py.agent.ground import GroundKeeper
    from flanneld_py.core.plan import Table


class TableReader:
    """Reads what is ours."""

    def __init__(self, keeper: GroundKeeper, driven: DrivenTables) -> None:
        """Prepare; `keeper` says what is ours in the kernel."""
        self._keeper = keeper
        self._driven = driven
        # While a table is read by and by, what cannot wait is written by another socket.
        self._socket = NetlinkSocket()

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    async def read(self, kind: Kind) -> Table:
        """Return our entries of one kind by key. Raises KernelError."""
        table: Table = {}
        if kind == Kind.DRIVEN:
            for piece in self._driven.read_steps():
                table.update((entry_key(entry), entry) for entry in piece)
                await asyncio.sleep(0)
            return table
        for table in read_steps(self._socket, self._keeper.scope, kind):  # noqa: B007 - the last one is complete
            await asyncio.sleep(0)
        return table

    async def digest(self, kind: Kind) -> int | None:
        """Return the sum of the hashes of our entries of one kind, None if it cannot be told. Raises KernelError."""
        digest = 0
        if kind == Kind.DRIVEN:
            for piece in self._driven.read_steps():
                digest += sum(map(hash, piece))
                await asyncio.sleep(0)
            return digest if self._driven.is_readable else None
        for digest in digest_steps(self._socket, self._keeper.scope, kind):  # noqa: B007 - the last one is complete
            await asyncio.sleep(0)
        return digest
