"""The guard between nodes that have nothing to hide: pods, and nodes that answer pods by their own addresses."""

import json
import sys
from pathlib import Path

import pytest

from tests.netns_lab.exercise import exercise
from tests.netns_lab.topologies import LEFT, RIGHT, topology

pytestmark = [pytest.mark.lab, pytest.mark.etcd, pytest.mark.timeout(180)]

GO_FLANNEL = Path(__file__).parents[2] / ".cache" / "peers" / "flannel"
FLANNELCTL = str(Path(sys.executable).with_name("flannelctl"))
SERVE = """
import socket
with socket.create_server(("", 7000)) as server:
    print("serving", flush=True)
    connection, _ = server.accept()
    connection.sendall(connection.recv(100))
"""
ASK = """
import socket, sys
with socket.create_connection((sys.argv[1], 7000), 10) as connection:
    connection.sendall(b"who is there?")
    print(connection.recv(100).decode())
"""


def ask_node(lab, node):
    """Have the pod of the other node talk with a node by its own address: the answers come back by the tunnel."""
    records = {file.stem: json.loads(file.read_text()) for file in (lab.root / "pods").glob("*.json")}
    pod = next(name for name, record in records.items() if record["node"] != node)
    server = lab.start("exec", node, "--", sys.executable, "-c", SERVE)
    try:
        assert server.stdout.readline() == "serving\n"
        # A node's name stands for its address on the underlay.
        assert lab.run("exec", pod, "--", sys.executable, "-c", ASK, node).stdout == "who is there?\n"
    finally:
        server.kill()
        server.communicate()


def guard_of(lab, node):
    asked = lab.run("exec", node, "--", FLANNELCTL, "status", "--json")
    return json.loads(asked.stdout)["guard"]


@pytest.mark.parametrize("other", ["ours", "Go flannel"])
def test_pods_and_nodes_that_answer_pods_are_let_in(lab, other):
    daemons = {}
    if other == "Go flannel":
        if not GO_FLANNEL.exists():
            pytest.skip("Go flannel is not built: make peers")
        daemons = {"n2": [GO_FLANNEL, "--iptables-forward-rules=false"]}
    lab.up(topology(LEFT, RIGHT, daemons=daemons))
    exercise(lab, mtu=1450)
    for node in ("n1", "n2"):
        ask_node(lab, node)
    guard = guard_of(lab, "n1")
    assert guard["mode"] == "drop"
    assert not any(guard["dropped"].values())
