"""The names of nodes and pods: the address that each stands for in a command, and the place to run it. Pure."""

from collections.abc import Iterable, Mapping, Sequence

from netns_lab.errors import UsageError
from netns_lab.matrix import EndPoint
from netns_lab.namespaces import Place
from netns_lab.places import node_place, plain_place, pod_place
from netns_lab.pods import Pod
from netns_lab.topology import ETCD, ROUTER, Topology


def addresses(topology: Topology, pods: Iterable[Pod]) -> dict[str, str]:
    """Return the address that each name stands for: a node's in the underlay, a pod's in the overlay."""
    by_node = {node.name: str(node.address.ip) for node in topology.nodes}
    return by_node | {pod.name: pod.addresses[0] for pod in pods}


def substitute(words: Sequence[str], by_name: Mapping[str, str]) -> list[str]:
    """Return a command with every word that is a name replaced by its address; the command's own name stays."""
    return [*words[:1], *(by_name.get(word, word) for word in words[1:])]


def find_place(name: str, topology: Topology, pods: Iterable[Pod]) -> Place:
    """Return the namespaces of a node, a pod, the router or etcd, which all its members share. Raises UsageError."""
    places = {ROUTER: plain_place(ROUTER), ETCD: plain_place(ETCD)}
    places |= {member.name: places[ETCD] for member in topology.etcd}
    places |= {node.name: node_place(node.name) for node in topology.nodes}
    places |= {pod.name: pod_place(pod.name, pod.node) for pod in pods}
    if name not in places:
        raise UsageError(f"{name!r} is not in this lab; there are {', '.join(places)}")
    return places[name]


def pod_end_points(pods: Iterable[Pod]) -> tuple[EndPoint, ...]:
    """All pods, for the ping matrix."""
    return tuple(
        EndPoint(pod.name, address, pod_place(pod.name, pod.node).network) for pod in pods for address in pod.addresses
    )


def node_end_points(topology: Topology) -> tuple[EndPoint, ...]:
    """All nodes in the underlay, for the ping matrix."""
    return tuple(
        EndPoint(node.name, str(address.ip), node_place(node.name).network)
        for node in topology.nodes
        for address in node.addresses
    )
