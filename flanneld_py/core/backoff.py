"""How long to wait before the next try."""

from __future__ import annotations


def backoff_delay(attempts: int, jitter: float, *, first: float = 0.1, longest: float = 30.0) -> float:
    """Return the seconds to wait after so many failed attempts (1 or more), doubling from `first` to `longest`.

    `jitter` in [0, 1) takes away up to half of it, so that many who failed together do not come back together.
    """
    full = min(longest, first * 2.0 ** min(attempts - 1, 32))
    return full * (1.0 - jitter / 2.0)
