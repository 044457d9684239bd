"""docs/how-it-works.md shows what the lab prints: its commands are run, and their output is compared but for chance."""

import os
import re
import shlex
from pathlib import Path

import pytest

from tests.netns_lab.conftest import COMMAND, lab

__all__ = ["lab"]

pytestmark = [pytest.mark.lab, pytest.mark.etcd, pytest.mark.timeout(180)]

DOCUMENT = Path(__file__).parents[2] / "docs" / "how-it-works.md"
CHANCE = {
    "MAC": r"\b(?:[0-9a-f]{2}:){5}[0-9a-f]{2}\b",
    "SUBNET": r"\b10\.244\.\d+(?=\.)",
    "VETH": r"\bveth[0-9a-f]{8}\b",
    "PORT": r"(?<=UDP )\d+",
    "NEXTHOP": r"(?<=nhid )\d+|(?<=object )\d+",
    "TIME": r"[\d.]+(?= m?s\b)",
}
COLUMNS = "100"


def read_sessions(text):
    """(command, what it prints) of each line that begins with a dollar; what is left out first is a line of …."""
    blocks = re.findall(r"^```\n(\$ .*?)^```", text, re.MULTILINE | re.DOTALL)
    return [part.partition("\n")[::2] for block in blocks for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]]


def without_chance(text):
    """Return the lines without what differs in each run: values by name, a table's rows without the time, else sorted.

    In a table equal values have equal names, in order of appearance: a frame that goes on keeps its MACs.
    """
    is_table = "│" in text
    if is_table:
        text = re.sub(r"^│ +\d* │", "│", text, flags=re.MULTILINE)
        text = re.sub(r"[━─]+", "-", text)
    for name, pattern in CHANCE.items():
        values = list(dict.fromkeys(re.findall(pattern, text)))
        text = re.sub(pattern, lambda found: f"{name}{values.index(found[0]) if is_table else ''}", text)  # noqa: B023
    lines = [" ".join(line.split()) for line in text.splitlines()]
    return lines if is_table else sorted(lines)


def run_session(lab, command):
    """Run a command of the document and return what it prints; the lab has to be up, with a width that is known."""
    lab.environment |= {"COLUMNS": COLUMNS, "PATH": f"{Path(COMMAND).parent}:{os.environ['PATH']}"}
    program, *words = shlex.split(command)
    assert program == "netns-lab"
    return lab.run(*words).stdout


def test_the_document_shows_what_the_lab_prints(lab):
    lab.run("up")
    lab.await_reach()
    sessions = read_sessions(DOCUMENT.read_text())
    assert {command.split()[1] for command, _ in sessions} == {"exec", "trace", "demo"}
    for command, shown in sessions:
        printed = run_session(lab, command)
        if shown.startswith("…\n"):
            shown = shown.removeprefix("…\n")  # noqa: PLW2901 - the rest of it
            printed = "".join(printed.splitlines(keepends=True)[-len(shown.splitlines()) :])
        assert without_chance(printed) == without_chance(shown), f"$ {command}\n{printed}"
