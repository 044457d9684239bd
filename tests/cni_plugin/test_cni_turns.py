"""Calls of one container at the daemon's door: one has its turn, and the others wait until it ends."""

import fcntl
import json
import os
import subprocess
import termios
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.waiting import wait_until

pytestmark = pytest.mark.kernel


class Turns:
    """A node whose addresses are locked, so that the call that has its turn stays in it."""

    def __init__(self, node):
        self.node = node
        self.pod = node.make_pod()
        self.rung = 0

    def call(self, verb):
        """Have a call of the container wait in the daemon, and return its process."""
        variables = {"CNI_COMMAND": verb, "CNI_CONTAINERID": "c1", "CNI_NETNS": self.pod.path, "CNI_IFNAME": "eth0"}
        caller = self.node.host.run(
            lambda: subprocess.Popen(
                [self.node.executable], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, env=variables
            )
        )
        with caller.stdin:
            caller.stdin.write(json.dumps(self.node.config()).encode())
        self.rung += 1
        wait_until(lambda: self.read_so_far() == self.rung)
        return caller

    def read_so_far(self):
        """How many calls the daemon has read: the network namespace of the caller is the last thing that it opens."""
        host = str(Path(f"/proc/{self.node.daemon.pid}/ns/net").readlink())
        links = []
        for descriptor in Path(f"/proc/{self.node.daemon.pid}/fd").iterdir():
            with suppress(FileNotFoundError):
                links.append(str(descriptor.readlink()))
        return links.count(host)


@contextmanager
def locked(folder):
    """Hold the lock that whoever gives out or takes back an address must have."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield lock


def is_waited_for(lock):
    # `1: -> FLOCK ADVISORY WRITE <process> <device>:<inode number> …` (Documentation/filesystems/proc.rst, locks)
    lines = Path("/proc/locks").read_text().splitlines()
    return any("->" in line and line.split()[6].endswith(f":{os.fstat(lock.fileno()).st_ino}") for line in lines)


@contextmanager
def adding(node):
    """Have an ADD of a container stay in its turn meanwhile, and give its process and the container's turns."""
    turns = Turns(node)
    with locked(node.networks) as lock:
        first = turns.call("ADD")
        wait_until(lambda: is_waited_for(lock))
        yield first, turns


def is_taken(caller):
    """Say whether a call is the daemon's: then its line is out of the pipe."""
    with Path(f"/proc/{caller.pid}/fd/4").open("rb", buffering=0) as pipe:
        return not any(fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)))


def added(node):
    return [line for line in node.served() if line.startswith("ADD")]


def test_an_add_whose_plugin_was_killed_while_it_waited_never_runs(ringing_node):
    node = ringing_node
    with adding(node) as (first, turns):
        killed, deleting = turns.call("ADD"), turns.call("DEL")
        assert [is_taken(caller) for caller in (first, killed, deleting)] == [True, False, False]
        killed.kill()
        killed.wait()
        assert node.held() == []
    assert first.wait(20) == deleting.wait(20) == 0
    wait_until(lambda: turns.read_so_far() == 0)
    assert added(node) == ["ADD for c1 succeeded"]
    node.settle()
    assert node.held() == []


def test_a_second_add_finds_what_the_first_one_did(ringing_node):
    with adding(ringing_node) as (first, turns):
        second = turns.call("ADD")
        assert not is_taken(second)
    assert (first.wait(20), second.wait(20)) == (0, 1)
    assert len(ringing_node.held()) == 1
