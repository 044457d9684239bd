"""Telling somebody who keeps undoing our work, such as another flanneld on our device, from an accident.

A rival is answered at most once a second: two programs that mend each other's work at once would do nothing else.
"""

from __future__ import annotations

from collections import deque

_ANSWERS = 20
"""After so many answers within `_WINDOW` seconds it is no accident any more."""
_WINDOW = 10.0
_PAUSE = 1.0


class Rivalry:
    """When we have put right what others changed; `now` in seconds on any clock that never goes back."""

    def __init__(self) -> None:
        self._answers: deque[float] = deque(maxlen=_ANSWERS)

    def is_on(self, now: float) -> bool:
        """Say whether somebody keeps changing what is ours."""
        return len(self._answers) == _ANSWERS and now - self._answers[0] <= _WINDOW

    def answer(self, now: float) -> None:
        """Take note that what others changed is put right now."""
        self._answers.append(now)

    def pause(self, now: float) -> float:
        """Return the seconds that the next answer should wait."""
        return max(0.0, self._answers[-1] + _PAUSE - now) if self.is_on(now) else 0.0
