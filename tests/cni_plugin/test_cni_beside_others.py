"""Real callers, and the genuine plugins on the same node: needs what `make peers` builds."""

import json
import os
import shutil
import socket
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from pyroute2 import IPRoute

PEERS = Path(__file__).parents[2] / ".cache" / "peers" / "cni"
CHAINED_PATH = f"{PEERS}:/usr/lib/cni"
"""Where the reference plugins are: as built here, then as Debian installs them."""

pytestmark = [pytest.mark.kernel, pytest.mark.full]

needs_peers = pytest.mark.skipif(
    not (PEERS / "cnitool").exists(), reason=f"{PEERS} has no genuine plugins: make peers builds them (needs go)"
)


def names():
    with IPRoute() as reader:
        return {found.get_attr("IFLA_IFNAME") for found in reader.get_links()}


def cnitool(node, verb, network, netns, **more):
    """Run cnitool with a /var/lib of the test's own, where it keeps results from ADD to DEL."""
    own = node.folder / "var-lib"
    own.mkdir(exist_ok=True)
    inner = f'mount --bind "{own}" /var/lib && exec "{PEERS}/cnitool" {verb} {network} {netns}'
    environment = {
        "CNI_PATH": f"{node.bin}:{CHAINED_PATH}",
        "NETCONFPATH": str(node.folder / "lists"),
        "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin",
        **more,
    }
    command = ["unshare", "--mount", "sh", "-c", inner]
    done = node.host.run(lambda: subprocess.run(command, env=environment, capture_output=True, text=True, check=False))
    return done.returncode, done.stdout + done.stderr


@needs_peers
def test_cnitool_through_every_verb(node):
    folder = node.folder / "lists"
    folder.mkdir()
    plugin = {key: value for key, value in node.config().items() if key not in {"name", "cniVersion"}}
    content = {"cniVersion": "1.1.0", "name": "cbr0", "plugins": [plugin]}
    (folder / "10-flannel.conflist").write_text(json.dumps(content))
    pod = node.make_pod()
    assert cnitool(node, "status", "cbr0", pod.path)[0] == 0
    status, told = cnitool(node, "add", "cbr0", pod.path)
    assert status == 0, told
    assert json.loads(told)["ips"][0]["address"] == "10.5.2.2/24"
    assert cnitool(node, "check", "cbr0", pod.path) == (0, "")
    assert "eth0" in pod.run(names)
    for _ in range(2):
        assert cnitool(node, "del", "cbr0", pod.path) == (0, "")
    node.settle()
    assert pod.run(names) == {"lo"}
    assert node.held() == []
    # Its gc knows of no container that is still in use.
    assert cnitool(node, "add", "cbr0", pod.path)[0] == 0
    assert cnitool(node, "gc", "cbr0", pod.path) == (0, "")
    node.settle()
    assert pod.run(names) == {"lo"}
    assert node.held() == []
    node.subnet_file.unlink()
    status, told = cnitool(node, "status", "cbr0", pod.path)
    assert status == 1
    assert "subnet.env is not there yet" in told


needs_chained = pytest.mark.skipif(
    shutil.which("iptables") is None
    or not all(shutil.which(name, path=CHAINED_PATH) for name in ("portmap", "tuning", "bandwidth", "firewall")),
    reason="run: apt-get install iptables containernetworking-plugins",
)
RATE = 80_000_000
"""Bits a second."""


@needs_peers
@needs_chained
def test_the_reference_plugins_that_come_after_it(node):
    folder = node.folder / "lists"
    folder.mkdir()
    plugins = [
        {key: value for key, value in node.config().items() if key not in {"name", "cniVersion"}},
        {"type": "portmap", "backend": "iptables", "capabilities": {"portMappings": True}},
        {"type": "tuning", "mtu": 1400, "dataDir": str(node.folder / "tuning")},
        {"type": "bandwidth", "ingressRate": RATE, "ingressBurst": RATE, "egressRate": RATE, "egressBurst": RATE},
        {"type": "firewall", "backend": "iptables"},
    ]
    plugins[0]["delegate"] |= {"antiSpoof": True}
    content = {"cniVersion": "1.0.0", "name": "cbr0", "plugins": plugins}
    (folder / "10-flannel.conflist").write_text(json.dumps(content))
    pods = [node.make_pod() for _ in range(2)]
    mapped = [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]
    calls = [(pod.path, json.dumps({"portMappings": ports})) for pod, ports in zip(pods, (mapped, []), strict=True)]
    for path, arguments in calls:
        status, told = cnitool(node, "add", "cbr0", path, CAP_ARGS=arguments)
        assert status == 0, told
        assert cnitool(node, "check", "cbr0", path, CAP_ARGS=arguments) == (0, "")
    assert [pod.run(read_mtu) for pod in pods] == [1400, 1400]
    assert node.host.run(read_limited) == 4  # to each pod, and from it by a device that its packets are led through
    assert {rule for address in ("10.5.2.2", "10.5.2.3") for rule in firewall_rules(address)} <= rules_of(node)

    def listen():
        found = socket.create_server(("0.0.0.0", 80))
        found.settimeout(20)
        return found

    with pods[0].run(listen) as listening, pods[1].run(socket.create_connection, ("10.5.2.1", 8080), 20) as caller:
        answering, _ = listening.accept()
        with answering:
            answering.sendall(b"here")
            assert caller.recv(9) == b"here"
    for path, arguments in calls:
        assert cnitool(node, "del", "cbr0", path, CAP_ARGS=arguments) == (0, "")
    node.settle()
    assert node.held() == []
    assert node.host.run(names) == {"lo", "cni0"}
    assert not any("10.5.2." in rule for rule in rules_of(node))


