"""The lab's Kubernetes: a real API server beside etcd, a Node with podCIDRs for each node, and fakes by the thousand.

The daemons come to it by a kubeconfig with an admin's rights.
"""

import http.client
import json
import ssl
from ipaddress import ip_network
from itertools import islice
from typing import Any

from netns_lab.errors import LabError
from netns_lab.etcd import endpoints
from netns_lab.folder import LabFolder
from netns_lab.kube_apiserver import ADMIN, ApiServer, find_kubernetes
from netns_lab.kube_nodes import delete_request, fake_count_request, fake_node, node_object, put_request
from netns_lab.namespaces import in_network
from netns_lab.places import plain_place
from netns_lab.processes import Program
from netns_lab.topology import ETCD, IPV4, IPV6, EtcdMember, Node, Topology, families_of
from netns_lab.waiting import wait_until

PORT = 6443
START_SECONDS = 60.0
CALL_SECONDS = 10.0
KUBECONFIG = "kubernetes/kubeconfig"  # under the node's /run
NET_CONFIG = "kubernetes/net-conf.json"
_KEYS = {IPV4: ("network", "subnetlen", 24), IPV6: ("ipv6network", "ipv6subnetlen", 64)}


def api_server(folder: LabFolder, topology: Topology) -> ApiServer:
    """Return where the API server is."""
    return ApiServer(folder.root / "kubernetes", str(topology.etcd[0].address.ip), PORT)


def api_program(folder: LabFolder) -> Program:
    """Return the API server's process."""
    return Program("kube-apiserver", folder.root / "kubernetes")


def start_kubernetes(folder: LabFolder, topology: Topology) -> None:
    """Start the API server and make the nodes' Nodes. Raises LabError."""
    server, program = api_server(folder, topology), api_program(folder)
    server.write_secrets()
    program.start(server.command(find_kubernetes("kube-apiserver"), endpoints(topology)), plain_place(ETCD))

    def ready() -> bool:
        program.require()
        try:
            return ask(server, "GET", "/readyz")[0] == http.client.OK
        except OSError:
            return False

    wait_until(f"kube-apiserver at {server.url} to be ready", ready, START_SECONDS)
    for number, node in enumerate(topology.nodes, 1):
        status, told = ask(server, "POST", "/api/v1/nodes", node_object(node.name, pod_cidrs(topology, number)))
        if status != http.client.CREATED:
            raise LabError(f"kube-apiserver: making Node {node.name}: {status} {told}")
        _write_files(folder, topology, node, server)


def pod_cidrs(topology: Topology, number: int) -> list[str]:
    """Return the podCIDRs of the node with that number from 1: each family's subnet of that number."""
    folded = {key.lower(): value for key, value in topology.network.items()}
    cidrs = []
    for family in families_of(topology.network):
        network_key, length_key, length = _KEYS[family]
        subnets = ip_network(str(folded[network_key])).subnets(new_prefix=int(str(folded.get(length_key, length))))
        cidrs.append(str(next(islice(subnets, number, None))))
    return cidrs


def _write_files(folder: LabFolder, topology: Topology, node: Node, server: ApiServer) -> None:
    run = folder.node(node.name) / "run"
    (run / KUBECONFIG).parent.mkdir(mode=0o700)
    (run / KUBECONFIG).write_text(server.kubeconfig(ADMIN))
    (run / NET_CONFIG).write_text(json.dumps(topology.network))


def daemon_words(node: Node, command: tuple[str, ...]) -> tuple[str, ...]:
    """Return the command line of a node's daemon up to the flags that every store has."""
    return (
        "env",
        f"NODE_NAME={node.name}",
        *command,
        "--kube-subnet-mgr",
        f"--kubeconfig-file=/run/{KUBECONFIG}",
        f"--net-config-path=/run/{NET_CONFIG}",
    )


def ask(server: ApiServer, method: str, path: str, body: dict[str, Any] | None = None) -> tuple[int, str]:
    """One request to the API server, from beside it; returns status and text. Raises OSError."""
    context = ssl.create_default_context(cafile=str(server.ca))
    connection = http.client.HTTPSConnection(server.host, server.port, context=context, timeout=CALL_SECONDS)
    try:
        with in_network(plain_place(ETCD).network):
            connection.connect()
        headers = {"Authorization": f"Bearer {server.token(ADMIN)}", "Content-Type": "application/json"}
        connection.request(method, path, None if body is None else json.dumps(body), headers)
        answer = connection.getresponse()
        return answer.status, answer.read().decode(errors="replace")
    except http.client.HTTPException as error:
        raise LabError(f"kube-apiserver: {path}: {error}") from error
    finally:
        connection.close()


def write_fakes(member: EtcdMember, count: int) -> None:
    """Have so many fake Nodes, written straight into etcd. Raises LabError or OSError."""
    connection = http.client.HTTPConnection(str(member.address.ip), 2379, timeout=CALL_SECONDS)
    with in_network(plain_place(ETCD).network):
        connection.connect()
    try:
        there = _count_fakes(connection)
        for number in range(there, count):
            _post(connection, "/v3/kv/put", put_request(fake_node(number)))
        for number in range(count, there):
            _post(connection, "/v3/kv/deleterange", delete_request(fake_node(number)))
    finally:
        connection.close()


def _count_fakes(connection: http.client.HTTPConnection) -> int:
    return int(_post(connection, "/v3/kv/range", fake_count_request()).get("count", 0))


def _post(connection: http.client.HTTPConnection, path: str, body: dict[str, Any]) -> dict[str, Any]:
    connection.request("POST", path, json.dumps(body))
    answer = connection.getresponse()
    text = answer.read().decode(errors="replace")
    if answer.status != http.client.OK:
        raise LabError(f"etcd: {path}: {answer.status} {text.strip()}")
    told: dict[str, Any] = json.loads(text)
    return told
