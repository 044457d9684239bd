"""Waiting for a daemon's subnet file by the millisecond."""

import time

from netns_lab.bench.daemon import Daemon
from netns_lab.bench.stage import READY_SECONDS, Stage
from netns_lab.errors import WaitedInVainError

INTERVAL = 0.001


def wait_for_subnet_file(stage: Stage, daemon: Daemon) -> float:
    """Return the moment at which the first node's subnet file was there. Raises LabError."""
    file = stage.subnet_file(stage.node)
    deadline = time.monotonic() + READY_SECONDS
    while not file.exists():
        daemon.require()
        if time.monotonic() > deadline:
            raise WaitedInVainError(f"waited {READY_SECONDS:g} s for the subnet file\n{daemon.tail()}")
        time.sleep(INTERVAL)
    return time.monotonic()
