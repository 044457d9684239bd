"""Kernel settings under /proc/sys; those below `net` are of the network namespace that the calling thread is in."""

from __future__ import annotations

import os

from flanneld_py.core.errors import KernelError

_ROOT = "/proc/sys"
_SIZE = 4096


def read_sysctl(*parts: str) -> str:
    """Return a setting by the parts of its path (`"net", "ipv4", "ip_forward"`).

    Raises KernelError, ENOENT if the kernel has no such setting.
    """
    path = _path(parts)
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return os.read(descriptor, _SIZE).decode().strip()
        finally:
            os.close(descriptor)
    except OSError as error:
        raise KernelError(error.errno or 0, f"read {path}", error.strerror or "") from error


def ensure_sysctl(value: str, *parts: str) -> bool:
    """Have a setting at this value; return whether it was another.

    It is written only if it differs, since /proc/sys may be read-only. Raises KernelError, ENOENT if the kernel has no
    such setting.
    """
    path = _path(parts)
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            if os.read(descriptor, _SIZE).decode().strip() == value:
                return False
            os.pwrite(descriptor, value.encode(), 0)
        finally:
            os.close(descriptor)
    except OSError as error:
        if read_sysctl(*parts) == value:
            return False
        raise KernelError(error.errno or 0, f"write {value} to {path}", error.strerror or "") from error
    return True


def _path(parts: tuple[str, ...]) -> str:
    # A device name is one of the parts: it may hold dots, but must not lead elsewhere.
    for part in parts:
        if not part or "/" in part or "\0" in part or part in {".", ".."}:
            raise ValueError(f"{part!r} is no part of a setting's path")
    return "/".join((_ROOT, *parts))
