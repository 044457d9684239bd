"""What the lab shows: tables for a terminal, plain text where there is none."""

from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from netns_lab.errors import EXIT_FAILED, EXIT_OK
from netns_lab.matrix import EndPoint, Pair, ping_matrix
from netns_lab.status import LabStatus
from netns_lab.topology import IPV6

GOOD, BAD = "green", "bold red"


def show_matrix(end_points: Sequence[EndPoint], rounds: int) -> int:
    """Ping all pairs, print the table, and return the exit status: failed if a single packet was lost."""
    pairs = ping_matrix(end_points, rounds)
    console = Console()
    for family in sorted({pair.source.family for pair in pairs}):
        of_family = [pair for pair in pairs if pair.source.family == family]
        matrix = matrix_table(of_family)
        fits = console.measure(matrix).maximum <= console.width
        show(matrix if fits else pair_table(of_family))
    show(summary(pairs))
    return EXIT_FAILED if any(pair.loss for pair in pairs) else EXIT_OK


def matrix_table(pairs: Sequence[Pair]) -> Table:
    """Rows send, columns answer, all in one family; each cell holds loss and mean round-trip time in ms."""
    names = list(dict.fromkeys(pair.source.name for pair in pairs))
    by_names = {(pair.source.name, pair.destination.name): pair for pair in pairs}
    table = Table(title=f"IPv{pairs[0].source.family}: loss and mean round-trip time in ms, from row to column")
    table.add_column(no_wrap=True)
    for name in names:
        table.add_column(name, justify="right", no_wrap=True)
    for source in names:
        cells = [by_names.get((source, destination)) for destination in names]
        table.add_row(source, *(cell(pair) if pair else "-" for pair in cells))
    return table


def pair_table(pairs: Sequence[Pair]) -> Table:
    """Write a row for each pair, where the matrix would be too wide."""
    table = Table(title=f"IPv{pairs[0].source.family}: loss and mean round-trip time in ms")
    for column in ("from", "to", "result"):
        table.add_column(column, no_wrap=True)
    for pair in pairs:
        table.add_row(pair.source.name, pair.destination.name, cell(pair))
    return table


def cell(pair: Pair) -> Text:
    """Write the result of one pair."""
    mean = "-" if pair.mean is None else f"{pair.mean * 1000:.2f}"
    return Text(f"{pair.loss:.0%} {mean}", BAD if pair.loss else GOOD)


def summary(pairs: Sequence[Pair]) -> Text:
    """One line on all pairs, and one for each that failed."""
    failed = [pair for pair in pairs if pair.loss]
    if not failed:
        return Text(f"all {len(pairs)} pairs reach each other, no packet lost", GOOD)
    lines = [f"{len(failed)} of {len(pairs)} pairs lost packets:"]
    lines += [
        f"  {pair.source.name} → {pair.destination.name}{' over IPv6' if pair.source.family == IPV6 else ''}: "
        f"{pair.sent - len(pair.round_trips)} of {pair.sent} lost{f' ({pair.refusal})' if pair.refusal else ''}"
        for pair in failed
    ]
    return Text("\n".join(lines), BAD)


def status_tables(status: LabStatus) -> Iterable[Table]:
    """Yield the tables of `netns-lab status`."""
    etcd = Table(title="etcd")
    for column in ("member", "client URL", "pid", "state"):
        etcd.add_column(column)
    for member in status.etcd:
        etcd.add_row(member.name, member.url, _pid_text(member.pid), _state_text(member.healthy, "healthy"))
    yield etcd
    nodes = Table(title="nodes")
    for column in ("node", "underlay", "address", "pod subnet", "pid", "daemon", "pods"):
        nodes.add_column(column)
    for node in status.nodes:
        pods = "\n".join(" ".join((pod.name, *pod.addresses)) for pod in node.pods)
        addresses, subnets = "\n".join(node.addresses), "\n".join(node.subnets) or "-"
        state = _state_text(node.ready, "ready")
        nodes.add_row(node.name, node.underlay, addresses, subnets, _pid_text(node.pid), state, pods)
    yield nodes


def _pid_text(pid: int | None) -> Text:
    return Text(str(pid)) if pid is not None else Text("ended", BAD)


def _state_text(good: bool, word: str) -> Text:
    return Text(word, GOOD) if good else Text(f"not {word}", BAD)


def show(*parts: Table | Text | str) -> None:
    """Print to standard output."""
    console = Console(highlight=False, emoji=False)
    for part in parts:
        console.print(part, soft_wrap=not isinstance(part, Table))
