"""Threads that wait for callers: as many as there are calls at once, and a few at most."""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

log = logging.getLogger(__name__)

_MOST = 8
_PAUSE = 0.2
"""Seconds between attempts while nobody can be let in, for want of descriptors."""

Caller = TypeVar("Caller")


class Workers(Generic[Caller]):
    """Begins with one; `wait` blocks until somebody comes, `serve` serves them, `leave` ends a thread's work.

    Whatever `serve` raises ends the call alone.
    """

    def __init__(self, wait: Callable[[], Caller], serve: Callable[[Caller], None], leave: Callable[[], None]) -> None:
        self._wait = wait
        self._serve = serve
        self._leave = leave
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._threads: list[threading.Thread] = []
        self._idle = 0
        with self._lock:
            self._add()

    def close(self, wake: Callable[[int], None], deadline: float) -> None:
        """Take no more callers, and return when those in progress are served, or at the deadline (monotonic clock).

        `wake` lets so many threads that wait go on.
        """
        self._closing.set()
        wake(len(self._threads))
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def _add(self) -> None:
        thread = threading.Thread(target=self._work, name=f"cni {len(self._threads)}", daemon=True)
        self._threads.append(thread)
        self._idle += 1
        thread.start()

    def _work(self) -> None:
        while not self._closing.is_set():
            try:
                caller = self._wait()
            except OSError as error:
                if not self._closing.wait(_PAUSE):
                    log.warning("cni: no call can be accepted: %s", error)
                continue
            with self._lock:
                self._idle -= 1
                if not self._idle and len(self._threads) < _MOST and not self._closing.is_set():
                    self._add()
            try:
                self._serve(caller)
            except OSError as error:
                log.debug("cni: a call was broken off: %s", error)
            except Exception:  # a thread less would be one that nobody misses until the last
                log.exception("cni: a call was broken off")
            finally:
                with self._lock:
                    self._idle += 1
        self._leave()
