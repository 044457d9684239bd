"""Who comes to the daemon's door: callers with input, output and environment of any kind, and strangers."""

import fcntl
import json
import os
import signal
import socket
import subprocess
import termios
from contextlib import suppress
from pathlib import Path

import pytest

from flanneld_py.agent.pod_door import Door
from tests.waiting import wait_until

pytestmark = pytest.mark.kernel


def test_input_that_is_no_pipe_is_the_plugins_own(ringing_node, tmp_path):
    node, pod = ringing_node, ringing_node.make_pod()
    file = tmp_path / "config"
    file.write_text(json.dumps(node.config()))
    variables = {"CNI_COMMAND": "ADD", "CNI_CONTAINERID": "c1", "CNI_NETNS": pod.path, "CNI_IFNAME": "eth0"}

    def execute():
        with file.open("rb") as stdin, (tmp_path / "out").open("wb") as stdout:
            return subprocess.run([node.executable], stdin=stdin, stdout=stdout, env=variables, check=False).returncode

    assert node.host.run(execute) == 0
    assert json.loads((tmp_path / "out").read_text())["interfaces"]


def test_output_that_is_no_pipe_is_the_shells_to_write(ringing_node, tmp_path):
    node, pod = ringing_node, ringing_node.make_pod()
    variables = {"CNI_COMMAND": "ADD", "CNI_CONTAINERID": "c1", "CNI_NETNS": pod.path, "CNI_IFNAME": "eth0"}

    def execute():
        with (tmp_path / "out").open("ab") as stdout:
            stdout.write(b"before\n")
            stdout.flush()
            return subprocess.run(
                [node.executable], input=json.dumps(node.config()).encode(), stdout=stdout, env=variables, check=False
            ).returncode

    assert node.host.run(execute) == 0
    before, result = (tmp_path / "out").read_text().split("\n")
    assert before == "before"
    assert json.loads(result)["interfaces"]
    assert node.served() == ["ADD for c1 succeeded"]


def variables_of(pod, verb="ADD"):
    return {"CNI_COMMAND": verb, "CNI_CONTAINERID": "c1", "CNI_NETNS": pod.path, "CNI_IFNAME": "eth0"}


def test_pipes_of_another_user_are_no_reason_to_shut_the_door(ringing_node):
    """As of one who calls sudo: the daemon has no CAP_DAC_OVERRIDE, the plugin has."""
    node, pods = ringing_node, [ringing_node.make_pod() for _ in range(2)]

    def execute(pod, closed):
        reading, writing = os.pipe()
        os.fchmod((reading, writing)[closed], 0)
        os.write(writing, json.dumps(node.config()).encode())
        os.close(writing)
        with os.fdopen(reading) as stdin:
            return subprocess.run(
                [node.executable], stdin=stdin, capture_output=True, env=variables_of(pod), check=False
            )

    done = node.host.run(lambda: execute(pods[0], 0))
    assert done.returncode == 0, done
    assert json.loads(done.stdout)["interfaces"]
    assert node.door.with_name("subnet.cni.door.owner").is_symlink()
    node.call("DEL", "c1", pods[0].path)
    node.executable.write_text(node.executable.read_text().replace("\nexec ", "\nexec /absent "))
    node.call("ADD", "c1", pods[1].path)


@pytest.mark.parametrize("kind", ["socket", "nobody reads", "closed to the daemon"])
def test_output_that_the_daemon_cannot_write(ringing_node, kind):
    node, pod = ringing_node, ringing_node.make_pod()
    node.executable.write_text(node.executable.read_text().replace("\nexec ", "\nexec /absent "))
    reading, writing = os.pipe()
    ours, theirs = socket.socketpair()
    if kind == "closed to the daemon":
        os.fchmod(writing, 0)
    if kind == "nobody reads":
        os.close(reading)
    with ours, theirs, os.fdopen(writing, "wb") as pipe:
        done = node.host.run(
            lambda: subprocess.run(
                [node.executable],
                input=json.dumps(node.config()).encode(),
                stdout=theirs if kind == "socket" else pipe,
                env=variables_of(pod),
                check=False,
            )
        )
        text = ours.recv(1 << 16) if kind == "socket" else b""
    if kind == "closed to the daemon":
        with os.fdopen(reading, "rb") as file:
            text = file.read()
    assert "eth0" in [name for _, name in pod.run(socket.if_nameindex)]
    if kind == "nobody reads":
        assert done.returncode == -signal.SIGPIPE
    else:
        assert (done.returncode, json.loads(text)["cniVersion"]) == (0, "1.1.0")


