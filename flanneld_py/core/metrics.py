"""Metrics in Prometheus' text format, version 0.0.4
(https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format).

Owns the format. What is counted, and where, is the business of the parts that count.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from flanneld_py.core.histogram import Histogram

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

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
