"""From exec to subnet.env, with hardly any lease; and what the daemon costs once it has settled."""

import time

from netns_lab.bench.cases.case import Case, Extent, Turn, load_leases
from netns_lab.bench.entries import KernelEntries
from netns_lab.bench.figures import Reading, cost_readings
from netns_lab.bench.leases import make_leases
from netns_lab.bench.programmed import make_goal, wait_for_goal
from netns_lab.bench.stage import Stage
from netns_lab.bench.subnet_wait import wait_for_subnet_file
from netns_lab.places import node_place

SETTLE_SECONDS = 1.0


def play(stage: Stage, turn: Turn) -> list[Reading]:
    """Start it once."""
    with KernelEntries(node_place(stage.node.name).network) as kernel:
        goal = make_goal(make_leases(turn.n, stage.length), stage.length, kernel)
        daemon = stage.start(stage.node, turn.subject)
        ready = wait_for_subnet_file(stage, daemon)
        programmed = wait_for_goal(goal, kernel, daemon)
        time.sleep(SETTLE_SECONDS)
        cost = daemon.read_cost()
    return [
        Reading("exec → subnet.env", "s", ready - daemon.started),
        Reading("exec → all programmed", "s", max(ready, programmed) - daemon.started),
        *cost_readings(cost),
    ]


CASE = Case(
    "start",
    play,
    load_leases,
    default=Extent((2,), rounds=5),
    quick=Extent((2,), rounds=5),
)
