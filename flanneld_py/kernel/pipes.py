"""Pipes of other processes: what lies in one is read without being taken out (tee(2))."""

from __future__ import annotations

import os
import select

from flanneld_py.kernel.netns import open_libc

_CAPACITY = 1 << 16
"""Bytes that a pipe holds unless it was made otherwise (pipe(7))."""
_SPLICE_F_NONBLOCK = 2


def peek_pipe(descriptor: int, seconds: float) -> bytes | None:
    """Return what a pipe holds once all who write to it are gone; it stays there for its reader.

    None if somebody may still write after so many seconds: more than the pipe holds is waited for in vain. Raises
    OSError, EINVAL if it is no pipe.
    """
    poll = select.poll()
    poll.register(descriptor, 0)  # which leaves the end of all writers
    if not poll.poll(seconds * 1000):
        return None
    reading, writing = os.pipe()
    try:
        size = open_libc().tee(descriptor, writing, _CAPACITY, _SPLICE_F_NONBLOCK)
        if size < 0:
            import ctypes

            number = ctypes.get_errno()
            if number == 11:  # EAGAIN: nothing lies there
                return b""
            raise OSError(number, os.strerror(number))
        return os.read(reading, size) if size else b""
    finally:
        os.close(reading)
        os.close(writing)
