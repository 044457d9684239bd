"""The last warnings of the log, for whoever asks the daemon how it is."""

from __future__ import annotations

import logging
from collections import deque

_KEPT = 10


class RecentWarnings(logging.Handler):
    """Keeps the text of the last few warnings and errors; `lines` has the oldest first."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        self.lines: deque[str] = deque(maxlen=_KEPT)
        self.last = ""
        """The last one, without time and level."""

    def emit(self, record: logging.LogRecord) -> None:
        """Keep one."""
        self.last = record.getMessage()
        self.lines.append(self.format(record))
