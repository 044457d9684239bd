"""Metrics in Prometheus' text format, version 0.0.4
(https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format).

Owns the format and the one kind of value that is no plain number. What is counted, and where, is the business of the
parts that count.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Seconds. One set for all: what is timed here lasts from a millisecond to some seconds."""


class Histogram:
    """How often something lasted how long; times in seconds."""

    __slots__ = ("_counts", "_sum")

    def __init__(self) -> None:
        self._counts = [0] * (len(_BOUNDS) + 1)
        self._sum = 0.0

    def observe(self, seconds: float) -> None:
        """Count one duration."""
        self._counts[bisect_left(_BOUNDS, seconds)] += 1
        self._sum += seconds

    @property
    def count(self) -> int:
        """How many there were."""
        return sum(self._counts)

    def samples(self) -> Iterator[tuple[str, str, float]]:
        """Return suffix of the name, upper bound (empty where there is none) and value of each sample."""
        so_far = 0
        for bound, count in zip((*map(str, _BOUNDS), "+Inf"), self._counts, strict=True):
            so_far += count
            yield "_bucket", bound, so_far
        yield "_sum", "", self._sum
        yield "_count", "", so_far


if TYPE_CHECKING:
    Labels = tuple[str, ...]
    Value = float | Histogram
    Values = Value | Mapping[str, float] | Mapping[str, Histogram] | Mapping[Labels, float] | Mapping[Labels, Histogram]


class Family(NamedTuple):
    """The samples of one name; `kind` is gauge, counter or histogram, `labels` name what tells the samples apart."""

    name: str
    kind: str
    help: str
    labels: Labels
    values: Values | None


def encode_families(families: Iterable[Family]) -> str:
    """Write a page of metrics; a family whose values are None is left out, for there is nothing to tell yet."""
    lines: list[str] = []
    for family in families:
        if family.values is None:
            continue
        help_text = family.help.replace("\\", r"\\").replace("\n", r"\n")
        lines += (f"# HELP {family.name} {help_text}", f"# TYPE {family.name} {family.kind}")
        for labels, value in _by_labels(family.values):
            lines += _encode_value(family, labels, value)
    return "".join(f"{line}\n" for line in lines)


def _by_labels(values: Values) -> Iterable[tuple[Labels, Value]]:
    if isinstance(values, int | float | Histogram):
        return [((), values)]
    return [((key,) if isinstance(key, str) else key, value) for key, value in values.items()]


def _encode_value(family: Family, labels: Labels, value: Value) -> Iterator[str]:
    pairs = [f"{name}={_quote(text)}" for name, text in zip(family.labels, labels, strict=True)]
    if not isinstance(value, Histogram):
        yield f"{family.name}{_braces(pairs)} {value}"
        return
    for suffix, bound, number in value.samples():
        yield f"{family.name}{suffix}{_braces([*pairs, f'le={_quote(bound)}'] if bound else pairs)} {number}"


def _braces(pairs: list[str]) -> str:
    return f"{{{','.join(pairs)}}}" if pairs else ""


def _quote(text: str) -> str:
    escaped = text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
    return f'"{escaped}"'
