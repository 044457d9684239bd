"""EtcdStream: a stream of requests and responses, with a limit on every wait.

Its errors are CallError or EndpointError; whoever opened it translates.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Generic

from flanneld_py.store.etcd_api import Method, Request, Response
from flanneld_py.store.etcd_errors import EndpointError

if TYPE_CHECKING:
    from flanneld_py.store.grpc_call import Call


class EtcdStream(Generic[Request, Response]):
    """One call; `read` by one task at a time."""

    def __init__(self, call: Call, method: Method[Request, Response]) -> None:
        self._call = call
        self._method = method

    def write(self, request: Request) -> None:
        """Send a request, never waiting; what the server does not take yet goes out later. Raises CallError."""
        self._call.send(self._method.encode(request))

    async def read(self, patience: float) -> Response | None:
        """Return the next response, None where none came in `patience` seconds; the stream goes on all the same."""
        try:
            async with asyncio.timeout(patience):
                message = await self._call.receive()
        except TimeoutError:
            return None
        if message is None:
            raise EndpointError("etcd ended the stream")
        return self._method.decode(message)

    def cancel(self) -> None:
        """End the call."""
        self._call.cancel()
