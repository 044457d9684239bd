"""Histograms of durations: what the parts of the daemon keep for the metrics, and so loaded with them."""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Seconds: most of what is timed here lasts from a millisecond to some seconds."""


class Histogram:
    """How often something lasted how long; times in seconds."""

    __slots__ = ("_bounds", "_counts", "_sum")

    def __init__(self, bounds: tuple[float, ...] = _BOUNDS) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, seconds: float) -> None:
        """Count one duration."""
        self._counts[bisect_left(self._bounds, seconds)] += 1
        self._sum += seconds

    @property
    def count(self) -> int:
        """How many there were."""
        return sum(self._counts)

    def samples(self) -> Iterator[tuple[str, str, float]]:
        """Return suffix of the name, upper bound (empty where there is none) and value of each sample."""
        so_far = 0
        for bound, count in zip((*map(str, self._bounds), "+Inf"), self._counts, strict=True):
            so_far += count
            yield "_bucket", bound, so_far
        yield "_sum", "", self._sum
        yield "_count", "", so_far
