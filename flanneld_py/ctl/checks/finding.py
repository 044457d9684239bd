"""What a check has found: how bad it is, what was seen, and what mends it."""

from __future__ import annotations

from typing import NamedTuple

ERROR = "error"
"""Packets are lost, or pods cannot be wired."""
WARNING = "warning"
"""It works, and will not for long or not for all."""


class Finding(NamedTuple):
    """`check` is its name, `mend` a command for each step, or words where no command can do it.

    `safe` says that the commands do no harm whatever else runs on the node: `doctor --fix` runs these.
    """

    check: str
    severity: str
    evidence: str
    mend: tuple[str, ...]
    safe: bool = False
