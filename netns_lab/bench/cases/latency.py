"""From the put of one lease to its route, again and again, on a daemon that has nothing else to do."""

import select
import time

from netns_lab.bench.cases.case import Case, Extent, Turn, load_leases
from netns_lab.bench.cases.opening import start_programmed
from netns_lab.bench.figures import Reading, cost_readings, percentile
from netns_lab.bench.leases import PeerLease, make_leases
from netns_lab.bench.listener import RouteListener
from netns_lab.bench.stage import Stage
from netns_lab.errors import LabError, WaitedInVainError
from netns_lab.places import node_place

PUTS = 300
PAUSE = 0.01
PUT_SECONDS = 10.0
SETTLE_SECONDS = 2.0


def play(stage: Stage, turn: Turn) -> list[Reading]:
    """Put PUTS leases, each after the former's route has come and a short pause."""
    network = node_place(stage.node.name).network
    daemon, _ = start_programmed(stage, turn.subject, turn.n)
    time.sleep(SETTLE_SECONDS)
    leases = make_leases(PUTS, stage.length, first=turn.n)
    etcd_lease = stage.etcd.grant()
    with RouteListener(network) as listener:
        try:
            times = [time_one(stage, listener, lease, etcd_lease) for lease in leases]
        except WaitedInVainError as error:
            raise LabError(f"{error}; the end of the daemon's log:\n{daemon.tail()}") from error
    cost = daemon.read_cost()
    stage.etcd.delete_peers(leases)
    to_route, to_answer = zip(*times, strict=True)
    return [
        Reading("put → route, p50", "ms", percentile(to_route, 0.5) * 1000),
        Reading("put → route, p99", "ms", percentile(to_route, 0.99) * 1000),
        Reading("put → etcd's answer, p50", "ms", percentile(to_answer, 0.5) * 1000),
        *cost_readings(cost),
    ]


def time_one(stage: Stage, listener: RouteListener, lease: PeerLease, etcd_lease: int) -> tuple[float, float]:
    """Return the seconds from the put to the route, and to etcd's own answer. Raises WaitedInVainError."""
    time.sleep(PAUSE)
    key = lease.subnet.to_bytes(4, "big") + bytes([lease.length])
    waiting = [listener.socket, stage.etcd.socket]
    heard: dict[object, float] = {}
    start = time.monotonic()
    stage.etcd.begin_put(lease, etcd_lease)
    while waiting:
        readable, _, _ = select.select(waiting, [], [], PUT_SECONDS)
        moment = time.monotonic()
        if not readable:
            raise WaitedInVainError(f"waited {PUT_SECONDS:g} s for the route of {lease.key}")
        for each in readable:
            if each is stage.etcd.socket or key in listener.hear():
                heard[each] = moment - start
                waiting.remove(each)
    stage.etcd.finish()
    return heard[listener.socket], heard[stage.etcd.socket]


CASE = Case(
    "latency",
    play,
    load_leases,
    default=Extent((2, 10_000)),
    quick=Extent((2, 10_000)),
    spare=PUTS,
)
