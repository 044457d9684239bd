"""Fixtures that drive the real `netns-lab`, each lab in a folder of its own."""

import os
import subprocess
import sys
import uuid
from functools import partial
from pathlib import Path

import pytest

from tests.waiting import wait_until

STAND_IN = [sys.executable, str(Path(__file__).with_name("stand_in_daemon.py"))]
COMMAND = str(Path(sys.executable).with_name("netns-lab"))
SECONDS = 150


class Lab:
    """A lab that a test may bring up. All its processes carry a mark in their environment."""

    command = COMMAND

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.labs = folder / "labs"
        self.root = self.labs / "default"
        self.mark = f"NETNS_LAB_TEST={uuid.uuid4()}"
        name, _, value = self.mark.partition("=")
        # The coverage of a killed process is lost, and its data file would be a leftover.
        kept = {key: value for key, value in os.environ.items() if not key.startswith("COV_")}
        self.environment = {**kept, "NETNS_LAB_DIR": str(self.labs), name: value}

    def start(self, *words, **options):
        return subprocess.Popen(
            [COMMAND, *map(str, words)],
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **options,
        )

    def run(self, *words, status=0):
        done = subprocess.run(
            [COMMAND, *map(str, words)],
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=SECONDS,
        )
        assert done.returncode == status, done.stdout + done.stderr
        return done

    def up(self, topology: str, status=0):
        file = self.folder / "topology.toml"
        file.write_text(topology)
        return self.run("up", file, status=status)

    def await_reach(self):
        """Return once every pod reaches every other: the leases have spread."""

        def reached():
            ping = subprocess.run(
                [COMMAND, "ping", "--count", "1"], env=self.environment, capture_output=True, check=False
            )
            return ping.returncode == 0

        wait_until(reached, SECONDS)

    def processes(self):
        """The pids of all living processes of this lab, with their command lines."""
        found = {}
        for proc in Path("/proc").glob("[0-9]*"):
            try:
                if self.mark.encode() in (proc / "environ").read_bytes().split(b"\0"):
                    found[int(proc.name)] = (proc / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:
                continue  # it has ended, or is not ours
        return found

    def leftovers(self):
        """Whatever of the lab is still there."""
        return [*self.processes().values(), *self.labs.rglob("*")]


@pytest.fixture
def lab(tmp_path):
    made = Lab(tmp_path)
    yield made
    if made.root.exists():
        made.run("down")
    assert made.leftovers() == []


@pytest.fixture
def wait_for():
    """The function that waits for a condition, as long as a lab may take."""
    return partial(wait_until, seconds=SECONDS)


@pytest.fixture
def stand_in():
    """The words of a daemon that is ready at once and moves no packet."""
    return STAND_IN
