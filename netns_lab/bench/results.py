"""The outcome of a run, and its JSON form. Pure, but for `describe_machine`."""

import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from netns_lab.bench.figures import Series

FORMAT = 1
MEGABYTE_KB = 1024


@dataclass(frozen=True, slots=True)
class Outcome:
    """All series of a case at one size, and notes on what a subject could not do."""

    case: str
    n: int
    measures: str
    subjects: tuple[str, ...]
    series: tuple[Series, ...]
    notes: tuple[str, ...] = ()

    def find(self, subject: str, figure: str) -> Series | None:
        """Return one figure of one subject."""
        for series in self.series:
            if (series.subject, series.figure) == (subject, figure):
                return series
        return None

    def figures(self) -> list[tuple[str, str]]:
        """Return the names and units of all figures, in order."""
        return list(dict.fromkeys((series.figure, series.unit) for series in self.series))


@dataclass(frozen=True, slots=True)
class Run:
    """A whole run: when, where, of what."""

    date: str
    machine: str
    subjects: tuple[str, ...]
    outcomes: tuple[Outcome, ...]


def describe_machine() -> str:
    """Say what the figures were taken on."""
    memory = Path("/proc/meminfo").read_text().split()[1]
    return (
        f"{os.cpu_count()} cores, {int(memory) // MEGABYTE_KB // 1024} GB, "
        f"{platform.system()} {platform.release()} {platform.machine()}, Python {platform.python_version()}, "
        f"load average {os.getloadavg()[0]:.1f} before"
    )


def encode_outcome(outcome: Outcome) -> dict[str, object]:
    """Write an outcome as JSON values."""
    series = [
        asdict(each) | {"median": each.median, "min": each.low, "max": each.high, "values": list(each.values)}
        for each in outcome.series
    ]
    return {
        "case": outcome.case,
        "n": outcome.n,
        "measures": outcome.measures,
        "subjects": list(outcome.subjects),
        "series": series,
        "notes": list(outcome.notes),
    }


def decode_outcome(value: Mapping[str, object]) -> Outcome:
    """Read what `encode_outcome` wrote."""
    series: Sequence[Mapping[str, object]] = value["series"]  # type: ignore[assignment]  # our own writing
    subjects: Iterable[str] = value["subjects"]  # type: ignore[assignment]  # our own writing
    notes: Iterable[str] = value["notes"]  # type: ignore[assignment]  # our own writing
    return Outcome(
        case=str(value["case"]),
        n=int(str(value["n"])),
        measures=str(value["measures"]),
        subjects=tuple(subjects),
        series=tuple(
            Series(
                case=str(each["case"]),
                n=int(str(each["n"])),
                subject=str(each["subject"]),
                figure=str(each["figure"]),
                unit=str(each["unit"]),
                values=tuple(each["values"]),  # type: ignore[arg-type]  # our own writing
            )
            for each in series
        ),
        notes=tuple(notes),
    )


def encode_run(run: Run) -> dict[str, object]:
    """Write a whole run as JSON values."""
    return {
        "format": FORMAT,
        "date": run.date,
        "machine": run.machine,
        "subjects": list(run.subjects),
        "outcomes": [encode_outcome(outcome) for outcome in run.outcomes],
    }
