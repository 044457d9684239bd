"""A node: its namespaces, its uplink, and the daemon on it, ours or the one that the topology names."""

import http.client
from ipaddress import ip_interface
from pathlib import Path

from netns_lab.errors import LabError, WaitedInVainError
from netns_lab.etcd import endpoints
from netns_lab.etcd_security import daemon_flags
from netns_lab.folder import LabFolder
from netns_lab.kubernetes import daemon_words
from netns_lab.namespaces import in_network
from netns_lab.places import make_node_place, node_place
from netns_lab.processes import Program
from netns_lab.programs import find_program
from netns_lab.topology import Node, Subnet, Topology
from netns_lab.underlay import plug_in
from netns_lab.waiting import wait_until

SUBNET_FILE = Path("flannel/subnet.env")  # under the node's /run
HEALTH_PORT = 8081
READY_SECONDS = 30.0
CALL_SECONDS = 2.0
SUBNET_KEYS = ("FLANNEL_SUBNET", "FLANNEL_IPV6_SUBNET")


def daemon_program(folder: LabFolder, node: Node) -> Program:
    """Return the daemon's process."""
    return Program(f"flanneld on {node.name}", folder.node(node.name))


def subnet_file(folder: LabFolder, node: Node) -> Path:
    """Return the node's subnet.env, as the lab sees it."""
    return folder.node(node.name) / "run" / SUBNET_FILE


def read_subnet_file(folder: LabFolder, node: Node) -> dict[str, str]:
    """Return what the node's daemon has written for its pods; nothing if it has not yet."""
    try:
        lines = subnet_file(folder, node).read_text().splitlines()
    except FileNotFoundError:
        return {}
    return dict(line.partition("=")[::2] for line in lines)


def read_subnets(folder: LabFolder, node: Node) -> tuple[Subnet, ...]:
    """Return the subnets that the node's pods get their addresses from, IPv4 first; none if it has none yet."""
    values = read_subnet_file(folder, node)
    return tuple(ip_interface(values[key]).network for key in SUBNET_KEYS if values.get(key))


def make_node(folder: LabFolder, topology: Topology, node: Node) -> None:
    """Make the node and plug it in; nothing runs on it yet."""
    make_node_place(node.name, folder.node(node.name) / "run")
    plug_in(node.name, node_place(node.name).network, node.underlay, node.addresses, topology.mtu)


def start_daemon(folder: LabFolder, topology: Topology, node: Node) -> None:
    """Start the node's daemon. Raises LabError if there is none to start."""
    command = node.daemon or (str(find_program("flanneld")), *(("--on-demand",) if topology.on_demand else ()))
    if topology.kubernetes:
        command = daemon_words(node, command)
    else:
        command = (*command, f"--etcd-endpoints={endpoints(topology)}")
    flags = (
        f"--subnet-file={Path('/run', SUBNET_FILE)}",
        f"--healthz-port={HEALTH_PORT}",
        *(daemon_flags(folder, node) if topology.etcd[0].secure else ()),
    )
    daemon_program(folder, node).start((*command, *flags), node_place(node.name))


def wait_for_daemon(folder: LabFolder, node: Node) -> None:
    """Return once the daemon is ready. Raises LabError with the end of its log."""
    program = daemon_program(folder, node)

    def ready() -> bool:
        program.require()
        return is_ready(folder, node)

    try:
        wait_until(f"{program.name} to be ready", ready, READY_SECONDS)
    except WaitedInVainError as error:
        raise LabError(f"{error}; the end of its log:\n{program.tail()}") from error


def is_ready(folder: LabFolder, node: Node) -> bool:
    """Tell whether the node has its subnet and the daemon says that it is ready."""
    return subnet_file(folder, node).exists() and answers_ready(node)


def answers_ready(node: Node) -> bool:
    """Ask /readyz, from within the node; a daemon that has none is ready when it is healthy."""
    status = ask(node, "/readyz")
    return (ask(node, "/healthz") if status == http.client.NOT_FOUND else status) == http.client.OK


def ask(node: Node, path: str) -> int | None:
    """Return the status of a page of the node's daemon, None if it does not answer."""
    connection = http.client.HTTPConnection("127.0.0.1", HEALTH_PORT, timeout=CALL_SECONDS)
    try:
        with in_network(node_place(node.name).network):
            connection.connect()
        connection.request("GET", path)
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()
