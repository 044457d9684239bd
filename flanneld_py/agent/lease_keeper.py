"""The lease keeper: has our lease renewed in time, and gets it back when it is gone."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, assert_never

from flanneld_py.agent.retry import until_it_works
from flanneld_py.core.errors import LeaseLostError, StoreError
from flanneld_py.core.lease_event import LeasePut, LeaseRejected, LeaseRemoved, LeaseSnapshot
from flanneld_py.core.renewal import next_renewal
from flanneld_py.store.subnet_manager import LeaseRequest

if TYPE_CHECKING:
    import random
    from collections.abc import Sequence

    from flanneld_py.core.lease_event import LeaseEvent
    from flanneld_py.store.subnet_manager import HeldLease, SubnetManager

log = logging.getLogger(__name__)


class SubnetChangedError(Exception):
    """Our subnet is another node's now and we were given a new one: the pods of the old one cannot stay reachable."""


class LeaseKeeper:
    """Our own lease: when it was granted, when it is renewed, whether it is still ours."""

    def __init__(
        self, store: SubnetManager, request: LeaseRequest, held: HeldLease, margin: float, rng: random.Random
    ) -> None:
        """Take charge of `held`, which `request` got; `margin` is how many seconds before its end it is renewed."""
        self._store = store
        self._request = request
        self._margin = margin
        self._rng = rng
        self._check = asyncio.Event()
        self._is_told = False
        self.held = held
        self.granted_at = time.monotonic()
        self.is_lost = False

    def take_events(self, events: Sequence[LeaseEvent]) -> None:
        """Take note of what the store says; if our key is not as we wrote it, it is looked after at once."""
        for event in events:
            if self._is_touched(event):
                self._check.set()

    def _is_touched(self, event: LeaseEvent) -> bool:
        """Say whether an event leaves our key with anything else than our lease."""
        key, attrs = self.held.key, self.held.lease.attrs
        match event:
            case LeaseSnapshot():
                found = event.leases.get(key)
                self._is_told = found is not None or (self._is_told and not event.first)
                return (event.last and not self._is_told) or (found is not None and found.attrs != attrs)
            case LeasePut():
                return event.key == key and event.lease.attrs != attrs
            case LeaseRejected() | LeaseRemoved():
                return event.key == key
            case _:
                assert_never(event)

    @property
    def time_left(self) -> float | None:
        """Seconds until our lease ends unless it is renewed; None if it does not expire."""
        return None if self.held.ttl is None else self.granted_at + self.held.ttl - time.monotonic()

    async def run(self) -> None:
        """Keep the lease until cancelled. Raises SubnetChangedError."""
        while True:
            await self._wait()
            self._check.clear()
            try:
                self.held = await until_it_works(
                    "lease renewal", lambda: self._store.renew(self.held, self._request.attrs), StoreError, self._rng
                )
            except LeaseLostError as error:
                log.warning("lease lost: key=%s reason=%s", self.held.key, error)
                await self._acquire_again()
            else:
                log.info("lease renewed: key=%s ttl=%s", self.held.key, self.held.ttl)
            self.granted_at = time.monotonic()

    async def _wait(self) -> None:
        due = next_renewal(self.held.ttl, self._margin, self.granted_at)
        try:
            async with asyncio.timeout_at(None if due is None else _loop_time(due)):
                await self._check.wait()
        except TimeoutError:
            return

    async def _acquire_again(self) -> None:
        self.is_lost = True
        lease = self.held.lease
        request = LeaseRequest(self._request.config, self._request.attrs, ((lease.subnet, lease.ipv6_subnet),))
        self.held = await until_it_works("a lease", lambda: self._store.acquire(request), StoreError, self._rng)
        if self.held.lease[:2] != lease[:2]:
            raise SubnetChangedError(f"{lease.subnet or lease.ipv6_subnet} is taken; got {self.held.key}")
        self.is_lost = False
        log.info("lease acquired again: key=%s", self.held.key)


def _loop_time(monotonic: float) -> float:
    return asyncio.get_running_loop().time() + monotonic - time.monotonic()
