"""KubeClient: requests to a Kubernetes API server, and streams of watch events.

Owns connections, credentials and time limits. It tries nothing a second time but what failed because a connection was
closed while it lay idle; trying again later is the caller's.
"""

from __future__ import annotations

import asyncio
import base64
import json
import time
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import h11

from flanneld_py import __version__
from flanneld_py.core.errors import StoreError
from flanneld_py.store.counts import StoreCounts
from flanneld_py.store.kube_access import Pem, read_access
from flanneld_py.store.kube_connection import KubeConnection, Request
from flanneld_py.store.kube_errors import UnauthorizedError, explain_connection, refusal
from flanneld_py.store.kube_exec import ExecCredentials
from flanneld_py.store.kube_tls import make_context

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Mapping

    from flanneld_py.store.kube_access import KubeAccess
    from flanneld_py.store.kube_options import KubeOptions

CALL_TIMEOUT = 20.0
"""Seconds for a connection, for the answer to a request, and for the first byte of a watch."""
_OK = range(200, 300)
Headers = tuple[tuple[str, str], ...]
_PATCH = "application/strategic-merge-patch+json"


class KubeClient:
    """Talks to the API server that the options name."""

    def __init__(self, options: KubeOptions) -> None:
        self._options = options
        self._exec = ExecCredentials()
        self._idle: list[KubeConnection] = []
        self._open: set[KubeConnection] = set()
        self._closed = False
        self.counts = StoreCounts()
        self.endpoint: str | None = None  # of the connection made last

    async def get(self, path: str, query: Mapping[str, str] | None = None) -> dict[str, Any]:
        """Return the object or list at a path. Raises StoreError, NotFoundError or GoneError among them."""
        return await self._call("GET", _target(path, query))

    async def patch(self, path: str, patch: Mapping[str, Any]) -> dict[str, Any]:
        """Apply a strategic merge patch and return the object as it is then. Raises StoreError."""
        body = json.dumps(patch, separators=(",", ":")).encode()
        return await self._call("PATCH", path, (("Content-Type", _PATCH),), body)

    @asynccontextmanager
    async def watch(self, path: str, query: Mapping[str, str], silence: float) -> AsyncIterator[AsyncGenerator[bytes]]:
        """Open a watch and give its lines, each an event; they end where the server ends it.

        A silence of so many seconds, and all that fails, is raised as StoreError.
        """
        async with self._conversation(fresh=True) as (connection, who):
            async with asyncio.timeout(CALL_TIMEOUT):
                await self._send(connection, Request("GET", _target(path, query), who))
            async with aclosing(_lines(connection, silence)) as lines:
                yield lines

    def reconnect(self) -> None:
        """Connect anew; calls and watches under way raise StoreError."""
        for connection in self._open:
            connection.close()
        self._open.clear()
        self._idle.clear()

    async def close(self) -> None:
        """Close all connections; calls under way and later ones raise StoreError."""
        self._closed = True
        self.reconnect()

    async def _call(self, method: str, target: str, headers: Headers = (), body: bytes = b"") -> dict[str, Any]:
        content = await self._counted(method, target, headers, body)
        try:
            value = json.loads(content)
        except (ValueError, RecursionError) as error:
            raise StoreError(f"the Kubernetes API answered {target} with something that is no JSON") from error
        if not isinstance(value, dict):
            raise StoreError(f"the Kubernetes API answered {target} with something that is no object")
        return value

    async def _counted(self, method: str, target: str, headers: Headers, body: bytes) -> bytes:
        began = time.monotonic()
        try:
            return await self._exchange(method, target, headers, body)
        except StoreError:
            self.counts.failures[method] += 1
            raise
        finally:
            self.counts.calls[method].observe(time.monotonic() - began)

    async def _exchange(self, method: str, target: str, headers: Headers, body: bytes) -> bytes:
        has_tried_new_credentials = False
        while True:
            try:
                async with self._conversation() as (connection, who):
                    request = Request(method, target, (*who, *headers), body)
                    async with asyncio.timeout(CALL_TIMEOUT):
                        await self._send(connection, request)
                        return await connection.body()
            except _StaleConnectionError:
                continue  # each try takes one of the idle ones away
            except UnauthorizedError:
                if has_tried_new_credentials:
                    raise
                has_tried_new_credentials = True

    async def _send(self, connection: KubeConnection, request: Request) -> None:
        status = await connection.send(request)
        if status not in _OK:
            what = f"{request.method} {request.target.partition('?')[0]}"
            raise refusal(connection.server, status, await connection.body(), what)

    @asynccontextmanager
    async def _conversation(self, *, fresh: bool = False) -> AsyncIterator[tuple[KubeConnection, Headers]]:
        """Lend a connection for one request and its answer, with the headers that say who we are.

        What goes wrong meanwhile is raised as StoreError.
        """
        access = read_access(self._options)
        certificate, key, authorization = await self._credentials(access)
        connection = None if fresh else self._take_idle(access)
        was_idle = connection is not None
        try:
            if connection is None:
                async with asyncio.timeout(CALL_TIMEOUT):
                    connection = await self._connect(access, certificate, key)
            yield connection, authorization
        except (OSError, h11.ProtocolError) as error:
            if was_idle and not isinstance(error, TimeoutError):
                raise _StaleConnectionError("an idle connection was closed") from error
            raise StoreError(f"Kubernetes API at {access.server}: {explain_connection(error)}") from error
        except UnauthorizedError:
            self._forget_credentials()
            raise
        finally:
            if connection is not None:
                self._give_back(connection)

    def _take_idle(self, access: KubeAccess) -> KubeConnection | None:
        found = next((one for one in self._idle if one.server == access.server), None)
        if found is not None:
            self._idle.remove(found)
        return found

    async def _connect(self, access: KubeAccess, certificate: Pem, key: Pem) -> KubeConnection:
        if self._closed:
            raise StoreError("the connection to the Kubernetes API is closed")
        context = make_context(access, certificate, key) if access.server.secure else None
        connection = await KubeConnection.open(access.server, context, access.server_name)
        self._open.add(connection)
        self.counts.connections += 1
        self.endpoint = str(access.server)
        return connection

    def _give_back(self, connection: KubeConnection) -> None:
        if not self._closed and connection.make_ready():
            self._idle.append(connection)
        else:
            connection.close()
            self._open.discard(connection)

    def _forget_credentials(self) -> None:
        # A client certificate belongs to its connection, so those go as well.
        self._exec.forget()
        for connection in self._idle:
            connection.close()
            self._open.discard(connection)
        self._idle.clear()

    async def _credentials(self, access: KubeAccess) -> tuple[Pem, Pem, Headers]:
        """Return the certificate and key to show, and the headers that say who we are."""
        certificate, key, token = access.certificate, access.key, access.token
        if access.exec is not None:
            given = await self._exec.get(access.exec, access)
            token = given.token or token
            if given.certificate:
                certificate, key = Pem(data=given.certificate), Pem(data=given.key)
        if access.token_file:
            token = _read_token(access.token_file)
        headers = [("User-Agent", f"flanneld-py/{__version__}"), ("Accept", "application/json")]
        if not token.isascii() or not all("!" <= letter <= "~" for letter in token):
            raise StoreError(f"{access.source}: the token is none: it holds a space or a letter that no token has")
        if token:
            headers.append(("Authorization", f"Bearer {token}"))
        elif access.username:
            pair = base64.b64encode(f"{access.username}:{access.password}".encode()).decode()
            headers.append(("Authorization", f"Basic {pair}"))
        return certificate, key, tuple(headers)


class _StaleConnectionError(Exception):
    """The server had closed an idle connection when we used it."""


async def _lines(connection: KubeConnection, silence: float) -> AsyncGenerator[bytes, None]:
    """Yield the lines of a body; raise TimeoutError after a silence of so many seconds."""
    rest = b""
    async with aclosing(connection.pieces()) as pieces:
        while True:
            async with asyncio.timeout(silence):
                piece = await anext(pieces, None)
            if piece is None:
                return
            *lines, rest = (rest + piece).split(b"\n")
            for line in lines:
                if line:
                    yield line


def _target(path: str, query: Mapping[str, str] | None) -> str:
    return f"{path}?{urlencode(query)}" if query else path


def _read_token(path: str) -> str:
    try:
        return Path(path).read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise StoreError(f"token file {path}: {getattr(error, 'strerror', None) or 'it holds no token'}") from error
