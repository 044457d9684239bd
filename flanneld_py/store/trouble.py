"""Trouble: why a store cannot be followed, said once in the log, and how long to wait until the next try."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from flanneld_py.core.backoff import backoff_delay

if TYPE_CHECKING:
    import random

logger = logging.getLogger(__name__)

LONGEST_DELAY = 10.0
"""Seconds between two tries while the store is away: long enough to idle, short enough to be back soon after it."""


class Trouble:
    """What one watch suffers from; `reason` is None while it can be followed."""

    def __init__(self, what: str, rng: random.Random) -> None:
        """Begin without any; `what` names in the log what is followed."""
        self.reason: str | None = None
        self._what = what
        self._rng = rng
        self._failures = 0

    def note(self, reason: str) -> None:
        """Take note that the store does not answer as it should."""
        if reason != self.reason:
            logger.warning("store does not answer: %s reason=%s", self._what, reason)
        self.reason = reason

    def clear(self) -> None:
        """Take note that the store answers; that it does so for long is told by `settle`."""
        if self.reason is not None:
            logger.info("store answers again: %s", self._what)
        self.reason = None

    def settle(self) -> None:
        """Take note that the store has been of use: the next failure is a first one."""
        self._failures = 0

    def next_delay(self) -> float:
        """Return the seconds to wait after one more failure."""
        self._failures += 1
        return backoff_delay(self._failures, self._rng.random(), longest=LONGEST_DELAY)
