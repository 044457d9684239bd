"""Linux namespaces: the system calls that Python 3.11 lacks, and how to enter and keep a namespace.

Owns ctypes. Knows nothing of labs, nodes or pods. All of it needs a process with a single thread: the
kernel refuses to move one thread alone into another user or mount namespace.
"""

import ctypes
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from enum import IntFlag
from pathlib import Path
from typing import NoReturn

libc = ctypes.CDLL(None, use_errno=True)

# linux/mount.h
MS_NOSUID = 0x2
MS_NODEV = 0x4
MS_NOEXEC = 0x8
MS_BIND = 0x1000
MS_REC = 0x4000
MS_PRIVATE = 0x40000
MNT_DETACH = 2
# linux/prctl.h
PR_SET_PDEATHSIG = 1


class Kind(IntFlag):
    """The CLONE_NEW* flags of linux/sched.h."""

    MOUNT = 0x00020000
    UTS = 0x04000000
    USER = 0x10000000
    PID = 0x20000000
    NETWORK = 0x40000000


PROC_NAMES = {Kind.MOUNT: "mnt", Kind.UTS: "uts", Kind.USER: "user", Kind.PID: "pid", Kind.NETWORK: "net"}


def _checked(result: int, what: str) -> None:
    if result < 0:
        errno = ctypes.get_errno()
        raise OSError(errno, f"{what}: {os.strerror(errno)}")


def unshare(kinds: Kind) -> None:
    """Move this process into new namespaces; for PID, only its future children. Raises OSError."""
    names = "+".join(PROC_NAMES[kind] for kind in kinds)
    _checked(libc.unshare(int(kinds)), f"unshare {names}")


def setns(fd: int, kind: Kind) -> None:
    """Enter the namespace that `fd` stands for. Raises OSError."""
    _checked(libc.setns(fd, int(kind)), f"enter {PROC_NAMES[kind]} namespace")


def mount(source: Path | str, target: Path | str, kind: str = "", flags: int = 0, data: str = "") -> None:
    """Mount `source`, a file system or, with MS_BIND, a folder or file. Raises OSError."""
    result = libc.mount(os.fsencode(source), os.fsencode(target), kind.encode(), ctypes.c_ulong(flags), data.encode())
    _checked(result, f"mount {kind or source} on {target}")


def unmount(target: Path) -> None:
    """Detach what is mounted on `target`. Raises OSError."""
    _checked(libc.umount2(os.fsencode(target), MNT_DETACH), f"unmount {target}")


def set_hostname(name: str) -> None:
    """Name this UTS namespace. Raises OSError."""
    raw = name.encode()
    _checked(libc.sethostname(raw, ctypes.c_size_t(len(raw))), "set the hostname")


def die_with_parent(signal: int) -> None:
    """Have the kernel send this process `signal` when its parent ends; entering a namespace clears it."""
    _checked(libc.prctl(PR_SET_PDEATHSIG, ctypes.c_ulong(signal), 0, 0, 0), "set the parent-death signal")


def pin(fd: int, file: Path) -> None:
    """Keep the namespace of `fd` alive, and enterable, at `file`."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.touch(mode=0o444, exist_ok=False)
    mount(f"/proc/self/fd/{fd}", file, flags=MS_BIND)


def unpin(file: Path) -> None:
    """Undo `pin`; a file that is not there is fine."""
    if file.exists():
        unmount(file)
        file.unlink()


@dataclass(frozen=True, slots=True)
class Place:
    """The namespaces of one node or pod, as files; None means: stay in the present one."""

    network: Path
    mount: Path | None = None
    uts: Path | None = None

    def enter(self) -> None:
        """Move this process there, working folder included where it exists there. Raises OSError."""
        files = {Kind.NETWORK: self.network, Kind.UTS: self.uts, Kind.MOUNT: self.mount}
        folder = Path.cwd()
        with ExitStack() as open_files:
            # All are opened first: the mount namespace entered last hides the files of the others.
            fds = {kind: open_files.enter_context(file.open("rb")) for kind, file in files.items() if file is not None}
            for kind, file in fds.items():
                setns(file.fileno(), kind)
        if self.mount is not None and folder.is_dir():
            os.chdir(folder)  # setns(2) left us in the root folder


@contextmanager
def in_network(network: Path) -> Iterator[None]:
    """Stay in another network namespace for a while, to open sockets there or to write its sysctls."""
    with Path("/proc/self/ns/net").open("rb") as home, network.open("rb") as other:
        setns(other.fileno(), Kind.NETWORK)
        try:
            yield
        finally:
            setns(home.fileno(), Kind.NETWORK)


def fork_and_report(body: Callable[[socket.socket], None], descriptors: int = 0) -> tuple[int, ...]:
    """Run `body` in a child process; what it sends with SCM_RIGHTS is returned. Raises the child's OSError."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        child = os.fork()
        if child == 0:
            end_with(body, theirs)
        theirs.close()
        message, fds, _, _ = socket.recv_fds(ours, 4096, descriptors)
        _, status = os.waitpid(child, 0)
    if status != 0:
        raise OSError(message.decode() or "a process in new namespaces ended early")
    return tuple(fds)


def end_with(body: Callable[[socket.socket], None], report: socket.socket) -> NoReturn:
    """End this forked child with `body` done, or its failure told."""
    status = 1
    try:
        body(report)
        status = 0
    except OSError as error:
        report.send(str(error).encode())
    finally:
        os._exit(status)


def run_in(place: Place, body: Callable[[], None]) -> None:
    """Run `body` in a process there. Raises OSError."""

    def enter_and_run(_: socket.socket) -> None:
        place.enter()
        body()

    fork_and_report(enter_and_run)


def make_namespaces(kinds: Kind, prepare: Callable[[], None]) -> dict[Kind, int]:
    """Make new namespaces, run `prepare` inside them, and return a file descriptor for each.

    They live as long as a descriptor or a pin. Raises OSError with the failure inside.
    """

    def make(report: socket.socket) -> None:
        unshare(kinds)
        prepare()
        fds = [os.open(f"/proc/self/ns/{PROC_NAMES[kind]}", os.O_RDONLY) for kind in kinds]
        socket.send_fds(report, [b"made"], fds)

    return dict(zip(kinds, fork_and_report(make, len(kinds)), strict=True))
