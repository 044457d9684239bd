"""A call as the CNI plugin's executable rings for it: by its process id, and all else is read from its process.

A shell is there in a fifth of the time that an interpreter takes, but no shell speaks to a Unix socket. So it writes 8
bytes into a FIFO, its process id in 7 digits and a newline, and waits. What the daemon needs lies in `/proc/<id>`: the
environment, the network namespace, the root folder, and these descriptors:

    0 standard input, a pipe, which is read but not emptied: whoever else serves the call finds it there
    3 the container's namespace
    4 a pipe that holds one line, nobody writes to it: who takes the line out has the call, the daemon or the plugin
    5 a pipe that the answer goes into at once: a newline; the exit status, or 2 for a call that is left to the plugin;
      a space; what the plugin says, unless that has been written already (a shell reads byte by byte); a newline
    6 this FIFO, open for writing, by which the process is known to have rung here
    7 standard output (1 is this FIFO while the shell rings); if it is a pipe, what the plugin says is written there

Beside the FIFO a link leads to the daemon's own descriptor of it: as long as the two are one file the daemon lives, and
sees the same processes as the plugin.
"""

from __future__ import annotations

import os
import select
import stat
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, NamedTuple

from flanneld_py.agent.file_identity import identify, identity_of
from flanneld_py.agent.pod_request import Request
from flanneld_py.kernel.pipes import peek_pipe

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

OWNER_SUFFIX = ".owner"

_RECORD = 8
_NOBODY = b"0000000\n"
_CLAIM = 64
_READ = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
_WRITE = os.O_WRONLY | os.O_CLOEXEC | os.O_NONBLOCK
_LARGEST_ENVIRONMENT = 1 << 16
_VERBS = frozenset({b"ADD", b"DEL", b"CHECK"})
_PATIENCE = 4.0
"""Seconds for standard input to end; less than the plugin waits for the daemon to begin."""


class Ring(NamedTuple):
    """A call that waits at the door; `request` is None where only the plugin itself can serve it."""

    request: Request | None
    claim: int
    answer: int
    output: int | None

    def take(self) -> bool:
        """Say whether the call is the daemon's now; if not, the plugin has taken it back, or is gone."""
        try:
            is_ours = bool(os.read(self.claim, _CLAIM))
        except BlockingIOError:
            return False
        poll = select.poll()
        poll.register(self.answer, 0)  # which leaves the end of all readers
        return is_ours and not poll.poll(0)

    def tell(self, status: int, output: bytes) -> None:
        """Give the answer; what its pipe cannot hold is cut off, which the shell notices. Raises OSError."""
        if output and self.output is not None:
            with suppress(OSError):  # it is full, or nobody reads it: that is for the shell to find
                output = output[os.write(self.output, output) :]
        os.write(self.answer, b"\n%d %s\n" % (status, output))


class Door:
    """The FIFO at a path, and the link beside it. Raises OSError."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._owner = path.with_name(path.name + OWNER_SUFFIX)
        fresh = path.with_name(f".{path.name}")
        for file in (fresh, self._owner):
            file.unlink(missing_ok=True)
        os.mkfifo(fresh, 0o600)
        self._fifo = os.open(fresh, os.O_RDWR | os.O_CLOEXEC)
        self._identity = identity_of(os.fstat(self._fifo))
        fresh.rename(path)
        self._owner.symlink_to(f"/proc/{os.getpid()}/fd/{self._fifo}")

    def stands(self) -> bool:
        """Say whether who goes by the path comes to us."""
        return identify(self._path) == self._identity

    def wait(self) -> int:
        """Return the id of a process that rings; 0 after `wake`."""
        record = os.read(self._fifo, _RECORD)
        try:
            return int(record)
        except ValueError:  # of a writer who is none of the plugin's; what was rung meanwhile is served without us
            os.set_blocking(self._fifo, False)
            with suppress(BlockingIOError):
                while os.read(self._fifo, 1 << 16):
                    pass
            os.set_blocking(self._fifo, True)
            return 0

    def shut(self) -> None:
        """Have nobody ring any more; who waits already takes the call back within a second."""
        self._owner.unlink(missing_ok=True)

    def wake(self, count: int) -> None:
        """Shut the door and let so many who wait at it go on."""
        self.shut()
        os.set_blocking(self._fifo, False)
        with suppress(BlockingIOError):  # it is full of calls: nobody has to be woken up
            os.write(self._fifo, _NOBODY * count)

    def close(self) -> None:
        """Close the FIFO; those who wait at it find that nobody is there."""
        os.close(self._fifo)

    @contextmanager
    def receive(self, pid: int) -> Iterator[Ring]:
        """Give the call of a process, with its descriptors open until the end.

        Raises OSError: PermissionError if the daemon may not look into processes of this kind at all. What the caller
        brought along may be another user's, who called sudo: without CAP_DAC_OVERRIDE the daemon cannot open that.
        """
        opened: list[int] = []

        def look(name: str, flags: int = _READ) -> int:
            descriptor = os.open(name, flags, dir_fd=opened[0] if opened else None)
            opened.append(descriptor)
            return descriptor

        def look_for(is_kind: Callable[[int], bool], name: str, flags: int = _READ) -> int | None:
            is_such = is_kind(os.stat(name, dir_fd=opened[0]).st_mode)
            with suppress(PermissionError):
                return look(name, flags) if is_such else None
            return None

        try:
            # From here on no other process can be taken for this one, should the id be given anew.
            process = look(f"/proc/{pid}", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            if not self._has_rung(process):
                raise ConnectionError(f"process {pid} has not rung at this door, or is not root's")
            ends = look("fd/4"), look("fd/5", _WRITE), look_for(stat.S_ISFIFO, "fd/7", _WRITE)
            environment = _read_environment(look("environ"))
            given = None if environment is None else look_for(stat.S_ISFIFO, "fd/0")
            config = None if given is None else peek_pipe(given, _PATIENCE)
            container = look_for(stat.S_ISREG, "fd/3")
            if environment is None or config is None or container is None:
                yield Ring(None, *ends)
                return
            root = look("root", os.O_PATH | os.O_CLOEXEC)
            yield Ring(Request(environment, config, look("ns/net"), root, container), *ends)
        finally:
            for descriptor in opened:
                os.close(descriptor)

    def _has_rung(self, process: int) -> bool:
        """Say whether a process of root's has this FIFO open for writing; its path alone (O_PATH) anybody can open."""
        found, link = os.stat("fd/6", dir_fd=process), os.lstat("fd/6", dir_fd=process)
        may_write = link.st_mode & stat.S_IWUSR
        return bool(may_write) and identity_of(found) == self._identity and os.fstat(process).st_uid == 0


def _read_environment(descriptor: int) -> dict[bytes, bytes] | None:
    """Read what concerns CNI; None if there is more than a call should have, or if its verb is not for the door."""
    text = os.read(descriptor, _LARGEST_ENVIRONMENT)
    pairs = (pair.partition(b"=") for pair in text.split(b"\0") if pair.startswith(b"CNI_"))
    environment = {key: value for key, _, value in pairs}
    is_whole = len(text) < _LARGEST_ENVIRONMENT
    return environment if is_whole and environment.get(b"CNI_COMMAND") in _VERBS else None
