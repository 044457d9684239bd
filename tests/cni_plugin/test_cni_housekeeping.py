"""VERSION, STATUS and GC by the installed executable, and what it says to calls that are wrong."""

import json
import os
import threading

import pytest
from pyroute2 import IPRoute

from flanneld_py.pods.versions import SUPPORTED

pytestmark = pytest.mark.kernel


def ask(node, verb, config=None, **environment):
    stdin = json.dumps(node.config() if config is None else config).encode()
    status, output = node.run(verb, stdin, **environment)
    return status, json.loads(output) if output else None


def test_version(node):
    status, answer = ask(node, "VERSION")
    assert status == 0
    assert answer == {"cniVersion": "1.1.0", "supportedVersions": list(SUPPORTED)}


def test_status_is_silent_while_an_add_would_succeed(node):
    assert ask(node, "STATUS") == (0, None)


@pytest.mark.parametrize("content", [None, "FLANNEL_NETWORK=10.5.0.0/16\n"])
def test_before_the_daemon_has_its_lease(node, content):
    node.subnet_file.unlink()
    if content is not None:
        node.subnet_file.write_text(content)
    status, error = ask(node, "STATUS")
    assert (status, error["code"]) == (1, 50)
    assert str(node.subnet_file) in error["msg"]


def test_an_add_before_that_waits_a_while_and_gives_up(node):
    node.subnet_file.unlink()
    error = node.refused("ADD", "c1", node.make_pod().path)
    assert error["code"] == 11
    assert str(node.subnet_file) in error["msg"]


def test_an_add_before_that_goes_on_as_soon_as_it_can(node):
    content = node.subnet_file.read_bytes()
    node.subnet_file.unlink()
    os.mkfifo(node.subnet_file)
    pod = node.make_pod()

    def write_in_parts():
        # The first reader finds an incomplete file, and there is a complete one for the next.
        with node.subnet_file.open("wb") as half:
            node.subnet_file.with_suffix(".new").write_bytes(content)
            node.subnet_file.with_suffix(".new").rename(node.subnet_file)
            half.write(content[:20])

    writer = threading.Thread(target=write_in_parts)
    writer.start()
    node.call("ADD", "c1", pod.path)
    writer.join()
    assert node.held() == ["10.5.2.2"]


def test_status_of_an_exhausted_subnet(node):
    node.write_env("10.5.0.0/16", "10.5.2.1/30")
    assert ask(node, "STATUS") == (0, None)
    node.call("ADD", "c1", node.make_pod().path)
    status, error = ask(node, "STATUS")
    assert (status, error["code"]) == (1, 50)
    assert "10.5.2.0/30" in error["msg"]


@pytest.mark.parametrize("verb", ["STATUS", "GC"])
def test_older_versions_have_neither(node, verb):
    status, error = ask(node, verb, node.config("1.0.0"))
    assert (status, error["code"]) == (1, 1)


@pytest.mark.parametrize("key", ["cni.dev/valid-attachments", "cni.dev/attachments"])
def test_gc_gives_back_what_no_container_uses(node, key):
    pods = [node.make_pod() for _ in range(3)]
    for index, pod in enumerate(pods):
        node.call("ADD", f"c{index}", pod.path)
    node.call("ADD", "c1", pods[1].path, ifname="net1")
    (node.networks / "10.5.2.99").write_text("old")
    (node.networks / "10.5.2.98").write_text("c0")
    valid = [{"containerID": "c0", "ifname": "eth0"}, {"containerID": "c1", "ifname": "eth0"}]
    assert ask(node, "GC", node.config(**{key: valid})) == (0, None)
    assert node.held() == ["10.5.2.2", "10.5.2.3", "10.5.2.98"]
    assert sorted(file.name for file in node.scratch.iterdir()) == ["c0", "c1"]
    assert ask(node, "GC", node.config(**{key: []})) == (0, None)
    assert node.held() == []
    assert list(node.scratch.iterdir()) == []


def test_gc_without_a_list_of_containers_drops_nothing(node):
    node.call("ADD", "c1", node.make_pod().path)
    assert ask(node, "GC") == (0, None)
    assert node.held() == ["10.5.2.2"]


@pytest.mark.parametrize("attachments", [{}, [1], [{"containerID": 1}]])
def test_gc_with_a_list_that_is_none_drops_nothing(node, attachments):
    node.call("ADD", "c1", node.make_pod().path)
    status, error = ask(node, "GC", node.config(**{"cni.dev/valid-attachments": attachments}))
    assert (status, error["code"]) == (1, 7)
    assert node.held() == ["10.5.2.2"]


