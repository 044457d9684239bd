"""Reading tables by and by, the event loop running in between: the kernel's own, and those that drivers keep."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from flanneld_py.core.entries import Kind
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
        if kind == Kind.DRIVEN:
            return self._driven.read()
        table: Table = {}
        for table in read_steps(self._socket, self._keeper.scope, kind):  # noqa: B007 - the last one is complete
            await asyncio.sleep(0)
        return table

    async def digest(self, kind: Kind) -> int | None:
        """Return the sum of the hashes of our entries of one kind, None if it cannot be told. Raises KernelError."""
        if kind == Kind.DRIVEN:
            return self._driven.digest()
        digest = 0
        for digest in digest_steps(self._socket, self._keeper.scope, kind):  # noqa: B007 - the last one is complete
            await asyncio.sleep(0)
        return digest
