"""A cluster of real nodes: Kubernetes' own API server, controllers and scheduler, and on each node its kubelet."""

import json
import subprocess
from ipaddress import ip_network

from netns_lab.kube_apiserver import ADMIN, SERVICE_RANGE, find_kubernetes
from tests.kube_server import KubeServer
from tests.kubernetes.real_node import RealNode
from tests.store.etcd_server import EtcdServer
from tests.test_daemon import HUB, Cluster

NETWORK = "10.244.0.0/16"


class KubernetesCluster(Cluster):
    """Its hub holds all that is no node's."""

    network = NETWORK

    def __init__(self, make_namespace, folder, *more_networks):
        """Nodes get a podCIDR of NETWORK, and one of each of the other networks."""
        super().__init__(make_namespace, folder)
        etcd = folder / "kube-etcd"
        etcd.mkdir()
        self.kube = KubeServer(folder / "kube", HUB, EtcdServer(etcd))
        self._programs = []
        self._more_networks = more_networks
        self.admin = folder / "admin"
        self.net_config = json.dumps({"Network": NETWORK, "Backend": {"Type": "vxlan"}})

    def start(self):
        self.namespace.run(self.kube.start)
        api = self.kube.api
        self.admin.write_text(api.kubeconfig(ADMIN))
        common = (f"--kubeconfig={self.admin}", "--leader-elect=false", "--profiling=false")
        self._launch(
            "kube-controller-manager",
            *common,
            "--allocate-node-cidrs",
            f"--cluster-cidr={','.join((NETWORK, *self._more_networks))}",
            f"--service-cluster-ip-range={SERVICE_RANGE}",
            f"--service-account-private-key-file={api.folder / 'accounts.key'}",
            f"--root-ca-file={api.ca}",
            "--node-monitor-period=1s",
        )
        self._launch("kube-scheduler", *common)

    def serve_in_cluster(self):
        """Have the API server behind the address by which pods call it; it knows no endpoint of itself here."""
        port = self.kube.api.port
        self.apply(
            {
                "apiVersion": "discovery.k8s.io/v1",
                "kind": "EndpointSlice",
                "metadata": {"name": "kubernetes", "labels": {"kubernetes.io/service-name": "kubernetes"}},
                "addressType": "IPv4",
                "endpoints": [{"addresses": [HUB], "conditions": {"ready": True}}],
                "ports": [{"name": "https", "port": port, "protocol": "TCP"}],
            }
        )

    def _launch(self, name, *words):
        with (self.folder / f"{name}.log").open("wb") as log:
            command = [find_kubernetes(name), *words]
            self._programs.append(
                self.namespace.run(lambda: subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log))
            )

    def ask(self, work, *args):
        return self.namespace.run(work, *args)

    def add_node(self):
        """Have a node on which kubelet runs, without a network for pods so far."""
        node = RealNode(self, len(self.nodes) + 11, self._make_namespace())
        self.nodes.append(node)
        node.start_containerd()
        node.start_kubelet()
        return node

    def apply(self, *objects):
        self.kubectl("apply", "-f", "-", given="\n---\n".join(map(json.dumps, objects)))

    def pod_cidr(self, node):
        return ip_network(self.get("node", node.name)["spec"]["podCIDR"])

    def is_ready(self, node):
        return self.conditions("node", node.name)["Ready"][0] == "True"

    def kubectl(self, *words, given=None, check=True):
        """Run kubectl as an admin; returns what it wrote."""
        command = [find_kubernetes("kubectl"), f"--kubeconfig={self.admin}", *map(str, words)]
        done = self.namespace.run(
            lambda: subprocess.run(command, input=given, capture_output=True, text=True, check=False)
        )
        assert not check or done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
        return done.stdout

    def get(self, kind, name, *words):
        return json.loads(self.kubectl("get", kind, name, "-o", "json", *words))

    def pods(self, app):
        """The pods of an app that are not going, by node."""
        found = self.get("pods", "-A", f"-lapp={app}")["items"]
        return {pod["spec"]["nodeName"]: pod for pod in found if "deletionTimestamp" not in pod["metadata"]}

    def conditions(self, kind, name):
        """What holds of an object, as `type → (status, reason)`."""
        found = self.get(kind, name).get("status", {}).get("conditions", [])
        return {one["type"]: (one["status"], one.get("reason", "")) for one in found}

    def close(self):
        for node in self.nodes:
            node.close()
        for program in reversed(self._programs):
            program.terminate()
            program.wait(20)
        self.kube.close()
