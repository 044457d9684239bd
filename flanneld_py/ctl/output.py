"""What flannelctl shows: tables and lines, with Rich on a terminal, plain where it is piped or Rich is missing."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

OK = 0
FAILED = 1
NOT_WELL = 3
"""Exit statuses: it worked; it could not be done; it was looked at and is not as it should be. 2 is wrong use."""


class Table(NamedTuple):
    """Rows under headings; `title` may be empty."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


def show_json(told: Any) -> None:
    """Print JSON for programs."""
    print(json.dumps(told, indent=2))


def show(parts: Iterable[Table | str]) -> None:
    """Print tables and lines for people."""
    if sys.stdout.isatty() and _show_rich(parts := list(parts)):
        return
    for part in parts:
        print(part if isinstance(part, str) else format_table(part))


def format_table(table: Table) -> str:
    """Write a table as plain text, its columns aligned."""
    rows = [[column.upper() for column in table.columns], *table.rows]
    widths = [max(len(row[index]) for row in rows) for index in range(len(table.columns))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([table.title, *lines] if table.title else lines)


def _show_rich(parts: Sequence[Table | str]) -> bool:
    try:
        from rich.box import SIMPLE_HEAD
        from rich.console import Console
        from rich.table import Table as RichTable
        from rich.text import Text
    except ImportError:
        return False
    console = Console(highlight=False)
    for part in parts:
        if isinstance(part, str):
            line = Text(part)
            for pattern, style in _LINE_STYLES:
                line.highlight_regex(pattern, style)
            console.print(line, soft_wrap=True)
            continue
        shown = RichTable(title=part.title or None, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
        for column in part.columns:
            shown.add_column(column, overflow="fold")
        for row in part.rows:
            cells = zip(part.columns, row, strict=True)
            shown.add_row(*(Text(cell, style=_pick_style(column, cell)) for column, cell in cells))
        console.print(shown)
    return True


_STYLES = {"ok": "green", "up": "green", "error": "bold red", "warning": "yellow"}
_STYLES |= dict.fromkeys(("no answer", "no underlay", "waiting"), "yellow")
_LINE_STYLES = (
    (r"^  [a-z_0-9A-Z]+(?= )", "cyan"),
    (r"(?<=: )ready$|^nothing found$", "bold green"),
    (r"(?<=: )not ready$|^  missing.*|^  \S+ +cannot be followed.*", "bold red"),
    (r"^not checked: .*", "yellow"),
)
"""Of lines: the name that a fact has, and what is good or bad news."""


def _pick_style(column: str, cell: str) -> str:
    return _STYLES.get(cell, "bold red" if column == "state" else "")
