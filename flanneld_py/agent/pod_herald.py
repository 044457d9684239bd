"""New holders of addresses: announced to their neighbours after the answer to the ADD, and only then.

An announcement goes to every other container of the node, which takes the kernel as long as all the rest of an ADD
where there are 200. It matters to those alone that remember the address's earlier holder, and would find out by
themselves within seconds. The host, which may speak to the container at once, is told before the answer.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flanneld_py.pods.pod_link import PodEnd
    from flanneld_py.pods.result import PodAddress

log = logging.getLogger(__name__)

_PAUSE = 0.01
"""Seconds without a call before there is an announcement."""
_LONGEST = 0.2
"""Seconds after which there is one all the same."""


class _News(NamedTuple):
    """An end that has not been announced yet, and the time by which it must be."""

    end: PodEnd
    pod: Sequence[PodAddress]
    due: float


class PodHerald:
    """Takes ends from several threads at once; its own thread lives while there is something to announce."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting: list[_News] = []
        self._thread: threading.Thread | None = None
        self._quiet_from = 0.0
        self._closing = False

    def hush(self) -> None:
        """Wait with announcements for a moment: a call has come."""
        self._quiet_from = time.monotonic() + _PAUSE

    def take(self, end: PodEnd, pod: Sequence[PodAddress]) -> None:
        """Announce an end's addresses soon, and close it then."""
        self.hush()
        with self._changed:
            self._waiting.append(_News(end, pod, time.monotonic() + _LONGEST))
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="cni herald", daemon=True)
                self._thread.start()

    def close(self, seconds: float) -> None:
        """Announce at once what waits, and return when that is done, or after so many seconds."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
            thread = self._thread
        if thread is not None:
            thread.join(seconds)

    def _run(self) -> None:
        while (news := self._next()) is not None:
            try:
                news.end.announce(news.pod)
            except OSError as error:
                log.debug("cni: the addresses of a container are not announced: %s", error)
            finally:
                news.end.close()

    def _next(self) -> _News | None:
        """Return what is to be announced next when it is time to; None if there is nothing."""
        with self._changed:
            while self._waiting:
                seconds = min(self._quiet_from, self._waiting[0].due) - time.monotonic()
                if seconds <= 0 or self._closing:
                    return self._waiting.pop(0)
                self._changed.wait(seconds)
            self._thread = None
            return None
