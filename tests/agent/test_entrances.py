"""What others come in by is there again after somebody took it away."""

import asyncio
import json
import os
import shutil
import socket

import pytest

from flanneld_py.agent.control import ControlSocket
from flanneld_py.agent.entrances import keep_entrances
from flanneld_py.agent.pod_service import PodService
from tests.waiting import until


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "run"
    made.mkdir()
    return made


@pytest.fixture
async def control(folder):
    control = ControlSocket(folder / "subnet.sock", {"status": lambda: "well"})
    await control.open()
    yield control
    control.close()


@pytest.fixture
def pods(folder):
    service = PodService(folder / "subnet.cni.sock", list)
    yield service
    service.close()


@pytest.fixture
async def keep():
    tasks = []
    yield lambda *entrances: tasks.append(asyncio.create_task(keep_entrances(entrances, check_seconds=0.01)))
    for task in tasks:
        task.cancel()


async def ask(path):
    reader, writer = await asyncio.open_unix_connection(path)
    writer.write(b"status\n")
    answer = await reader.read()
    writer.close()
    return json.loads(answer)


def leads_to_the_daemon(path):
    owner = path.with_name(path.name + ".owner")
    return os.path.samestat(path.stat(), owner.stat())


async def test_a_folder_that_goes_comes_back_with_all_that_others_come_in_by(folder, control, pods, keep):
    there = {path.name for path in folder.iterdir()}
    shutil.rmtree(folder)
    keep(control, pods)
    await until(lambda: control.stands() and pods.stands())
    assert {path.name for path in folder.iterdir()} == there
    assert await ask(control.path) == "well"
    assert leads_to_the_daemon(folder / "subnet.cni.door")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as caller:
        caller.connect(str(pods.path))


@pytest.mark.parametrize("name", ["subnet.cni.sock", "subnet.cni.door"])
async def test_the_plugins_socket_and_door_stand_together(folder, pods, keep, name):
    (folder / name).unlink()
    assert not pods.stands()
    keep(pods)
    await until(pods.stands)
    assert leads_to_the_daemon(folder / "subnet.cni.door")


async def test_what_keeps_somebody_out_is_told_once_and_tried_again(folder, control, pods, keep, caplog):
    shutil.rmtree(folder)
    folder.write_text("in the way")
    keep(control, pods)
    await until(lambda: caplog.text.count("nobody can come in") == 2)
    folder.unlink()
    await until(lambda: control.stands() and pods.stands())
    assert caplog.text.count("nobody can come in") == 2
