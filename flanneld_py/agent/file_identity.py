"""What tells one file from all others that come to its path."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

FileIdentity = tuple[int, int]
"""Device and inode."""


def identify(path: Path) -> FileIdentity | None:
    """Return what tells the file at a path from all others; None if there is none."""
    try:
        return identity_of(os.lstat(path))
    except OSError:
        return None


def identity_of(found: os.stat_result) -> FileIdentity:
    """Return what tells a file from all others."""
    return found.st_dev, found.st_ino
