"""Calls that the daemon serves: what differs from those that it does not, and what must not."""

import json
import os
import re
import socket
import stat
import threading

import pytest
from pyroute2 import IPRoute

from flanneld_py.agent.pod_calls import _Folders
from flanneld_py.agent.pod_service import PodService
from flanneld_py.pods.errors import ElsewhereError

pytestmark = pytest.mark.kernel


def names():
    with IPRoute() as reader:
        return {found.get_attr("IFLA_IFNAME") for found in reader.get_links()}


@pytest.fixture
def served_node(lone_node):
    lone_node.start_daemon()
    return lone_node


def socket_path(node):
    return node.subnet_file.with_name("subnet.cni.sock")


def play(node):
    """Every verb in good and in bad states; returns what came of each, with what is random or the node's own named."""
    pod, other = node.make_pod(), node.make_pod()
    outcomes = []

    def call(verb, config=None, container="c1", netns=pod.path, ifname="eth0", **more):
        given = node.config() if config is None else config
        stdin = given if isinstance(given, bytes) else json.dumps(given).encode()
        variables = {"CNI_CONTAINERID": container, "CNI_NETNS": netns, "CNI_IFNAME": ifname} | more
        status, output = node.run(verb, stdin, **{key: value for key, value in variables.items() if value is not None})
        text = output.decode().replace(str(node.folder), "FOLDER")
        for place, path in (("POD", pod.path), ("OTHER", other.path), ("HOST", node.host.path)):
            text = re.sub(re.escape(path) + r"\b", place, text)
        text = re.sub(r"veth[0-9a-f]{8}", "VETH", re.sub(r"([0-9a-f]{2}:){5}[0-9a-f]{2}", "MAC", text))
        outcomes.append((verb, status, text))
        return output

    result = json.loads(call("ADD"))
    call("CHECK", node.config(prevResult=result))
    call("CHECK")
    call("CHECK", node.config(prevResult=result), netns=other.path)
    call("STATUS")
    call("ADD")
    call("ADD", container="c2")
    for version in ("0.1.0", "0.3.1", "1.0.0", "0.9"):
        call("ADD", node.config(version), container="c3", netns=other.path)
        call("DEL", node.config(version), container="c3", netns=other.path)
    call("ADD", container="c4", netns="/absent")
    call("ADD", container="c4", netns=str(node.subnet_file))
    call("ADD", container="c4", netns=node.host.path)
    call("ADD", container="c4", netns=other.path, CNI_ARGS="IP=10.5.2.2")
    call("ADD", container="c4", netns=other.path, CNI_ARGS="nonsense")
    call("ADD", container="../c4", netns=other.path)
    call("ADD", container=None)
    call("NONE")
    for stdin in (b"", b"{", b"[]", b'{"cniVersion":"1.1.0"}', b"\xff", b" " * (1 << 20), b" " * ((1 << 20) + 1)):
        call("ADD", stdin, container="c5", netns=other.path)
    for more in ({"name": "../x"}, {"dataDir": 1}, {"ipam": {"dataDir": 1}}, {"delegate": {"vlan": 7}}):
        call("ADD", node.config(**more), container="c5", netns=other.path)
    call("ADD", node.config(delegate={"type": "absent"}), container="c5", netns=other.path)
    call("GC", node.config(**{"cni.dev/valid-attachments": [{"containerID": "c1", "ifname": "eth0"}]}))
    call("DEL", b"")
    call("DEL", netns=None)
    call("DEL")
    call("DEL")
    call("ADD")
    call("DEL", netns="/absent")
    call("VERSION")
    node.write_env("10.5.0.0/16", "10.5.2.1/30")
    call("ADD", container="c6", netns=other.path)
    call("ADD", container="c7")
    call("STATUS")
    return outcomes, node.held(), sorted(file.name for file in node.scratch.iterdir())


