"""EtcdClient: calls to an etcd cluster over one channel at a time, with deadlines, tokens and a change of endpoint.

Owns the channel, the choice of endpoint and the token. Knows nothing of leases, and does not wait: a call fails when
every endpoint failed once, and its caller decides when to try again.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, NamedTuple

from flanneld_py.core.errors import StoreError
from flanneld_py.store import etcd_pb2 as pb
from flanneld_py.store.counts import StoreCounts
from flanneld_py.store.etcd_api import AUTHENTICATE, RANGE, KeyRange, Method, Request, Response
from flanneld_py.store.etcd_channel import Channel
from flanneld_py.store.etcd_errors import EndpointError, is_stale_token, translate
from flanneld_py.store.etcd_question import hand_over
from flanneld_py.store.etcd_stream import EtcdStream
from flanneld_py.store.grpc_status import CallError, Status

if TYPE_CHECKING:
    import random
    from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine, Sequence

    from flanneld_py.store.etcd_options import Endpoint, EtcdOptions

CALL_TIMEOUT = 5.0
"""Seconds that one endpoint has to answer."""
PAGE_SIZE = 2500
"""Keys in one response of a list. A page is what a list costs in memory beyond its result; but etcd counts the whole
range for every page."""

# A member that lost its leader ends such a stream rather than leaving it silent.
_REQUIRE_LEADER = ("hasleader", "true")


class _Connection(NamedTuple):
    endpoint: Endpoint
    channel: Channel


class EtcdClient:
    """A cluster's client; the endpoints are taken in turn from a random one, the next when one does not serve."""

    def __init__(self, options: EtcdOptions, rng: random.Random) -> None:
        self._options = options
        self._next = rng.randrange(len(options.endpoints))
        self._connection: _Connection | None = None
        self._token: str | None = None
        self._closed = False
        self.counts = StoreCounts()

    async def call(self, method: Method[Request, Response], request: Request) -> Response:
        """Return the response; raise StoreError where no endpoint gives one.

        A request may reach etcd twice, on two endpoints, when the first answer gets lost.
        """
        return await self._counted(self._send, method, request)

    def ask(
        self,
        method: Method[Request, Response],
        questions: Sequence[tuple[Request, Callable[[Response | None], None]]],
        patience: float,
    ) -> None:
        """Send requests in one piece, at once, over the connection that there is; never wait.

        What stands beside a request is called once, ahead of all tasks, with the response; or with None where there
        is no connection yet, or no response in `patience` seconds: then `call` tells why, and knows other endpoints.
        """
        connection = None if self._connection is None else self._connection.channel.connection
        if connection is None or (self._options.username and self._token is None):
            for _, answered in questions:
                answered(None)
            return
        connection.hold_back()
        try:
            for request, answered in questions:
                try:
                    call = connection.open_call(method.path, self._metadata(), method.encode(request))
                except CallError:
                    answered(None)
                else:
                    hand_over(call, method, answered, patience, self.counts)
        finally:
            connection.let_go()

    async def exchange(self, method: Method[Request, Response], request: Request) -> Response:
        """Do the same for a method that is a stream, of which one request and one response are wanted."""
        return await self._counted(self._exchange, method, request)

    async def pages(
        self, keys: KeyRange, *, keys_only: bool = False, created_after: int = 0, size: int = PAGE_SIZE
    ) -> AsyncGenerator[pb.RangeResponse, None]:
        """Yield a range's keys in pages, all as of the first page's revision; the last page has `more` unset.

        `size` is that of a page in keys. With `created_after`, only keys whose present life began after that revision.
        """
        request = pb.RangeRequest(
            key=keys.start,
            range_end=keys.end,
            limit=size,
            keys_only=keys_only,
            min_create_revision=created_after + 1 if created_after else 0,
        )
        page = await self.call(RANGE, request)
        while page.more:
            request.key = page.kvs[-1].key + b"\0"
            request.revision = request.revision or page.header.revision
            # etcd looks for the next page while this one is read.
            async with _under_way(self.call(RANGE, request)) as following:
                yield page
                page = await following
        yield page

    @asynccontextmanager
    async def stream(self, method: Method[Request, Response]) -> AsyncIterator[EtcdStream[Request, Response]]:
        """Open a stream; what fails on it, or the end of its channel, is raised as StoreError."""
        connection = await self._connect()
        stream: EtcdStream[Request, Response] | None = None
        try:
            call = await connection.channel.open_call(method.path, (*self._metadata(), _REQUIRE_LEADER))
            stream = EtcdStream(call, method)
            yield stream
        except EndpointError as error:  # it is dead, though the connection stands
            self._disconnect(connection)
            raise EndpointError(f"etcd at {connection.endpoint}: {error}") from error
        except CallError as error:
            raise self._failed(connection, error) from error
        finally:
            if stream is not None:
                stream.cancel()

    @property
    def endpoint(self) -> Endpoint | None:
        """The endpoint in use, None while there is none."""
        return None if self._connection is None else self._connection.endpoint

    def forget_token(self) -> None:
        """Ask for a new token before the next call: etcd no longer takes the present one."""
        self._token = None

    def reconnect(self) -> None:
        """Connect anew, to the same endpoint; calls under way are made again, streams raise EndpointError."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.channel.close()

    async def close(self) -> None:
        """Close the channel; calls under way and later ones raise StoreError."""
        self._closed = True
        self._disconnect(self._connection)

    async def _counted(
        self,
        ask: Callable[[Method[Request, Response], Request], Awaitable[Response]],
        method: Method[Request, Response],
        request: Request,
    ) -> Response:
        name, began = method.path.rpartition("/")[2], time.monotonic()
        try:
            return await self._on_any_endpoint(ask, method, request)
        except StoreError:
            self.counts.failures[name] += 1
            raise
        finally:
            self.counts.calls[name].observe(time.monotonic() - began)

    async def _on_any_endpoint(
        self,
        ask: Callable[[Method[Request, Response], Request], Awaitable[Response]],
        method: Method[Request, Response],
        request: Request,
    ) -> Response:
        failures: dict[str, EndpointError] = {}
        # One attempt more than endpoints: another task's change of endpoint, or the end of our token, cost one.
        for _ in range(len(self._options.endpoints) + 1):
            try:
                return await ask(method, request)
            except EndpointError as error:
                failures.setdefault(str(error), error)
        raise StoreError("; ".join(sorted(failures))) from next(iter(failures.values()))

    async def _send(self, method: Method[Request, Response], request: Request) -> Response:
        connection = await self._connect()
        return await self._send_over(connection, method, request, self._metadata())

    async def _send_over(
        self,
        connection: _Connection,
        method: Method[Request, Response],
        request: Request,
        metadata: tuple[tuple[str, str], ...],
    ) -> Response:
        try:
            async with asyncio.timeout(CALL_TIMEOUT):
                return method.decode(await _ask(connection.channel, method.path, metadata, method.encode(request)))
        except TimeoutError:
            error = CallError(Status.DEADLINE_EXCEEDED, "no answer in time")
            raise self._failed(connection, error) from None
        except CallError as error:
            raise self._failed(connection, error) from error

    async def _exchange(self, method: Method[Request, Response], request: Request) -> Response:
        async with self.stream(method) as stream:
            stream.write(request)
            response = await stream.read(CALL_TIMEOUT)
            if response is None:
                raise EndpointError("no answer in time")
            return response

    async def _connect(self) -> _Connection:
        if self._closed:
            raise StoreError("the connection to etcd is closed")
        if self._connection is None:
            endpoint = self._options.endpoints[self._next]
            self.counts.connections += 1
            self._connection = _Connection(endpoint, Channel(endpoint, self._options))
        connection = self._connection
        if self._options.username and self._token is None:
            self._token = await self._authenticate(connection)
            if connection is not self._connection:
                raise _given_up(connection)
        return connection

    async def _authenticate(self, connection: _Connection) -> str:
        request = pb.AuthenticateRequest(name=self._options.username, password=self._options.password)
        try:
            return (await self._send_over(connection, AUTHENTICATE, request, ())).token
        except StoreError as error:
            if "authentication is not enabled" in str(error):
                return ""
            raise

    def _metadata(self) -> tuple[tuple[str, str], ...]:
        return (("token", self._token),) if self._token else ()

    def _failed(self, connection: _Connection, error: CallError) -> StoreError:
        if is_stale_token(error, self._options):
            self.forget_token()
            return _StaleTokenError(f"etcd at {connection.endpoint}: {error.details}")
        failure = translate(error, connection.endpoint, self._options)
        if isinstance(failure, EndpointError):
            self._disconnect(connection)
        return failure

    def _disconnect(self, connection: _Connection | None) -> None:
        # Another task may have changed the endpoint already: then this one is not at fault.
        if connection is not None and connection is self._connection:
            self._connection = None
            self._next = (self._next + 1) % len(self._options.endpoints)
            connection.channel.close()


@asynccontextmanager
async def _under_way(work: Coroutine[None, None, Response]) -> AsyncIterator[asyncio.Task[Response]]:
    """Have something done meanwhile; it is given up where nobody waits for it in the end."""
    task = asyncio.create_task(work)
    try:
        yield task
    finally:
        if not task.cancel() and not task.cancelled():
            task.exception()  # seen, whether or not it was raised where it was waited for


class _StaleTokenError(EndpointError):
    """Our token is no longer good; the next attempt gets a new one."""


def _given_up(connection: _Connection) -> EndpointError:
    return EndpointError(f"etcd at {connection.endpoint}: the connection was given up")


async def _ask(channel: Channel, path: str, metadata: Sequence[tuple[str, str]], request: bytes) -> bytes:
    """Make one call of one request and one response. Raises CallError."""
    call = await channel.open_call(path, metadata, request)
    try:
        response = await call.receive()
        if response is None or await call.receive() is not None:
            raise CallError(Status.INTERNAL, "no single answer came")
    finally:
        call.cancel()
    return response
