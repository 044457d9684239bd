"""Pods run by containerd and podman, after `flannelctl cni install`: they reach each other, a port is published."""

import importlib
import json
import shutil
import socket
from pathlib import Path

import pytest
from pyroute2 import IPRoute

from flanneld_py.ctl.cni import install
from tests.waiting import wait_until

PEERS = Path(__file__).parents[2] / ".cache" / "peers" / "cni"
PLUGINS = [PEERS / name for name in ("loopback", "portmap")]

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.full,
    pytest.mark.skipif(
        not all(plugin.exists() for plugin in PLUGINS),
        reason=f"{PEERS} lacks loopback or portmap: make peers builds them (needs go)",
    ),
]


def having(runtime, *packages, programs):
    """A parameter that is left out where a program is missing."""
    needed = (*programs, "iptables", "/bin/busybox")
    reason = f"run: apt-get install {' '.join(packages)} iptables busybox-static"
    return pytest.param(runtime, marks=pytest.mark.skipif(not all(map(shutil.which, needed)), reason=reason))


SERVE = ["/busybox", "nc", "-ll", "-p", "80", "-e", "/busybox", "echo", "here"]
OUTSIDE, NODE = "192.168.7.1", "192.168.7.2"


@pytest.fixture(
    params=[
        having("Containerd", "containerd", "runc", programs=("containerd", "ctr", "runc")),
        having("Podman", "podman", "crun", programs=("podman", "crun", "conmon")),
    ]
)
def runtime(node, request):
    for plugin in PLUGINS:
        shutil.copy(plugin, node.bin)
    folder = node.folder / "net.d"
    install(node.bin, folder)
    # As it was installed, but for the folders, which are the test's own.
    [file] = folder.iterdir()
    content = json.loads(file.read_text())
    content["plugins"][0] |= {key: node.config()[key] for key in ("subnetFile", "dataDir", "ipam")}
    file.write_text(json.dumps(content))
    made = getattr(importlib.import_module(f"tests.cni_plugin.{request.param.lower()}"), request.param)(node, folder)
    yield made
    made.close()


@pytest.fixture
def outside(node, make_namespace):
    """Another machine, on the node's uplink."""
    made = make_namespace()

    def connect():
        with IPRoute() as route:
            route.link("set", index=route.link_lookup(ifname="lo")[0], state="up")
            route.link("add", ifname="eth0", kind="veth", peer={"ifname": "eth0", "net_ns_fd": made.path})
            give_address(route, NODE)

    def give_address(route, address):
        index = route.link_lookup(ifname="eth0")[0]
        route.addr("add", index=index, address=address, prefixlen=24)
        route.link("set", index=index, state="up")

    def have_address():
        with IPRoute() as route:
            give_address(route, OUTSIDE)

    node.host.run(connect)
    made.run(have_address)
    return made


def names():
    with IPRoute() as reader:
        return {found.get_attr("IFLA_IFNAME") for found in reader.get_links()}


def read_from(address):
    with socket.create_connection((address, 8080), 10) as connection:
        return connection.recv(9)


def test_pods_of_a_runtime(node, runtime, outside):
    wait_until(runtime.is_network_ready)
    serving = runtime.run_pod("serving", SERVE, [(8080, 80)])
    asking = runtime.run_pod("asking", ["/busybox", "sleep", "1000000"])
    assert node.held() == sorted((serving.ip, asking.ip))
    wait_until(lambda: asking.execute("/busybox", "nc", "-w", "1", serving.ip, "80")[0] == 0)
    for address, port in ((serving.ip, "80"), ("10.5.2.1", "8080"), (NODE, "8080")):
        assert asking.execute("/busybox", "nc", "-w", "10", address, port) == (0, "here\n")
    assert outside.run(read_from, NODE) == b"here\n"
    # A pod reaches itself by its published port as well: the frame goes back through the port that it came from.
    assert serving.execute("/busybox", "nc", "-w", "10", NODE, "8080") == (0, "here\n")
    for pod in (serving, asking):
        pod.remove()
    if node.daemon is not None:
        told = [line for line in node.served() if line.startswith(("ADD", "DEL"))]
        assert len(told) >= 4
        assert all(line.endswith("succeeded") for line in told)
    node.settle()
    assert node.held() == []
    assert list(node.scratch.iterdir()) == []
    assert node.host.run(names) == {"lo", "eth0", "cni0"}
    with pytest.raises(ConnectionRefusedError):
        outside.run(read_from, NODE)
