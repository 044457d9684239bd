import asyncio
import json
import os
import stat
from contextlib import suppress
from pathlib import Path

import pytest

from flanneld_py.agent.control import ControlSocket


@pytest.fixture
def path(tmp_path):
    return tmp_path / "subnet.sock"


@pytest.fixture
async def serve(path):
    opened = []

    async def begin(answers):
        opened.append(ControlSocket(path, answers))
        await opened[-1].open()
        return opened[-1]

    yield begin
    for one in opened:
        one.close()


@pytest.fixture
async def server(serve):
    return await serve({"status": lambda: {"ready": True, "peers": []}})


async def ask(path, request):
    reader, writer = await asyncio.open_unix_connection(path)
    try:
        writer.write(request)
        writer.write_eof()
        return await reader.read()
    finally:
        writer.close()
        await writer.wait_closed()


async def test_answer_is_one_line_of_json(server, path):
    answer = await ask(path, b"status\n")
    assert answer.endswith(b"\n")
    assert json.loads(answer) == {"ready": True, "peers": []}


async def test_unknown_request_is_told_what_there_is(server, path):
    told = json.loads(await ask(path, b"sing\n"))
    assert told == {"error": "unknown request 'sing'; there are: ['status']"}


@pytest.mark.parametrize("request_bytes", [b"", b"status", b"x" * 100_000, b"\xff\n"])
async def test_nonsense_hurts_nobody(server, path, request_bytes):
    with suppress(ConnectionError):
        await ask(path, request_bytes)
    assert json.loads(await ask(path, b"status\n"))["ready"]


async def test_only_the_owner_may_ask(serve, path):
    before = os.umask(0)
    try:
        await serve({})
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert os.umask(0) == 0
    finally:
        os.umask(before)


async def test_socket_of_a_former_daemon_is_taken_over(serve, path):
    first = await serve({"status": lambda: "first"})
    second = await serve({"status": lambda: "second"})
    assert json.loads(await ask(path, b"status\n")) == "second"
    assert not first.stands()
    assert second.stands()


@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.unlink() or path.touch()], ids=["gone", "another"])
async def test_answers_again_when_its_file_was_taken_away(server, path, damage):
    damage(path)
    assert not server.stands()
    await server.reopen()
    assert server.stands()
    assert json.loads(await ask(path, b"status\n"))["ready"]


async def test_link_in_its_place_is_not_followed(serve, path, tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("precious")
    path.symlink_to(victim)
    await serve({"status": lambda: 1})
    assert victim.read_text() == "precious"
    assert not path.is_symlink()


async def test_folder_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(OSError, match="No such file"):
        await ControlSocket(tmp_path / "nowhere" / "subnet.sock", {}).open()
