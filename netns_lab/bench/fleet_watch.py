"""A fleet of watchers on one etcd: a connection each, as nodes have, in one process, in one event loop.

A watcher is as small as can be: it cuts the stream into messages and notes when each came.
"""

import asyncio
import socket
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from netns_lab.bench import etcd_messages as api
from netns_lab.bench.grpc_wire import (
    FrameReader,
    Kind,
    MessageReader,
    answer_to,
    encode_call,
    encode_opening,
)
from netns_lab.errors import LabError, WaitedInVainError
from netns_lab.namespaces import in_network

WATCH_STREAM = 1
WAIT_SECONDS = 120.0


class Watcher(asyncio.Protocol):
    """One node's connection: a watch, and now and then a list."""

    def __init__(self, told: Callable[[], None]) -> None:
        self._told = told
        self._frames = FrameReader()
        self._messages = {WATCH_STREAM: MessageReader()}
        self._stream = WATCH_STREAM
        self._transport: asyncio.Transport | None = None
        self.created = False
        self.events: list[float] = []
        self.lists = 0
        self.failed = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Open the connection."""
        if isinstance(transport, asyncio.Transport):
            self._transport = transport
            transport.write(encode_opening())

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell it, unless it was we who closed."""
        if self._transport is not None:
            self.failed = f"etcd hung up: {exc}"
            self._told()

    def data_received(self, data: bytes) -> None:
        """Note what came."""
        moment = time.monotonic()
        for frame in self._frames.feed(data):
            if answer := answer_to(frame):
                self._write(answer)
            if frame.kind == Kind.DATA:
                for message in self._messages[frame.stream].feed(frame.payload):
                    self._note(frame.stream, message, moment)
            if frame.ends_stream and frame.stream in {0, WATCH_STREAM}:
                self.failed = "etcd ended the watch"
        self._told()

    def _note(self, stream: int, message: bytes, moment: float) -> None:
        if stream != WATCH_STREAM:
            self.lists += 1
            del self._messages[stream]
        elif not self.created:
            self.created = True
        else:
            self.events += [moment] * api.count_field(message, api.RESPONSE_EVENTS)

    def _write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)

    def watch(self, prefix: str) -> None:
        """Ask for all that changes."""
        self._write(encode_call(WATCH_STREAM, api.WATCH, api.encode_watch(prefix), last=False))

    def list(self, prefix: str) -> None:
        """Ask for all that there is."""
        self._stream += 2
        self._messages[self._stream] = MessageReader()
        self._write(encode_call(self._stream, api.RANGE, api.encode_prefix(prefix), last=True))

    def close(self) -> None:
        """Hang up."""
        transport, self._transport = self._transport, None
        if transport is not None:
            transport.abort()


class Fleet:
    """Many watchers, and waiting for all of them."""

    def __init__(self) -> None:
        self.watchers: list[Watcher] = []
        self._news = asyncio.Event()

    async def connect(self, count: int, network: Path, address: str) -> None:
        """Open the connections from within a network namespace. Raises LabError or OSError."""
        loop = asyncio.get_running_loop()
        with in_network(network):
            sockets = [socket.create_connection((address, 2379), WAIT_SECONDS) for _ in range(count)]
        for each in sockets:
            _, watcher = await loop.create_connection(lambda: Watcher(self._news.set), sock=each)
            self.watchers.append(watcher)

    async def wait_for(self, what: str, condition: Callable[[Watcher], bool]) -> None:
        """Return once the condition holds for every watcher. Raises LabError."""
        left: Sequence[Watcher] = self.watchers
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                while left := [watcher for watcher in left if not condition(watcher)]:
                    failures = [watcher.failed for watcher in left if watcher.failed]
                    if failures:
                        raise LabError(failures[0])
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            raise WaitedInVainError(f"waited {WAIT_SECONDS:g} s for {len(left)} watchers {what}") from None

    def close(self) -> None:
        """Hang up, all of them."""
        for watcher in self.watchers:
            watcher.close()
