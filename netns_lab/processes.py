"""Running programs in the lab: long-living ones with a log file and a pid file, and short ones to their end.

All of it runs inside the lab, in a process with a single thread.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from netns_lab.errors import LabError
from netns_lab.namespaces import Place
from netns_lab.programs import SEARCH_PATH, environment

TAIL_LINES = 15
ENDING_INTERVAL = 0.01
CANNOT_EXECUTE = 126  # as shells count
NOT_FOUND = 127


def execute(command: Sequence[str], place: Place) -> NoReturn:
    """Become `command`, in `place`; end with 126 or 127 where that fails."""
    status = CANNOT_EXECUTE
    name = command[0]
    try:
        place.enter()
        for ignored_by_python in (signal.SIGPIPE, signal.SIGINT):
            signal.signal(ignored_by_python, signal.SIG_DFL)
        program = name if "/" in name else shutil.which(name, path=SEARCH_PATH) or name
        os.execve(program, list(command), environment())  # noqa: S606  # a list, no shell
    except FileNotFoundError:
        status = NOT_FOUND
        print(f"netns-lab: {name}: command not found", file=sys.stderr, flush=True)
    except OSError as error:
        print(f"netns-lab: {name}: {error.strerror}", file=sys.stderr, flush=True)
    finally:
        os._exit(status)


def run_to_end(
    command: Sequence[str], place: Place, *, seconds: float, stdin: str = "", extra: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a short command in `place` and return what it wrote. Raises LabError if it takes too long."""
    try:
        return subprocess.run(
            command,
            input=stdin,
            env=environment() | dict(extra or {}),
            preexec_fn=place.enter,  # this process has one thread
            capture_output=True,
            check=False,
            text=True,
            timeout=seconds,
        )
    except subprocess.TimeoutExpired:
        raise LabError(f"waited {seconds:g} s for {' '.join(command)} to end") from None
    except (OSError, subprocess.SubprocessError) as error:
        raise LabError(f"cannot run {' '.join(command)}: {error}") from error


@dataclass(frozen=True, slots=True)
class Program:
    """A long-living program: its name in messages, and its folder with `log` and `pid`."""

    name: str
    folder: Path

    @property
    def log(self) -> Path:
        """What it writes."""
        return self.folder / "log"

    @property
    def pid_file(self) -> Path:
        """Its pid, as the lab counts."""
        return self.folder / "pid"

    def start(self, command: Sequence[str], place: Place) -> None:
        """Start it in a session of its own; it stays when we end."""
        self.folder.mkdir(parents=True, exist_ok=True)
        null = os.open(os.devnull, os.O_RDONLY)
        log = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        pid = os.fork()
        if pid == 0:
            os.setsid()
            for ours, standard in ((null, 0), (log, 1), (log, 2)):
                os.dup2(ours, standard)
            execute(command, place)
        os.close(null)
        os.close(log)
        self.pid_file.write_text(str(pid))

    def pid(self) -> int | None:
        """Its pid while it runs."""
        if not self.pid_file.exists():
            return None
        pid = int(self.pid_file.read_text())
        with suppress(ChildProcessError):  # whoever started it must reap it; others cannot
            os.waitpid(pid, os.WNOHANG)
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return None
        return pid

    def end(self, sign: signal.Signals) -> None:
        """Send it a signal that ends it, and return when it is gone."""
        pid = self.pid()
        if pid is None:
            return
        with suppress(ProcessLookupError):
            os.kill(pid, sign)
        while self.pid() is not None:
            time.sleep(ENDING_INTERVAL)

    def require(self) -> None:
        """Raise LabError, with the end of the log, if it no longer runs."""
        if self.pid() is None:
            raise LabError(f"{self.name} has ended; the end of its log:\n{self.tail()}")

    def tail(self) -> str:
        """Return the last lines of the log."""
        lines = self.log.read_text(errors="replace").splitlines()
        return "\n".join(f"  {line}" for line in lines[-TAIL_LINES:]) or "  (nothing)"