@pytest.mark.parametrize("entrance", ["socket", "door"])
def test_all_ways_give_equal_results(make_namespace, tmp_path, served_node, entrance):
    if entrance == "door":
        served_node.use_door()
    lone = type(served_node)(make_namespace(), make_namespace, tmp_path / "lone")
    alone, by_daemon = play(lone), play(served_node)
    for one, another in zip(alone[0], by_daemon[0], strict=True):
        assert one == another
    assert alone[1:] == by_daemon[1:]
    # And it was the daemon that did it, but for what only the plugin's own process can.
    left = [line for line in served_node.served() if line.endswith("is left to the plugin")]
    assert len(left) < len(served_node.served()) / 3
    assert sum(line.endswith("succeeded") for line in served_node.served()) > 12


def test_the_socket_is_roots_alone(served_node):
    assert stat.S_IMODE(socket_path(served_node).stat().st_mode) == 0o600


@pytest.mark.parametrize(
    "more",
    [
        {"delegate": {"type": "other"}},
        {"delegate": {"ipMasq": True}},
    ],
)
def test_what_the_daemon_must_not_do_it_leaves_to_the_plugin(served_node, more):
    node = served_node
    for name in ("other", "iptables"):
        (node.bin / name).write_text('#!/bin/sh\necho \'{"cniVersion":"1.1.0"}\'\n')
        (node.bin / name).chmod(0o755)
    pod = node.make_pod()
    node.attempt("ADD", "c1", pod.path, node.config(**more), PATH=f"{node.bin}:/usr/bin:/bin")
    assert node.served() == ["ADD for c1 is left to the plugin"]


def test_a_caller_in_another_network_is_left_to_itself(served_node):
    node, there, pod = served_node, served_node.make_pod(), served_node.make_pod()
    node.host, here = there, node.host
    node.call("ADD", "c1", pod.path)
    assert "cni0" in there.run(names)
    assert "cni0" not in here.run(names)
    assert node.served() == ["ADD for c1 is left to the plugin"]


class TestFolders:
    """Which paths lead caller and daemon to the same place."""

    @staticmethod
    def is_same(root, path):
        descriptor = os.open(root, os.O_PATH)
        try:
            _Folders(descriptor).require_same((str(path),))
        except ElsewhereError:
            return False
        finally:
            os.close(descriptor)
        return True

    def test_one_root(self, tmp_path):
        for path in (tmp_path, tmp_path / "absent" / "too", "/"):
            assert self.is_same("/", path)

    def test_another_root(self, tmp_path):
        (tmp_path / "etc").mkdir()
        assert not self.is_same(tmp_path, "/etc")
        assert not self.is_same(tmp_path, "/absent/folder")
        assert not self.is_same(tmp_path, tmp_path)

    def test_a_link_in_anothers_root_is_followed_nowhere(self, tmp_path):
        (tmp_path / "etc").symlink_to("/etc")
        assert not self.is_same(tmp_path, "/etc")
        assert not self.is_same(tmp_path, "/etc/../etc")

    @pytest.mark.parametrize("path", ["", "relative", "/a\0b"])
    def test_what_is_no_absolute_path(self, path):
        assert not self.is_same("/", path)


class StandIn:
    """Something else in the daemon's place, that takes each call and answers what the test says."""

    def __init__(self, node, *answers):
        self.listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.listening.bind(str(socket_path(node)))
        self.listening.listen()
        self.thread = threading.Thread(target=self.serve, args=(answers,))
        self.thread.start()

    def serve(self, answers):
        for answer in answers:
            connection, _ = self.listening.accept()
            with connection:
                head, descriptors, _, _ = socket.recv_fds(connection, 8, 3)
                for descriptor in descriptors:
                    os.close(descriptor)
                left = int.from_bytes(head[:4], "big") + int.from_bytes(head[4:], "big")
                while left:
                    left -= len(connection.recv(left))
                connection.sendall(answer)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.thread.join()
        self.listening.close()


