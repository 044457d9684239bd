"""Waiting for what a store tells and for what is wanted of it at once."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any


async def wait_for_either(reading: asyncio.Future[Any], changed: asyncio.Event) -> None:
    """Return once something has been read, or something has changed; the reading goes on."""
    changing = asyncio.ensure_future(changed.wait())
    try:
        await asyncio.wait((reading, changing), return_when=asyncio.FIRST_COMPLETED)
    finally:
        changing.cancel()
