"""One TCP stream over the overlay between two nodes."""

import os
import socket
import time
from contextlib import suppress

from netns_lab.bench.cases.case import Case, Extent, Turn, begin_empty
from netns_lab.bench.cases.pair import PORT, End, open_pair
from netns_lab.bench.figures import Reading, cost_readings
from netns_lab.bench.stage import Stage
from netns_lab.errors import LabError

WARM_UP_SECONDS = 0.5
PATIENCE_SECONDS = 10.0
SEND_SIZE = 1 << 17
RECEIVE_SIZE = 1 << 20
MEGABIT = 1_000_000


def play(stage: Stage, turn: Turn) -> list[Reading]:
    """Send as fast as it goes for a while."""
    with open_pair(stage, turn.subject) as (one, two):
        cpu = one.daemon.read_cost().cpu, two.daemon.read_cost().cpu
        rate = measure_rate(one, two, turn.seconds)
        cost = one.daemon.read_cost()
        spent = cost.cpu - cpu[0] + two.daemon.read_cost().cpu - cpu[1]
    return [
        Reading("one TCP stream", "Mbit/s", rate / MEGABIT),
        Reading("both daemons' CPU meanwhile", "s", spent),
        *cost_readings(cost),
    ]


def measure_rate(source: End, destination: End, seconds: float) -> float:
    """Return the bits a second that arrived over the overlay. Raises LabError."""
    with destination.open_socket(socket.SOCK_STREAM, PORT) as listening:
        listening.listen()
        listening.settimeout(PATIENCE_SECONDS)
        sender = os.fork()
        if sender == 0:
            listening.close()
            send_for_ever(source, destination.address)
        try:
            with listening.accept()[0] as stream:
                stream.settimeout(PATIENCE_SECONDS)
                receive(stream, WARM_UP_SECONDS)
                return receive(stream, seconds)
        except TimeoutError as error:
            raise LabError(f"no TCP from {source.node.name} to {destination.node.name} over the overlay") from error
        finally:
            os.kill(sender, 9)
            os.waitpid(sender, 0)


def receive(stream: socket.socket, seconds: float) -> float:
    """Read for so long and return the bits a second."""
    buffer = bytearray(RECEIVE_SIZE)
    size = 0
    start = time.monotonic()
    while (now := time.monotonic()) < start + seconds:
        got = stream.recv_into(buffer)
        if not got:
            raise LabError("the sender hung up")
        size += got
    return size * 8 / (now - start)


def send_for_ever(source: End, address: str) -> None:
    """In a process of its own: send until killed."""
    with suppress(OSError), source.open_socket(socket.SOCK_STREAM, 0) as stream:
        stream.settimeout(PATIENCE_SECONDS)
        stream.connect((address, PORT))
        data = bytes(SEND_SIZE)
        while True:
            stream.sendall(data)
    os._exit(1)


CASE = Case(
    "throughput",
    play,
    begin_empty,
    default=Extent((0,), seconds=10),
    quick=Extent((0,), seconds=3),
    nodes=2,
)
