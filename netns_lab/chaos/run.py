"""A chaos run: faults one after the other, all invariants after each, traffic throughout, and a verdict."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from netns_lab.chaos.faults import Faults
from netns_lab.chaos.invariants import find_violations
from netns_lab.chaos.plan import Excuse, find_unexcused, make_steps
from netns_lab.chaos.traffic import start_traffic
from netns_lab.errors import LabError, UsageError
from netns_lab.names import pod_end_points
from netns_lab.pods import read_pods

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from netns_lab.chaos.faults import Fault
    from netns_lab.chaos.plan import Step
    from netns_lab.folder import LabFolder
    from netns_lab.topology import Topology

    Say = Callable[[str], None]

RECOVERY_SECONDS = 60.0
"""Seconds in which all must be well after a fault."""
LOOK = 0.1
QUIET = 0.5


@dataclass(slots=True)
class Outcome:
    """What became of one or two faults; times on the monotonic clock."""

    steps: Sequence[Step]
    start: float
    recovered_in: float = 0.0
    violations: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Verdict:
    """What a run has shown; `lost` holds, by pair of pods, when a request was lost that nothing excuses."""

    seed: int
    seconds: float
    sent: int
    excused: int
    outcomes: list[Outcome]
    lost: dict[tuple[str, str], list[float]]

    @property
    def good(self) -> bool:
        """Tell whether all held."""
        return not self.lost and not any(outcome.violations for outcome in self.outcomes)


def run_chaos(folder: LabFolder, topology: Topology, *, minutes: float, seed: int, only: str, say: Say) -> Verdict:
    """Make faults for so long, inside the lab, those that have `only` in their names.

    Raises UsageError where there are none, LabError where the lab is not well to begin with.
    """
    faults = {name: fault for name, fault in Faults(folder, topology).table().items() if only in name}
    if not faults:
        raise UsageError(f"no fault has {only!r} in its name; there are {', '.join(Faults(folder, topology).table())}")
    await_recovery(folder, topology)
    pods = read_pods(folder)
    began = time.monotonic()
    traffic = start_traffic(pod_end_points(pods), folder.root / "chaos.json")
    outcomes: list[Outcome] = []
    excuses: list[Excuse] = []
    try:
        for steps in make_steps(seed, {name: fault.targets for name, fault in faults.items()}):
            if time.monotonic() - began >= minutes * 60:
                break
            outcome = _make(faults, steps, excuses, folder, topology)
            outcomes.append(outcome)
            say(describe(outcome))
            if outcome.violations:
                break
            time.sleep(QUIET)
    finally:
        sent, losses = traffic.stop()
    unexcused = find_unexcused(losses, {pod.name: pod.node for pod in pods}, excuses)
    lost, left = sum(map(len, losses.values())), sum(map(len, unexcused.values()))
    return Verdict(seed, time.monotonic() - began, sent, lost - left, outcomes, unexcused)


def await_recovery(folder: LabFolder, topology: Topology) -> float:
    """Return after how many seconds all was well. Raises LabError naming what is not."""
    start = time.monotonic()
    while violations := find_violations(folder, topology):
        if time.monotonic() - start > RECOVERY_SECONDS:
            raise LabError("; ".join(violations))
        time.sleep(LOOK)
    return time.monotonic() - start


def _make(
    faults: Mapping[str, Fault],
    steps: Sequence[Step],
    excuses: list[Excuse],
    folder: LabFolder,
    topology: Topology,
) -> Outcome:
    """Make one or two faults, undo them, and wait until all is well."""
    outcome = Outcome(steps, time.monotonic())
    undo = []
    try:
        for step in steps:
            undo.append(faults[step.fault].do(step.target))
            time.sleep(step.hold / len(steps))
        for one in undo:
            one()
        outcome.recovered_in = await_recovery(folder, topology)
    except LabError as error:
        outcome.violations.append(str(error))
    hit = frozenset(step.target for step in steps if faults[step.fault].hits)
    if hit:
        excuses.append(Excuse(hit, outcome.start, time.monotonic()))
    return outcome


def describe(outcome: Outcome) -> str:
    """Return one line on what was done, and how long it took until all was well."""
    what = " and ".join(f"{step.fault} ({step.target}, {step.hold:g} s)" for step in outcome.steps)
    return f"{what}: {'; '.join(outcome.violations) or f'well after {outcome.recovered_in:.1f} s'}"


def report(verdict: Verdict) -> list[str]:
    """Return the report, line by line."""
    slowest = max(verdict.outcomes, key=lambda outcome: outcome.recovered_in, default=None)
    faults = sum(len(outcome.steps) for outcome in verdict.outcomes)
    lost = sum(map(len, verdict.lost.values()))
    lines = [
        f"seed {verdict.seed}: {faults} faults in {verdict.seconds:.0f} s",
        f"{verdict.sent} requests sent; {verdict.excused} lost where a fault had hit one end, {lost} where none had",
    ]
    if slowest is not None:
        lines.append(f"slowest recovery: {describe(slowest)}")
    for (source, destination), times in sorted(verdict.lost.items()):
        first = times[0]
        before = max((one for one in verdict.outcomes if one.start <= first), key=lambda one: one.start, default=None)
        during = f", during {describe(before)}" if before else ""
        lines.append(f"lost: {source} to {destination}: {len(times)} requests{during}")
    lines += [f"violated: {describe(outcome)}" for outcome in verdict.outcomes if outcome.violations]
    lines.append("all held" if verdict.good else "not all held")
    return lines
