"""How the log is written: for people, as JSON for programs, and with the priorities that systemd's journal reads.

The daemon's lines are an event and fields (`lease renewed: key=10.5.2.0-24 ttl=86400.0`); as JSON each field has its
own key.
"""

from __future__ import annotations

import logging
import os
import re
import sys
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

FORMATS = ("text", "json")
Modules = tuple[tuple[str, int], ...]
"""Patterns of modules' names (those of files without .py), each with the verbosity that they have."""

_DETAILS = 4
"""From this verbosity on, details are logged."""

_PRIORITIES = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))
"""Levels with syslog's numbers for them (sd-daemon(3)); what is below is 7, debug."""
_EVENT = re.compile(r"([^:=]+): ((?:[a-z_]+)=.*)", re.DOTALL)
_FIELD = re.compile(r"(?:^| )([a-z_]+)=")


class TextFormatter(logging.Formatter):
    """Time, level and message; to the journal, which has the time by itself, priority and message."""

    def __init__(self, *, to_journal: bool) -> None:
        super().__init__("%(message)s" if to_journal else "%(asctime)s %(levelname)s %(message)s")
        self._to_journal = to_journal

    def format(self, record: logging.LogRecord) -> str:
        """Write a record; each line of it has the priority, or the journal would give it another."""
        text = super().format(record)
        return _prioritise(record, text) if self._to_journal else text


class JsonFormatter(logging.Formatter):
    """A record as one line of JSON: time (RFC 3339), level, event, and its fields."""

    def __init__(self, *, to_journal: bool) -> None:
        super().__init__()
        self._to_journal = to_journal

    def format(self, record: logging.LogRecord) -> str:
        """Write a record."""
        import json
        from datetime import UTC, datetime

        event, fields = split_fields(record.getMessage())
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        # What every line has goes last: no field of an event may take its place.
        told = {**fields, "time": time, "level": record.levelname.lower(), "logger": record.name, "event": event}
        if record.exc_info:
            told["trace"] = self.formatException(record.exc_info)
        text = json.dumps(told)
        return _prioritise(record, text) if self._to_journal else text


def split_fields(message: str) -> tuple[str, dict[str, str]]:
    """Split `event: key=value key=value` into the event and its fields; any other message is all event."""
    match = _EVENT.fullmatch(message)
    if match is None:
        return message, {}
    event, rest = match.groups()
    _, *parts = _FIELD.split(rest)
    return event, dict(zip(parts[::2], parts[1::2], strict=True))


def _prioritise(record: logging.LogRecord, text: str) -> str:
    priority = next((number for level, number in _PRIORITIES if record.levelno >= level), 7)
    return "\n".join(f"<{priority}>{line}" for line in text.splitlines())


def _level(verbosity: int) -> int:
    return logging.DEBUG if verbosity >= _DETAILS else logging.INFO


def _pick_verbosity(module: str, modules: Modules, otherwise: int) -> int:
    return next((level for pattern, level in modules if fnmatchcase(module, pattern)), otherwise)


def is_journal(descriptor: int, environ: Mapping[str, str]) -> bool:
    """Say whether a descriptor leads to systemd's journal, by what systemd says of it (systemd.exec(5))."""
    try:
        found = os.fstat(descriptor)
    except OSError:
        return False
    return environ.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}"


def parse_modules(text: str) -> Modules:
    """Read `--vmodule`: patterns of modules' names with their levels, as `reconciler=4,etcd_*=4`. Raises ValueError."""
    found = []
    for part in filter(None, text.split(",")):
        pattern, equals, level = part.strip().partition("=")
        if not (pattern and equals and level.isascii() and level.isdecimal()):
            raise ValueError(f"{part!r} is no PATTERN=LEVEL; expected such as reconciler=4,etcd_*=4")
        found.append((pattern, int(level)))
    return tuple(found)


def set_up_log(verbosity: int, modules: Modules, chosen: str, environ: Mapping[str, str]) -> None:
    """Have the log of this process written to standard error in one of FORMATS.

    Details are logged from a `verbosity` of 4 on; `modules` have one of their own, that of the first pattern that fits.
    """
    to_journal = is_journal(sys.stderr.fileno(), environ)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter({"text": TextFormatter, "json": JsonFormatter}[chosen](to_journal=to_journal))
    if modules:
        handler.addFilter(lambda record: record.levelno >= _level(_pick_verbosity(record.module, modules, verbosity)))
    logging.basicConfig(
        level=_level(max([verbosity, *(level for _, level in modules)])),
        handlers=[handler],
    )
    for library in ("asyncio", "grpc"):
        logging.getLogger(library).setLevel(logging.WARNING)
