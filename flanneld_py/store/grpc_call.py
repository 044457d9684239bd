"""One gRPC call as it is seen from our side: messages each way, their order, and the outcome.

Owns the cutting of a stream of bytes into messages, and how much may come before it is read. The connection carries
the bytes (https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md).
"""

from __future__ import annotations

import asyncio
import struct
from collections import deque
from typing import TYPE_CHECKING, Protocol
from urllib.parse import unquote

from flanneld_py.store.grpc_status import CallError, Status

if TYPE_CHECKING:
    from collections.abc import Callable

WINDOW = 1 << 22
"""Bytes of a call's answers that may come before they are read."""

_MESSAGE = struct.Struct("!?I")  # whether it is compressed, and its length
_CODES = frozenset(Status)
_STATUS_OF_HTTP = {401: Status.UNAUTHENTICATED, 403: Status.PERMISSION_DENIED, 404: Status.UNIMPLEMENTED}


def encode_message(message: bytes) -> bytes:
    """Write a message as it goes into DATA frames ("Length-Prefixed-Message" in gRPC's PROTOCOL-HTTP2)."""
    return _MESSAGE.pack(False, len(message)) + message


class Carrier(Protocol):
    """What carries a call's bytes: the connection that it runs on."""

    def send(self, call: Call) -> None:
        """Send of a call's outgoing bytes as much as the server is ready to take."""
        ...

    def grant(self, call: Call, size: int) -> None:
        """Let the server send so many bytes more on a call."""
        ...

    def forget(self, call: Call) -> None:
        """End a call that nobody waits for any more."""
        ...


class Call:
    """One call: messages each way, and an outcome. `send` and `receive` by one task at a time."""

    def __init__(self, connection: Carrier, number: int, window: int) -> None:
        """Take over stream `number`, on which so many bytes may be sent."""
        self._connection = connection
        self.number = number
        self.window = window
        self.outgoing = bytearray()
        self.is_last = False
        self.headers: dict[str, str] = {}
        self._incoming = bytearray()
        self._messages: deque[bytes] = deque()
        self._owed = 0
        self._waiting: asyncio.Future[None] | None = None
        self._listener: Callable[[], None] | None = None
        self._outcome: CallError | None = None
        self._has_ended = False

    def send(self, message: bytes) -> None:
        """Send a message; what the server does not take yet goes out later. Raises CallError if the call has failed."""
        if self._outcome is not None:
            raise self._outcome
        self.outgoing += encode_message(message)
        self._connection.send(self)

    async def receive(self) -> bytes | None:
        """Return the next message; None once the server has ended the call well. Raises CallError.

        May be given up at any time; no message gets lost by that.
        """
        while not (self._messages or self._has_ended):
            self._waiting = asyncio.get_running_loop().create_future()
            try:
                await self._waiting
            finally:
                self._waiting = None
        return self.take_next()

    def take_next(self) -> bytes | None:
        """Return the next message, which has come; None if the server has ended the call well. Raises CallError."""
        if self._messages:
            message = self._messages.popleft()
            self._grant()
            return message
        if self._outcome is not None:
            raise self._outcome
        return None

    def listen(self, listener: Callable[[], None]) -> None:
        """Have `listener` called once, as soon as `take_next` has something to return or to raise.

        It is called by whatever the connection reads, ahead of all tasks, and must not raise.
        """
        self._listener = listener

    def cancel(self) -> None:
        """End the call, if it has not ended by itself."""
        if not self._has_ended:
            self.fail(CallError(Status.CANCELLED, "given up by us"))
            self._connection.forget(self)

    def take(self, data: bytes, size: int) -> None:
        """Take in a part of the server's messages that was `size` bytes on the wire."""
        self._incoming += data
        while len(self._incoming) >= _MESSAGE.size:
            compressed, length = _MESSAGE.unpack_from(self._incoming)
            end = _MESSAGE.size + length
            if len(self._incoming) < end:
                break
            if compressed:
                self.fail(CallError(Status.INTERNAL, "the answer is compressed, which was not asked for"))
                self._connection.forget(self)
                return
            self._messages.append(bytes(self._incoming[_MESSAGE.size : end]))
            del self._incoming[:end]
        self._owed += size
        self._grant()
        if self._messages:
            self._wake()

    def _grant(self) -> None:
        # While messages wait to be read, the server waits as well.
        if self._owed >= WINDOW // 2 and not self._messages:
            owed, self._owed = self._owed, 0
            self._connection.grant(self, owed)

    def finish(self) -> None:
        """Take note that the server has ended the call; what came of it is in the headers."""
        self._has_ended = True
        code = self.headers.get("grpc-status", "")
        http = self.headers.get(":status", "")
        if code == "0":
            self._wake()
            return
        if code:
            status = Status(int(code)) if code.isdecimal() and int(code) in _CODES else Status.UNKNOWN
            self.fail(CallError(status, unquote(self.headers.get("grpc-message", ""))))
        else:
            status = _STATUS_OF_HTTP.get(int(http) if http.isdecimal() else 0, Status.UNAVAILABLE)
            self.fail(CallError(status, f"no gRPC server there: HTTP status {http or 'missing'}"))

    def fail(self, error: CallError) -> None:
        """End the call with an error; messages that have come can still be read."""
        self._has_ended = True
        if self._outcome is None:
            self._outcome = error
        self._wake()

    def _wake(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)
        if self._listener is not None:
            listener, self._listener = self._listener, None
            listener()
