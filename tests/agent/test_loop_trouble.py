import asyncio
import resource
import socket

import pytest

from flanneld_py.agent.loop_trouble import LoopTrouble
from tests.waiting import until


@pytest.fixture
def few_descriptors():
    """No more descriptors than are open, and a few."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    with socket.socket() as last:
        resource.setrlimit(resource.RLIMIT_NOFILE, (last.fileno() + 12, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.usefixtures("few_descriptors")
async def test_no_descriptor_left_is_told_in_one_line(tmp_path, caplog):
    asyncio.get_running_loop().set_exception_handler(LoopTrouble())
    path = str(tmp_path / "sock")
    server = await asyncio.start_unix_server(lambda *_: None, path)
    callers = []
    while len(callers) < 40:
        try:
            caller = socket.socket(socket.AF_UNIX)
        except OSError:
            break
        caller.setblocking(False)
        caller.connect(path)
        callers.append(caller)
    await until(lambda: "Too many open files" in caplog.text)
    for _ in range(5):
        await asyncio.sleep(0)
    assert len(caplog.text.splitlines()) == 1
    for caller in callers:
        caller.close()
    server.close()


def test_same_trouble_is_told_again_after_a_while_and_another_at_once(caplog):
    now = [0.0]
    trouble = LoopTrouble(lambda: now[0])
    loop = asyncio.new_event_loop()
    for when, message in ((0.0, "a"), (59.0, "a"), (59.0, "b"), (61.0, "a")):
        now[0] = when
        trouble(loop, {"message": message})
    loop.close()
    assert [record.message for record in caplog.records] == [f"event loop: {text}" for text in "aba"]


def test_error_of_our_own_comes_with_its_traceback(caplog):
    loop = asyncio.new_event_loop()
    LoopTrouble()(loop, {"message": "a callback failed", "exception": ValueError("odd")})
    loop.close()
    assert "event loop: a callback failed: odd" in caplog.text
    assert caplog.records[0].exc_info
