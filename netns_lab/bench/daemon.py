"""A daemon under measurement: started with the moment of its exec noted, asked what it costs, ended.

Runs inside the stage, in a process with a single thread.
"""

import os
import signal
import struct
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from netns_lab.errors import LabError
from netns_lab.namespaces import Place
from netns_lab.programs import environment

STOP_SECONDS = 5.0
MOMENT = struct.Struct("=d")
KB_IN_MB = 1024
TICKS = os.sysconf("SC_CLK_TCK")
TAIL_LINES = 15


@dataclass(frozen=True, slots=True)
class Cost:
    """CPU seconds since the start, and memory in MB: resident, its peak, and proportional (shared pages divided)."""

    cpu: float
    resident: float
    peak: float
    proportional: float


class Daemon:
    """A running daemon. `started` is the moment of its exec on the monotonic clock."""

    def __init__(self, command: Sequence[str], place: Place, log: Path) -> None:
        log.parent.mkdir(parents=True, exist_ok=True)
        self._command = command
        self._log = log
        reader, writer = os.pipe()

        def enter() -> None:
            place.enter()
            os.write(writer, MOMENT.pack(time.monotonic()))

        try:
            with log.open("ab") as output:
                self._process = subprocess.Popen(
                    command,
                    env=environment(),
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    start_new_session=True,
                    preexec_fn=enter,  # noqa: PLW1509  # this process has one thread
                )
            (self.started,) = MOMENT.unpack(os.read(reader, MOMENT.size))
        except (OSError, subprocess.SubprocessError) as error:
            raise LabError(f"cannot run {' '.join(command)}: {error}") from error
        finally:
            os.close(reader)
            os.close(writer)

    @property
    def pid(self) -> int:
        """Its pid, as the stage counts."""
        return self._process.pid

    def require(self) -> None:
        """Raise LabError, with the end of its log, if it no longer runs."""
        status = self._process.poll()
        if status is not None:
            raise LabError(f"{self._command[0]} has ended with {status}; the end of its log:\n{self.tail()}")

    def ended(self) -> int | None:
        """Return its exit status, None while it runs."""
        return self._process.poll()

    def read_cost(self) -> Cost:
        """Return what it has cost so far. Raises LabError if it has ended."""
        self.require()
        return read_process_cost(self.pid)

    def tell(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self._process.send_signal(number)

    def stop(self) -> None:
        """End it by SIGTERM, and by SIGKILL if that takes over STOP_SECONDS."""
        self._process.terminate()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()
        self._process.wait()

    def has_said(self, words: str) -> bool:
        """Tell whether these words are in its log, which those of the same node before it share."""
        return words in self._log.read_text(errors="replace")

    def tail(self) -> str:
        """Return the last lines of its log."""
        lines = self._log.read_text(errors="replace").splitlines()
        return "\n".join(f"  {line}" for line in lines[-TAIL_LINES:]) or "  (nothing)"


def read_process_cost(pid: int) -> Cost:
    """Return what a living process has cost so far."""
    proc = Path("/proc", str(pid))
    status = parse_kilobytes((proc / "status").read_text())
    rollup = parse_kilobytes((proc / "smaps_rollup").read_text())
    return Cost(
        cpu=parse_cpu_seconds((proc / "stat").read_text(), TICKS),
        resident=status["VmRSS"] / KB_IN_MB,
        peak=status["VmHWM"] / KB_IN_MB,
        proportional=rollup["Pss"] / KB_IN_MB,
    )


def read_thread_times(pid: int) -> dict[int, int]:
    """Return the nanoseconds that each living thread has run; utime and stime only come in hundredths of a second."""
    times = {}
    for thread in Path("/proc", str(pid), "task").iterdir():
        with suppress(OSError):  # it has just ended
            times[int(thread.name)] = int((thread / "schedstat").read_text().split()[0])
    return times


def seconds_between(before: Mapping[int, int], after: Mapping[int, int]) -> float:
    """Return how long the threads that live at the end ran in between."""
    return sum(ran - before.get(thread, 0) for thread, ran in after.items()) / 1e9


def parse_kilobytes(text: str) -> dict[str, int]:
    """Read the `Name: 123 kB` lines of /proc/PID/status and smaps_rollup (proc(5))."""
    fields = [line.split() for line in text.splitlines()]
    return {words[0].rstrip(":"): int(words[1]) for words in fields if words[-1:] == ["kB"]}


def parse_cpu_seconds(stat: str, ticks: int) -> float:
    """Return utime + stime of /proc/PID/stat; all threads, ended ones too (proc(5), fields 14 and 15)."""
    fields = stat.rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / ticks
