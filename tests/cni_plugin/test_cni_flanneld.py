"""The real flanneld serves the plugin's calls from its start on, whatever it still waits for itself."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.host import wait_until

pytestmark = pytest.mark.kernel

FLANNELD = Path(sys.executable).with_name("flanneld")


@pytest.fixture
def flanneld(lone_node):
    command = [FLANNELD, "--etcd-endpoints=http://127.0.0.1:1", f"--subnet-file={lone_node.subnet_file}", "--v=10"]
    with lone_node.log.open("wb") as log:
        process = lone_node.host.run(lambda: subprocess.Popen(command, stdout=log, stderr=log))
    wait_until(lone_node.subnet_file.with_name("subnet.cni.sock").exists)
    yield process
    process.terminate()
    process.wait(10)


def test_calls_are_served(lone_node, flanneld):
    pod = lone_node.make_pod()
    for verb in ("ADD", "STATUS", "DEL"):
        lone_node.call(verb, "c1", pod.path)
        wait_until(lambda verb=verb: f"cni: {verb} for c1 succeeded" in lone_node.log.read_text())


def test_what_was_put_off_is_done_when_it_ends(lone_node, flanneld):
    pod = lone_node.make_pod()
    lone_node.call("ADD", "c1", pod.path)
    lone_node.call("DEL", "c1", pod.path)
    flanneld.terminate()
    assert flanneld.wait(10) == 0
    assert lone_node.held() == []
