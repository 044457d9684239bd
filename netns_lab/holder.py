"""The one long-living process of a lab: it is pid 1 of the lab's pid namespace and holds the lab's namespaces.

Run as `python -m netns_lab.holder FOLDER`. It makes the namespaces, mounts what makes them private, and then
only waits: when it ends, the kernel ends every process in the lab and frees every namespace and device.
`boundary.py` starts it, enters what it holds, and ends it.

Lines on standard output: `user` (it waits on standard input for a line that says the ids are mapped),
`pid N` (pid 1, as the outer namespace sees it), `ready`; or `error CODE TEXT`. Afterwards it ends when
standard input does, so that a lab never outlives a program that dies while building it; the line `stay` sets
it free.
"""

import os
import select
import signal
import sys
from contextlib import suppress
from pathlib import Path

from netns_lab.folder import INSIDE
from netns_lab.keeper import open_keeper, take_in
from netns_lab.namespaces import (
    MS_BIND,
    MS_NODEV,
    MS_NOEXEC,
    MS_NOSUID,
    MS_PRIVATE,
    MS_REC,
    Kind,
    mount,
    unshare,
)

STAY = b"stay\n"


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def make_mounts_private(folder: Path) -> None:
    """Give the lab its own /run, with its folder at one known place in it, and its own /proc and /sys."""
    mount("none", "/", flags=MS_REC | MS_PRIVATE)
    folder_fd = os.open(folder, os.O_PATH | os.O_DIRECTORY)  # the folder may lie under /run itself
    mount("run", "/run", "tmpfs", MS_NOSUID | MS_NODEV, "mode=0755")
    INSIDE.mkdir()
    mount(f"/proc/self/fd/{folder_fd}", INSIDE, flags=MS_BIND)
    os.close(folder_fd)
    harmless = MS_NOSUID | MS_NODEV | MS_NOEXEC
    mount("proc", "/proc", "proc", harmless)
    with suppress(PermissionError):  # a container whose own /sys is partly hidden may not mount a whole one
        mount("sysfs", "/sys", "sysfs", harmless)


def hold(folder: Path) -> None:
    """Be pid 1: reap what is orphaned, keep what is given, until standard input ends, or for ever after `stay`."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps for us
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    make_mounts_private(folder)
    keeper = open_keeper()
    _say("ready")
    null = os.open(os.devnull, os.O_RDWR)
    for standard in (1, 2):
        os.dup2(null, standard)
    leash, waiting = 0, [0, keeper.fileno()]
    while True:
        readable, _, _ = select.select(waiting, [], [])
        if keeper.fileno() in readable:
            with suppress(OSError):  # that client's trouble
                take_in(keeper)
        if leash in readable:
            if os.read(leash, 64) != STAY:
                return
            waiting.remove(leash)


def main(arguments: list[str]) -> int:
    """Make the namespaces, leave pid 1 behind, and return the exit status."""
    (folder,) = map(Path, arguments)
    try:
        unshare(Kind.USER)
        _say("user")
        if not sys.stdin.buffer.readline():
            return 1
        unshare(Kind.MOUNT | Kind.NETWORK | Kind.PID | Kind.UTS)
        child = os.fork()
        if child:
            _say(f"pid {child}")
            return 0
        hold(folder)
    except BrokenPipeError:  # nobody waits for us any more
        return 1
    except OSError as error:
        _say(f"error {error.errno} {error.strerror}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
