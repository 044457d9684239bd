"""The documents' netns-lab commands, run in labs; what they do is tested elsewhere, here only that they do."""

import shlex
import signal
from pathlib import Path
from urllib.request import urlopen

import pytest

from tests.docs.commands import GROUPS, commands_of
from tests.netns_lab.conftest import COMMAND, lab
from tests.netns_lab.test_lab_kubernetes import kube_lab

__all__ = ["kube_lab", "lab"]

pytestmark = [pytest.mark.lab, pytest.mark.etcd, pytest.mark.timeout(400)]

OURS = shlex.quote(str(Path(COMMAND).with_name("flanneld")))
SMALL = {"--n": "3", "--rounds": "1", "--seconds": "1", "--minutes": "0.2", "--beside": OURS, "--daemon": OURS}


def run(lab, line):
    """Run a command in the small, with files that it writes in the test's folder."""
    _, *words = shlex.split(line)
    for place, word in enumerate(words[:-1]):
        if word in SMALL:
            words[place + 1] = SMALL[word]
        elif word in {"--json", "--plot", "--pcap"}:
            words[place + 1] = str(lab.folder / Path(words[place + 1]).name)
    if words[0] == "bench":
        words[2:2] = ["--rounds", "1", "--quick"]  # where the document gives neither rounds nor sizes
    return lab.run(*words)


def open_page(lab, line):
    """Have the page served, and end it as Ctrl-C does."""
    page = lab.start(*shlex.split(line)[1:], "--port", "0")
    try:
        told = page.stdout.readline().split()
        with urlopen(told[4], timeout=60) as answer:  # noqa: S310 - the lab's own page
            assert b"<html" in answer.read()
    finally:
        page.send_signal(signal.SIGINT)
        page.communicate(timeout=60)


def breaks(line):
    return " del " in line


@pytest.mark.usefixtures("loopback")
def test_commands_in_a_lab(lab):
    order = [start.split()[1] for start in GROUPS["lab"]]
    # The plainest lab comes up last: all else is done in that one.
    lines = sorted(commands_of("lab"), key=lambda line: (order.index(line.split()[1]), breaks(line), -len(line)))
    assert {line.split()[1] for line in lines} == set(order)
    for line in lines:
        if line.split()[1] == "up" and lab.root.exists():
            lab.run("down")
        if line.split()[1] == "web":
            open_page(lab, line)
        else:
            run(lab, line)
        if line.split()[1] == "up" or breaks(line):
            lab.await_reach()
    assert lab.leftovers() == []


def test_demonstrations(lab):
    lines = commands_of("demo")
    assert lines
    for line in lines:
        assert "no packet lost" in run(lab, line).stdout


@pytest.mark.kubernetes
def test_commands_with_kubernetes(kube_lab):
    lines = sorted(commands_of("kubernetes"), key=lambda line: "up" not in line)
    assert len(lines) == 2
    for line in lines:
        run(kube_lab, line)


@pytest.mark.full
@pytest.mark.parametrize("line", [*commands_of("bench"), *commands_of("chaos")])
def test_commands_that_take_long(lab, line):
    run(lab, line)
    assert lab.leftovers() == []
