"""What a node goes through at its worst: processes killed at any moment, full and read-only disks, odd input."""

import contextlib
import json
import os
import random
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from pyroute2 import IPRoute

pytestmark = pytest.mark.kernel

KILLS = 300
LONGEST = 0.016
"""Seconds after which a call is killed at the latest: a little longer than one takes."""
AT_ONCE = 20


def names():
    with IPRoute() as reader:
        return {found.get_attr("IFLA_IFNAME") for found in reader.get_links()}


def start(node, verb, container, pod):
    """Execute the plugin and do not wait for it."""
    variables = {
        "CNI_COMMAND": verb,
        "CNI_CONTAINERID": container,
        "CNI_NETNS": pod.path,
        "CNI_IFNAME": "eth0",
        "CNI_PATH": str(node.bin),
    }
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    process = node.host.run(lambda: subprocess.Popen([node.executable], env=variables, **pipes))
    process.stdin.write(json.dumps(node.config()).encode())
    process.stdin.close()
    process.stdin = None
    return process


def require_nothing_left(node, *pods):
    node.settle()
    assert node.held() == []
    assert not node.scratch.exists() or list(node.scratch.iterdir()) == []
    assert node.host.run(names) <= {"lo", "cni0", "cni1"}
    assert [pod.run(names) for pod in pods] == [{"lo"}] * len(pods)


