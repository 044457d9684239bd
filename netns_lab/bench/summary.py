"""The table of the chief figures of a whole run. Pure."""

from netns_lab.bench.figures import format_spread
from netns_lab.bench.results import Outcome, Run
from netns_lab.bench.table import markdown_table, quotient

CHIEF = (
    ("start", ("exec → subnet.env", "resident")),
    ("cold", ("exec → all programmed", "CPU", "resident", "resident at most", "proportional")),
    ("churn", ("one by one: first put → all programmed", "by hundreds: first put → all programmed")),
    ("latency", ("put → route, p50", "put → route, p99")),
    ("idle", ("CPU meanwhile",)),
    (
        "restart-loss",
        (
            "SIGTERM, restart: lost",
            "kill -9, restart: lost",
            "switch to the other: lost",
            "switch back: lost",
        ),
    ),
    ("throughput", ("one TCP stream",)),
    (
        "miss",
        (
            "exec → subnet.env",
            "resident",
            "first packet, p50",
            "first packet, p99",
            "lost",
            "kernel entries after",
            "etcd watches after",
        ),
    ),
    ("fleet", ("put → the last watcher", "etcd's CPU for a joining node", "etcd resident with them")),
)
"""Cases, and of each the figures that the summary shows."""


def summary_text(run: Run) -> str:
    """Write the table, after a line on when and where; a single case needs no summary."""
    heading = f"{run.date}, {run.machine}"
    if len({outcome.case for outcome in run.outcomes}) < 2:
        return heading
    rows = [["case", "figure", *run.subjects, *(["second ÷ first"] if len(run.subjects) > 1 else [])]]
    rows += [row for outcome in run.outcomes for row in summary_rows(run, outcome)]
    notes = [f"Note: {note}" for outcome in run.outcomes for note in outcome.notes]
    return "\n".join([heading, "", markdown_table(rows), *notes])


def summary_rows(run: Run, outcome: Outcome) -> list[list[str]]:
    """Write a row for each chief figure of a case; what etcd itself is the subject of goes into the first column."""
    rows = []
    units = dict(outcome.figures())
    for figure in dict(CHIEF).get(outcome.case, ()):
        if figure not in units:
            continue
        of_daemons = any(outcome.find(subject, figure) for subject in run.subjects)
        subjects = run.subjects if of_daemons else outcome.subjects
        found = [outcome.find(subject, figure) for subject in subjects]
        cells = ["-" if series is None else format_spread(series) for series in found]
        cells += ["-"] * (len(run.subjects) - len(cells))
        if len(run.subjects) > 1:
            medians = [None if series is None else series.median for series in found] + [None]
            cells.append(quotient(medians[1], medians[0]))
        name = f"{outcome.case}, N = {outcome.n:,}" if outcome.n else outcome.case
        rows.append([name, f"{figure}, {units[figure]}".rstrip(", "), *cells])
    return rows
