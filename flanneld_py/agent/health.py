"""The health server: `/healthz`, `/readyz` and `/metrics` over HTTP/1.1, one answer a connection.

Owns just enough of HTTP for kubelet, Prometheus and curl; what is healthy is told by the functions it is given.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from typing import TYPE_CHECKING, NamedTuple

from flanneld_py.core.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

log = logging.getLogger(__name__)

_REQUEST_LIMIT = 8192
_REQUEST_TIMEOUT = 5.0

Report = tuple[str, list[str]]
"""How a body begins when all is well, and what is wrong: nothing, if all is well."""


class Page(NamedTuple):
    """A text of a media type."""

    media_type: str
    read: Callable[[], str]


async def serve_health(
    ip: str, port: int, reports: dict[str, Callable[[], Report]], pages: dict[str, Page]
) -> asyncio.Server:
    """Start to answer GET for the paths of `reports`: 200 where nothing is wrong, else 503 and what it is.

    The paths of `pages` are answered by their texts.

    Raises OSError where the address cannot be had, ConfigError where it is none.
    """

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(_REQUEST_TIMEOUT):
                request = await reader.readuntil(b"\r\n\r\n")
                writer.write(encode_answer(request, reports, pages))
                await writer.drain()
        except (TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ConnectionError) as error:
            log.debug("health request broken off: %r", error)
        finally:
            writer.close()

    try:
        return await asyncio.start_server(answer, ip, port, limit=_REQUEST_LIMIT)
    except socket.gaierror as error:
        raise ConfigError("healthz-ip", f"{ip!r} is no address, and no name that resolves") from error


def encode_answer(request: bytes, reports: dict[str, Callable[[], Report]], pages: dict[str, Page]) -> bytes:
    """Return the whole HTTP answer to a request's head."""
    method, _, rest = request.partition(b" ")
    media_type = "text/plain; charset=utf-8"
    path = rest.partition(b" ")[0].partition(b"?")[0].decode(errors="replace")
    if method not in {b"GET", b"HEAD"}:
        status, body = "405 Method Not Allowed", "only GET and HEAD are answered\n"
    elif path in pages:
        status, body, media_type = "200 OK", pages[path].read(), pages[path].media_type
    elif path not in reports:
        status, body = "404 Not Found", f"there are: {' '.join([*reports, *pages])}\n"
    else:
        good, wrong = reports[path]()
        status = "503 Service Unavailable" if wrong else "200 OK"
        body = "".join(f"{line}\n" for line in wrong) if wrong else f"{good}\n"
    content = body.encode()
    head = (
        f"HTTP/1.1 {status}\r\nContent-Type: {media_type}\r\n"
        f"Content-Length: {len(content)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + (b"" if method == b"HEAD" else content)
