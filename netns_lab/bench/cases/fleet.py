"""What N nodes cost one etcd: each holds a connection and a watch, some join, and all start again at once.

The watchers share this machine with etcd, so the last one's delay holds the work of all of them: it is what a cluster
sees at most.
"""

import asyncio
import statistics
import time
from functools import partial

from netns_lab.bench.cases.case import Case, Extent, Turn, load_leases
from netns_lab.bench.etcd_cost import count_watches, read_etcd_cost
from netns_lab.bench.figures import Reading
from netns_lab.bench.fleet_watch import Fleet, Watcher
from netns_lab.bench.leases import PEER_KEYS, PeerLease, make_leases
from netns_lab.bench.stage import Stage
from netns_lab.places import node_place

JOINS = 20
PAUSE = 0.1
SETTLE_SECONDS = 1.0


def play(stage: Stage, turn: Turn) -> list[Reading]:
    """Have the fleet watch, join and list."""
    return asyncio.run(sail(stage, turn.n))


async def sail(stage: Stage, count: int) -> list[Reading]:
    """Connect so many watchers and measure. Raises LabError."""
    alone = read_etcd_cost(stage)
    fleet = Fleet()
    try:
        await fleet.connect(count, node_place(stage.node.name).network, str(stage.topology.etcd[0].address.ip))
        for watcher in fleet.watchers:
            watcher.watch(PEER_KEYS)
        await fleet.wait_for("to watch", lambda watcher: watcher.created)
        await asyncio.sleep(SETTLE_SECONDS)
        watched = read_etcd_cost(stage)
        watches = count_watches(stage)
        joins = await time_joins(stage, fleet, make_leases(JOINS, stage.length, count))
        joined = read_etcd_cost(stage)
        listed = await time_lists(fleet)
        restarted = read_etcd_cost(stage)
    finally:
        fleet.close()
        await asyncio.sleep(0)
    events = sum(len(watcher.events) for watcher in fleet.watchers)
    stage.etcd.delete_peers(make_leases(JOINS, stage.length, count))
    return [
        Reading("watches", "", watches),
        Reading("events for a joining node", "", events / JOINS),
        Reading("put → the middle watcher", "ms", statistics.median(middle for middle, _ in joins) * 1000),
        Reading("put → the last watcher", "ms", statistics.median(last for _, last in joins) * 1000),
        Reading("etcd's CPU for a joining node", "ms", (joined.cpu - watched.cpu) / JOINS * 1000),
        Reading("all list at once: the last has it", "s", listed),
        Reading("all list at once: etcd's CPU", "s", restarted.cpu - joined.cpu),
        Reading("etcd resident without watchers", "MB", alone.resident),
        Reading("etcd resident with them", "MB", watched.resident),
        Reading("etcd resident at most", "MB", restarted.peak),
    ]


async def time_joins(stage: Stage, fleet: Fleet, leases: list[PeerLease]) -> list[tuple[float, float]]:
    """Put leases one by one; return the seconds after which half of all watchers, and the last, knew of each."""
    etcd_lease = stage.etcd.grant()
    times = []
    for number, lease in enumerate(leases):
        await asyncio.sleep(PAUSE)
        start = time.monotonic()
        stage.etcd.begin_put(lease, etcd_lease)
        await fleet.wait_for("to hear of a lease", partial(has_heard, number + 1))
        stage.etcd.finish()
        heard = [watcher.events[number] - start for watcher in fleet.watchers]
        times.append((statistics.median(heard), max(heard)))
    return times


def has_heard(events: int, watcher: Watcher) -> bool:
    """Tell whether the watcher has got so many events."""
    return len(watcher.events) >= events


async def time_lists(fleet: Fleet) -> float:
    """Have every watcher list all leases at once; return the seconds until the last has them."""
    start = time.monotonic()
    for watcher in fleet.watchers:
        watcher.list(PEER_KEYS)
    await fleet.wait_for("to list the leases", lambda watcher: watcher.lists > 0)
    return time.monotonic() - start


CASE = Case(
    "fleet",
    play,
    load_leases,
    default=Extent((100, 250, 500, 1_000, 2_000), rounds=1),
    quick=Extent((100, 1_000), rounds=1),
    spare=JOINS,
    about_etcd=True,
)
