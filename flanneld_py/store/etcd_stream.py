"""EtcdStream: a stream of requests and responses, with a limit on every wait.

Owns what is particular about gRPC's streams. Its errors are gRPC's or EndpointError; whoever opened it translates.
"""

from __future__ import annotations

import asyncio
from typing import Generic

from flanneld_py.store.etcd_api import Request, Response
from flanneld_py.store.etcd_errors import EndpointError
from flanneld_py.store.grpc_library import aio

LONGEST_WRITE = 5.0
"""Seconds until a stream that takes no request, or is not connected, counts as dead."""

_GRACE = 0.1


class EtcdStream(Generic[Request, Response]):
    """One call; `read` and `write` by one task at a time."""

    def __init__(self, call: aio.StreamStreamCall[Request, Response]) -> None:
        self._call = call
        self._reading: asyncio.Task[Response] | None = None
        self._writing: asyncio.Task[None] | None = None
        # gRPC (1.85) would wait for ever to write to a call that its channel's end has cancelled before it began.
        call.add_done_callback(self._stop_writing)

    async def write(self, request: Request) -> None:
        """Send a request; raise EndpointError where the stream does not take it."""
        try:
            async with asyncio.timeout(LONGEST_WRITE):
                self._writing = asyncio.ensure_future(self._call.write(request))
                await self._writing
        except (TimeoutError, asyncio.InvalidStateError) as error:
            raise EndpointError("the stream has ended") from error
        finally:
            self._writing = None

    async def read(self, patience: float) -> Response | None:
        """Return the next response, None where none came in `patience` seconds; the stream goes on all the same."""
        if self._reading is None:
            self._reading = asyncio.ensure_future(self._read())
        done, _ = await asyncio.wait((self._reading,), timeout=patience)
        if not done:
            return None
        reading, self._reading = self._reading, None
        return reading.result()

    def cancel(self) -> None:
        """End the call."""
        self._call.cancel()
        if self._reading is not None and not self._reading.cancel() and not self._reading.cancelled():
            self._reading.exception()  # looked at, so that asyncio does not complain

    def _stop_writing(self, _: object) -> None:
        if self._writing is not None:
            # Mostly gRPC does end the write, and says why.
            asyncio.get_running_loop().call_later(_GRACE, self._writing.cancel)

    async def _read(self) -> Response:
        response = await self._call.read()
        if response is aio.EOF:
            raise EndpointError("etcd ended the stream")
        return response  # type: ignore[return-value]
