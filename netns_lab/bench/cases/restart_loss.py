"""Packets lost while a daemon is restarted, killed, and exchanged for another one and back, with a steady stream."""

import signal

from netns_lab.bench.cases.case import Case, Extent, Turn, begin_empty
from netns_lab.bench.cases.pair import open_pair
from netns_lab.bench.cases.stream import Stream
from netns_lab.bench.daemon import STOP_SECONDS, Daemon
from netns_lab.bench.figures import Reading, cost_readings
from netns_lab.bench.stage import Stage
from netns_lab.bench.subject import Subject

LEAD_SECONDS = 0.5
Change = tuple[str, signal.Signals, Subject]


def play(stage: Stage, turn: Turn) -> list[Reading]:
    """Let the first node's daemon end and come back in every way, a while after each other."""
    with open_pair(stage, turn.subject) as (one, two), Stream(one, two) as stream:
        daemon = one.daemon
        readings: list[Reading] = []
        sent = 0
        for name, number, successor in plan_changes(turn):
            stream.flow(LEAD_SECONDS)
            end_daemon(stream, daemon, number)
            daemon = stage.start(one.node, successor)
            stream.flow(turn.seconds)
            daemon.require()
            losses = stream.count()
            sent += losses.sent
            readings += [
                Reading(f"{name}: lost", "packets", losses.lost),
                Reading(f"{name}: longest silence", "ms", losses.silence * 1000),
            ]
        return [*readings, Reading("sent in all", "packets", sent), *cost_readings(daemon.read_cost())]


def plan_changes(turn: Turn) -> list[Change]:
    """Return each change's name, the signal that ends the present daemon, and what comes after it."""
    changes: list[Change] = [
        ("SIGTERM, restart", signal.SIGTERM, turn.subject),
        ("kill -9, restart", signal.SIGKILL, turn.subject),
    ]
    if turn.other is not None:
        changes += [
            ("switch to the other", signal.SIGTERM, turn.other),
            ("switch back", signal.SIGTERM, turn.subject),
        ]
    return changes


def end_daemon(stream: Stream, daemon: Daemon, number: signal.Signals) -> None:
    """Send the signal and wait until it has ended, by force if need be, while packets flow."""
    daemon.tell(number)
    stream.flow(STOP_SECONDS, until=lambda: daemon.ended() is not None)
    daemon.kill()


CASE = Case(
    "restart-loss",
    play,
    begin_empty,
    default=Extent((0,), seconds=5),
    quick=Extent((0,), seconds=3, rounds=2),
    nodes=2,
)
