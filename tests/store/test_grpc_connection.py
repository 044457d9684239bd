"""Calls to a server of the genuine gRPC library, and to servers that misbehave."""

import asyncio
from contextlib import asynccontextmanager, suppress

import grpc
import pytest

from flanneld_py.store import grpc_connection, http2
from flanneld_py.store.grpc_call import WINDOW
from flanneld_py.store.grpc_connection import Connection
from flanneld_py.store.grpc_status import CallError, Status
from flanneld_py.store.http2 import FrameKind
from tests.waiting import until

LARGE = WINDOW * 2 + 12_345
pytestmark = pytest.mark.usefixtures("loopback")


class Echo(grpc.GenericRpcHandler):
    """Answers /echo/one with the request, /echo/many with each, /echo/refuse with an error, /echo/never not at all."""

    def __init__(self):
        self.metadata = []
        self.cancelled = 0

    def service(self, call):
        self.metadata.append(dict(call.invocation_metadata))
        if call.method == "/echo/one":
            return grpc.unary_unary_rpc_method_handler(self._one)
        if call.method == "/echo/many":
            return grpc.stream_stream_rpc_method_handler(self._many)
        if call.method == "/echo/refuse":
            return grpc.unary_unary_rpc_method_handler(self._refuse)
        if call.method == "/echo/never":
            return grpc.unary_unary_rpc_method_handler(self._never)
        return None

    async def _one(self, request, _):
        return request

    async def _many(self, requests, _):
        async for request in requests:
            for _ in range(int(request[:1] or b"1")):
                yield request

    async def _refuse(self, request, context):
        await context.abort(grpc.StatusCode.OUT_OF_RANGE, "what was asked: é, 100 %\n" + request.decode())

    async def _never(self, request, context):
        try:
            await asyncio.Event().wait()
        finally:
            self.cancelled += 1


@pytest.fixture
async def echo():
    """A server of the genuine library, as handler and port."""
    server = grpc.aio.server(options=[("grpc.max_receive_message_length", -1)])
    handler = Echo()
    server.add_generic_rpc_handlers((handler,))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield handler, port
    await server.stop(None)


@asynccontextmanager
async def connected(port):
    _, connection = await asyncio.get_running_loop().create_connection(
        lambda: Connection(f"127.0.0.1:{port}", secure=False), "127.0.0.1", port
    )
    try:
        yield connection
    finally:
        connection.close(CallError(Status.UNAVAILABLE, "the test is over"))


async def ask(connection, path, request=b"", metadata=()):
    """Return all messages of the answer to one request."""
    call = connection.open_call(path, metadata, request)
    messages = []
    while (message := await call.receive()) is not None:
        messages.append(message)
    return messages


async def outcome(connection, path, request=b""):
    with pytest.raises(CallError) as caught:
        await ask(connection, path, request)
    return caught.value.status, caught.value.details


