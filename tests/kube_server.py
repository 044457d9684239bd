"""A real kube-apiserver on an etcd of its own, and an admin's hands in it that are not our client's."""

import http.client
import json
import ssl
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import pytest
import yaml

from netns_lab.errors import LabError
from netns_lab.kube_apiserver import ADMIN, FLANNEL, ApiServer, find_kubernetes
from netns_lab.kube_nodes import PREFIX, delete_request, fake_node, node_object, put_request
from tests.store.etcd_server import EtcdServer, free_ports

START_SECONDS = 60.0
SERVICE_ADDRESS = "10.96.0.1"  # what the API server calls itself by in its cluster
MANIFESTS = Path(__file__).parent.parent / "deploy" / "kubernetes"


class KubeServer:
    """An API server; its address, certificates and tokens stay the same over restarts."""

    def __init__(self, folder, host="127.0.0.1", etcd=None):
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        try:
            self._program = find_kubernetes("kube-apiserver")
        except LabError as error:
            pytest.skip(str(error))
        self.etcd = etcd or EtcdServer(folder)
        self.api = ApiServer(folder / "kube", host, free_ports(1)[0])
        self.api.write_secrets(["localhost", SERVICE_ADDRESS])
        self.kubeconfig = folder / "kubeconfig"
        self.kubeconfig.write_text(self.api.kubeconfig(FLANNEL))
        self._process = None

    def start(self):
        self.etcd.start()
        self.launch()
        self.apply_rbac()

    def launch(self):
        with (self.folder / "kube-apiserver.log").open("ab") as log:
            self._process = subprocess.Popen(
                self.api.command(self._program, self.etcd.url), stdout=log, stderr=log, stdin=subprocess.DEVNULL
            )
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                break
            with suppress(OSError):
                if self.ask("GET", "/readyz")[0] == 200:
                    return
            time.sleep(0.05)
        log = (self.folder / "kube-apiserver.log").read_text()
        pytest.fail(f"kube-apiserver is not ready: {log[-2000:]}")

    def stop(self):
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def close(self):
        self.stop()
        self.etcd.stop()

    def ask(self, method, path, body=None, kind="application/json", user=ADMIN):
        """One request; returns status and what was answered, parsed where it is JSON."""
        context = ssl.create_default_context(cafile=str(self.api.ca))
        connection = http.client.HTTPSConnection(self.api.host, self.api.port, context=context, timeout=30)
        try:
            headers = {"Authorization": f"Bearer {self.api.token(user)}", "Content-Type": kind}
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            answer = connection.getresponse()
            text = answer.read()
        finally:
            connection.close()
        return answer.status, json.loads(text) if text.startswith(b"{") else text.decode()

    def do(self, method, path, body=None, kind="application/json"):
        status, answer = self.ask(method, path, body, kind)
        assert status in range(200, 300), (method, path, status, answer)
        return answer

    def apply_rbac(self):
        self.do("POST", "/api/v1/namespaces", {"metadata": {"name": "kube-flannel"}})
        for document in yaml.safe_load_all((MANIFESTS / "base" / "rbac.yaml").read_text()):
            self.do("POST", collection_of(document), document)

    def node(self, name):
        return self.do("GET", f"/api/v1/nodes/{name}")

    def nodes(self):
        return {node["metadata"]["name"]: node for node in self.do("GET", "/api/v1/nodes")["items"]}

    def add_node(self, name, *cidrs, annotations=None):
        return self.do("POST", "/api/v1/nodes", node_object(name, cidrs, annotations))

    def annotate(self, name, **annotations):
        """Set annotations, `_` standing for `-`; None takes one away."""
        named = {key.replace("_", "-"): text for key, text in annotations.items()}
        self.patch(name, {"metadata": {"annotations": prefixed(named)}})

    def patch(self, name, patch, part=""):
        self.do("PATCH", f"/api/v1/nodes/{name}{part}", patch, "application/strategic-merge-patch+json")

    def delete_node(self, name):
        self.do("DELETE", f"/api/v1/nodes/{name}")

    def forget_nodes(self):
        self.do("DELETE", "/api/v1/nodes")

    def write_fakes(self, count):
        """Make Nodes by the thousand, behind the API server's back."""
        self._ask_etcd("/v3/kv/put", (put_request(fake_node(number)) for number in range(count)))

    def delete_fakes(self, count):
        self._ask_etcd("/v3/kv/deleterange", (delete_request(fake_node(number)) for number in range(count)))

    def spend_versions(self, count):
        self._ask_etcd("/v3/kv/put", [{"key": "L29uZQ==", "value": ""}] * count)

    def _ask_etcd(self, path, bodies):
        connection = http.client.HTTPConnection(self.etcd.url.removeprefix("http://"), timeout=30)
        try:
            for body in bodies:
                connection.request("POST", path, json.dumps(body))
                answer = connection.getresponse()
                assert answer.status == 200, answer.read()
                answer.read()
        finally:
            connection.close()

    def annotations(self, name):
        found = self.node(name)["metadata"].get("annotations", {})
        return {key.removeprefix(PREFIX): text for key, text in found.items() if key.startswith(PREFIX)}


def prefixed(annotations):
    return {PREFIX + name: text for name, text in annotations.items()}


def collection_of(document):
    """The path under which objects of a document's kind are made."""
    group = document["apiVersion"]
    base = f"/apis/{group}" if "/" in group else f"/api/{group}"
    namespace = document["metadata"].get("namespace")
    kind = document["kind"].lower()
    plural = f"{kind[:-1]}ies" if kind.endswith("y") else f"{kind}{'es' if kind.endswith('s') else 's'}"
    return f"{base}/namespaces/{namespace}/{plural}" if namespace else f"{base}/{plural}"
