"""The log's line on leases that are not programmed: one for a batch, however many they are."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

log = logging.getLogger(__name__)

_NAMED = 3


def log_skipped(reasons: Mapping[str, str]) -> None:
    """Warn of the leases with these keys, if there are any; a few are named with their reasons."""
    if not reasons:
        return
    named = "; ".join(f"{key[:80]!r}: {reason}" for key, reason in list(reasons.items())[:_NAMED])
    more = f"; {len(reasons) - _NAMED} more, which flannelctl status names" if len(reasons) > _NAMED else ""
    log.warning("leases skipped: count=%d reasons=%s%s", len(reasons), named, more)
