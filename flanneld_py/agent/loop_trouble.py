"""What goes wrong in the event loop itself, where no task hears of it: told in the log, but not without end."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

log = logging.getLogger(__name__)

_QUIET = 60.0
"""Seconds in which the same trouble is told once: where no descriptor is left, asyncio fails to accept a hundred
connections every second."""


class LoopTrouble:
    """An exception handler for an event loop: one line for the machine's troubles, all there is for our own."""

    def __init__(self, read_clock: Callable[[], float] = time.monotonic) -> None:
        """Begin with nothing told; `read_clock` gives seconds."""
        self._read_clock = read_clock
        self._told: dict[str, float] = {}

    def __call__(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Take note of what the loop says (asyncio.loop.call_exception_handler)."""
        error = context.get("exception")
        text = f"{context['message']}: {error}" if error else context["message"]
        now = self._read_clock()
        self._told = {told: when for told, when in self._told.items() if now - when < _QUIET}
        if text in self._told:
            return
        self._told[text] = now
        log.error("event loop: %s", text, exc_info=None if isinstance(error, OSError) else error)