@pytest.mark.full
@pytest.mark.timeout(180)
class TestKilledAtAnyMoment:
    """The moments are chance: what is between two changes of the kernel or the disk is hit as well."""

    @pytest.mark.parametrize("verb", ["ADD", "DEL"])
    def test_a_call(self, node, verb):
        chance = random.Random(6)  # noqa: S311 - so that a failure can be repeated
        pod = node.make_pod()
        for _ in range(KILLS // 2):
            if verb == "DEL":
                node.call("ADD", "c0", pod.path)
            process = start(node, verb, "c0", pod)
            time.sleep(chance.uniform(0, LONGEST))
            process.kill()
            process.communicate()
            node.call("DEL", "c0", pod.path)
            require_nothing_left(node, pod)

    def test_a_daemon_among_twenty_calls(self, lone_node):
        """Each ADD succeeds, or says that a DEL must come before another; no address is given twice."""
        node = lone_node
        chance = random.Random(7)  # noqa: S311
        pods = [node.make_pod() for _ in range(AT_ONCE)]
        codes = set()
        for _ in range(10):
            node.start_daemon()
            calls = [start(node, "ADD", f"c{index}", pod) for index, pod in enumerate(pods)]
            time.sleep(chance.uniform(0.01, 0.12))
            node.daemon.kill()
            node.daemon.communicate()
            node.start_daemon()
            done = [(call.communicate()[0], call.returncode) for call in calls]
            codes |= {json.loads(output)["code"] for output, status in done if status}
            addresses = [json.loads(output)["ips"][0]["address"] for output, status in done if not status]
            assert len(set(addresses)) == len(addresses)
            for index, pod in enumerate(pods):
                node.call("DEL", f"c{index}", pod.path)
            require_nothing_left(node, *pods)
            node.stop_daemon()
        assert codes <= {11}

    def test_a_namespace(self, node):
        """A pod's namespace is deleted while its ADD is under way."""
        chance = random.Random(8)  # noqa: S311
        for count in range(50):
            pod = node.make_pod()
            process = start(node, "ADD", f"c{count}", pod)
            time.sleep(chance.uniform(0, LONGEST))
            pod.close()
            process.communicate()
            node.call("DEL", f"c{count}", "/gone")
            node.settle()
            assert node.held() == []


class Disk:
    """A small file system in place of one of the node's folders."""

    def __init__(self, folder):
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", folder], check=True)

    def make(self, mode):
        subprocess.run(["mount", "-o", f"remount,{mode}", self.folder], check=True)

    def fill(self):
        with contextlib.suppress(OSError):
            (self.folder / "filler").write_bytes(bytes(1 << 20))

    def files(self):
        return sorted(file.name for file in self.folder.iterdir())


@pytest.fixture(params=["scratch", "networks"])
def disk(node, request):
    made = Disk(getattr(node, request.param))
    yield made
    subprocess.run(["umount", "--lazy", made.folder], check=True)


def test_a_full_disk(node, disk):
    pods = [node.make_pod() for _ in range(2)]
    node.call("ADD", "c0", pods[0].path)
    disk.fill()
    before = disk.files()
    assert "No space left" in node.refused("ADD", "c1", pods[1].path)["msg"]
    assert disk.files() == before
    assert pods[1].run(names) == {"lo"}
    node.call("DEL", "c0", pods[0].path)
    (disk.folder / "filler").unlink()
    for verb in ("ADD", "DEL"):
        for index, pod in enumerate(pods):
            node.call(verb, f"c{index}", pod.path)
    require_nothing_left(node, *pods)


def test_a_read_only_disk(node, disk):
    """A DEL that cannot give everything back says so, even where a daemon would do it after its answer."""
    pods = [node.make_pod() for _ in range(2)]
    node.call("ADD", "c0", pods[0].path)
    disk.make("ro")
    assert "Read-only" in node.refused("ADD", "c1", pods[1].path)["msg"]
    assert pods[1].run(names) == {"lo"}
    assert "Read-only" in node.refused("DEL", "c0", pods[0].path)["msg"]
    disk.make("rw")
    node.call("DEL", "c0", pods[0].path)
    require_nothing_left(node, *pods)


class TestTwoNetworks:
    """Two networks with one dataDir, in which the container's scratch file is that of the later ADD."""

    @pytest.fixture
    def second(self, node):
        return node.config(name="net2", delegate={"bridge": "cni1"})

    @pytest.fixture
    def pod(self, node, second):
        made = node.make_pod()
        node.call("ADD", "c0", made.path)
        node.call("ADD", "c0", made.path, second, ifname="net1")
        return made

    def held_in_second(self, node):
        return [file.name for file in (node.networks.parent / "net2").iterdir() if file.name.startswith("10.")]

    @pytest.mark.parametrize("first", ["eth0", "net1"])
    def test_both_leave_nothing(self, node, second, pod, first):
        configs = {"eth0": None, "net1": second}
        for ifname in sorted(configs, key=lambda ifname: ifname != first):
            node.call("DEL", "c0", pod.path, configs[ifname], ifname=ifname)
        require_nothing_left(node, pod)
        assert self.held_in_second(node) == []

    def test_gc_of_one_leaves_the_other(self, node, second, pod):
        config = node.config(**{"cni.dev/valid-attachments": []})
        assert node.execute("GC", json.dumps(config).encode()) == (0, b"")
        assert pod.run(names) == {"lo", "net1"}
        assert node.held() == []
        assert [file.name for file in node.scratch.iterdir()] == ["c0"]
        assert len(self.held_in_second(node)) == 1
        node.call("DEL", "c0", pod.path, second, ifname="net1")
        require_nothing_left(node, pod)

    def test_another_plugins_network(self, node, pod):
        """The file tells of a delegate that is no bridge: it is left for the DEL of that one's network."""
        file = node.scratch / "c0"
        file.write_text(json.dumps({"name": "net2", "type": "macvlan"}))
        node.call("DEL", "c0", pod.path)
        node.settle()
        assert node.held() == []
        assert pod.run(names) == {"lo", "net1"}
        assert file.exists()


def test_a_small_range_runs_out_and_comes_back(node):
    node.write_env("10.5.0.0/16", "10.5.2.1/28")
    pods = [node.make_pod() for _ in range(AT_ONCE)]
    with ThreadPoolExecutor(AT_ONCE) as runtime:
        done = list(runtime.map(lambda index: node.attempt("ADD", f"c{index}", pods[index].path), range(AT_ONCE)))
        assert [told["code"] for status, told in done if status] == [50] * 7
        assert node.refused("STATUS", "", "")["code"] == 50
        list(runtime.map(lambda index: node.call("DEL", f"c{index}", pods[index].path), range(AT_ONCE)))
    for verb in ("ADD", "DEL"):
        for index in range(13):
            node.call(verb, f"c{index}", pods[index].path)
    require_nothing_left(node, *pods)


def test_what_is_no_network_namespace(node, tmp_path):
    fifo, file = tmp_path / "fifo", tmp_path / "file"
    os.mkfifo(fifo)
    file.touch()
    kinds = ("/proc/self/ns/mnt", "/proc/self/ns/user", "/proc/self/fd/0", "/dev/null", "/dev/zero", "/dev/tty")
    for path in (*kinds, fifo, file, tmp_path, "relative", "x" * 5000):
        assert node.refused("ADD", "c0", str(path))["code"] == 8, path
        node.call("DEL", "c0", str(path))
    assert node.held() == []


@pytest.mark.parametrize("ifname", ["a b", "a/b", "..", "a:b", "a\tb", "x" * 16, "ä" * 8, "%d", "eth%d"])
def test_names_that_no_device_may_have(node, ifname):
    pod = node.make_pod()
    assert node.refused("ADD", "c0", pod.path, ifname=ifname)["code"] == 4


@pytest.mark.parametrize("ifname", ["all", "default", "lo"])
def test_names_that_are_taken(node, ifname):
    pod = node.make_pod()
    assert ifname in node.refused("ADD", "c0", pod.path, ifname=ifname)["msg"]
    require_nothing_left(node, pod)


@pytest.mark.parametrize("ifname", ["ä", "'\"$`\\", "-x"])
def test_odd_names(node, ifname):
    pod = node.make_pod()
    result = node.call("ADD", "c0", pod.path, ifname=ifname)
    assert pod.run(names) == {"lo", ifname}
    node.call("CHECK", "c0", pod.path, node.config(prevResult=result), ifname=ifname)
    node.call("DEL", "c0", pod.path, ifname=ifname)
    require_nothing_left(node, pod)


def test_configurations_that_are_large_or_deep(node):
    pod = node.make_pod()
    variables = {"CNI_CONTAINERID": "c0", "CNI_NETNS": pod.path, "CNI_IFNAME": "eth0"}
    begin = json.dumps(node.config()).removesuffix("}").encode()
    for deep in (b'"x":' + b"[" * 100_000 + b"]" * 100_000, b'"delegate":{"x":' + b"[" * 900 + b"]" * 900 + b"}"):
        assert node.run("ADD", begin + b"," + deep + b"}", **variables)[0] == 1
        assert pod.run(names) == {"lo"}
    long = b'"' + b"y" * 1_000_000 + b'"'
    for more in (b'"x":' + long, b'"delegate":{"x":' + long + b"}"):
        assert node.run("ADD", begin + b"," + more + b"}", **variables)[0] == 0
        node.call("DEL", "c0", pod.path)
    require_nothing_left(node, pod)
