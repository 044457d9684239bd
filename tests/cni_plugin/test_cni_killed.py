"""ADD and DEL killed after each single change: the next DEL, GC or ADD puts right what is left."""

import itertools
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from pyroute2 import IPRoute

from tests.cni_plugin.killing import KILLED
from tests.waiting import wait_until

pytestmark = pytest.mark.kernel

SCRIPT = Path(__file__).parent / "killed_call.py"


def names():
    with IPRoute() as reader:
        return {found.get_attr("IFLA_IFNAME") for found in reader.get_links()}


def kill_after(node, steps, verb, pod, config=None):
    """Call a verb for c1; returns whether it was killed, which it is not if it has fewer steps."""
    environment = {
        "CNI_COMMAND": verb,
        "CNI_CONTAINERID": "c1",
        "CNI_NETNS": pod.path,
        "CNI_IFNAME": "eth0",
        "CNI_PATH": "",
        "PYTHONPATH": str(SCRIPT.parents[2]),
    }
    stdin = json.dumps(node.config() if config is None else config).encode()
    command = [sys.executable, str(SCRIPT), str(steps)]
    done = node.host.run(
        lambda: subprocess.run(command, env=environment, input=stdin, capture_output=True, check=False)
    )
    assert done.returncode in {0, KILLED}, (done.stdout, done.stderr)
    return done.returncode == KILLED


def collect(node, *valid):
    attachments = [{"containerID": container, "ifname": "eth0"} for container in valid]
    config = node.config(**{"cni.dev/valid-attachments": attachments})
    assert node.run("GC", json.dumps(config).encode()) == (0, b"")


def require_clean(node, pod):
    assert node.held() == []
    assert not node.scratch.exists() or list(node.scratch.iterdir()) == []
    assert node.host.run(names) <= {"lo", "cni0"}
    assert pod.run(names) == {"lo"}


def make_old(node):
    """Have what an ADD leaves on the disk look as old as that of containers that are long gone."""
    then = time.time() - 3600
    for folder in (node.networks, node.scratch):
        for file in folder.iterdir() if folder.exists() else ():
            os.utime(file, (then, then))


def test_add_then_del(lone_node):
    node, pod = lone_node, lone_node.make_pod()
    for count in itertools.count(1):
        was_killed = kill_after(node, count, "ADD", pod)
        node.call("DEL", "c1", pod.path)
        require_clean(node, pod)
        if not was_killed:
            break
    assert count > 10


def test_add_then_gc(lone_node):
    node, pod = lone_node, lone_node.make_pod()
    for count in itertools.count(1):
        was_killed = kill_after(node, count, "ADD", pod)
        make_old(node)
        collect(node)
        require_clean(node, pod)
        if not was_killed:
            break


def test_add_then_the_add_of_another(lone_node):
    node = lone_node
    node.write_env("10.5.0.0/16", "10.5.2.1/30")
    for count in itertools.count(1):
        pod, other = node.make_pod(), node.make_pod()
        was_killed = kill_after(node, count, "ADD", pod)
        pod.close()
        make_old(node)
        # The only address comes back: its holder's device went with the namespace.
        wait_until(lambda: node.host.run(names) <= {"lo", "cni0"})
        node.call("ADD", "c2", other.path)
        assert node.held() == ["10.5.2.2"]
        node.call("DEL", "c2", other.path)
        if not was_killed:
            break


@pytest.mark.parametrize("then", ["DEL", "GC"])
def test_del(lone_node, then):
    node, pod = lone_node, lone_node.make_pod()
    for count in itertools.count(1):
        node.call("ADD", "c1", pod.path)
        was_killed = kill_after(node, count, "DEL", pod)
        if then == "DEL":
            node.call("DEL", "c1", pod.path)
        else:
            collect(node)
        require_clean(node, pod)
        if not was_killed:
            break
    assert count > 3


@pytest.mark.full
@pytest.mark.timeout(180)
@pytest.mark.parametrize("entrance", ["socket", "door"])
@pytest.mark.parametrize("verb", ["ADD", "DEL"])
def test_the_daemon_in_the_middle(lone_node, verb, entrance):
    """The plugin ends what may be repeated, and says of an ADD that a DEL must come first."""
    node, pod = lone_node, lone_node.make_pod()
    if entrance == "door":
        node.use_door()
    variables = {"CNI_CONTAINERID": "c1", "CNI_NETNS": pod.path, "CNI_IFNAME": "eth0"}
    config = json.dumps(node.config()).encode()
    for count in itertools.count(1):
        if verb == "DEL":
            node.call("ADD", "c1", pod.path)
        node.start_daemon(str(count))
        status, output = node.execute(verb, config, **variables)
        # What is put off until after the answer may be the step at which it is killed.
        node.daemon.communicate()
        was_killed = node.daemon.returncode == KILLED
        node.daemon = None
        if verb == "ADD" and was_killed:
            assert (status, json.loads(output)["code"]) == (1, 11)
        else:
            assert status == 0, output
        if verb == "DEL" and was_killed:
            # It may have answered before.
            collect(node)
        node.call("DEL", "c1", pod.path)
        require_clean(node, pod)
        if not was_killed:
            break
    assert count > 3