@pytest.mark.parametrize("size", [0, 1, 16_379, 16_380, 70_000, LARGE])
async def test_messages_of_all_sizes_go_both_ways(echo, size):
    _, port = echo
    request = bytes(range(256)) * (size // 256 + 1)
    async with connected(port) as connection:
        for _ in range(2):
            assert await ask(connection, "/echo/one", request[:size]) == [request[:size]]


async def test_many_calls_at_once(echo):
    _, port = echo
    requests = [str(number).encode() * 1000 for number in range(100)]
    async with connected(port) as connection:
        answers = await asyncio.gather(*(ask(connection, "/echo/one", request) for request in requests))
    assert answers == [[request] for request in requests]


async def test_a_stream_goes_on_both_ways_until_it_is_cancelled(echo):
    _, port = echo
    async with connected(port) as connection:
        call = connection.open_call("/echo/many", ())
        for request in (b"1a", b"3b", b"1c"):
            call.send(request)
            for _ in range(int(request[:1])):
                assert await call.receive() == request
        call.cancel()
        with pytest.raises(CallError, match="CANCELLED"):
            await call.receive()
        assert await ask(connection, "/echo/one", b"still there") == [b"still there"]


async def test_a_stream_that_nobody_reads_holds_no_other_up_and_loses_nothing(echo):
    _, port = echo
    async with connected(port) as connection:
        slow = connection.open_call("/echo/many", ())
        part = b"9" + bytes(WINDOW // 4)
        for _ in range(3):
            slow.send(part)
        assert await ask(connection, "/echo/one", b"fast") == [b"fast"]
        for _ in range(27):
            assert await slow.receive() == part


async def test_giving_up_a_wait_loses_no_message(echo):
    _, port = echo
    async with connected(port) as connection:
        call = connection.open_call("/echo/many", ())
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(call.receive(), 0.01)
        call.send(b"1a")
        assert await call.receive() == b"1a"


async def test_a_stream_that_says_nothing_at_first_hinders_no_other(echo):
    _, port = echo
    async with connected(port) as connection:
        quiet = connection.open_call("/echo/many", ())
        assert await ask(connection, "/echo/one", b"x") == [b"x"]
        quiet.send(b"1a")
        assert await quiet.receive() == b"1a"


async def test_errors_of_the_server_come_with_their_text(echo):
    _, port = echo
    async with connected(port) as connection:
        assert await outcome(connection, "/echo/refuse", b"x") == (
            Status.OUT_OF_RANGE,
            "what was asked: é, 100 %\nx",
        )
        assert (await outcome(connection, "/echo/unknown"))[0] == Status.UNIMPLEMENTED


async def test_metadata_of_any_length_arrives(echo):
    handler, port = echo
    async with connected(port) as connection:
        await ask(connection, "/echo/one", b"", [("token", "x" * 5000), ("hasleader", "true")])
    assert handler.metadata[-1]["token"] == "x" * 5000
    assert handler.metadata[-1]["hasleader"] == "true"


async def test_the_server_is_told_of_a_call_that_nobody_waits_for(echo):
    handler, port = echo
    async with connected(port) as connection:
        call = connection.open_call("/echo/never", (), b"")
        await until(lambda: handler.metadata)
        await asyncio.sleep(0)
        call.cancel()
        await until(lambda: handler.cancelled == 1)


@asynccontextmanager
async def serving(serve):
    """A server that does with each connection what it is told, as its port."""
    tasks = set()

    async def accept(reader, writer):
        tasks.add(asyncio.current_task())
        try:
            with suppress(OSError, asyncio.IncompleteReadError):
                await serve(reader, writer)
        finally:
            writer.transport.abort()

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def frame(kind, flags=0, stream=0, payload=b""):
    return http2.encode_frame(kind, flags, stream, payload)


SETTINGS = frame(FrameKind.SETTINGS)
HEADERS = bytes.fromhex("88") + b"\x40\x0bgrpc-status\x01" + b"0"
DONE = frame(FrameKind.HEADERS, http2.END_HEADERS | http2.END_STREAM, 1, HEADERS)
MESSAGE = b"\0\0\0\0\x02hi"


async def answered(reader, writer, *data):
    await reader.readuntil(b"hello")
    writer.write(b"".join(data))
    await writer.drain()
    await reader.read()


@pytest.mark.parametrize(
    "data",
    [
        [SETTINGS, frame(FrameKind.DATA, http2.PADDED, 1, b"\x01" + MESSAGE + b"\0"), DONE],
        [SETTINGS, *(frame(FrameKind.DATA, 0, 1, MESSAGE[at : at + 1]) for at in range(7)), DONE],
        [
            SETTINGS,
            frame(FrameKind.DATA, 0, 1, MESSAGE),
            frame(FrameKind.HEADERS, http2.END_STREAM, 1, HEADERS[:4]),
            frame(FrameKind.CONTINUATION, 0, 1, HEADERS[4:9]),
            frame(FrameKind.CONTINUATION, http2.END_HEADERS, 1, HEADERS[9:]),
        ],
        [SETTINGS, bytes.fromhex("000001 fe 00 00000000 00"), frame(FrameKind.DATA, 0, 1, MESSAGE), DONE],
        [SETTINGS, frame(FrameKind.DATA, 0, 77, MESSAGE), frame(FrameKind.DATA, 0, 1, MESSAGE), DONE],
    ],
    ids=["padded", "byte by byte", "headers in pieces", "unknown frame", "unknown stream"],
)
async def test_unusual_answers_are_understood(data):
    async with serving(lambda reader, writer: answered(reader, writer, *data)) as port, connected(port) as connection:
        assert await ask(connection, "/a/b", b"hello") == [b"hi"]


@pytest.mark.parametrize(
    ("data", "status", "words"),
    [
        ([b"HTTP/1.1 400 Bad Request\r\n\r\n"], Status.UNAVAILABLE, "no HTTP/2 there"),
        ([SETTINGS, b"\xff" * 20], Status.UNAVAILABLE, "no HTTP/2 there"),
        ([SETTINGS, frame(FrameKind.RST_STREAM, 0, 1, b"\0\0\0\x07")], Status.UNAVAILABLE, "HTTP/2 error 7"),
        ([SETTINGS, frame(FrameKind.GOAWAY, 0, 0, bytes(7) + b"\x0bcalm")], Status.UNAVAILABLE, "goes away: calm"),
        ([SETTINGS, frame(FrameKind.DATA, 0, 1, b"\1\0\0\0\0")], Status.INTERNAL, "compressed"),
        (
            [SETTINGS, frame(FrameKind.HEADERS, http2.END_HEADERS | http2.END_STREAM, 1, b"\x8d")],
            Status.UNIMPLEMENTED,
            "HTTP status 404",
        ),
        ([SETTINGS, frame(FrameKind.HEADERS, 0, 1, b""), SETTINGS], Status.UNAVAILABLE, "interrupted"),
        ([SETTINGS, frame(FrameKind.HEADERS, http2.END_HEADERS, 1, b"\xfe")], Status.UNAVAILABLE, "never told"),
    ],
)
async def test_misbehaviour_is_an_error_of_the_call(data, status, words):
    async with serving(lambda reader, writer: answered(reader, writer, *data)) as port, connected(port) as connection:
        found, details = await outcome(connection, "/a/b", b"hello")
        assert found == status
        assert words in details


async def test_a_connection_that_is_lost_fails_its_calls_and_all_later_ones():
    async def hang_up(reader, writer):
        writer.write(SETTINGS)
        await reader.readuntil(b"hello")

    async with serving(hang_up) as port, connected(port) as connection:
        for _ in range(2):
            assert await outcome(connection, "/a/b", b"hello") == (Status.UNAVAILABLE, "connection lost")


async def test_no_more_is_sent_than_the_server_takes():
    received = bytearray()
    go_on = asyncio.Event()

    async def take_little(reader, writer):
        writer.write(SETTINGS)
        while len(received) < http2.DEFAULT_WINDOW:
            received.extend(await reader.read(65536))
        await go_on.wait()
        writer.write(http2.encode_window_update(0, 100_000))
        writer.write(frame(FrameKind.SETTINGS, 0, 0, b"\0\x04" + (200_000).to_bytes(4, "big")))
        while not received.endswith(b"the end"):
            received.extend(await reader.read(65536))
        writer.write(frame(FrameKind.DATA, 0, 1, MESSAGE) + DONE)
        await reader.read()

    async with serving(take_little) as port, connected(port) as connection:
        asking = asyncio.ensure_future(ask(connection, "/a/b", bytes(100_000) + b"the end"))
        await until(lambda: len(received) >= http2.DEFAULT_WINDOW)
        assert not asking.done()
        assert len(received) < http2.DEFAULT_WINDOW + 1000
        go_on.set()
        assert await asking == [b"hi"]


async def test_silence_is_asked_about_only_while_calls_wait(monkeypatch):
    monkeypatch.setattr(grpc_connection, "KEEPALIVE_TIME", 0.02)
    monkeypatch.setattr(grpc_connection, "KEEPALIVE_TIMEOUT", 0.1)
    pings = []

    async def answer_pings(reader, writer):
        await reader.readexactly(len(http2.PREFACE))
        writer.write(SETTINGS)
        frames = http2.FrameReader()
        while data := await reader.read(65536):
            for found in frames.feed(data):
                if found.kind == FrameKind.PING:
                    pings.append(found)
                    if len(pings) <= 3:
                        writer.write(frame(FrameKind.PING, http2.ACK, 0, found.payload))

    async with serving(answer_pings) as port, connected(port) as connection:
        idle = asyncio.get_running_loop().time() + 0.2
        await until(lambda: asyncio.get_running_loop().time() > idle)
        assert pings == []
        assert await outcome(connection, "/a/b", b"hello") == (
            Status.UNAVAILABLE,
            "the server gives no sign of life",
        )
        assert len(pings) == 4
