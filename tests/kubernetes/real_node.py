"""A node as a real one is: kubelet and containerd, a file system that it writes to by itself, and our daemon.

Everything is in the test's own namespaces. The settings of the machine that kubelet insists on are files here, of which
it only sees that they are as it wants them.
"""

import http.client
import os
from contextlib import closing, suppress
from pathlib import Path

import pytest

from netns_lab.kube_apiserver import ADMIN, FLANNEL, find_kubernetes
from tests.cni_plugin.containerd import write_config
from tests.cni_plugin.pod_image import write_image
from tests.conftest import Namespace
from tests.node_with_files import NodeWithFiles
from tests.test_daemon import FLANNELD, HEALTH_PORT
from tests.waiting import wait_until

SOCKET = "/run/containerd/containerd.sock"
START_SECONDS = 60
PROXY_PORT = 10256
_NOT_OF_THE_MACHINE = (
    "/etc/cni",
    "/opt/cni",
    "/var/lib/cni",
    "/var/lib/kubelet",
    "/var/log/pods",
    "/var/log/containers",
)
_PLUGINS = (Path(__file__).parents[2] / ".cache" / "peers" / "cni", Path("/usr/lib/cni"))
_SETTINGS = {
    "vm/overcommit_memory": 1,
    "vm/panic_on_oom": 0,
    "kernel/panic": 10,
    "kernel/panic_on_oops": 1,
    "kernel/keys/root_maxkeys": 1_000_000,
    "kernel/keys/root_maxbytes": 25_000_000,
}
_KUBELET = f"""\
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication: {{anonymous: {{enabled: true}}, webhook: {{enabled: false}}}}
authorization: {{mode: AlwaysAllow}}
cgroupDriver: cgroupfs
cgroupsPerQOS: false
enforceNodeAllocatable: []
failCgroupV1: false
failSwapOn: false
protectKernelDefaults: true
oomScoreAdj: 0
localStorageCapacityIsolation: false
containerRuntimeEndpoint: unix://{SOCKET}
resolvConf: ""
featureGates: {{KubeletInUserNamespace: true}}
nodeStatusUpdateFrequency: 2s
syncFrequency: 5s
evictionHard: {{nodefs.available: "0%", imagefs.available: "0%"}}
"""


