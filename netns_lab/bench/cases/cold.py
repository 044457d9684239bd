"""From exec to the last entry in the kernel, with N leases in etcd beforehand."""

from netns_lab.bench.cases.case import Case, Extent, Turn, load_leases
from netns_lab.bench.cases.opening import start_programmed
from netns_lab.bench.figures import Reading, cost_readings
from netns_lab.bench.stage import Stage


def play(stage: Stage, turn: Turn) -> list[Reading]:
    """Start it once and wait until the kernel holds everything."""
    daemon, programmed = start_programmed(stage, turn.subject, turn.n)
    cost = daemon.read_cost()
    return [Reading("exec → all programmed", "s", programmed - daemon.started), *cost_readings(cost)]


CASE = Case(
    "cold",
    play,
    load_leases,
    default=Extent((10_000, 50_000)),
    quick=Extent((10_000,)),
)
