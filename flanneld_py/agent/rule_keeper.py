"""The rule keeper: keeps the host's rules for packets of the network as they should be.

Owns when they are looked at, and which driver writes them; the rules stay when the daemon ends, so that connections
outlive it. Only what is needed first is imported at start.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from flanneld_py.agent.claim import ClaimedError, claim_device, hold
from flanneld_py.core.errors import KernelError
from flanneld_py.core.sample_packet import pod_packets
from flanneld_py.core.traffic_rules import Place, desired_rules

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from contextlib import AsyncExitStack

    from flanneld_py.agent.startup import Node
    from flanneld_py.core.prefix import Prefix
    from flanneld_py.core.sample_packet import SamplePacket
    from flanneld_py.core.traffic_rules import RuleSet, RuleWish
    from flanneld_py.kernel.barriers import Barrier
    from flanneld_py.kernel.device import Device
    from flanneld_py.kernel.nft_monitor import NftMonitor

log = logging.getLogger(__name__)

_LULL = 0.1
"""Seconds between hearing of a change and looking."""


class RuleDriver(Protocol):
    """One way to write rules; its methods take milliseconds and may wait for processes."""

    name: str
    port: int | None
    """The netlink port by which it makes its changes, if it does so itself."""
    tables: frozenset[str]
    """The tables of ours of which the kernel tells when they change."""

    def ensure(self, rule_sets: Sequence[RuleSet]) -> bool:
        """Have these rules, and none of ours beside them; return whether something was changed. Raises KernelError."""
        ...

    def clear(self) -> bool:
        """Take all rules of ours away; return whether there were any. Raises KernelError."""
        ...

    def close(self) -> None:
        """Let go of what the driver holds; the rules stay."""
        ...


class RuleKeeper:
    """Keeps the rules of some rule sets; `settled` is set once they have been tried for the first time."""

    def __init__(
        self,
        rule_sets: tuple[RuleSet, ...],
        forwarded: Sequence[SamplePacket],
        *,
        name: str,
        is_alone: bool,
        nftables: bool,
        resync: float,
    ) -> None:
        """Prepare; `forwarded` is what has to pass this host for its pods to have a network.

        `nftables` is what the configuration asks for, `resync` the seconds between looks. Where the daemon of another
        network keeps the host's chains, this one has tables of its own, called after `name`.
        """
        self._rule_sets = rule_sets
        self._forwarded = forwarded
        self._resync = resync
        aside = ("nftables aside", partial(_find_nftables, name))
        ways = {"iptables": self._find_iptables, "nftables": _find_nftables}
        self._ways: list[tuple[str, Callable[[], RuleDriver | None]]] = (
            [*sorted(ways.items(), reverse=nftables), aside] if is_alone else [aside]
        )
        self._wake = asyncio.Event()
        self._written: tuple[RuleSet, ...] = ()
        self._problem = ""
        self._barriers: list[Barrier] = []
        self._driver = "none"
        self._restored = 0
        self.settled = asyncio.Event()

    def describe(self) -> dict[str, Any]:
        """Return how the rules are, as plain JSON data."""
        self._look_at_barriers()
        return {
            "by": self._driver,
            "restored": self._restored,
            "problem": self._problem,
            "barriers": [barrier._asdict() for barrier in self._barriers],
        }

    async def run(self) -> None:
        """Keep the rules until cancelled."""
        try:
            driver = self._choose()
            if driver is not None:
                await self._keep(driver)
        finally:
            self.settled.set()

    def _choose(self) -> RuleDriver | None:
        """Return the driver to use; the ways that are left over are the others."""
        wish = self._ways[0][0]
        while self._ways:
            name, find = self._ways.pop(0)
            driver = find()
            if driver is None:
                continue
            self._driver = name
            if name != wish:
                log.warning("traffic rules: %s is not to be had here, %s is used in its place", wish, name)
            return driver
        self._say_problem("neither nftables nor iptables can be used here: apt-get install iptables")
        return None

    async def _keep(self, driver: RuleDriver) -> None:
        monitor = _listen(driver)
        loop = asyncio.get_running_loop()
        try:
            if monitor is not None:
                loop.add_reader(monitor.fileno(), self._notice, monitor)
            await self._ensure(driver)
            self.settled.set()
            await self._clear_others()
            # Reading every chain of the host takes long where there are thousands: once, and whenever somebody asks.
            await asyncio.to_thread(self._look_at_barriers)
            self._tell_barriers()
            while True:
                await self._sleep()
                await self._ensure(driver)
        finally:
            if monitor is not None:
                loop.remove_reader(monitor.fileno())
                monitor.close()
            driver.close()

    def _notice(self, monitor: NftMonitor) -> None:
        if monitor.read_changed():
            self._wake.set()

    async def _sleep(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(self._resync):
                await self._wake.wait()
        # Whoever changes rules of ours has often not done yet.
        await asyncio.sleep(_LULL)

    async def _ensure(self, driver: RuleDriver) -> None:
        self._wake.clear()
        rule_sets = self._rule_sets
        try:
            changed = await asyncio.to_thread(driver.ensure, rule_sets)
        except KernelError as error:
            self._say_problem(str(error))
            return
        restored = changed and self._written == rule_sets
        self._written = rule_sets
        self._problem = ""
        if changed:
            self._restored += restored
            log.info("traffic rules %s: by=%s", "restored" if restored else "written", driver.name)

    async def _clear_others(self) -> None:
        """Take away what a former run has left by another way, now that the rules stand by ours."""
        for name, find in self._ways:
            driver = find()
            if driver is None:
                continue
            try:
                if await asyncio.to_thread(driver.clear):
                    log.info("traffic rules removed: by=%s reason=they stand by %s now", name, self._driver)
            except KernelError as error:
                log.warning("former traffic rules stay: by=%s reason=%s", name, error)
            finally:
                driver.close()

    def _say_problem(self, problem: str) -> None:
        if problem != self._problem:
            self._problem = problem
            log.warning("traffic rules are not as they should be: %s", problem)

    def _find_iptables(self) -> RuleDriver | None:
        from flanneld_py.kernel.iptables import find_iptables

        return find_iptables([rule_set.family for rule_set in self._rule_sets])

    def _look_at_barriers(self) -> None:
        """Find what else on this host stops what we accept."""
        from flanneld_py.kernel.barriers import read_barriers

        networks = [
            rule_set.network
            for rule_set in self._rule_sets
            if any(chain.place is Place.FORWARD for chain in rule_set.chains)
        ]
        try:
            # In iptables our own rules accept it.
            beside_iptables = self._driver != "iptables"
            self._barriers = (
                read_barriers(self._forwarded, networks, beside_iptables=beside_iptables) if networks else []
            )
        except OSError as error:
            log.debug("other tables not read: reason=%s", error)

    def _tell_barriers(self) -> None:
        for barrier in self._barriers:
            log.warning(
                "forwarded packets are stopped: by=nftables chain %s reason=%s remedy=%s",
                barrier.chain,
                barrier.reason,
                barrier.remedy,
            )


def make_rule_keeper(
    stack: AsyncExitStack,
    node: Node,
    nets: Iterable[tuple[Prefix, Prefix]],
    devices: Iterable[Device],
    *,
    wish: RuleWish,
    resync: float,
) -> RuleKeeper:
    """Return the keeper of a node's rules, which has the host's chains unless another daemon of this host has them.

    `nets` are its networks, each with our own subnet in it. What it claims is let go with the stack.
    """
    is_alone = True
    try:
        hold(stack, claim_device("traffic-rules"))
    except ClaimedError as error:
        log.warning("traffic rules: %s; those of this network are in nftables tables of their own", error)
        is_alone = False
    uplink = node.uplink.interface.name
    tunnel = next((device.name for device in devices), uplink)
    return RuleKeeper(
        desired_rules(nets, wish),
        [packet for network, own in nets for packet in pod_packets(network, own, tunnel, uplink)],
        name=node.backend.claim_name,
        is_alone=is_alone,
        nftables=node.config.enable_nftables,
        resync=resync,
    )


def _find_nftables(aside: str = "") -> RuleDriver | None:
    from flanneld_py.kernel.nf_tables_socket import has_nf_tables

    if not has_nf_tables():
        return None
    from flanneld_py.kernel.nft_rules import NftRules

    return NftRules(aside)


def _listen(driver: RuleDriver) -> NftMonitor | None:
    """Return what hears of changes by others; iptables' are looked for now and then."""
    if driver.port is None:
        return None
    from flanneld_py.kernel.nft_monitor import NftMonitor

    return NftMonitor(driver.tables, driver.port)
