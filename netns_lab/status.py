"""What a running lab consists of at this moment."""

from dataclasses import dataclass

from netns_lab.etcd import is_healthy, member_program
from netns_lab.folder import LabFolder
from netns_lab.node import daemon_program, is_ready, read_subnets
from netns_lab.pods import Pod, read_pods
from netns_lab.topology import Topology


@dataclass(frozen=True, slots=True)
class MemberStatus:
    """An etcd member; pids are the lab's."""

    name: str
    url: str
    pid: int | None
    healthy: bool


@dataclass(frozen=True, slots=True)
class NodeStatus:
    """A node, its daemon and its pods."""

    name: str
    underlay: str
    addresses: tuple[str, ...]
    subnets: tuple[str, ...]
    pid: int | None
    ready: bool
    pods: tuple[Pod, ...]


@dataclass(frozen=True, slots=True)
class LabStatus:
    """A whole lab."""

    etcd: tuple[MemberStatus, ...]
    nodes: tuple[NodeStatus, ...]

    @property
    def good(self) -> bool:
        """Tell whether all that should run does, and is ready."""
        return all(member.healthy for member in self.etcd) and all(node.ready for node in self.nodes)


def read_status(folder: LabFolder, topology: Topology) -> LabStatus:
    """Look at everything once, from inside the lab."""
    pods = read_pods(folder)
    members = tuple(
        MemberStatus(member.name, member.client_url, member_program(folder, member).pid(), is_healthy(member))
        for member in topology.etcd
    )
    nodes = []
    for node in topology.nodes:
        pid = daemon_program(folder, node).pid()
        nodes.append(
            NodeStatus(
                name=node.name,
                underlay=node.underlay.name,
                addresses=tuple(str(address.ip) for address in node.addresses),
                subnets=tuple(map(str, read_subnets(folder, node))),
                pid=pid,
                ready=pid is not None and is_ready(folder, node),
                pods=tuple(pod for pod in pods if pod.node == node.name),
            )
        )
    return LabStatus(members, tuple(nodes))
