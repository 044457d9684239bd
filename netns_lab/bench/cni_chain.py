"""A daemon's CNI plugins, and calling them as a container runtime does, timed.

Runs inside the stage, on a node: a process of its own enters the node, makes the pods' namespaces and calls, so that
each call costs an exec and nothing of the stage's own.
"""

import json
import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from netns_lab.bench.subject import Subject
from netns_lab.cni import describe_failure
from netns_lab.errors import LabError
from netns_lab.namespaces import Kind, Place, fork_and_report, setns, unshare
from netns_lab.processes import run_to_end

BIN_FOLDER = Path("/run/bench-cni/bin")
STATE_FOLDER = Path("/run/bench-cni/state")
INSTALL_SECONDS = 30.0
Times = dict[str, list[float]]
"""Milliseconds by figure."""


@dataclass(frozen=True, slots=True)
class Chain:
    """Plugins in a folder, of which `flannel` is called."""

    folder: Path
    subnet_file: Path

    @property
    def config(self) -> bytes:
        """What the plugin reads; the version is the newest that the older genuine plugins understand."""
        return json.dumps(
            {
                "cniVersion": "0.4.0",
                "name": "cbr0",
                "type": "flannel",
                "subnetFile": str(self.subnet_file),
                "dataDir": str(STATE_FOLDER / "flannel"),
                "ipam": {"dataDir": str(STATE_FOLDER / "networks")},
                "delegate": {"hairpinMode": True, "isDefaultGateway": True, "ipMasq": False},
            }
        ).encode()


def find_chain(subject: Subject, place: Place, subnet_file: Path) -> Chain | None:
    """Return a daemon's plugins: those in the folder `cni` beside it, else its flannelctl's; None if there are none."""
    program = Path(subject.command[0])
    if os.access(program.parent / "cni" / "flannel", os.X_OK):
        return Chain(program.parent / "cni", subnet_file)
    tool = program.parent / "flannelctl"
    if not os.access(tool, os.X_OK):
        return None
    done = run_to_end(
        [str(tool), "cni", "install", f"--bin-dir={BIN_FOLDER}", f"--conf-dir={BIN_FOLDER}"],
        place,
        seconds=INSTALL_SECONDS,
    )
    if done.returncode != 0:
        raise LabError(f"{tool} cni install failed: {done.stderr.strip()}")
    return Chain(BIN_FOLDER, subnet_file)


class Caller:
    """Calls a chain for pods that it makes, from a process that is on the node."""

    def __init__(self, chain: Chain, pods: int) -> None:
        self._chain = chain
        self._executable = str(chain.folder / "flannel")
        with Path("/proc/self/ns/net").open("rb") as home:
            self._pods = [self._make_pod(home.fileno()) for _ in range(pods)]

    @staticmethod
    def _make_pod(home: int) -> int:
        unshare(Kind.NETWORK)
        pod = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        setns(home, Kind.NETWORK)
        return pod

    def start(self, verb: str, number: int) -> subprocess.Popen[bytes]:
        """Start a call for a pod."""
        variables = {
            "CNI_COMMAND": verb,
            "CNI_CONTAINERID": f"pod{number}",
            "CNI_NETNS": f"/proc/{os.getpid()}/fd/{self._pods[number]}",
            "CNI_IFNAME": "eth0",
            "CNI_PATH": str(self._chain.folder),
            "PATH": os.environ.get("PATH", os.defpath),
        }
        process = subprocess.Popen(
            [self._executable], env=variables, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        if process.stdin is not None:
            process.stdin.write(self._chain.config)
            process.stdin.close()
            process.stdin = None
        return process

    def finish(self, verb: str, process: subprocess.Popen[bytes]) -> None:
        """Wait for a call. Raises LabError if it failed."""
        output, complaint = process.communicate()
        if process.returncode != 0:
            raise LabError(describe_failure(self._executable, verb, output.decode(), complaint.decode()))

    def one_by_one(self, verb: str, numbers: Iterable[int]) -> list[float]:
        """Call for one pod after the other and return each call's time."""
        return [timed(lambda number=number: self.finish(verb, self.start(verb, number))) for number in numbers]  # type: ignore[misc]  # a lambda's default

    def at_once(self, verb: str, numbers: Sequence[int]) -> float:
        """Call for all pods at once, and return the time until the last call is over."""

        def call() -> None:
            for process in [self.start(verb, number) for number in numbers]:
                self.finish(verb, process)

        return timed(call)


def timed(work: Callable[[], None]) -> float:
    """Return how many milliseconds something takes."""
    start = time.perf_counter()
    work()
    return (time.perf_counter() - start) * 1000


def measure_on(place: Place, measure: Callable[[], Times]) -> Times:
    """Run `measure` in a process on a node and return what it returns. Raises LabError."""
    reading, writing = os.pipe()

    def body(_: socket.socket) -> None:
        os.close(reading)
        place.enter()
        try:
            told: object = measure()
        except (LabError, OSError) as error:
            told = str(error)
        os.write(writing, json.dumps(told).encode())

    try:
        fork_and_report(body)
        os.close(writing)
        with open(reading, "rb", closefd=False) as answer:
            told = json.loads(answer.read())
    finally:
        os.close(reading)
    if isinstance(told, str):
        raise LabError(told)
    found: Times = told
    return found
