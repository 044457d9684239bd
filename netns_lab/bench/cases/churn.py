"""N leases come while the daemon runs: one by one, and by transactions of a hundred."""

import time
from collections.abc import Callable, Sequence

from netns_lab.bench.cases.case import Case, Extent, Turn, begin_empty
from netns_lab.bench.daemon import Daemon
from netns_lab.bench.entries import KernelEntries
from netns_lab.bench.figures import Reading, cost_readings
from netns_lab.bench.leases import PeerLease, in_hundreds, make_leases
from netns_lab.bench.programmed import make_goal, wait_for_goal, wait_until_gone
from netns_lab.bench.stage import Stage
from netns_lab.bench.subnet_wait import wait_for_subnet_file
from netns_lab.places import node_place

SETTLE_SECONDS = 1.0


def play(stage: Stage, turn: Turn) -> list[Reading]:
    """Add the leases one by one, delete them, and add them again by hundreds."""
    leases = make_leases(turn.n, stage.length)
    with KernelEntries(node_place(stage.node.name).network) as kernel:
        daemon = stage.start(stage.node, turn.subject)
        wait_for_subnet_file(stage, daemon)
        readings: list[Reading] = []
        for manner, put in (("one by one", put_singly), ("by hundreds", put_by_hundreds)):
            time.sleep(SETTLE_SECONDS)
            readings += time_storm(stage, kernel, daemon, leases, (manner, put))
        cost = daemon.read_cost()
    return [*readings, *cost_readings(cost)]


def time_storm(
    stage: Stage,
    kernel: KernelEntries,
    daemon: Daemon,
    leases: Sequence[PeerLease],
    manner: tuple[str, Callable[[Stage, Sequence[PeerLease]], None]],
) -> list[Reading]:
    """Put the leases in that manner, and take them away again once the kernel holds them all."""
    name, put = manner
    goal = make_goal(leases, stage.length, kernel)
    cpu = daemon.read_cost().cpu
    start = time.monotonic()
    put(stage, leases)
    stored = time.monotonic()
    programmed = wait_for_goal(goal, kernel, daemon)
    cpu = daemon.read_cost().cpu - cpu
    stage.etcd.delete_peers(leases)
    wait_until_gone(goal, kernel, daemon)
    return [
        Reading(f"{name}: first put → all programmed", "s", programmed - start),
        Reading(f"{name}: of that, after the last put", "s", max(0.0, programmed - stored)),
        Reading(f"{name}: CPU", "s", cpu),
    ]


def put_singly(stage: Stage, leases: Sequence[PeerLease]) -> None:
    """Put each after the answer to the former."""
    etcd_lease = stage.etcd.grant()
    for lease in leases:
        stage.etcd.begin_put(lease, etcd_lease)
        stage.etcd.finish()


def put_by_hundreds(stage: Stage, leases: Sequence[PeerLease]) -> None:
    """Put them by transactions."""
    etcd_lease = stage.etcd.grant()
    for hundred in in_hundreds(leases):
        stage.etcd.put_together(hundred, etcd_lease)


CASE = Case(
    "churn",
    play,
    begin_empty,
    default=Extent((1_000,), rounds=5),
    quick=Extent((1_000,)),
)
