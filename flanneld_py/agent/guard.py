"""The guard of the tunnel port: only members of the network get packets in, each from its own subnet.

Owns when the guard is armed: never before all members that are known have been admitted, and what others have changed
of its table is put right in that order as well. A daemon that stops has it lapse a little later: in the meantime the
next one arms it again; if none comes, nobody would admit new members, and another daemon in its place knows nothing of
it.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from flanneld_py.backends.backend import EntrySource
from flanneld_py.core.backoff import backoff_delay
from flanneld_py.core.errors import KernelError
from flanneld_py.core.prefix import Prefix, bits
from flanneld_py.core.tunnel_port import admission

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flanneld_py.backends.backend import Ground
    from flanneld_py.core.driver import Feedback, TableDriver
    from flanneld_py.core.entries import Entry
    from flanneld_py.core.lease import Lease
    from flanneld_py.core.network_config import NetworkConfig
    from flanneld_py.core.peer import Peer
    from flanneld_py.core.tunnel_port import TunnelPort
    from flanneld_py.kernel.guard_table import GuardTable
    from flanneld_py.kernel.nft_monitor import NftMonitor

log = logging.getLogger(__name__)

DROP, LOG, OFF = "drop", "log", "off"
_LOOK = 60.0
"""Seconds between two looks at what was dropped."""
_LAPSE = 30.0
"""Seconds that it stays armed without a daemon: a restart takes one, an upgrade by a package manager several."""
_LULL = 0.1
"""Seconds between hearing of a change and looking."""


class Guard(EntrySource):
    """Who is admitted, and the table that admits them; without a table it is off, for a `reason`."""

    def __init__(self, mode: str, table: GuardTable | None, reason: str = "") -> None:
        self.mode = mode if table is not None else OFF
        self.reason = reason
        self.drivers: Sequence[TableDriver] = () if table is None else (table,)
        self._table = table
        self._wake = asyncio.Event()
        self._counts: dict[str, int] = {}
        self._problem = ""
        self._failures = 0

    def desired(self, peer: Peer, ground: Ground) -> tuple[Entry, ...]:  # noqa: ARG002 - the same on any ground
        """Return what admits a peer: its subnet, and itself, for a node answers pods by its own address."""
        if self._table is None:
            return ()
        subnet, public_ip = peer.subnet, peer.public_ip
        family = subnet.family
        itself = Prefix(family, public_ip, bits(family))
        return admission(family, public_ip, subnet), admission(family, public_ip, itself)

    async def run(self, lease: Lease, feedback: Feedback) -> None:  # noqa: ARG002 - whoever we are
        """Arm the guard once all members are admitted, and keep it armed."""
        if self._table is None:
            return
        from flanneld_py.kernel.nft_monitor import NftMonitor

        monitor = NftMonitor(frozenset({self._table.name}), self._table.port)
        loop = asyncio.get_running_loop()
        loop.add_reader(monitor.fileno(), self._notice, monitor)
        try:
            await feedback.followed()
            self._arm(self._table)
            while True:
                if await self._wait():
                    feedback.doubt()
                    await feedback.followed()
                    self._arm(self._table)
                self._tell_counts(self._table)
        finally:
            loop.remove_reader(monitor.fileno())
            monitor.close()
            self._disarm(self._table)
            self._table.close()

    def describe(self) -> dict[str, Any]:
        """Return how the guard is, as plain JSON data."""
        counts = {}
        if self._table is not None:
            with suppress(OSError):
                counts = self._table.read_counts()
        return {"mode": self.mode, "reason": self.reason, "problem": self._problem, "dropped": counts}

    def _notice(self, monitor: NftMonitor) -> None:
        if monitor.read_changed():
            self._wake.set()

    async def _wait(self) -> bool:
        """Return whether to arm it again: others have changed the table, or it failed some time ago.

        Not so after a minute without either.
        """
        pause = backoff_delay(self._failures, jitter=0.0, longest=_LOOK) if self._failures else _LOOK
        try:
            async with asyncio.timeout(pause):
                await self._wake.wait()
        except TimeoutError:
            return self._failures > 0
        await asyncio.sleep(_LULL)
        self._wake.clear()
        return True

    def _arm(self, table: GuardTable) -> None:
        try:
            if table.arm():
                log.info("guard armed: mode=%s table=%s", self.mode, table.name)
        except KernelError as error:
            self._failures += 1
            problem = str(error)
            if problem != self._problem:
                log.warning("guard is not as it should be: %s", problem)
            self._problem = problem
        else:
            self._failures, self._problem = 0, ""

    def _disarm(self, table: GuardTable) -> None:
        try:
            table.disarm(_LAPSE)
        except KernelError as error:
            log.warning("guard stays armed: table=%s reason=%s; flannelctl cleanup removes it", table.name, error)

    def _tell_counts(self, table: GuardTable) -> None:
        """Say how many packets the guard has dropped since the last look."""
        try:
            counts = table.read_counts()
        except KernelError as error:
            log.debug("guard's counters not read: reason=%s", error)
            return
        new = {reason: count - self._counts.get(reason, 0) for reason, count in counts.items()}
        self._counts = counts
        told = " ".join(f"{reason.replace(' ', '_')}={count}" for reason, count in new.items() if count > 0)
        if told:
            log.warning("guard %s: %s", "dropped packets" if self.mode == DROP else "would have dropped packets", told)


def make_guard(
    mode: str,
    allowed: tuple[Prefix, ...],
    name: str,
    port: TunnelPort | None,
    config: NetworkConfig,
    *,
    masqueraded: tuple[Prefix, ...],
    on_demand: bool,
) -> Guard:
    """Return the guard for a backend's port, off where it cannot be; `name` tells one network's table from others.

    `masqueraded` are the subnets of pods that get this node's address when they send beyond the network.
    """
    if mode == OFF:
        return Guard(mode, None, "it is switched off")
    if port is None:
        return Guard(mode, None, "this backend has no tunnel port that it could guard")
    if on_demand:
        log.warning("guard is off: on demand, only members in use are known")
        return Guard(mode, None, "on demand, only members in use are known")
    from flanneld_py.kernel.guard_rules import GuardPlan
    from flanneld_py.kernel.guard_table import GuardTable
    from flanneld_py.kernel.nf_tables_socket import has_nf_tables

    if not has_nf_tables():
        log.warning("guard is off: this kernel has no nftables, or does not let us use it; modprobe nf_tables")
        return Guard(mode, None, "this kernel has no nftables, or does not let us use it")
    families = tuple(part.network.family for part in config.ranges)
    plan = GuardPlan(port, families, allowed, mode == DROP, masqueraded)
    return Guard(mode, GuardTable(name, plan, [(part.network.family, part.subnet_len) for part in config.ranges]))
