"""The real flanneld serves the plugin's calls from its start on, whatever it still waits for itself."""

import json
import subprocess
import sys
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import pytest

from tests.host import UPLINK, Host
from tests.store.etcd_server import EtcdServer
from tests.waiting import wait_until

pytestmark = pytest.mark.kernel

FLANNELD = Path(sys.executable).with_name("flanneld")


@contextmanager
def running(node, *words):
    command = [FLANNELD, f"--subnet-file={node.subnet_file}", "--v=10", *words]
    with node.log.open("wb") as log:
        process = node.host.run(lambda: subprocess.Popen(command, stdout=log, stderr=log))
    wait_until(node.subnet_file.with_name("subnet.cni.sock").exists)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(10)


@pytest.fixture
def flanneld(lone_node):
    """One that waits for etcd, beside a subnet.env of its last run."""
    with running(lone_node, "--etcd-endpoints=http://127.0.0.1:1") as process:
        yield process


@pytest.fixture
def complete_node(lone_node, tmp_path):
    """A node with an uplink, an etcd and a flanneld that has its lease."""
    lone_node.subnet_file.unlink()
    with closing(Host(lone_node.host)) as host, ExitStack() as stack:
        etcd = EtcdServer(tmp_path)
        stack.callback(etcd.stop)
        lone_node.host.run(etcd.start)
        lone_node.host.run(
            etcd.ctl, "put", "/coreos.com/network/config", '{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan"}}'
        )
        stack.enter_context(running(lone_node, f"--etcd-endpoints={etcd.url}", f"--iface={UPLINK}", "--ip-masq"))
        wait_until(lone_node.subnet_file.exists)
        yield host, lone_node


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


@pytest.mark.etcd
def test_status_while_other_nodes_are_cut_off(complete_node):
    host, node = complete_node

    def status():
        exit_status, output = node.execute("STATUS", json.dumps(node.config()).encode())
        assert exit_status == bool(output)
        return json.loads(output) if output else None

    assert status() is None
    # As long as another device has its VNI, the daemon cannot have its own.
    host.ip("link set flannel.1 down name other1 address 02:00:00:00:00:99")  # with our MAC it counts as ours
    wait_until(lambda: (status() or {}).get("code") == 51)
    assert "flannel.1" in status()["details"]
    pod = node.make_pod()
    node.call("ADD", "c1", pod.path)
    host.ip("link delete other1")
    wait_until(lambda: status() is None)
