"""Waiting for conditions: never longer than a deadline, and never without saying for what."""

import time
from collections.abc import Callable

from netns_lab.errors import WaitedInVainError

INTERVAL = 0.05


def wait_until(what: str, condition: Callable[[], bool], seconds: float) -> None:
    """Return once `condition` holds; it may raise LabError to end the wait. Raises WaitedInVainError."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise WaitedInVainError(f"waited {seconds:g} s for {what}")
        time.sleep(INTERVAL)
