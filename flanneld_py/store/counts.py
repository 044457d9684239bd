"""What a store's client has done since the start, for the metrics."""

from __future__ import annotations

from collections import defaultdict

from flanneld_py.core.histogram import Histogram


class StoreCounts:
    """`calls` times the calls, and `failures` counts those that gave no answer, each by what was called."""

    __slots__ = ("calls", "connections", "failures")

    def __init__(self) -> None:
        self.calls: defaultdict[str, Histogram] = defaultdict(Histogram)
        self.failures: defaultdict[str, int] = defaultdict(int)
        self.connections = 0
