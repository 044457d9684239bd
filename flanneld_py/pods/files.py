"""Small files, each written whole or not at all, by system calls alone; what they hold is others' business."""

from __future__ import annotations

import os

_SIZE = 1 << 16
_LARGEST = 1 << 22


def read_file(path: str) -> bytes | None:
    """Return a file's content, None if there is none. Raises OSError; EFBIG beyond 4 MiB."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        content = os.read(descriptor, _SIZE)
        # Less than was asked for is all that there is, in a file.
        return content if len(content) < _SIZE else content + read_all(descriptor)
    finally:
        os.close(descriptor)


def read_all(descriptor: int, largest: int = _LARGEST) -> bytes:
    """Return all that can be read from a descriptor. Raises OSError; EFBIG beyond `largest` bytes."""
    parts = []
    size = 0
    while part := os.read(descriptor, _SIZE):
        parts.append(part)
        size += len(part)
        if size > largest:
            raise OSError(27, f"more than {largest} bytes")
    return b"".join(parts)


def write_new_file(path: str, content: bytes, mode: int) -> None:
    """Make a file that must not be there yet; it appears with its content. Raises OSError.

    The caller keeps others from writing the same file at the same time.
    """
    temporary = _write_temporary(path, content, mode)
    try:
        os.link(temporary, path)
    finally:
        os.unlink(temporary)


def replace_file(path: str, content: bytes, mode: int) -> None:
    """Make a file or take another's place. Raises OSError; the caller keeps others away as above."""
    os.rename(_write_temporary(path, content, mode), path)


def overwrite_file(path: str, content: bytes, mode: int) -> None:
    """Make a file or write over another's content, for what a reader bears half-written. Raises OSError.

    A file that takes another's place, or is emptied first, ext4 writes to the disk at once: milliseconds each time.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, mode)
    try:
        os.ftruncate(descriptor, os.write(descriptor, content))
    finally:
        os.close(descriptor)


def temporary_of(path: str) -> str:
    """Return the path of the file that a write which was killed leaves in place of, or beside, the one meant."""
    folder, _, name = path.rpartition("/")
    return f"{folder}/.{name}"


def _write_temporary(path: str, content: bytes, mode: int) -> str:
    temporary = temporary_of(path)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
    try:
        view = memoryview(content)
        while view:
            view = view[os.write(descriptor, view) :]
    except BaseException:  # no space left, mostly
        os.unlink(temporary)
        raise
    finally:
        os.close(descriptor)
    return temporary
