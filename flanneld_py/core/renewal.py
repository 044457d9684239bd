"""When to renew our own lease."""

from __future__ import annotations

_SHORTEST_WAIT = 1.0


def next_renewal(ttl: float | None, margin: float, granted_at: float) -> float | None:
    """Return when to renew, on the clock of `granted_at`; None for a lease that does not expire.

    `ttl` and `margin` in seconds. A margin that leaves nothing of the time to live becomes half of it.
    """
    if ttl is None:
        return None
    wait = ttl - margin if margin < ttl else ttl / 2
    return granted_at + max(_SHORTEST_WAIT, wait)