HOSTILE = {
    "BASH_ENV": "/absent",
    "ENV": "/absent",
    "SHELLOPTS": "nounset:xtrace:noexec:errexit",
    "BASHOPTS": "extglob:failglob",
    "BASH_FUNC_printf%%": "() { echo wrong; }",
    "BASH_FUNC_read%%": "() { echo wrong; }",
    "POSIXLY_CORRECT": "1",
    "TMOUT": "1",
    "IFS": "0 1/",
    "PS4": "$(echo wrong)",
    "answer": "0",
    "output": "wrong",
    "interrupted": "interrupted",
    "door": "/absent",
    "seconds": "a[$(echo wrong >&2)]",
    "CNI_ARGS": "A=\udcff\n;B=$(echo wrong);C='\"\\",
}


@pytest.mark.parametrize("locale", ["C", "C.UTF-8"])
def test_a_hostile_environment_changes_nothing(ringing_node, locale):
    node, pod = ringing_node, ringing_node.make_pod()
    node.call("ADD", "c1", pod.path, LC_ALL=locale, **HOSTILE)
    assert node.served() == ["ADD for c1 succeeded"]


def test_no_ring_from_another_namespace_of_processes(lone_node):
    """Where the process id is another one than in /proc."""
    node, pod = lone_node, lone_node.make_pod()
    node.use_door()
    door = Door(node.door)
    done = node.host.run(
        lambda: subprocess.run(
            ["unshare", "--pid", "--fork", node.executable],
            input=json.dumps(node.config()).encode(),
            capture_output=True,
            env=variables_of(pod) | {"PATH": os.environ["PATH"]},
            check=False,
        )
    )
    assert done.returncode == 0, done
    assert _is_empty(node.door)
    door.shut()
    door.close()


def test_who_has_no_more_than_a_path_to_the_door_is_not_served(tmp_path):
    door = Door(tmp_path / "door")
    for flags, words in ((os.O_PATH, "has not rung"), (os.O_RDONLY, "has not rung"), (os.O_RDWR, "fd/4")):
        opened = os.open(tmp_path / "door", flags | os.O_NONBLOCK)
        with subprocess.Popen(
            ["bash", "-c", f"exec 6>&{opened}; read"], stdin=subprocess.PIPE, pass_fds=[opened]
        ) as it:
            wait_until(lambda: os.path.lexists(f"/proc/{it.pid}/fd/6"))
            with pytest.raises(OSError, match=words), door.receive(it.pid):
                pass
            it.stdin.close()
        os.close(opened)
    door.shut()
    door.close()


def test_callers_that_are_killed_leave_nothing(ringing_node):
    node, pod = ringing_node, ringing_node.make_pod()

    def opened():
        """What else than sockets, of which each thread of the daemon comes to have one."""
        links = []
        for descriptor in Path(f"/proc/{node.daemon.pid}/fd").iterdir():
            with suppress(FileNotFoundError):
                links.append(str(descriptor.readlink()))
        return sorted(link for link in links if not link.startswith("socket:"))

    def is_stopped():
        return all(
            file.read_text().split()[-50] == "T" for file in Path(f"/proc/{node.daemon.pid}/task").glob("*/stat")
        )

    before = opened()
    for _ in range(3):
        node.daemon.send_signal(signal.SIGSTOP)
        wait_until(is_stopped)
        caller = node.host.run(
            lambda: subprocess.Popen(
                [node.executable], stdin=subprocess.PIPE, env=variables_of(pod), stdout=subprocess.PIPE
            )
        )
        with caller:
            wait_until(lambda: not _is_empty(node.door))
            caller.kill()
        node.daemon.send_signal(signal.SIGCONT)
        wait_until(lambda: _is_empty(node.door))
    node.call("ADD", "c1", pod.path)
    node.call("DEL", "c1", pod.path)
    assert node.held() == []
    assert [line for line in node.served() if line.startswith("ADD")] == ["ADD for c1 succeeded"]
    wait_until(lambda: opened() == before)


def test_a_full_door_lets_its_daemon_go(tmp_path):
    door = Door(tmp_path / "door")
    opened = os.open(tmp_path / "door", os.O_WRONLY | os.O_NONBLOCK)
    with suppress(BlockingIOError):
        while True:
            os.write(opened, b"0000001\n")
    door.wake(8)
    os.close(opened)
    door.close()


def test_who_writes_nonsense_into_the_door_keeps_nobody_out(ringing_node):
    node = ringing_node
    for nonsense in (b"x", b"\n" * 99, b"1234567\n", b"0000001\n", b"\0" * 8, f"{os.getpid():07}\n".encode()):
        with node.door.open("wb", buffering=0) as door:
            door.write(nonsense)
        wait_until(lambda: _is_empty(node.door))
    pod = node.make_pod()
    node.call("ADD", "c1", pod.path)
    assert node.served() == ["ADD for c1 succeeded"]


def _is_empty(door):
    opened = os.open(door, os.O_RDWR | os.O_NONBLOCK)
    try:
        return not any(fcntl.ioctl(opened, termios.FIONREAD, bytes(4)))
    finally:
        os.close(opened)
