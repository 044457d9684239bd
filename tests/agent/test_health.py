import asyncio
import http.client
import socket

import pytest

from flanneld_py.agent.health import Page, encode_answer, serve_health
from flanneld_py.core.errors import ConfigError

REPORTS = {
    "/healthz": lambda: ("flanneld is running", []),
    "/readyz": lambda: ("flanneld is ready", ["lease: 10.5.1.0-24 is lost", "kernel: not yet"]),
}


PAGES = {"/metrics": Page("text/plain; version=0.0.4", lambda: "flanneld_ready 1\n")}


@pytest.fixture
async def port(loopback):
    server = await serve_health("127.0.0.1", 0, REPORTS, PAGES)
    yield server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()


def ask(port, method, path):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request(method, path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode(), answer.headers
    finally:
        connection.close()


@pytest.mark.parametrize(
    ("method", "path", "status", "body"),
    [
        ("GET", "/healthz", 200, "flanneld is running\n"),
        ("GET", "/healthz?verbose=1", 200, "flanneld is running\n"),
        ("GET", "/readyz", 503, "lease: 10.5.1.0-24 is lost\nkernel: not yet\n"),
        ("GET", "/metrics", 200, "flanneld_ready 1\n"),
        ("HEAD", "/healthz", 200, ""),
        ("GET", "/", 404, "there are: /healthz /readyz /metrics\n"),
        ("GET", "/healthz/", 404, "there are: /healthz /readyz /metrics\n"),
        ("POST", "/healthz", 405, "only GET and HEAD are answered\n"),
    ],
)
async def test_answers(port, method, path, status, body):
    found, text, headers = await asyncio.to_thread(ask, port, method, path)
    assert (found, text) == (status, body)
    kind = "text/plain; version=0.0.4" if path == "/metrics" else "text/plain; charset=utf-8"
    assert headers["Content-Type"] == kind
    assert headers["Connection"] == "close"


def test_head_says_how_long_the_body_would_be():
    get = encode_answer(b"GET /healthz HTTP/1.1\r\n\r\n", REPORTS, PAGES)
    head = encode_answer(b"HEAD /healthz HTTP/1.1\r\n\r\n", REPORTS, PAGES)
    assert get == head + b"flanneld is running\n"


def exchange(port, data):
    with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
        client.sendall(data)
        client.shutdown(socket.SHUT_WR)
        answer = b""
        while part := client.recv(4096):
            answer += part
        return answer


@pytest.mark.parametrize(
    "data", [b"", b"GET /healthz", b"\r\n\r\n", b"\xff\xfe\0\r\n\r\n", b"GET\r\n\r\n", b"GET /\xff\r\n\r\n"]
)
async def test_nonsense_hurts_nobody(port, data):
    answer = await asyncio.to_thread(exchange, port, data)
    assert answer == b"" or answer.startswith(b"HTTP/1.1 4")
    assert (await asyncio.to_thread(ask, port, "GET", "/healthz"))[0] == 200


async def test_endless_head_is_cut_off(port):
    def send_much():
        with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
            try:
                client.sendall(b"GET /healthz HTTP/1.1\r\n" + b"X: y\r\n" * 10_000)
                return client.recv(4096)
            except ConnectionError:
                return b""

    assert await asyncio.to_thread(send_much) == b""
    assert (await asyncio.to_thread(ask, port, "GET", "/healthz"))[0] == 200


async def test_many_at_once(port):
    answers = await asyncio.gather(*(asyncio.to_thread(ask, port, "GET", "/healthz") for _ in range(20)))
    assert {status for status, _, _ in answers} == {200}


async def test_name_that_nobody_has_is_the_operators_error():
    with pytest.raises(ConfigError, match=r"healthz-ip: 'nobody\.invalid' is no address, and no name that resolves"):
        await serve_health("nobody.invalid", 0, {}, {})


async def test_address_that_cannot_be_had_is_an_error(port):
    with pytest.raises(OSError, match="address already in use"):
        await serve_health("127.0.0.1", port, REPORTS, PAGES)
