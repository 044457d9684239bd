"""Calls that ring at the daemon's door: how they are served, and what becomes of one whose daemon dies or stops."""

import json
import os
import signal
import stat
import threading
import time

import pytest
from pyroute2 import IPRoute

from flanneld_py.agent.pod_door import Door
from flanneld_py.kernel.pipes import peek_pipe

pytestmark = pytest.mark.kernel


def names():
    with IPRoute() as reader:
        return {found.get_attr("IFLA_IFNAME") for found in reader.get_links()}


class StandIn:
    """Something else at the door, that does with the calls that come what the test says, one after the other."""

    def __init__(self, node, *deeds):
        self.door = Door(node.door)
        self.thread = threading.Thread(target=self.serve, args=(deeds,))
        self.thread.start()

    def serve(self, deeds):
        for deed in deeds:
            with self.door.receive(self.door.wait()) as ring:
                deed(self.door, ring)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.thread.join()
        self.door.shut()
        self.door.close()


def take_and_die(door, ring):
    assert ring.take()
    door.shut()


def decline(_, ring):
    assert ring.take()
    ring.tell(2, b"")


def test_a_call_is_served_at_the_door_and_its_standard_input_stays(ringing_node):
    node, pod = ringing_node, ringing_node.make_pod()
    result = node.call("ADD", "c1", pod.path)
    assert result["ips"][0]["address"] == "10.5.2.2/24"
    assert node.call("CHECK", "c1", pod.path, node.config(prevResult=result)) is None
    assert node.refused("ADD", "c1", pod.path)["code"] == 4
    assert node.call("DEL", "c1", pod.path) is None
    # By the door: whoever comes to the socket starts an interpreter, and there is none that could be started.
    node.executable.write_text(node.executable.read_text().replace("\nexec ", "\nexec /absent "))
    node.call("ADD", "c1", pod.path)
    assert "eth0" in pod.run(names)


def test_the_door_is_roots_alone_and_leads_to_its_daemon(ringing_node):
    found = ringing_node.door.stat()
    assert stat.S_ISFIFO(found.st_mode)
    assert stat.S_IMODE(found.st_mode) == 0o600
    owner = ringing_node.door.with_name("subnet.cni.door.owner")
    assert owner.readlink().parts[:3] == ("/", "proc", str(ringing_node.daemon.pid))
    ringing_node.stop_daemon()
    assert not owner.is_symlink()
    ringing_node.call("ADD", "c1", ringing_node.make_pod().path)


@pytest.mark.parametrize("verb", ["ADD", "DEL", "CHECK"])
def test_a_daemon_that_dies_in_the_middle(lone_node, verb):
    node, pod = lone_node, lone_node.make_pod()
    result = None if verb == "ADD" else node.call("ADD", "c1", pod.path)
    node.use_door()
    with StandIn(node, take_and_die):
        status, output = node.attempt(verb, "c1", pod.path, node.config(prevResult=result) if result else None)
    if verb == "ADD":
        assert (status, output["code"]) == (1, 11)
        assert "DEL" in output["details"]
        assert node.held() == []
    else:  # what may be repeated is, with the same standard input
        assert (status, output) == (0, None)
        assert ("eth0" in pod.run(names)) == (verb == "CHECK")


def test_a_daemon_that_dies_before_it_takes_the_call_or_declines(lone_node):
    node, pods = lone_node, [lone_node.make_pod() for _ in range(2)]
    node.use_door()
    with StandIn(node, lambda door, _: door.shut()):
        node.call("ADD", "c1", pods[0].path)
    with StandIn(node, decline):
        node.call("ADD", "c2", pods[1].path)
    assert all("eth0" in pod.run(names) for pod in pods)


def test_a_daemon_that_was_killed(ringing_node):
    ringing_node.daemon.kill()
    ringing_node.daemon.communicate()
    ringing_node.daemon = None
    assert ringing_node.door.with_name("subnet.cni.door.owner").is_symlink()
    ringing_node.call("ADD", "c1", ringing_node.make_pod().path)


@pytest.mark.full
def test_a_daemon_that_is_stopped_takes_no_call_back_once_it_goes_on(ringing_node):
    node, pod = ringing_node, ringing_node.make_pod()
    node.call("ADD", "c1", pod.path)
    node.daemon.send_signal(signal.SIGSTOP)
    try:
        status, _ = node.execute(
            "DEL",
            json.dumps(node.config()).encode(),
            CNI_CONTAINERID="c1",
            CNI_NETNS=pod.path,
            CNI_IFNAME="eth0",
        )
    finally:
        node.daemon.send_signal(signal.SIGCONT)
    assert status == 0
    assert "eth0" not in pod.run(names)
    assert node.call("STATUS", "c1", "") is None
    assert node.held() == []
    assert [line for line in node.served() if line.startswith("DEL")] == []


def test_an_answer_that_is_cut_off_is_none(lone_node):
    def cut_off(_, ring):
        assert ring.take()
        os.write(ring.answer, b'\n0 {"cniVersion"')

    lone_node.use_door()
    with StandIn(lone_node, cut_off):
        assert lone_node.refused("ADD", "c1", lone_node.make_pod().path)["code"] == 11


def test_twenty_at_once(ringing_node):
    node, pods = ringing_node, [ringing_node.make_pod() for _ in range(20)]

    def call(verb):
        began = [
            threading.Thread(
                target=node.execute,
                args=(verb, json.dumps(node.config()).encode()),
                kwargs={"CNI_CONTAINERID": f"c{index}", "CNI_NETNS": pod.path, "CNI_IFNAME": "eth0"},
            )
            for index, pod in enumerate(pods)
        ]
        for thread in began:
            thread.start()
        for thread in began:
            thread.join()

    call("ADD")
    assert len(node.held()) == 20
    call("DEL")
    node.settle()
    assert node.held() == []
    assert len(node.served()) == 41
    assert all(line.endswith("succeeded") for line in node.served())


class TestPeek:
    """What lies in a pipe is read and stays there."""

    @staticmethod
    def make(content):
        reading, writing = os.pipe()
        os.write(writing, content)
        return reading, writing

    def test_what_its_reader_finds_afterwards(self):
        for content in (b"", b"{}", b"x" * 65536):
            reading, writing = self.make(content)
            os.close(writing)
            assert peek_pipe(reading, 0) == content
            assert peek_pipe(reading, 0) == content
            assert os.read(reading, 1 << 17) == content
            os.close(reading)

    def test_somebody_may_still_write(self):
        reading, writing = self.make(b"{")
        began = time.monotonic()
        assert peek_pipe(reading, 0.01) is None
        assert time.monotonic() - began >= 0.01
        os.close(reading)
        os.close(writing)
