"""The lease keeper: asks the store for what the state machine of our own lease (core/own_lease.py) says, when it says.

Owns what we publish, and the telling of what became of it. Decides nothing about leases itself.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, assert_never

from flanneld_py.core.errors import LeaseLostError, LeaseTakenError, StoreError
from flanneld_py.core.lease_event import LeasePut, LeaseRejected, LeaseRemoved, LeaseSnapshot
from flanneld_py.core.own_lease import Asked, Doubted, Granted, Lost, Phase, Step, Taken, Unanswered, grant

if TYPE_CHECKING:
    import random
    from collections.abc import Sequence

    from flanneld_py.core.lease import LeaseAttrs
    from flanneld_py.core.lease_event import LeaseEvent
    from flanneld_py.core.own_lease import LeaseNews, OwnLease
    from flanneld_py.store.subnet_manager import HeldLease, SubnetManager

log = logging.getLogger(__name__)

_LONGEST_SLEEP = 60.0
"""Seconds: timers stand still while the machine sleeps, the lease does not. So it is looked at soon after waking."""


def read_clock() -> float:
    """Return the seconds since the start of the machine, those that it slept through included."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class LeaseKeeper:
    """Our own lease: `held` as the store last gave it, `attrs` what it should say.

    `foreign_writes` counts how often somebody else has written our key.
    """

    def __init__(
        self, store: SubnetManager, attrs: LeaseAttrs, held: HeldLease, margin: float, rng: random.Random
    ) -> None:
        """Take charge of `held`, just got; `margin` is how many seconds before its end it is renewed."""
        self._store = store
        self._rng = rng
        self._state: OwnLease = grant(held.ttl, margin, read_clock())
        self._changed = asyncio.Event()
        self._is_told = False
        self._said = ""
        self.attrs = attrs
        self.held = held
        self.foreign_writes = 0

    @property
    def is_lost(self) -> bool:
        """Whether the store does not say that the lease is ours."""
        return self._state.phase is not Phase.HELD

    @property
    def problem(self) -> str | None:
        """What is wrong with our lease, in one line with what to do; None if nothing is."""
        match self._state.phase:
            case Phase.HELD:
                time_left = self.time_left
                ran_out = time_left is not None and time_left <= 0
                return f"{self.held.key} has run out, and the store does not answer" if ran_out else None
            case Phase.GONE:
                return f"{self.held.key} is lost and not written anew yet"
            case Phase.TAKEN:
                return (
                    f"{self.held.key} is held by {self._state.owner}: our pods stay as they are; delete that lease "
                    "to have it back, or drain this node and restart flanneld for another subnet"
                )
            case _:
                assert_never(self._state.phase)

    @property
    def time_left(self) -> float | None:
        """Seconds until our lease ends unless it is renewed; None if it does not expire, or is not ours."""
        return None if self._state.ends_at is None else self._state.ends_at - read_clock()

    def publish(self, attrs: LeaseAttrs) -> None:
        """Have the lease say this from now on."""
        if attrs != self.attrs:
            self.attrs = attrs
            self._doubt()

    def take_events(self, events: Sequence[LeaseEvent]) -> None:
        """Take note of what the store says; if our key is not as we wrote it, it is looked after at once."""
        for event in events:
            if self._is_touched(event):
                self._doubt()

    def _is_touched(self, event: LeaseEvent) -> bool:
        """Say whether an event leaves our key with anything else than our lease as we wrote it."""
        key, attrs = self.held.key, self.attrs
        match event:
            case LeaseSnapshot():
                found = event.leases.get(key)
                self._is_told = found is not None or (self._is_told and not event.first)
                return (event.last and not self._is_told) or (found is not None and found.attrs != attrs)
            case LeasePut(key=written, lease=lease, revision=revision) if written == key:
                is_foreign = revision > self.held.revision and not self._state.is_asked
                self.foreign_writes += is_foreign
                return lease.attrs != attrs or is_foreign
            case LeasePut():
                return False
            case LeaseRejected() | LeaseRemoved():
                return event.key == key
            case _:
                assert_never(event)

    def _doubt(self) -> None:
        self._note(Doubted())
        self._changed.set()

    async def run(self) -> None:
        """Keep the lease until cancelled."""
        while True:
            await self._wait()
            self._note(Asked())
            self._note(await self._take(self._state.step))

    async def _wait(self) -> None:
        while not self._state.is_due(now := read_clock()):
            self._changed.clear()
            due = self._state.due
            try:
                async with asyncio.timeout(None if due is None else min(_LONGEST_SLEEP, due - now)):
                    await self._changed.wait()
            except TimeoutError:
                continue

    async def _take(self, step: Step) -> LeaseNews:
        """Take a step, and return what came of it."""
        attrs = self.attrs
        try:
            if step is Step.RENEW:
                self.held = await self._store.renew(self.held, attrs)
                log.info("lease renewed: key=%s ttl=%s", self.held.key, self.held.ttl)
            else:
                self.held = await self._store.restore(self.held, attrs)
                log.info("lease written anew: key=%s ttl=%s", self.held.key, self.held.ttl)
        except LeaseTakenError as error:
            self._say(logging.ERROR, "lease is another node's: %s; our pods' traffic is left alone", error)
            return Taken(error.owner)
        except LeaseLostError as error:
            self._say(logging.WARNING, "lease lost: %s", error)
            return Lost()
        except StoreError as error:
            self._say(logging.WARNING, "lease not looked after, trying again: reason=%s", error)
            return Unanswered(self._rng.random())
        self._said = ""
        return Granted(self.held.ttl)

    def _note(self, news: LeaseNews) -> None:
        self._state = self._state.after(news, read_clock())

    def _say(self, level: int, text: str, error: Exception) -> None:
        """Log each trouble once until it is over."""
        if text + str(error) != self._said:
            self._said = text + str(error)
            log.log(level, text, error)
