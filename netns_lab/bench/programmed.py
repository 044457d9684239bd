"""Waiting until a kernel holds what it should, seldom enough not to disturb, exactly enough to be a figure.

The kernel's own count of prefixes costs next to nothing and is read all the time; once it is high enough, the tables
are counted by their messages; once those counts are high enough too, the entries themselves are compared.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass

from netns_lab.bench.daemon import Daemon
from netns_lab.bench.entries import KernelEntries, Programmed
from netns_lab.bench.leases import PeerLease, expected_entries
from netns_lab.errors import WaitedInVainError

BASE_SECONDS = 60.0
LEASES_A_SECOND = 100  # slower than this is a failure
SMALL = 2_000
SMALL_INTERVAL = 0.002
INTERVAL = 0.02


@dataclass(frozen=True, slots=True)
class Goal:
    """What is waited for: the entries of these leases, beside what the kernel held before."""

    length: int
    count: int
    wanted: Programmed
    routes_before: int

    @property
    def interval(self) -> float:
        """Seconds between two looks."""
        return SMALL_INTERVAL if self.count <= SMALL else INTERVAL

    @property
    def seconds(self) -> float:
        """How long to wait at most."""
        return BASE_SECONDS + self.count / LEASES_A_SECOND


def make_goal(leases: Sequence[PeerLease], length: int, kernel: KernelEntries) -> Goal:
    """Return the goal that these leases set, as against the kernel's present state."""
    return Goal(length, len(leases), expected_entries(leases), kernel.estimate_routes())


def wait_for_goal(goal: Goal, kernel: KernelEntries, daemon: Daemon) -> float:
    """Return the moment from which the kernel held all. Raises LabError where that never comes."""
    deadline = time.monotonic() + goal.seconds
    while True:
        moment = _wait_for_counts(goal, kernel, daemon, deadline)
        lacking = kernel.read().lacks(goal.wanted)
        if not lacking:
            return moment
        if time.monotonic() > deadline:
            raise WaitedInVainError(f"waited {goal.seconds:g} s in vain: the kernel lacks {lacking}\n{daemon.tail()}")
        time.sleep(goal.interval)


def _wait_for_counts(goal: Goal, kernel: KernelEntries, daemon: Daemon, deadline: float) -> float:
    while True:
        routes = kernel.estimate_routes() - goal.routes_before
        moment = time.monotonic()
        if routes >= goal.count and min(kernel.count(goal.length)) >= goal.count:
            return moment
        daemon.require()
        if moment > deadline:
            raise WaitedInVainError(
                f"waited {goal.seconds:g} s for {goal.count:,} peers; the kernel has {routes:,} more routes than "
                f"before\n{daemon.tail()}"
            )
        time.sleep(goal.interval)


def wait_until_gone(goal: Goal, kernel: KernelEntries, daemon: Daemon) -> float:
    """Return the moment from which the kernel held none of the goal's entries. Raises LabError."""
    deadline = time.monotonic() + goal.seconds
    while True:
        moment = time.monotonic()
        if kernel.estimate_routes() <= goal.routes_before and not kernel.read().holds_any(goal.wanted):
            return moment
        daemon.require()
        if moment > deadline:
            raise WaitedInVainError(f"waited {goal.seconds:g} s for {goal.count:,} peers to go\n{daemon.tail()}")
        time.sleep(goal.interval)
