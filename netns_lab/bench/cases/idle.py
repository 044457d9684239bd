"""What a daemon costs while nothing happens, with N leases programmed."""

import time

from netns_lab.bench.cases.case import Case, Extent, Turn, load_leases
from netns_lab.bench.cases.opening import start_programmed
from netns_lab.bench.daemon import read_thread_times, seconds_between
from netns_lab.bench.figures import Reading, cost_readings
from netns_lab.bench.stage import Stage

SETTLE_SECONDS = 3.0


def play(stage: Stage, turn: Turn) -> list[Reading]:
    """Start it, wait until it has nothing to do any more, then look away for a while."""
    daemon, _ = start_programmed(stage, turn.subject, turn.n)
    time.sleep(SETTLE_SECONDS)
    before = read_thread_times(daemon.pid)
    time.sleep(turn.seconds)
    after = read_thread_times(daemon.pid)
    return [
        Reading("CPU meanwhile", "s", seconds_between(before, after)),
        Reading("meanwhile", "s", turn.seconds),
        *cost_readings(daemon.read_cost()),
    ]


CASE = Case(
    "idle",
    play,
    load_leases,
    default=Extent((10_000,), seconds=60, rounds=1),
    quick=Extent((10_000,), seconds=20, rounds=1),
)
