"""One TCP stream and small datagrams between two nodes, by each backend in turn, beside the bare underlay.

A kernel's data path costs no process anything, so CPU is the whole machine's: what else it does is in the figure.
"""

import os
import signal
import socket
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from netns_lab.bench.cases.case import Case, Extent, Turn, begin_empty
from netns_lab.bench.cases.pair import PORT, End, open_pair
from netns_lab.bench.cases.throughput import MEGABIT, measure_rate
from netns_lab.bench.daemon import TICKS
from netns_lab.bench.figures import Reading
from netns_lab.bench.leases import network_config
from netns_lab.bench.stage import Stage
from netns_lab.errors import LabError
from netns_lab.etcd import CONFIG_KEY

BACKENDS = ("vxlan", "host-gw", "udp", "wireguard")
UNDERLAY = "bare veth"
PAYLOAD = bytes(64)
RECEIVE_BUFFER = 1 << 22
PATIENCE_SECONDS = 5.0
GIGABIT = 1000 * MEGABIT


def play(stage: Stage, turn: Turn) -> list[Reading]:
    """Measure every backend that the daemon can carry packets with here, and the underlay beside the first."""
    readings: list[Reading] = []
    for backend in BACKENDS:
        stage.etcd.put(CONFIG_KEY, network_config(stage.length, backend))
        try:
            with open_pair(stage, turn.subject) as (one, two):
                if not readings:
                    bare = [replace(end, address=str(end.node.address.ip)) for end in (one, two)]
                    readings += measure(UNDERLAY, bare[0], bare[1], turn.seconds)
                readings += measure(backend, one, two, turn.seconds)
        except LabError as error:
            stage.say(f"{turn.subject.label} does not carry packets by {backend}: {error}")
        stage.reset()
    stage.etcd.put(CONFIG_KEY, network_config(stage.length))
    return readings


def measure(what: str, one: End, two: End, seconds: float) -> list[Reading]:
    """Return the figures of one way."""
    busy, start = read_busy(), time.monotonic()
    rate = measure_rate(one, two, seconds)
    # The warm-up costs as much a second as what is counted.
    spent = (read_busy() - busy) / (time.monotonic() - start)
    return [
        Reading(f"{what}: one TCP stream", "Mbit/s", rate / MEGABIT),
        Reading(f"{what}: CPU of the machine a Gbit", "s", spent / (rate / GIGABIT)),
        Reading(f"{what}: datagrams of {len(PAYLOAD)} bytes that arrived", "1/s", count_datagrams(one, two, seconds)),
    ]


def read_busy() -> float:
    """Return the seconds that all CPUs have worked since boot: all of /proc/stat's first line but idle and iowait."""
    numbers = [int(number) for number in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    return (sum(numbers) - numbers[3] - numbers[4]) / TICKS


def count_datagrams(source: End, destination: End, seconds: float) -> float:
    """Return how many small datagrams a second arrive of as many as one process sends. Raises LabError."""
    with destination.open_socket(socket.SOCK_DGRAM, PORT) as opened:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
        opened.settimeout(PATIENCE_SECONDS)
        sender = os.fork()
        if sender == 0:
            send_for_ever(source, destination.address)
        try:
            opened.recv(len(PAYLOAD))
            count, start = 0, time.monotonic()
            while (now := time.monotonic()) < start + seconds:
                opened.recv(len(PAYLOAD))
                count += 1
            return count / (now - start)
        except TimeoutError as error:
            raise LabError(f"no datagrams from {source.node.name} to {destination.node.name}") from error
        finally:
            os.kill(sender, signal.SIGKILL)
            os.waitpid(sender, 0)


def send_for_ever(source: End, address: str) -> None:
    """In a process of its own: send until killed."""
    with suppress(OSError), source.open_socket(socket.SOCK_DGRAM, 0) as opened:
        opened.connect((address, PORT))
        while True:
            with suppress(ConnectionRefusedError, BlockingIOError):
                opened.send(PAYLOAD)
    os._exit(1)


CASE = Case(
    "backends",
    play,
    begin_empty,
    default=Extent((0,), seconds=5),
    quick=Extent((0,), seconds=1, rounds=1),
    nodes=2,
)
