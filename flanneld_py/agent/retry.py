"""Trying something again until it works, with growing pauses, saying so in the log."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, TypeVar

from flanneld_py.core.backoff import backoff_delay

if TYPE_CHECKING:
    import random
    from collections.abc import Awaitable, Callable

log = logging.getLogger(__name__)

Result = TypeVar("Result")


async def until_it_works(
    what: str,
    call: Callable[[], Awaitable[Result]],
    passing: type[Exception] | tuple[type[Exception], ...],
    rng: random.Random,
    *,
    longest: float = 10.0,
) -> Result:
    """Call until no error of the `passing` types comes; each new reason is logged once.

    `longest` is the longest pause in seconds.
    """
    attempts = 0
    said = ""
    while True:
        try:
            result = await call()
        except passing as error:
            attempts += 1
            if str(error) != said:
                said = str(error)
                log.warning("waiting: for=%s reason=%s", what, said)
            await asyncio.sleep(backoff_delay(attempts, rng.random(), longest=longest))
        else:
            if attempts:
                log.info("waited: for=%s attempts=%d", what, attempts)
            return result
