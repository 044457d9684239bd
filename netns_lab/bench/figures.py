"""Readings and what becomes of them: series over rounds, their median and spread. Pure."""

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from netns_lab.bench.daemon import Cost


@dataclass(frozen=True, slots=True)
class Reading:
    """One figure of one round."""

    figure: str
    unit: str
    value: float


@dataclass(frozen=True, slots=True)
class Series:
    """One figure of one subject over all rounds of a case; `n` is the case's size."""

    case: str
    n: int
    subject: str
    figure: str
    unit: str
    values: tuple[float, ...]

    @property
    def median(self) -> float:
        """The middle value."""
        return statistics.median(self.values)

    @property
    def low(self) -> float:
        """The smallest value."""
        return min(self.values)

    @property
    def high(self) -> float:
        """The largest value."""
        return max(self.values)


def gather(case: str, n: int, subject: str, rounds: Iterable[Sequence[Reading]]) -> list[Series]:
    """Put the readings of all rounds together, by figure, in the order of their first appearance."""
    values: dict[tuple[str, str], list[float]] = {}
    for readings in rounds:
        for reading in readings:
            values.setdefault((reading.figure, reading.unit), []).append(reading.value)
    return [Series(case, n, subject, figure, unit, tuple(each)) for (figure, unit), each in values.items()]


def percentile(values: Sequence[float], share: float) -> float:
    """Return the smallest value that at least `share` (0 to 1) of all values do not exceed (nearest rank)."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def cost_readings(cost: Cost) -> list[Reading]:
    """Return what every case reports of its daemon."""
    return [
        Reading("CPU", "s", cost.cpu),
        Reading("resident", "MB", cost.resident),
        Reading("resident at most", "MB", cost.peak),
        Reading("proportional", "MB", cost.proportional),
    ]


def format_value(value: float) -> str:
    """Write a value with three digits that mean something, and thousands apart; whole numbers as they are."""
    if float(value).is_integer() or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.{max(0, 2 - math.floor(math.log10(abs(value))))}f}"


def format_spread(series: Series) -> str:
    """Write median (smallest to largest), or the one value that there is."""
    if len(series.values) == 1:
        return format_value(series.median)
    return f"{format_value(series.median)} ({format_value(series.low)} to {format_value(series.high)})"