def firewall_rules(address):
    return (
        f"-A CNI-FORWARD -s {address}/32 -j ACCEPT",
        f"-A CNI-FORWARD -d {address}/32 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
    )


def rules_of(node):
    """All that iptables holds, as `iptables-save` writes it."""
    done = node.host.run(lambda: subprocess.run(["iptables-save"], capture_output=True, text=True, check=True))
    return set(done.stdout.splitlines())


def read_limited():
    """How many devices have a token bucket."""
    with IPRoute() as reader:
        return sum(found.get_attr("TCA_KIND") == "tbf" for found in reader.get_qdiscs())


def read_mtu():
    with IPRoute() as reader:
        return reader.get_links(ifname="eth0")[0].get_attr("IFLA_MTU")


class Chain:
    """The genuine plugins on a node, called as our own is."""

    def __init__(self, node):
        self.node = node

    def call(self, verb, container, pod):
        ours = self.node.bin, self.node.executable
        self.node.bin, self.node.executable = PEERS, PEERS / "flannel"
        try:
            return self.node.call(verb, container, pod.path, self.node.config("0.4.0"))
        finally:
            self.node.bin, self.node.executable = ours


@needs_peers
def test_a_node_changes_from_the_genuine_plugins_and_back(node):
    chain = Chain(node)
    pods = [node.make_pod() for _ in range(4)]
    results = [
        chain.call("ADD", "c0", pods[0]),
        node.call("ADD", "c1", pods[1].path, node.config("0.4.0")),
        chain.call("ADD", "c2", pods[2]),
        node.call("ADD", "c3", pods[3].path, node.config("0.4.0")),
    ]
    assert [result["ips"][0]["address"] for result in results] == [f"10.5.2.{number}/24" for number in range(2, 6)]
    assert [{**result["interfaces"][0]} for result in results] == [results[0]["interfaces"][0]] * 4
    # Each takes down what the other has set up.
    node.call("DEL", "c0", pods[0].path)
    chain.call("DEL", "c1", pods[1])
    chain.call("DEL", "c3", pods[3])
    node.call("DEL", "c2", pods[2].path)
    node.settle()
    assert node.held() == []
    assert list(node.scratch.iterdir()) == []
    assert [pod.run(names) for pod in pods] == [{"lo"}] * 4
    assert node.host.run(names) == {"lo", "cni0"}


COUNT, AT_ONCE, ROUNDS = 250, 20, 5


@pytest.mark.timeout(400)
def test_250_pods_twenty_at_a_time(lone_node):
    node = lone_node
    node.start_daemon()
    pods = [node.make_pod() for _ in range(COUNT)]
    for _ in range(ROUNDS):
        with ThreadPoolExecutor(AT_ONCE) as runtime:
            results = list(runtime.map(lambda index: node.call("ADD", f"c{index}", pods[index].path), range(COUNT)))
        addresses = [result["ips"][0]["address"].partition("/")[0] for result in results]
        assert len(set(addresses)) == COUNT
        for pod, address in zip(pods, addresses, strict=True):
            require_reachable(node, pod, address)
        with ThreadPoolExecutor(AT_ONCE) as runtime:
            list(runtime.map(lambda index: delete(node, f"c{index}", pods[index]), range(COUNT)))
        node.settle()
        assert node.held() == []
        assert list(node.scratch.iterdir()) == []
        assert node.host.run(names) == {"lo", "cni0"}
    assert "is left to the plugin" not in node.log.read_text()


def delete(node, container, pod):
    variables = {"CNI_CONTAINERID": container, "CNI_NETNS": pod.path, "CNI_IFNAME": "eth0"}
    assert node.execute("DEL", json.dumps(node.config()).encode(), **variables) == (0, b"")


def require_reachable(node, pod, address):
    """Send to a pod until it arrives, and leave no neighbour behind: the whole machine shares one table of 1,024."""

    def listen():
        found = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        found.bind((address, 9999))
        found.settimeout(1)
        return found

    def send():
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sending:
            sending.sendto(b"hello", (address, 9999))

    with pod.run(listen) as listening:
        assert any(has_arrived(node, listening, send) for _ in range(20)), f"{address} is not reached"
    for namespace in (node.host, pod):
        namespace.run(forget_neighbours)


def has_arrived(node, listening, send):
    node.host.run(send)
    try:
        return listening.recv(9) == b"hello"
    except TimeoutError:
        return False


def forget_neighbours():
    with IPRoute() as route:
        for found in route.get_neighbours(family=socket.AF_INET):
            route.neigh("del", ifindex=found["ifindex"], dst=found.get_attr("NDA_DST"))
