"""The control socket: flannelctl asks here, over a Unix socket that only its owner may open.

A request is one line, the name of what is asked for; the answer is one line of JSON.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
from typing import TYPE_CHECKING, Any

from flanneld_py.agent.file_identity import FileIdentity, identify

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

log = logging.getLogger(__name__)

_REQUEST_LIMIT = 4096
_REQUEST_TIMEOUT = 5.0


class ControlSocket:
    """Answers at a path; a socket that a former daemon left there is taken over."""

    def __init__(self, path: Path, answers: dict[str, Callable[[], Any]]) -> None:
        """Answer nobody before `open`."""
        self.path = path
        self._answers = answers
        self._server: asyncio.Server | None = None
        self._identity: FileIdentity | None = None

    async def open(self) -> None:
        """Start to answer. Raises OSError."""
        self.path.unlink(missing_ok=True)
        # The socket must never be open to others, not even between bind and chmod.
        former = os.umask(0o177)
        try:
            self._server = await asyncio.start_unix_server(self._answer, self.path, limit=_REQUEST_LIMIT)
        finally:
            os.umask(former)
        self._identity = identify(self.path)

    def close(self) -> None:
        """Take no more requests."""
        if self._server is not None:
            self._server.close()

    def stands(self) -> bool:
        """Say whether who goes by the path comes to us."""
        return identify(self.path) == self._identity

    async def reopen(self) -> None:
        """Listen at the path anew. Raises OSError."""
        self.close()
        await self.open()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answers = self._answers
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
