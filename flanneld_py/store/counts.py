"""What a store's client has done since the start, for the metrics."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

from flanneld_py.core.histogram import Histogram


@dataclass(slots=True)
class StoreCounts:
    """`calls` times the calls, and `failures` counts those that gave no answer, each by what was called."""

    calls: defaultdict[str, Histogram] = field(default_factory=lambda: defaultdict(Histogram))
    failures: defaultdict[str, int] = field(default_factory=lambda: defaultdict(int))
    connections: int = 0
