"""Tables in Markdown, which a terminal and a document show alike. Pure."""

from collections.abc import Sequence

from netns_lab.bench.figures import format_spread, format_value
from netns_lab.bench.results import Outcome


def markdown_table(rows: Sequence[Sequence[str]]) -> str:
    """Write rows, the header first, with their columns aligned."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def outcome_table(outcome: Outcome) -> str:
    """Write one case at one size: a row for each figure, a column for each subject, and the quotient of two."""
    subjects = outcome.subjects
    header = ["figure", "unit", *subjects]
    if len(subjects) > 1:
        header.append("second ÷ first")
    rows = [header]
    for figure, unit in outcome.figures():
        found = [outcome.find(subject, figure) for subject in subjects]
        row = [figure, unit, *("-" if series is None else format_spread(series) for series in found)]
        if len(subjects) > 1:
            medians = [None if series is None else series.median for series in found]
            row.append(quotient(medians[1], medians[0]))
        rows.append(row)
    return markdown_table(rows)


def quotient(upper: float | None, lower: float | None) -> str:
    """Write how many times `lower` goes into `upper`; a dash where that says nothing."""
    return "-" if upper is None or not lower else format_value(upper / lower)


def outcome_text(outcome: Outcome) -> str:
    """Write a case's heading, its table and its notes."""
    rounds = max((len(series.values) for series in outcome.series), default=0)
    spread = "" if rounds <= 1 else f"; median (smallest to largest) of {rounds} rounds"
    size = f", N = {outcome.n:,}" if outcome.n else ""
    lines = [f"{outcome.case}{size}: {outcome.measures}{spread}\n"]
    if outcome.series:
        lines.append(outcome_table(outcome))
    lines += [f"Note: {note}" for note in outcome.notes]
    return "\n".join(lines)
