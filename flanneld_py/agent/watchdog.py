"""systemd's watchdog: told only while the daemon does what it is there for (sd_watchdog_enabled(3), sd_notify(3))."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

import sdnotify

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


def watchdog_seconds(environ: Mapping[str, str], pid: int) -> float | None:
    """Return within which time systemd wants to be told each time; None where it does not."""
    if environ.get("WATCHDOG_PID", str(pid)) != str(pid):
        return None
    text = environ.get("WATCHDOG_USEC", "")
    return int(text) / 1e6 if text.isascii() and text.isdecimal() and int(text) else None


async def tell_watchdog(is_alive: Callable[[], bool]) -> None:
    """Tell systemd twice within the time that it gives, as long as `is_alive` says so; until cancelled."""
    seconds = watchdog_seconds(os.environ, os.getpid())
    if seconds is None:
        return
    notifier = sdnotify.SystemdNotifier()
    try:
        while True:
            if is_alive():
                notifier.notify("WATCHDOG=1")
            await asyncio.sleep(seconds / 2)
    finally:
        if notifier.socket is not None:
            notifier.socket.close()
