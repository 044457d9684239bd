"""Network namespaces: open one, enter it in the calling thread, and speak netlink inside it.

A thread enters alone: other threads of the process stay where they are. Nothing here makes a namespace.
"""

from __future__ import annotations

import errno
import fcntl
import os

from flanneld_py.core.errors import KernelError
from flanneld_py.core.named_tuple import TYPE_CHECKING
from flanneld_py.kernel.netlink_socket import NetlinkSocket

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Any, Self

_CLONE_NEWNET = 0x40000000
_NS_GET_NSTYPE = 0xB703
"""ioctl of include/uapi/linux/nsfs.h: answers with the CLONE_… flag of the namespace's kind."""

_OWN = "/proc/thread-self/ns/net"

_libc: Any = None
"""The C library, opened with the first use: that takes as long as ten system calls."""


def open_namespace(path: str) -> int:
    """Open the network namespace at a path and return its descriptor.

    Raises KernelError: ENOENT if nothing is there, EINVAL if it is no network namespace.
    """
    operation = f"open the network namespace {path}"
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise KernelError(error.errno or 0, operation, error.strerror or "") from error
    except ValueError as error:
        raise KernelError(errno.EINVAL, operation, str(error)) from error
    if not is_network_namespace(descriptor):
        os.close(descriptor)
        raise KernelError(errno.EINVAL, operation, "it is no network namespace")
    return descriptor


def is_network_namespace(descriptor: int) -> bool:
    """Say whether a descriptor is one of a network namespace."""
    try:
        return fcntl.ioctl(descriptor, _NS_GET_NSTYPE) == _CLONE_NEWNET
    except OSError:
        return False


def is_own_namespace(descriptor: int) -> bool:
    """Say whether the descriptor's namespace is the one that the calling thread is in."""
    return identify(descriptor) == identify_own()


def identify(descriptor: int) -> tuple[int, int]:
    """Return what tells a descriptor's namespace from all others."""
    found = os.fstat(descriptor)
    return found.st_dev, found.st_ino


def identify_own() -> tuple[int, int]:
    """Return what tells the namespace that the calling thread is in from all others."""
    found = os.stat(_OWN)
    return found.st_dev, found.st_ino


class InNamespace:
    """A context in which the calling thread is in another network namespace."""

    def __init__(self, descriptor: int) -> None:
        self._inside = descriptor
        self._outside = -1

    def __enter__(self) -> Self:
        self._outside = os.open(_OWN, os.O_RDONLY | os.O_CLOEXEC)
        try:
            _enter(self._inside)
        except BaseException:
            os.close(self._outside)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            _enter(self._outside)
        finally:
            os.close(self._outside)


def open_socket_inside(descriptor: int) -> NetlinkSocket:
    """Open a netlink socket in another network namespace; it stays there while the thread goes on outside."""
    with InNamespace(descriptor):
        return NetlinkSocket()


def _enter(descriptor: int) -> None:
    operation = "enter a network namespace"
    if hasattr(os, "setns"):  # Python 3.12
        try:
            os.setns(descriptor, _CLONE_NEWNET)
        except OSError as error:
            raise KernelError(error.errno or 0, operation, error.strerror or "") from error
        return
    import ctypes

    if open_libc().setns(descriptor, _CLONE_NEWNET) < 0:
        number = ctypes.get_errno()
        raise KernelError(number, operation, os.strerror(number))


def open_libc() -> Any:
    """Return the C library, for calls that Python does not have; errno is what `ctypes.get_errno` returns."""
    global _libc  # noqa: PLW0603 - ctypes takes too long to import for who enters no namespace
    if _libc is None:
        import ctypes

        _libc = ctypes.CDLL(None, use_errno=True)
    return _libc
