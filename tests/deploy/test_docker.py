"""Docker's own daemon on two nodes, with the options that `flannelctl docker-opts` writes: its containers' network."""

import json
import re
import shutil
from ipaddress import ip_address, ip_network

import pytest

from tests.cni_plugin.pod_image import BUSYBOX, FOREVER, IMAGE, write_image, write_low_runtime
from tests.node_with_files import NodeWithFiles
from tests.test_daemon import FLANNELD, Cluster
from tests.waiting import wait_until

pytestmark = [pytest.mark.kernel, pytest.mark.etcd, pytest.mark.full, pytest.mark.timeout(180)]

SUBNET_ENV, DOCKER_ENV = "/run/flannel/subnet.env", "/run/docker_opts.env"
START_SECONDS = 60
PORT = "80"
# What it says is who is connected to it: whether addresses were translated on the way.
SERVE = ["/busybox", "nc", "-ll", "-p", PORT, "-e", "/busybox", "netstat", "-tn"]
DEVICES = {"vxlan": ("flannel.1", 1450), "udp": ("flannel0", 1472)}


class DockerNode(NodeWithFiles):
    """A node with our daemon and Docker's, each with its files where it has them by itself."""

    def __init__(self, cluster, number, namespace):
        super().__init__(cluster, number, namespace, "rm -rf /var/lib/docker /etc/docker")

    def start_flanneld(self):
        self.launch("flanneld", FLANNELD, f"--etcd-endpoints={self.cluster.etcd.url}", "--ip-masq")
        wait_until(self.file(SUBNET_ENV).exists)

    def found(self):
        """What doctor finds, by check."""
        words = ["doctor", "--json", f"--etcd-endpoints={self.cluster.etcd.url}", "--bin-dir=/none", "--conf-dir=/none"]
        done = self.run(FLANNELD.with_name("flannelctl"), *words, check=False)
        return {finding["check"]: finding for finding in json.loads(done.stdout)["findings"]}

    def variables(self, path):
        return dict(line.split("=", 1) for line in self.file(path).read_text().splitlines())

    @property
    def subnet(self):
        return self.variables(SUBNET_ENV)["FLANNEL_SUBNET"]

    def options(self):
        """What our drop-in makes of Docker's command line."""
        self.run(FLANNELD.with_name("flannelctl"), "docker-opts")
        return self.variables(DOCKER_ENV)["DOCKER_OPTS"].strip('"').split()

    def start_docker(self, *options):
        """Start Docker, with what the sandbox of the tests keeps from it left out."""
        runc = self.folder / "runc"
        write_low_runtime(runc, "runc")
        self.launch(
            "dockerd",
            "dockerd",
            *options,
            "--group=root",
            "--oom-score-adjust=0",
            "--exec-opt=native.cgroupdriver=cgroupfs",
            "--storage-driver=vfs",
            f"--add-runtime=low={runc}",
            "--default-runtime=low",
        )
        wait_until(lambda: self.run("docker", "version", check=False).returncode == 0, START_SECONDS)

    def load_image(self):
        image = self.folder / "image.tar"
        write_image(image)
        self.docker("load", "--input", image)

    def docker(self, *words):
        return self.run("docker", *words).stdout

    def run_container(self, name, command):
        """Run a container; returns its address."""
        self.docker("run", "--detach", "--stop-signal=KILL", f"--name={name}", IMAGE, *command)
        return self.docker("inspect", "--format={{.NetworkSettings.IPAddress}}", name).strip()


class DockerCluster(Cluster):
    def add_node(self):
        node = DockerNode(self, len(self.nodes) + 11, self._make_namespace())
        self.nodes.append(node)
        return node


@pytest.fixture
def cluster(make_namespace, tmp_path):
    for program, package in (("dockerd", "docker.io"), ("containerd", "containerd"), ("runc", "runc")):
        if shutil.which(program) is None:
            pytest.skip(f"no {program}: apt-get install {package}")
    if not BUSYBOX.exists():
        pytest.skip(f"no {BUSYBOX}: apt-get install busybox-static")
    if shutil.which("iptables") is None:
        pytest.skip("no iptables, which Docker writes its rules with: apt-get install iptables")
    cluster = DockerCluster(make_namespace, tmp_path)
    cluster.start_etcd()
    yield cluster
    cluster.close()


def start_pair(cluster, backend, *, nftables=False):
    config = {"Network": "10.5.0.0/16", "EnableNFTables": nftables, "Backend": {"Type": backend}}
    cluster.set_config(json.dumps(config))
    nodes = [cluster.add_node(), cluster.add_node()]
    for node in nodes:
        # Docker was there first, has turned forwarding on and has it refused to all but itself.
        node.start_docker()
        node.load_image()
        node.end("dockerd")
        node.start_flanneld()
        node.start_docker(*node.options())
    return nodes


@pytest.mark.parametrize("backend", DEVICES)
def test_containers_of_two_nodes_reach_each_other_behind_dockers_rules(cluster, backend):
    device, mtu = DEVICES[backend]
    nodes = start_pair(cluster, backend)
    web = {node: node.run_container("web", SERVE) for node in nodes}
    client = {node: node.run_container("client", FOREVER) for node in nodes}
    for node, other in (nodes, reversed(nodes)):
        assert node.subnet in node.addresses(node.index("docker0"))
        assert ip_address(web[node]) in ip_network(node.subnet, strict=False)
        assert node.docker("exec", "client", "/busybox", "cat", "/sys/class/net/eth0/mtu") == f"{mtu}\n"
        assert "-P FORWARD DROP" in node.run("iptables", "-S", "FORWARD").stdout
        wait_until(lambda node=node, other=other: device in node.ip(f"route get {web[other]}").split())
    assert not any(node.found() for node in nodes)
    for node in nodes:
        for other in nodes:
            seen = node.docker("exec", "client", "/busybox", "nc", "-w", "10", web[other], PORT)
            assert re.search(rf"{web[other]}:{PORT} +(::ffff:)?{client[node]}:\d+ ", seen), seen


def test_dockers_rules_are_named_where_ours_cannot_accept_for_them(cluster):
    """In nftables a packet that our table accepts still meets Docker's policy, which is iptables'."""
    nodes = start_pair(cluster, "vxlan", nftables=True)
    web = {node: node.run_container("web", SERVE) for node in nodes}
    for node in nodes:
        node.run_container("client", FOREVER)

    def reaches(node, other):
        words = ("docker", "exec", "client", "/busybox", "nc", "-w", "2", web[other], PORT)
        return web[other] in node.run(*words, check=False).stdout

    ways = [(node, other) for node in nodes for other in nodes if node is not other]
    assert not any(reaches(*way) for way in ways)
    for node in nodes:
        found = node.found()
        assert found.keys() == {"forward-policy"}
        for command in found["forward-policy"]["mend"]:
            node.run("sh", "-ec", command)
        assert node.found() == {}
    wait_until(lambda: all(reaches(*way) for way in ways))