def test_a_namespace_that_is_none(node):
    for path in ("/absent", "/proc/self/ns/uts", str(node.subnet_file)):
        assert node.refused("ADD", "c1", path)["code"] == 8
        assert node.refused("CHECK", "c1", path)["code"] == 8
    assert node.held() == []


def test_the_plugins_own_namespace_is_refused_unless_asked_for(node):
    def names():
        with IPRoute() as reader:
            return {found.get_attr("IFLA_IFNAME") for found in reader.get_links()}

    for verb in ("ADD", "DEL", "CHECK"):
        assert node.refused(verb, "c1", node.host.path)["code"] == 8
    assert node.host.run(names) == {"lo"}
    node.call("ADD", "c1", node.host.path, CNI_NETNS_OVERRIDE="1")
    assert {"cni0", "eth0"} < node.host.run(names)
    node.call("DEL", "c1", node.host.path, CNI_NETNS_OVERRIDE="1")
    assert node.host.run(names) == {"lo", "cni0"}


def test_too_much_standard_input(node):
    stdin = json.dumps(node.config(padding="x" * (1 << 20))).encode()
    status, output = node.run("ADD", stdin, CNI_CONTAINERID="c1", CNI_NETNS=node.make_pod().path, CNI_IFNAME="eth0")
    assert status == 1
    assert json.loads(output)["code"] == 5


@pytest.mark.parametrize(
    ("stdin", "code"),
    [
        (b"", 6),
        (b"{", 6),
        (b"{}x", 6),
        (b"[]", 6),
        (b"null", 6),
        (b"\xff", 6),
        (b"[" * 100_000, 6),
        (b'{"a":NaN}', 6),
        (b"{}", 7),
        (b'{"name":1}', 7),
        (b'{"name":"n","cniVersion":"9.9.9"}', 1),
    ],
    ids=lambda value: repr(value)[:20],
)
@pytest.mark.parametrize("verb", ["ADD", "CHECK", "GC", "STATUS"])
def test_standard_input_that_is_wrong(node, verb, stdin, code):
    variables = {"CNI_CONTAINERID": "c1", "CNI_NETNS": node.make_pod().path, "CNI_IFNAME": "eth0"}
    status, output = node.run(verb, stdin, **variables)
    assert status == 1
    assert json.loads(output)["code"] == code


@pytest.mark.parametrize("program", ["ok", "refuses", "babbles"])
def test_a_delegate_of_another_type_is_executed(node, program):
    script = {
        "ok": 'cat >"$0.stdin"; echo "{\\"cniVersion\\":\\"1.1.0\\",\\"verb\\":\\"$CNI_COMMAND\\"}"',
        "refuses": 'echo \'{"code":123,"msg":"no","details":"really"}\'; exit 1',
        "babbles": "echo nonsense; exit 3",
    }[program]
    file = node.bin / "other"
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(0o755)
    config = node.config(delegate={"type": "other"})
    pod = node.make_pod()
    if program != "ok":
        error = node.refused("ADD", "c1", pod.path, config)
        assert error["code"] == {"refuses": 123, "babbles": 6}[program]
        assert not (node.scratch / "c1").exists()
        return
    assert node.call("ADD", "c1", pod.path, config) == {"cniVersion": "1.1.0", "verb": "ADD"}
    given = json.loads((node.bin / "other.stdin").read_text())
    assert given == json.loads((node.scratch / "c1").read_text())
    assert given["type"] == "other"
    assert node.call("CHECK", "c1", pod.path, config | {"prevResult": {}}) is None
    assert json.loads((node.bin / "other.stdin").read_text())["prevResult"] == {}
    for verb in ("STATUS", "GC"):
        more = {"cni.dev/valid-attachments": [{"containerID": "c1", "ifname": "eth0"}]} if verb == "GC" else {}
        assert ask(node, verb, config | more) == (0, None)
        assert json.loads((node.bin / "other.stdin").read_text()) == given | more
    assert node.call("DEL", "c1", pod.path, config) is None
    assert not (node.scratch / "c1").exists()


def test_a_delegate_of_another_type_cannot_be_guarded(node):
    config = node.config(delegate={"type": "other", "antiSpoof": True})
    error = node.refused("ADD", "c1", node.make_pod().path, config)
    assert error["code"] == 2
    assert "antiSpoof" in error["msg"]


def test_a_delegate_that_is_not_installed_is_named(node):
    error = node.refused("ADD", "c1", node.make_pod().path, node.config(delegate={"type": "absent"}))
    assert "'absent' is not in CNI_PATH" in error["msg"]
    assert str(node.bin) in error["details"]
