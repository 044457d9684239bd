"""Our own lease as a state machine: what the store says of it and the time come in, what to do next comes out.

Owns every decision on keeping the one promise of the daemon: one subnet, one owner. The clock is an argument; it should
go on while the machine sleeps (CLOCK_BOOTTIME), as the store's does. Does nothing by itself.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum, auto
from typing import assert_never

from flanneld_py.core.backoff import backoff_delay

LONGEST_DELAY = 10.0
"""Seconds between two tries while the store is away."""
RECHECK = 60.0
"""Seconds after which a subnet that another node has taken is asked for again: a look that writes nothing."""
_SHORTEST_WAIT = 1.0


class Phase(Enum):
    """What the store has last said of our lease."""

    HELD = auto()
    """It is ours."""
    GONE = auto()
    """Nobody has it: it was deleted, has expired, or the store has forgotten it."""
    TAKEN = auto()
    """Another node has it. We do not fight, and leave our pods' traffic as it is."""


class Step(Enum):
    """What to ask the store for next."""

    RENEW = auto()
    """Extend the lease and publish our attributes, where it is still ours; else only look."""
    RESTORE = auto()
    """Write it anew for the same subnets, where nobody else has any of them."""


@dataclass(frozen=True, slots=True)
class Asked:
    """The next step is under way."""


@dataclass(frozen=True, slots=True)
class Granted:
    """The store has made or left the lease ours; `ttl` in seconds from when it was asked, None for a reservation."""

    ttl: float | None


@dataclass(frozen=True, slots=True)
class Lost:
    """The store has no such lease."""


@dataclass(frozen=True, slots=True)
class Taken:
    """The store says that another node has it, or a part of its subnets."""

    owner: str


@dataclass(frozen=True, slots=True)
class Unanswered:
    """The store did not answer; `jitter` in [0, 1) spreads the next tries of many nodes."""

    jitter: float


@dataclass(frozen=True, slots=True)
class Doubted:
    """Something was told of the lease, or what it should say has changed: it is to be looked after at once."""


LeaseNews = Asked | Granted | Lost | Taken | Unanswered | Doubted


@dataclass(frozen=True, slots=True)
class OwnLease:
    """Our lease as of `since`. Times in seconds on the caller's clock.

    `ends_at` is when the store lets the lease expire unless it is renewed, `due` when the next step is to be taken;
    None for never. `failures` counts the steps that the store has not answered since it last did. `is_asked` says that
    a step is under way, `is_doubted` that something was told since it began, which its answer may not know of.
    """

    margin: float
    phase: Phase
    since: float
    ends_at: float | None
    due: float | None
    failures: int = 0
    owner: str = ""
    is_asked: bool = False
    is_doubted: bool = False

    @property
    def step(self) -> Step:
        """What is to be done when it is due."""
        return Step.RESTORE if self.phase is Phase.GONE else Step.RENEW

    def is_due(self, now: float) -> bool:
        """Say whether the next step is to be taken now. A clock that went back says nothing of how old a lease is."""
        return not self.is_asked and ((self.due is not None and now >= self.due) or now < self.since)

    def after(self, news: LeaseNews, now: float) -> OwnLease:
        """Return the lease as it is after this."""
        match news:
            case Asked():
                return replace(self, since=now, is_asked=True, is_doubted=False)
            case Doubted():
                # While the store is away its next try is soon enough, and is not put off either.
                is_waiting = self.is_asked or self.failures
                return replace(self, is_doubted=self.is_asked, due=self.due if is_waiting else now)
            case Unanswered(jitter=jitter):
                failures = self.failures + 1
                due = now + backoff_delay(failures, jitter, longest=LONGEST_DELAY)
                return replace(self, since=now, due=due, failures=failures, is_asked=False, is_doubted=False)
            case Granted(ttl=ttl):
                # The store may have counted from when it was asked.
                settled = grant(ttl, self.margin, min(self.since, now))
            case Lost():
                settled = OwnLease(self.margin, Phase.GONE, now, None, now)
            case Taken(owner=owner):
                settled = OwnLease(self.margin, Phase.TAKEN, now, None, now + RECHECK, owner=owner)
            case _:
                assert_never(news)
        return replace(settled, due=now) if self.is_doubted else settled


def grant(ttl: float | None, margin: float, now: float) -> OwnLease:
    """Return a lease that was granted for `ttl` seconds, to be renewed `margin` seconds before its end.

    A margin that leaves nothing of the time to live becomes half of it.
    """
    if ttl is None:
        return OwnLease(margin, Phase.HELD, now, None, None)
    wait = ttl - margin if margin < ttl else ttl / 2
    return OwnLease(margin, Phase.HELD, now, now + ttl, now + max(_SHORTEST_WAIT, wait))
