"""`flannelctl doctor`: looks for what users run into, says what was seen and what mends it, and mends what is safe."""

from __future__ import annotations

import shlex
import subprocess
import sys
from typing import TYPE_CHECKING

from flanneld_py.ctl.checks import judge_all
from flanneld_py.ctl.checks.facts import add_facts_flags, read_facts
from flanneld_py.ctl.checks.probes import list_unknown
from flanneld_py.ctl.output import NOT_WELL, OK, Table, show, show_json

if TYPE_CHECKING:
    import argparse

    from flanneld_py.ctl.checks.finding import Finding
    from flanneld_py.ctl.subparsers import Subparsers


def register(subcommands: Subparsers[argparse.ArgumentParser]) -> None:
    """Add `doctor` to the command line."""
    parser = subcommands.add_parser(
        "doctor",
        help="look for what goes wrong on nodes, and for what mends it",
        description="Checks this node. Exits with 0 when nothing is found, with 3 when something is.",
    )
    parser.add_argument("--fix", action="store_true", help="run the commands that are safe, and look again")
    add_facts_flags(parser)
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    facts = read_facts(options)
    found = judge_all(facts)
    done: list[str] = []
    if options.fix:
        done = [_carry_out(command) for finding in found if finding.safe for command in finding.mend]
        facts = read_facts(options)
        found = judge_all(facts)
    unknown = list_unknown(facts)
    if options.json:
        show_json({"done": done, "findings": [finding._asdict() for finding in found], "not_checked": unknown})
    else:
        show([*done, *describe(found), *(f"not checked: {one}" for one in unknown)])
    return NOT_WELL if found else OK


def _carry_out(command: str) -> str:
    words = shlex.split(command)
    if words[0] == "flannelctl":
        words[0] = sys.argv[0]
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=False)
    except OSError as error:
        return f"failed: {command}: {error.strerror}"
    if done.returncode:
        return f"failed: {command}: {done.stderr.strip()}"
    return f"done: {command}"


def describe(found: list[Finding]) -> list[str | Table]:
    """Write findings for a reader."""
    if not found:
        return ["nothing found"]
    rows = [[one.severity, one.check, one.evidence] for one in found]
    mends = [f"  {command}" for one in found for command in one.mend]
    safe = any(one.safe for one in found)
    return [
        Table("", ("severity", "check", "what was seen"), rows),
        "what mends it:",
        *dict.fromkeys(mends),
        *(["flannelctl doctor --fix does those of it that are safe"] if safe else []),
    ]
