"""A reader of Go's flag syntax: `-x` and `--x` alike, `=value` or the next word, and a variable for each flag.

Owns the syntax only; which flags there are is told to it (Go's package `flag`, and flannel's use of pflag's
variables: `--etcd-prefix` is `FLANNELD_ETCD_PREFIX`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

_VARIABLE_PREFIX = "FLANNELD_"
_TRUE = frozenset({"1", "t", "T", "true", "TRUE", "True"})
_FALSE = frozenset({"0", "f", "F", "false", "FALSE", "False"})
_DURATION = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(ns|us|µs|ms|s|m|h)")
_DURATION_SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}


class FlagError(Exception):
    """The command line or a variable cannot be used; the message says which flag and what is expected."""


class HelpRequestedError(Exception):
    """`-h` or `--help` was given."""


@dataclass(frozen=True, slots=True)
class Flag:
    """One flag. `parse` turns its text into a value or raises ValueError saying what is expected."""

    name: str
    default: object
    parse: Callable[[str], object]
    help: str
    is_boolean: bool = False
    repeatable: bool = False

    @property
    def variable(self) -> str:
        """The environment variable that stands for the flag."""
        return _VARIABLE_PREFIX + self.name.replace("-", "_").upper()


def parse_flags(flags: Iterable[Flag], words: Sequence[str], environ: Mapping[str, str]) -> dict[str, Any]:
    """Return the value of each flag: from the command line, else its variable, else its default.

    A bare word, or `--`, ends parsing. Repeatable flags give tuples. Raises FlagError and HelpRequestedError.
    """
    known = {flag.name: flag for flag in flags}
    given = _parse_words(known, words)
    values: dict[str, object] = {}
    for flag in known.values():
        if flag.name in given:
            values[flag.name] = tuple(given[flag.name]) if flag.repeatable else given[flag.name][-1]
        elif environ.get(flag.variable):
            values[flag.name] = _parse_variable(flag, environ[flag.variable])
        else:
            values[flag.name] = flag.default
    return values


def _parse_words(known: Mapping[str, Flag], words: Sequence[str]) -> dict[str, list[object]]:
    given: dict[str, list[object]] = {}
    rest = list(words)
    while rest and len(rest[0]) > 1 and rest[0].startswith("-") and rest[0] != "--":
        word = rest.pop(0)
        name, equals, text = word.lstrip("-").partition("=")
        if len(word) - len(word.lstrip("-")) > 2 or not name:
            raise FlagError(f"{word!r} is no flag; --help lists them")
        if name in {"h", "help"} and name not in known:
            raise HelpRequestedError
        flag = known.get(name)
        if flag is None:
            raise FlagError(f"unknown flag --{name}; --help lists those there are")
        if not equals:
            if not flag.is_boolean and not rest:
                raise FlagError(f"--{name} needs a value")
            text = "true" if flag.is_boolean else rest.pop(0)
        given.setdefault(name, []).append(_parse_text(flag, f"--{name}", text))
    return given


def _parse_variable(flag: Flag, text: str) -> object:
    value = _parse_text(flag, flag.variable, text)
    return (value,) if flag.repeatable else value


def _parse_text(flag: Flag, shown: str, text: str) -> object:
    try:
        return flag.parse(text)
    except ValueError as error:
        raise FlagError(f"{shown}: {error}") from error


def describe_flags(flags: Iterable[Flag]) -> str:
    """Write the list of flags for --help."""
    lines = []
    for flag in flags:
        default = f" (default {flag.default})" if flag.default not in {"", None, ()} and not flag.is_boolean else ""
        if flag.is_boolean and flag.default:
            default = " (default true)"
        lines.append(f"  --{flag.name}\n        {flag.help}{default}")
    return "\n".join(lines)


def parse_boolean(text: str) -> bool:
    """Read a boolean as Go's strconv.ParseBool does."""
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    raise ValueError(f"{text!r} is no boolean; expected true or false")


def parse_integer(low: int, high: int) -> Callable[[str], int]:
    """Return a reader of integers within bounds, decimal, 0x…, 0o… or 0b…."""

    def parse(text: str) -> int:
        try:
            value = int(text, 0)
        except ValueError as error:
            raise ValueError(f"{text!r} is no integer; expected {low} to {high}") from error
        if not low <= value <= high:
            raise ValueError(f"{value} is out of bounds; expected {low} to {high}")
        return value

    return parse


def parse_choice(choices: Sequence[str]) -> Callable[[str], str]:
    """Return a reader of one of a few words."""

    def parse(text: str) -> str:
        if text not in choices:
            raise ValueError(f"{text!r} is not known; expected one of: {', '.join(choices)}")
        return text

    return parse


def parse_seconds(text: str) -> float:
    """Read a duration: plain seconds, or Go's notation such as 1m30s."""
    if text.isascii() and text.isdecimal():
        return float(text)
    parts = _DURATION.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise ValueError(f"{text!r} is no duration; expected seconds or one like 1m30s")
    return sum(float(number) * _DURATION_SECONDS[unit] for number, unit in parts)


def parse_text(text: str) -> str:
    """Take the text as it is."""
    return text
