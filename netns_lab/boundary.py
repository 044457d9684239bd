"""The border of a lab: starting its holder, running work inside, ending it. Outside code goes through here."""

import json
import os
import select
import signal
import socket
import subprocess
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import NoReturn

from netns_lab.errors import EXIT_FAILED, LabError, NoLabError, WaitedInVainError
from netns_lab.folder import LabFolder
from netns_lab.holder import STAY
from netns_lab.machine import explain_refusal, id_map_of_root, id_map_of_user, read_switches
from netns_lab.namespaces import PROC_NAMES, Kind, die_with_parent, setns

ENTERED = (Kind.USER, Kind.PID, Kind.NETWORK, Kind.UTS, Kind.MOUNT)
# Making a network namespace waits for others that the kernel is taking apart, which may be many on a busy machine.
START_SECONDS = 60.0
END_SECONDS = 60.0
INTERRUPTS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
INTERRUPTED = 128 + signal.SIGINT


@dataclass(frozen=True, slots=True)
class Holder:
    """A lab's holder process; the start time (clock ticks since boot) tells it from a later process with its pid."""

    pid: int
    started: int

    def lives(self) -> bool:
        """Tell whether that very process is still there."""
        return start_time(self.pid) == self.started


def start_time(pid: int) -> int | None:
    """Field 22 of /proc/PID/stat (proc(5)); None if there is no such living process."""
    try:
        # The command in field 2 may hold blanks and brackets; the state is the field after its last bracket.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in "ZX" else int(fields[19])


@dataclass(frozen=True, slots=True)
class Leash:
    """A started holder that ends with this program, until it is let go."""

    holder: Holder
    rope: socket.socket

    def let_go(self) -> None:
        """Let the lab outlive this program."""
        self.rope.sendall(STAY)
        self.rope.close()


def start_holder(folder: LabFolder) -> Leash:
    """Make a lab's namespaces. Raises LabError, with the mending command, where the machine does not allow it."""
    command = [sys.executable, "-m", "netns_lab.holder", str(folder.root)]
    ours, theirs = socket.socketpair()
    ours.settimeout(START_SECONDS)
    with theirs:
        process = subprocess.Popen(
            command, stdin=theirs.fileno(), stdout=theirs.fileno(), cwd="/", start_new_session=True
        )
    try:
        holder = _talk_to(process.pid, ours)
    except BaseException:
        ours.close()
        raise
    finally:
        process.wait()  # the first of its two processes ends when the namespaces are made, or refused
    folder.holder.write_text(json.dumps(asdict(holder)))
    return Leash(holder, ours)


def _talk_to(pid: int, rope: socket.socket) -> Holder:
    """Hold the conversation that `holder.py` describes. Raises LabError."""
    said: dict[str, str] = {}
    with rope.makefile("r") as lines:
        while not {"pid", "ready"} <= said.keys():
            try:
                word, _, rest = lines.readline().strip().partition(" ")
            except TimeoutError:
                raise WaitedInVainError(f"waited {START_SECONDS:g} s for the lab's holder to start") from None
            said[word] = rest
            if word == "user":
                map_ids(pid)
                rope.sendall(b"mapped\n")
            elif word == "error":
                code, _, text = rest.partition(" ")
                raise LabError(explain_refusal(int(code), text, read_switches()))
            elif not word:
                raise LabError("the lab's holder ended early")
    started = start_time(int(said["pid"]))
    if started is None:
        raise LabError("the lab's holder ended early")
    return Holder(int(said["pid"]), started)


def map_ids(pid: int) -> None:
    """Fill the id maps of the new user namespace of process `pid` (user_namespaces(7))."""
    proc = Path(f"/proc/{pid}")
    try:
        if os.geteuid() == 0:
            for file in ("uid_map", "gid_map"):
                (proc / file).write_text(id_map_of_root(Path("/proc/self", file).read_text()))
        else:
            (proc / "setgroups").write_text("deny")
            (proc / "uid_map").write_text(id_map_of_user(os.geteuid()))
            (proc / "gid_map").write_text(id_map_of_user(os.getegid()))
    except OSError as error:
        raise LabError(explain_refusal(error.errno or 0, f"mapping ids: {error.strerror}", read_switches())) from error


def read_holder(folder: LabFolder) -> Holder:
    """Return the living holder of a lab. Raises NoLabError."""
    folder.require()
    holder = Holder(**json.loads(folder.holder.read_text()))
    if not holder.lives():
        raise NoLabError(f"the lab at {folder.root} has ended: netns-lab down removes what it left")
    return holder


def heed_signals() -> None:
    """Have SIGTERM and SIGHUP raise KeyboardInterrupt as Ctrl-C does; whoever calls run_inside must."""
    for number in INTERRUPTS:
        signal.signal(number, _interrupt)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    """Raise KeyboardInterrupt, and let nothing interrupt the cleaning-up."""
    for number in INTERRUPTS:
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def run_inside(holder: Holder, work: Callable[[], int]) -> int:
    """Run `work` in a process inside the lab and return its exit status.

    The process ends with this one. KeyboardInterrupt here ends it too, and is raised on.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        enter_and_work(holder, work)
    try:
        return exit_status(child)
    except BaseException:
        # The signal may come just when the child has ended, or been reaped.
        with suppress(ProcessLookupError, ChildProcessError):
            os.kill(child, signal.SIGTERM)
            os.waitpid(child, 0)
        raise


def exit_status(child: int) -> int:
    """Wait for a child; 128 + signal if one ended it, as shells count."""
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def enter_and_work(holder: Holder, work: Callable[[], int]) -> NoReturn:
    """Move this forked process into the lab; a pid namespace takes in only children, so fork once more.

    The child inside must be reaped by this process: the kernel does not end a pid namespace before every process
    in it is reaped, and where this one left that to the machine's init, one that does not would block it.
    """
    status = EXIT_FAILED
    child = 0
    try:
        _enter(holder)
        die_with_parent(signal.SIGTERM)
        child = os.fork()
        if child == 0:
            die_with_parent(signal.SIGKILL)
            status = work()
        else:
            status = exit_status(child)
    except LabError as error:
        print(f"netns-lab: {error}", file=sys.stderr)
        status = error.exit_status
    except OSError as error:
        print(f"netns-lab: {error}", file=sys.stderr)
    except KeyboardInterrupt:
        status = INTERRUPTED
        if child:
            with suppress(ProcessLookupError, ChildProcessError):
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
    except BaseException:  # noqa: BLE001  # a forked process must end here, with whatever went wrong told
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _enter(holder: Holder) -> None:
    """Move this process into all of the lab's namespaces, and into the same working folder. Raises OSError."""
    fds = {kind: os.open(f"/proc/{holder.pid}/ns/{PROC_NAMES[kind]}", os.O_RDONLY) for kind in ENTERED}
    folder = Path.cwd()
    for kind, fd in fds.items():
        setns(fd, kind)
        os.close(fd)
    if folder.is_dir():
        os.chdir(folder)


def end_holder(holder: Holder) -> None:
    """End the lab: with its pid 1 the kernel ends every process in it. Raises LabError if that hangs."""
    try:
        pidfd = os.pidfd_open(holder.pid)
    except ProcessLookupError:
        return
    try:
        if not holder.lives():
            return
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        if not select.select([pidfd], [], [], END_SECONDS)[0]:
            raise LabError(f"waited {END_SECONDS:g} s for the lab's holder (pid {holder.pid}) to end")
    finally:
        os.close(pidfd)
