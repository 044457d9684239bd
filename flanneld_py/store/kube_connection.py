"""One HTTP/1.1 connection to an API server: a request, its answer, and the next.

Owns sockets and time limits; h11 owns the protocol. Errors stay what they are (OSError, ssl.SSLError, h11's); the
client gives them their meaning.
"""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING, NamedTuple

import h11

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncGenerator

    from flanneld_py.store.kube_access import ServerUrl

_READ_SIZE = 65536
# Seconds and tries after which a silent peer counts as gone (tcp(7)): a watch may have nothing to say for long.
_KEEPALIVE = ((socket.TCP_KEEPIDLE, 15), (socket.TCP_KEEPINTVL, 5), (socket.TCP_KEEPCNT, 3))
_UNACKNOWLEDGED_MS = 30_000


class Request(NamedTuple):
    """What is asked; `target` is path and query."""

    method: str
    target: str
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""


class KubeConnection:
    """An open connection; `in_use` while an answer is being read."""

    def __init__(self, server: ServerUrl, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.server = server
        self._reader = reader
        self._writer = writer
        self._http = h11.Connection(h11.CLIENT)

    @classmethod
    async def open(cls, server: ServerUrl, context: ssl.SSLContext | None, server_name: str) -> KubeConnection:
        """Connect. Raises OSError or ssl.SSLError."""
        reader, writer = await asyncio.open_connection(
            server.host, server.port, ssl=context, server_hostname=(server_name or server.host) if context else None
        )
        sock = writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _UNACKNOWLEDGED_MS)
        for option, value in _KEEPALIVE:
            sock.setsockopt(socket.IPPROTO_TCP, option, value)
        return cls(server, reader, writer)

    async def send(self, request: Request) -> int:
        """Send a request and return the answer's status; its body is still to be read."""
        head = h11.Request(
            method=request.method,
            target=self.server.path + request.target,
            headers=[
                ("Host", f"{self.server.host}:{self.server.port}"),
                ("Content-Length", str(len(request.body))),
                *request.headers,
            ],
        )
        pieces = [self._http.send(head), self._http.send(h11.Data(request.body)), self._http.send(h11.EndOfMessage())]
        self._writer.write(b"".join(piece for piece in pieces if piece))
        await self._writer.drain()
        while True:
            event = await self._next_event()
            if isinstance(event, h11.Response):
                return int(event.status_code)
            if isinstance(event, h11.ConnectionClosed):
                raise ConnectionResetError("the connection was closed before an answer")

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        """Yield the answer's body as it comes."""
        while True:
            event = await self._next_event()
            if isinstance(event, h11.Data):
                yield bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                return

    async def body(self) -> bytes:
        """Return the whole body."""
        return b"".join([piece async for piece in self.pieces()])

    def make_ready(self) -> bool:
        """Prepare for the next request; return whether the connection can carry one."""
        if self._http.our_state is not h11.DONE or self._http.their_state is not h11.DONE or self._reader.at_eof():
            return False
        self._http.start_next_cycle()
        return True

    def close(self) -> None:
        """Close the connection at once."""
        self._writer.transport.abort()

    async def _next_event(self) -> h11.Event | type[h11.PAUSED]:
        while True:
            event = self._http.next_event()
            if isinstance(event, h11.Event) or event is h11.PAUSED:
                return event
            self._http.receive_data(await self._reader.read(_READ_SIZE))