@pytest.mark.parametrize("answer", [b"+", b"+\0", b"+\0\0\0\0\5{}"])
def test_a_daemon_that_dies_in_the_middle(lone_node, answer):
    pod = lone_node.make_pod()
    with StandIn(lone_node, answer, answer, answer, answer):
        error = lone_node.refused("ADD", "c1", pod.path)
        assert error["code"] == 11
        assert "DEL" in error["details"]
        # What may be repeated is repeated.
        lone_node.call("DEL", "c1", pod.path)
        lone_node.call("STATUS", "c1", pod.path)
        assert lone_node.refused("CHECK", "c1", pod.path)["code"] == 7


@pytest.mark.parametrize("answer", [b"", b"+\2\0\0\0\0"])
def test_a_daemon_that_dies_before_it_begins_or_declines(lone_node, answer):
    pod = lone_node.make_pod()
    with StandIn(lone_node, answer):
        lone_node.call("ADD", "c1", pod.path)
    assert "eth0" in pod.run(names)


def test_a_socket_that_nobody_listens_at(served_node):
    served_node.daemon.kill()
    served_node.daemon.communicate()
    served_node.daemon = None
    assert socket_path(served_node).exists()
    served_node.call("ADD", "c1", served_node.make_pod().path)


@pytest.mark.full
def test_a_daemon_that_does_not_answer(lone_node):
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
        listening.bind(str(socket_path(lone_node)))
        listening.listen()
        lone_node.call("ADD", "c1", lone_node.make_pod().path)
        # Should it wake up, it finds that nobody waits any more.
        connection, _ = listening.accept()
        with connection, pytest.raises(BrokenPipeError):
            connection.sendall(b"+")


NONSENSE = (b"\0", b"\xff" * 8, b"\0\0\0\1\0\0\0\0", b"\0" * 8, b"\0\0\0\1\0\0\0\1x", b"x" * 4096)


def talk(node, data, descriptors):
    """Say something to the daemon and hang up; returns all that it answers."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as caller:
        caller.connect(str(socket_path(node)))
        try:
            socket.send_fds(caller, [data], descriptors)
            caller.shutdown(socket.SHUT_WR)
            return b"".join(iter(lambda: caller.recv(100), b""))
        except OSError:
            return b""


def test_a_caller_that_talks_nonsense(served_node):
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as caller:
        caller.connect(str(socket_path(served_node)))
    null = os.open("/dev/null", os.O_RDONLY)
    for data in NONSENSE:
        for count in (0, 2, 3):
            assert talk(served_node, data, [null] * count) in {b"", b"+\2\0\0\0\0"}
    os.close(null)
    assert served_node.call("STATUS", "c1", "") is None
    assert served_node.served()[-1] == "STATUS for c1 succeeded"


def test_a_caller_who_is_not_root_is_sent_away(tmp_path, monkeypatch):
    class Stranger:
        """A connection of another user; reading from it would fail."""

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def getsockopt(self, *_):
            return (1234).to_bytes(4, "little") + (1000).to_bytes(4, "little") * 2

    service = PodService(tmp_path / "s", list)
    try:
        assert service._serve((Stranger(), None)) is None
    finally:
        service.close()


def test_an_address_is_given_again_when_its_device_is_gone_and_then_at_once(served_node):
    node = served_node
    node.write_env("10.5.0.0/16", "10.5.2.1/30")
    config = json.dumps(node.config()).encode()
    pods = [node.make_pod(), node.make_pod()]
    for index in range(6):
        pod = pods[index % 2]
        variables = {"CNI_CONTAINERID": f"c{index % 2}", "CNI_NETNS": pod.path, "CNI_IFNAME": "eth0"}
        status, output = node.execute("ADD", config, **variables)
        assert status == 0, output
        assert len(node.host.run(names) - {"lo", "cni0"}) == 1
        assert node.execute("DEL", config, **variables) == (0, b"")
    assert node.execute("ADD", config, **variables)[0] == 0
    assert node.execute("DEL", config, **variables)[0] == 0
    node.stop_daemon()
    assert node.held() == []
    assert node.host.run(names) == {"lo", "cni0"}
    assert "is left to the plugin" not in node.log.read_text()