class RealNode(NodeWithFiles):
    """A node of a KubernetesCluster."""

    def __init__(self, cluster, number, namespace):
        prepare = [f"rm -rf {' '.join(_NOT_OF_THE_MACHINE)}"]
        for setting, value in _SETTINGS.items():
            file = cluster.folder / f"node{number}.{setting.replace('/', '.')}"
            file.write_text(f"{value}\n")
            prepare.append(f"mount --bind '{file}' /proc/sys/{setting}")
        super().__init__(cluster, number, namespace, *prepare)

    def _make_uplink(self, ipr):
        super()._make_uplink(ipr)
        ipr.addr("add", index=ipr.link_lookup(ifname="eth0")[0], address=self.address6, prefixlen=64, flags=0x02)

    @property
    def address6(self):
        return f"fd30::{self.number}"

    def start_containerd(self):
        config = write_config(self.folder, SOCKET, "/opt/cni/bin", "/etc/cni/net.d", "overlayfs")
        self.launch("containerd", "containerd", "--config", config)
        wait_until(lambda: self.ctr("version", check=False).returncode == 0)
        image = self.folder / "image.tar"
        write_image(image)
        self.import_image(image)

    def ctr(self, *words, check=True):
        return self.run("ctr", "--address", SOCKET, "--namespace", "k8s.io", *words, check=check)

    def import_image(self, path):
        self.ctr("images", "import", "--snapshotter", "overlayfs", path)

    def start_kubelet(self):
        kubeconfig, config = self.folder / "kubeconfig", self.folder / "kubelet.yaml"
        kubeconfig.write_text(self.cluster.kube.api.kubeconfig(ADMIN))
        config.write_text(_KUBELET)
        self.launch(
            "kubelet",
            find_kubernetes("kubelet"),
            f"--kubeconfig={kubeconfig}",
            f"--config={config}",
            f"--hostname-override={self.name}",
            f"--node-ip={self.address},{self.address6}",
        )
        wait_until(lambda: self.name in self.cluster.ask(self.cluster.kube.nodes), START_SECONDS)

    def start_flanneld(self, *words):
        net_config, kubeconfig = self.folder / "net-conf.json", self.folder / "flannel.kubeconfig"
        net_config.write_text(self.cluster.net_config)
        kubeconfig.write_text(self.cluster.kube.api.kubeconfig(FLANNEL))
        self.launch(
            "flanneld",
            FLANNELD,
            "--kube-subnet-mgr",
            f"--kubeconfig-file={kubeconfig}",
            f"--net-config-path={net_config}",
            f"--healthz-port={HEALTH_PORT}",
            *words,
            NODE_NAME=self.name,
        )
        wait_until(lambda: self.answers(HEALTH_PORT, "/readyz"))

    def answers(self, port, path):
        """Whether what serves on a port of the node's loopback says that it is well."""

        def ask():
            with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=5)) as connection:
                connection.request("GET", path)
                return connection.getresponse().status == http.client.OK

        with suppress(OSError):
            return self.namespace.run(ask)
        return False

    def install_loopback(self):
        """Have the genuine plugin for loopback, which containerd uses for every pod."""
        found = [folder / "loopback" for folder in _PLUGINS if (folder / "loopback").exists()]
        if not found:
            pytest.skip("no loopback plugin: make peers, or apt-get install containernetworking-plugins")
        self.run("mkdir", "-p", "/opt/cni/bin")
        self.run("cp", found[0], "/opt/cni/bin")

    def install_plugin(self):
        self.install_loopback()
        self.run(FLANNELD.with_name("flannelctl"), "cni", "install")

    def start_kube_proxy(self, mode):
        self.launch(
            "kube-proxy",
            find_kubernetes("kube-proxy"),
            f"--kubeconfig={self.folder / 'kubeconfig'}",
            f"--hostname-override={self.name}",
            f"--proxy-mode={mode}",
            f"--cluster-cidr={self.cluster.network}",
            "--conntrack-max-per-core=0",
            "--conntrack-min=0",
        )
        wait_until(lambda: self.answers(PROXY_PORT, "/healthz"))

    def end_kube_proxy(self):
        """End it and take its rules away, which it leaves in place."""
        self.end("kube-proxy")
        self.run(find_kubernetes("kube-proxy"), "--cleanup")

    def held(self):
        """The addresses that the node's pods have."""
        folder = self.file("/var/lib/cni/networks/cbr0")
        return {file.name for file in folder.iterdir() if file.name[0].isdigit()} if folder.exists() else set()

    def statuses_of(self, name):
        """What the kernel says of each of the node's processes of that name (proc_pid_status(5))."""
        own = Path(self.namespace.path).stat().st_ino
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            with suppress(FileNotFoundError, ProcessLookupError):  # it has ended in the meantime
                lines = (folder / "status").read_text().splitlines()
                status = {key: text.strip() for key, _, text in (line.partition(":") for line in lines)}
                if status["Name"] == name and (folder / "ns/net").stat().st_ino == own:
                    found.append(status)
        return found

    def namespace_of(self, pod):
        """The network namespace of a running pod of this node; to be closed."""
        container = pod["status"]["containerStatuses"][0]["containerID"].removeprefix("containerd://")
        lines = self.ctr("tasks", "ls").stdout.splitlines()
        [process] = [line.split()[1] for line in lines if line.startswith(container)]
        return PodNamespace(process)


class PodNamespace(Namespace):
    """The network namespace of a pod's process."""

    def __init__(self, process):
        self.fd = os.open(f"/proc/{process}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
