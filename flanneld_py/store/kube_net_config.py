"""The cluster's configuration as a file, `net-conf.json`, followed as it is replaced.

A ConfigMap in a pod is replaced by a symbolic link that suddenly leads elsewhere, and an operator's editor replaces a
file as well, so that the file is looked at rather than subscribed to.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

logger = logging.getLogger(__name__)


async def watch_file(path: Path, interval: float) -> AsyncGenerator[str | None, None]:
    """Yield a file's text (None where there is none) now and when it has changed, looking each `interval` seconds."""
    known: list[str | None] = []
    seen: object = None
    while True:
        look = _look(path)
        if look != seen or not known:
            seen = look
            text = _read(path)
            if known != [text]:
                known = [text]
                yield text
        await asyncio.sleep(interval)


def _look(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return None
    except OSError as error:
        logger.warning("configuration cannot be read: path=%s reason=%s", path, error.strerror)
        return None
