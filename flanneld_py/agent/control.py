"""The control socket: flannelctl asks here, over a Unix socket that only its owner may open.

A request is one line, the name of what is asked for; the answer is one line of JSON.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

log = logging.getLogger(__name__)

_REQUEST_LIMIT = 4096
_REQUEST_TIMEOUT = 5.0


async def serve_control(path: Path, answers: dict[str, Callable[[], Any]]) -> asyncio.Server:
    """Start to answer; a socket that a former daemon left there is taken over. Raises OSError."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(_REQUEST_TIMEOUT):
                asked = (await reader.readuntil(b"\n")).decode(errors="replace").strip()
                found = answers.get(asked)
                said = found() if found else {"error": f"unknown request {asked[:60]!r}; there are: {sorted(answers)}"}
                writer.write(json.dumps(said).encode() + b"\n")
                await writer.drain()
        except (TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ConnectionError) as error:
            log.debug("control request broken off: %r", error)
        finally:
            writer.close()

    _remove_former(path)
    # The socket must never be open to others, not even between bind and chmod.
    former = os.umask(0o177)
    try:
        return await asyncio.start_unix_server(answer, path, limit=_REQUEST_LIMIT)
    finally:
        os.umask(former)


def _remove_former(path: Path) -> None:
    path.unlink(missing_ok=True)
