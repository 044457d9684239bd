"""The arguments of `netns-lab bench`. Imports nothing that costs time: every verb's start pays for it."""

import argparse
from collections.abc import Callable
from pathlib import Path

from netns_lab.bench.cases import CASES

ALL = "all"


def add_bench_arguments(parser: argparse.ArgumentParser) -> None:
    """Give the verb its arguments."""
    cases = "\n".join(f"  {name:<14}{measures}" for name, measures in CASES.items())
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = f"cases:\n{cases}\n  {ALL:<14}each of them, and a table of the chief figures"
    parser.add_argument("case", choices=[*CASES, ALL], metavar="CASE", help="see below")
    parser.add_argument("--n", type=numbers, metavar="N[,N…]", help="the size, or several one after the other")
    parser.add_argument("--daemon", metavar="'CMD …'", help="the daemon's command (default: flanneld)")
    parser.add_argument("--beside", metavar="'CMD …'", help="another daemon, played in turn with the first")
    parser.add_argument("--rounds", type=number_from(1), metavar="R", help="how often for each daemon")
    parser.add_argument("--seconds", type=seconds, metavar="S", help="how long a case that takes a time looks")
    parser.add_argument("--quick", action="store_true", help="smaller sizes, where none are given")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all values there")
    parser.add_argument("--plot", type=svg_file, metavar="FILE.svg", help="draw them there")


def numbers(text: str) -> tuple[int, ...]:
    """Parse a comma list of sizes. Raises ArgumentTypeError."""
    return tuple(number_from(0)(word) for word in text.split(","))


def number_from(least: int) -> Callable[[str], int]:
    """Return a parser of whole numbers from `least` up."""

    def parse(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text!r} is not a number from {least} up")
        return int(text)

    return parse


def seconds(text: str) -> float:
    """Parse a time. Raises ArgumentTypeError."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds over 0")
    return value


def svg_file(text: str) -> Path:
    """Check the name of the plot's file. Raises ArgumentTypeError."""
    if not text.endswith(".svg"):
        raise argparse.ArgumentTypeError(f"{text!r}: plots are drawn as .svg")
    return Path(text)
