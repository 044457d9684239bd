"""gRPC over HTTP/2 on asyncio: one connection, and the calls on it.

Owns the state of the connection: streams, windows, signs of life. Knows nothing of etcd, nor of what messages mean.
A connection that is lost stays so; its owner opens another.
"""

from __future__ import annotations

import asyncio
import os
import re
import ssl
from typing import TYPE_CHECKING

from flanneld_py.store import http2
from flanneld_py.store.grpc_call import WINDOW, Call, encode_message
from flanneld_py.store.grpc_status import CallError, Status
from flanneld_py.store.hpack import HeaderError, HeaderReader, encode_headers
from flanneld_py.store.http2 import FrameKind, Setting

if TYPE_CHECKING:
    from collections.abc import Sequence

KEEPALIVE_TIME = 30.0
"""Seconds of silence after which a server with calls on it is asked for a sign of life; etcd refuses this under 5 s."""
KEEPALIVE_TIMEOUT = 10.0
"""Seconds that it may take to give one."""
_ANSWER_TIME = 0.005
"""Seconds that an answer to a ping may wait for something to go with."""
_PING = b"flanneld"


class Connection(asyncio.Protocol):
    """One connection to one server."""

    def __init__(self, authority: str, *, secure: bool) -> None:
        """Prepare; `authority` is host and port as the server is called."""
        self._target = ((":method", "POST"), (":scheme", "https" if secure else "http"), (":authority", authority))
        self._heads: dict[str, bytes] = {}
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._frames = http2.FrameReader()
        self._header_reader = HeaderReader()
        self._block: tuple[int, int, bytes] | None = None
        self._calls: dict[int, Call] = {}
        self._next_stream = 1
        self._window = http2.DEFAULT_WINDOW  # what we may send on the connection, and on a stream to begin with
        self._peer_window = http2.DEFAULT_WINDOW
        self._received = 0
        self._answers = b""
        self._holds_back = False
        self._heard = False
        self._is_http2 = False
        self._pulse: asyncio.TimerHandle | None = None
        self._error: CallError | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Say what a client says first."""
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - asyncio's own promise
        self._transport = transport
        settings = {Setting.ENABLE_PUSH: 0, Setting.INITIAL_WINDOW_SIZE: WINDOW}
        more = http2.encode_window_update(0, http2.LARGEST_WINDOW - http2.DEFAULT_WINDOW)
        transport.write(http2.PREFACE + http2.encode_settings(settings) + more)
        self._pulse = self._loop.call_later(KEEPALIVE_TIME, self._beat)

    def data_received(self, data: bytes) -> None:
        """Take in what the server says."""
        self._heard = True
        try:
            for frame in self._frames.feed(data):
                self._take_frame(frame)
        except (http2.FrameError, HeaderError) as error:
            self.close(CallError(Status.UNAVAILABLE, f"socket closed: no HTTP/2 there: {error}"))

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell all calls."""
        lost = CallError(Status.UNAVAILABLE, "connection lost")
        self.close(lost if self._is_http2 and not isinstance(exc, ssl.SSLError) else connection_error(exc))

    def close(self, error: CallError) -> None:
        """End the connection; all calls fail with this error, unless it has ended before."""
        if self._error is None:
            self._error = error
            if self._pulse is not None:
                self._pulse.cancel()
            for call in list(self._calls.values()):
                call.fail(error)
            self._calls.clear()
        if self._transport is not None:
            self._transport.abort()

    def open_call(self, path: str, metadata: Sequence[tuple[str, str]], only: bytes | None = None) -> Call:
        """Begin a call; with its `only` request, if there is just one. Raises CallError if the connection has ended."""
        if self._error is not None or self._transport is None:
            raise self._error or connection_error(None)
        # The numbers have to rise in the order in which the server hears of them, so it does at once.
        number, self._next_stream = self._next_stream, self._next_stream + 2
        head = self._heads.get(path)
        if head is None:
            rest = (("te", "trailers"), ("content-type", "application/grpc"))
            head = self._heads[path] = encode_headers((*self._target, (":path", path), *rest))
        head = http2.encode_frame(FrameKind.HEADERS, http2.END_HEADERS, number, head + encode_headers(metadata))
        call = self._calls[number] = Call(self, number, self._peer_window)
        if only is None:
            self._write(head)
        else:
            call.outgoing += encode_message(only)
            call.is_last = True
            self.send(call, head)
        return call

    def send(self, call: Call, head: bytes = b"") -> None:
        """Send of a call's outgoing bytes, behind `head`, as much as the server is ready to take."""
        frames = [head]
        while call.outgoing and (size := min(len(call.outgoing), http2.LARGEST_FRAME, call.window, self._window)) > 0:
            part = bytes(call.outgoing[:size])
            del call.outgoing[:size]
            call.window -= size
            self._window -= size
            flags = http2.END_STREAM if call.is_last and not call.outgoing else 0
            frames.append(http2.encode_frame(FrameKind.DATA, flags, call.number, part))
        self._write(b"".join(frames))

    def hold_back(self) -> None:
        """Keep what is sent from now on until `let_go`: many calls that begin together cost one system call."""
        self._holds_back = True

    def let_go(self) -> None:
        """Send what was held back."""
        self._holds_back = False
        self._write(b"")

    def grant(self, call: Call, size: int) -> None:
        """Let the server send so many bytes more on a call."""
        if call.number in self._calls:
            self._write(http2.encode_window_update(call.number, size))

    def forget(self, call: Call) -> None:
        """End a call that nobody waits for any more."""
        if self._calls.pop(call.number, None) is not None:
            self._write(http2.encode_reset(call.number, http2.CANCEL))

    def _write(self, data: bytes) -> None:
        if self._answers or self._holds_back:
            self._answers, data = b"", self._answers + data
        if self._holds_back:
            self._answers = data
            return
        # What is written to a connection that is about to end goes nowhere; asyncio would log it.
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def _write_soon(self, data: bytes) -> None:
        """Write what nobody waits for, with what is written next: etcd pings us with most of its answers."""
        if not self._answers:
            self._loop.call_later(_ANSWER_TIME, self._write, b"")
        self._answers += data

    def _take_frame(self, frame: http2.Frame) -> None:
        kind = frame.kind
        if not self._is_http2 and kind != FrameKind.SETTINGS:
            raise http2.FrameError("it begins otherwise")
        self._is_http2 = True
        if self._block is not None and kind != FrameKind.CONTINUATION:
            raise http2.FrameError("headers are interrupted")
        match kind:
            case FrameKind.DATA:
                self._take_data(frame)
            case FrameKind.HEADERS:
                self._take_headers(frame.stream, frame.flags, http2.strip_padding(frame), frame.flags)
            case FrameKind.CONTINUATION:
                if self._block is None or self._block[0] != frame.stream:
                    raise http2.FrameError("headers go on that have not begun")
                stream, flags, begun = self._block
                self._take_headers(stream, flags, begun + frame.payload, frame.flags)
            case FrameKind.WINDOW_UPDATE:
                self._widen(frame.stream, http2.decode_number(frame.payload))
            case FrameKind.RST_STREAM | FrameKind.GOAWAY:
                self._take_end(frame)
            case FrameKind.SETTINGS | FrameKind.PING if not frame.flags & http2.ACK:
                self._answer(frame)

    def _take_end(self, frame: http2.Frame) -> None:
        if frame.kind == FrameKind.GOAWAY:
            code, words = http2.decode_going_away(frame.payload)
            self.close(CallError(Status.UNAVAILABLE, f"the server goes away: {words or f'HTTP/2 error {code}'}"))
            return
        call = self._calls.pop(frame.stream, None)
        if call is not None:
            code = http2.decode_number(frame.payload)
            call.fail(CallError(Status.UNAVAILABLE, f"the server ended the stream: HTTP/2 error {code}"))

    def _take_data(self, frame: http2.Frame) -> None:
        self._received += len(frame.payload)
        if self._received >= WINDOW:
            self._write(http2.encode_window_update(0, self._received))
            self._received = 0
        call = self._calls.get(frame.stream)
        if call is None:
            return
        call.take(http2.strip_padding(frame), len(frame.payload))
        if frame.flags & http2.END_STREAM:
            self._calls.pop(frame.stream, None)
            call.finish()

    def _take_headers(self, stream: int, flags: int, block: bytes, latest_flags: int) -> None:
        if not latest_flags & http2.END_HEADERS:
            self._block = (stream, flags, block)
            return
        self._block = None
        headers = self._header_reader.read(block)
        call = self._calls.get(stream)
        if call is None:
            return
        call.headers.update(headers)
        if flags & http2.END_STREAM:
            del self._calls[stream]
            call.finish()

    def _widen(self, stream: int, increment: int) -> None:
        if not stream:
            self._window += increment
            for call in list(self._calls.values()):
                self._send_rest(call)
        elif stream in self._calls:
            self._calls[stream].window += increment
            self._send_rest(self._calls[stream])

    def _send_rest(self, call: Call) -> None:
        if call.outgoing:
            self.send(call)

    def _answer(self, frame: http2.Frame) -> None:
        payload = frame.payload
        if frame.kind == FrameKind.SETTINGS:
            window = http2.decode_settings(payload).get(Setting.INITIAL_WINDOW_SIZE, self._peer_window)
            for call in self._calls.values():
                call.window += window - self._peer_window
            self._peer_window = window
            payload = b""
        self._write_soon(http2.encode_frame(FrameKind(frame.kind), http2.ACK, 0, payload))
        for call in list(self._calls.values()):
            self._send_rest(call)

    def _beat(self) -> None:
        """Ask for a sign of life where calls wait in silence; etcd takes it ill where none do."""
        if self._calls and not self._heard:
            self._write(http2.encode_frame(FrameKind.PING, 0, 0, _PING))
            self._pulse = self._loop.call_later(KEEPALIVE_TIMEOUT, self._judge)
            return
        self._heard = False
        self._pulse = self._loop.call_later(KEEPALIVE_TIME, self._beat)

    def _judge(self) -> None:
        if not self._heard:
            self.close(CallError(Status.UNAVAILABLE, "the server gives no sign of life"))
            return
        self._pulse = self._loop.call_later(KEEPALIVE_TIME, self._beat)


_ERRNO = re.compile(r"\[Errno ([0-9]+)\]")


def connection_error(error: Exception | None) -> CallError:
    """Return what the end of a connection, or of the attempt at one, means to calls on it."""
    if error is None or isinstance(error, ConnectionResetError):
        return CallError(Status.UNAVAILABLE, "socket closed")
    if isinstance(error, ssl.SSLError):
        return CallError(Status.UNAVAILABLE, f"TLS: {error}")
    # asyncio puts texts of its own in the place of the system's, and of several errors makes one without a number.
    number = error.errno if isinstance(error, OSError) and error.errno else _ERRNO.search(str(error))
    if isinstance(number, re.Match):
        number = int(number[1])
    return CallError(Status.UNAVAILABLE, os.strerror(number) if number else str(error) or type(error).__name__)
