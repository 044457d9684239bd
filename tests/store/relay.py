"""A TCP relay between a client and an etcd, which a test can cut, restore and freeze."""

import asyncio
from contextlib import suppress


class Relay:
    """Forwards connections to a port on loopback.

    Cut, it ends all connections and takes no new ones; frozen, it keeps them and lets no byte through; stranded, it
    does so with those that there are, and serves new ones. `piece` is how many bytes it passes on at once, with `pause`
    seconds in between.
    """

    def __init__(self, target_port, *, piece=65536, pause=0.0):
        self._target_port = target_port
        self._piece = piece
        self._pause = pause
        self._open = asyncio.Event()
        self._open.set()
        self._server = None
        self._writers = set()
        self._tasks = set()
        self.port = 0

    async def restore(self):
        self._open.set()
        if self._server is None:
            self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
            self.port = self._server.sockets[0].getsockname()[1]

    async def cut(self):
        if self._server is not None:
            # asyncio forgets, unclosed, a connection whose server is closed while it is being accepted.
            asyncio.get_running_loop().remove_reader(self._server.sockets[0].fileno())
            for _ in range(5):
                await asyncio.sleep(0)
            self._server.close()
            self._server = None
        for writer in list(self._writers):
            writer.transport.abort()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def freeze(self):
        self._open.clear()

    def strand(self):
        self._open.clear()
        self._open = asyncio.Event()
        self._open.set()

    async def _serve(self, reader, writer):
        self._tasks.add(asyncio.current_task())
        is_open = self._open
        try:
            with suppress(OSError, asyncio.CancelledError):
                there_reader, there_writer = await asyncio.open_connection("127.0.0.1", self._target_port)
                self._writers |= {writer, there_writer}
                await asyncio.gather(
                    self._pump(reader, there_writer, is_open), self._pump(there_reader, writer, is_open)
                )
        finally:
            writer.transport.abort()
            self._writers.discard(writer)
            self._tasks.discard(asyncio.current_task())

    async def _pump(self, reader, writer, is_open):
        with suppress(OSError):
            while data := await reader.read(self._piece):
                await asyncio.sleep(self._pause)
                await is_open.wait()
                writer.write(data)
                await writer.drain()
        writer.close()
        self._writers.discard(writer)
