import asyncio
import socket

import pytest

from flanneld_py.agent.watchdog import tell_watchdog, watchdog_seconds


@pytest.mark.parametrize(
    ("environ", "seconds"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "120000000"}, 120.0),
        ({"WATCHDOG_USEC": "500000", "WATCHDOG_PID": "7"}, 0.5),
        ({"WATCHDOG_USEC": "500000", "WATCHDOG_PID": "8"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
    ],
)
def test_what_systemd_wants(environ, seconds):
    assert watchdog_seconds(environ, 7) == seconds


@pytest.fixture
def listener(tmp_path, monkeypatch):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as one:
        one.bind(str(tmp_path / "notify"))
        one.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        monkeypatch.setenv("WATCHDOG_USEC", "20000")
        monkeypatch.delenv("WATCHDOG_PID", raising=False)
        yield one


async def test_systemd_is_told_only_while_the_daemon_lives(listener):
    alive, asked = True, asyncio.Event()

    def is_alive():
        asked.set()
        return alive

    loop = asyncio.get_running_loop()
    task = asyncio.create_task(tell_watchdog(is_alive))
    for _ in range(3):
        assert await loop.sock_recv(listener, 100) == b"WATCHDOG=1"
    alive = False
    for _ in range(3):
        asked.clear()
        await asked.wait()
    while True:  # what was told before it stopped living
        try:
            listener.recv(100)
        except BlockingIOError:
            break
    asked.clear()
    await asked.wait()
    with pytest.raises(BlockingIOError):
        listener.recv(100)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_nothing_is_told_where_systemd_does_not_ask(listener, monkeypatch):
    monkeypatch.delenv("WATCHDOG_USEC")
    await tell_watchdog(lambda: pytest.fail("nobody asks"))
