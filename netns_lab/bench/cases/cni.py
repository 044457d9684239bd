"""Pods wired and unwired by a daemon's CNI plugins: one by one and twenty at once, beside N pods that stay."""

import resource
import shutil
import time

from netns_lab.bench.cases.case import Case, Extent, LacksModeError, Turn, begin_empty
from netns_lab.bench.cni_chain import BIN_FOLDER, STATE_FOLDER, Caller, Chain, Times, find_chain, measure_on
from netns_lab.bench.daemon import Daemon
from netns_lab.bench.figures import Reading, cost_readings, percentile
from netns_lab.bench.stage import Stage
from netns_lab.bench.subnet_wait import wait_for_subnet_file
from netns_lab.namespaces import Place, run_in
from netns_lab.node import SUBNET_FILE
from netns_lab.places import RUN, node_place
from netns_lab.underlay import open_netlink

ALONE = 40
TOGETHER = 20
BURSTS = 3
BRIDGE = "cni0"
SETTLE_SECONDS = 0.5
WITHOUT = ", no daemon"


def play(stage: Stage, turn: Turn) -> list[Reading]:
    """Measure with the daemon running, and then, with the same subnet file, without."""
    place = node_place(stage.node.name)
    daemon = stage.start(stage.node, turn.subject)
    wait_for_subnet_file(stage, daemon)
    chain = find_chain(turn.subject, place, RUN / SUBNET_FILE)
    if chain is None:
        raise LacksModeError("has no CNI plugins beside it: make peers builds the genuine ones")
    try:
        return [
            *to_readings(measure_on(place, lambda: measure(chain, turn.n)), ""),
            *end(daemon),
            *to_readings(measure_on(place, lambda: measure(chain, turn.n)), WITHOUT),
        ]
    finally:
        clear(place)


def end(daemon: Daemon) -> list[Reading]:
    """End the daemon and return what it has cost."""
    cost = daemon.read_cost()
    daemon.stop()
    return cost_readings(cost)


def measure(chain: Chain, present: int) -> Times:
    """Call for every pod, on the node."""
    caller = Caller(chain, present + ALONE)
    staying, going = range(present), range(present, present + ALONE)
    for first in range(0, present, TOGETHER):
        caller.at_once("ADD", staying[first : first + TOGETHER])
    time.sleep(SETTLE_SECONDS)
    times: Times = {}
    for verb in ("ADD", "DEL"):
        before = read_children_cpu()
        times[verb] = caller.one_by_one(verb, going)
        times[f"{verb}, CPU of the plugin"] = [(read_children_cpu() - before) / ALONE]
    for _ in range(BURSTS):
        for verb in ("ADD", "DEL"):
            # What plugins put off is no part of the next burst: its callers are other ones, later.
            time.sleep(SETTLE_SECONDS)
            times.setdefault(f"{TOGETHER} {verb} at once", []).append(caller.at_once(verb, going[:TOGETHER]))
        # But where they come right behind it, it is.
        times.setdefault(f"{TOGETHER} ADD right behind {TOGETHER} DEL", []).append(
            caller.at_once("ADD", going[:TOGETHER])
        )
        caller.at_once("DEL", going[:TOGETHER])
    for first in range(0, present, TOGETHER):
        caller.at_once("DEL", staying[first : first + TOGETHER])
    return times


def read_children_cpu() -> float:
    """Return the CPU time, in milliseconds, of all processes that this one has started and that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (used.ru_utime + used.ru_stime) * 1000


def to_readings(times: Times, suffix: str) -> list[Reading]:
    """Return the median of each figure, and for single calls the 99th percentile."""
    readings = []
    for figure, values in times.items():
        is_single = len(values) == ALONE
        readings.append(Reading(f"{figure}{', p50' * is_single}{suffix}", "ms", percentile(values, 0.5)))
        if is_single:
            readings.append(Reading(f"{figure}, p99{suffix}", "ms", percentile(values, 0.99)))
    return readings


def clear(place: Place) -> None:
    """Take away what the plugins made on the node."""
    with open_netlink(place.network) as netlink:
        for index in netlink.link_lookup(ifname=BRIDGE):
            netlink.link("del", index=index)
    run_in(place, lambda: shutil.rmtree(STATE_FOLDER, ignore_errors=True))
    run_in(place, lambda: shutil.rmtree(BIN_FOLDER, ignore_errors=True))


CASE = Case(
    "cni",
    play,
    begin_empty,
    default=Extent((0, 200), rounds=3),
    quick=Extent((0,), rounds=2),
)