def test_the_daemon_right_after_its_answer(lone_node):
    node, pod = lone_node, lone_node.make_pod()
    node.start_daemon()
    node.call("ADD", "c1", pod.path)
    config = json.dumps(node.config()).encode()
    variables = {"CNI_CONTAINERID": "c1", "CNI_NETNS": pod.path, "CNI_IFNAME": "eth0"}
    assert node.execute("DEL", config, **variables) == (0, b"")
    node.daemon.kill()
    node.daemon.communicate()
    node.daemon = None
    collect(node)
    require_clean(node, pod)


def take_labels():
    with IPRoute() as writer:
        for found in writer.get_links():
            if found.get_attr("IFLA_IFNAME").startswith("veth"):
                writer.link("set", index=found["index"], IFLA_IFALIAS="")


class TestReclaim:
    """Addresses of containers that are gone, when the range has run out."""

    @pytest.fixture
    def full_node(self, node):
        """A node with five addresses, held by c0 to c4, of which the last has gone unnoticed."""
        node.write_env("10.5.0.0/16", "10.5.2.1/29")
        node.pods = [node.make_pod() for _ in range(5)]
        for index, pod in enumerate(node.pods):
            node.call("ADD", f"c{index}", pod.path)
        node.pods[4].close()
        make_old(node)
        wait_until(lambda: len(node.host.run(names)) == 6)
        return node

    def test_status_and_the_next_add_find_it(self, full_node):
        node = full_node
        assert node.run("STATUS", json.dumps(node.config()).encode()) == (0, b"")
        result = node.call("ADD", "c5", node.make_pod().path)
        assert result["ips"][0]["address"] == "10.5.2.6/29"
        assert not (node.scratch / "c4").exists()
        assert (node.scratch / "c3").exists()
        assert node.refused("ADD", "c6", node.make_pod().path)["code"] == 50

    def test_one_that_was_just_reserved_is_left(self, full_node):
        os.utime(full_node.networks / "10.5.2.6")
        assert full_node.refused("ADD", "c5", full_node.make_pod().path)["code"] == 50

    def test_devices_of_another_plugin_are_known_by_their_addresses(self, full_node):
        full_node.host.run(take_labels)
        (full_node.networks / "10.5.2.3").write_text("c1")
        make_old(full_node)
        full_node.call("ADD", "c5", full_node.make_pod().path)
        assert full_node.held() == [f"10.5.2.{number}" for number in range(2, 7)]
        assert (full_node.networks / "10.5.2.6").read_bytes() == b"c5\r\neth0"

    def test_a_port_that_tells_nothing_stops_it(self, full_node):
        def hide():
            with IPRoute() as writer:
                writer.flush_addr(index=writer.link_lookup(ifname="eth0")[0])

        full_node.host.run(take_labels)
        full_node.pods[0].run(hide)
        assert full_node.refused("ADD", "c5", full_node.make_pod().path)["code"] == 50


def test_after_a_reboot_what_nobody_holds_is_dropped(node):
    pods = [node.make_pod() for _ in range(3)]
    for index, pod in enumerate(pods):
        node.call("ADD", f"c{index}", pod.path)
    make_old(node)
    pods[0].close()
    wait_until(lambda: len(node.host.run(names)) == 4)
    # The same boot: nothing is looked at. Another: c0 is found to be gone, the others to be here.
    node.call("ADD", "c3", node.make_pod().path)
    assert "10.5.2.2" in node.held()
    (node.networks / "boot_id").write_text("another")
    node.call("ADD", "c4", node.make_pod().path)
    assert node.held() == ["10.5.2.3", "10.5.2.4", "10.5.2.5", "10.5.2.6"]
    assert not (node.scratch / "c0").exists()
    assert (node.scratch / "c1").exists()


def test_gc_deletes_devices_of_its_own_network_only(node):
    pods = [node.make_pod() for _ in range(3)]
    node.call("ADD", "c1", pods[0].path)
    node.call("ADD", "c2", pods[1].path)
    node.call("ADD", "c3", pods[2].path, node.config(name="other"))
    collect(node, "c2")
    assert [pod.run(names) for pod in pods] == [{"lo"}, {"lo", "eth0"}, {"lo", "eth0"}]
    assert node.held() == ["10.5.2.3"]
    assert (node.scratch / "c3").exists()
