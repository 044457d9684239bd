"""The demonstration: a lab of its own from start to end, with the ping matrix and one node's kernel explained."""

from collections.abc import Sequence

from netns_lab.boundary import run_inside
from netns_lab.errors import WaitedInVainError
from netns_lab.explain import Cluster, explain, read_kernel
from netns_lab.folder import INSIDE, LabFolder
from netns_lab.matrix import EndPoint, ping_matrix
from netns_lab.names import pod_end_points
from netns_lab.node import read_subnets
from netns_lab.places import node_place
from netns_lab.pods import read_pods
from netns_lab.report import show, show_matrix
from netns_lab.topology import Topology, parse_topology
from netns_lab.up import Say, TopologyValues, bring_up, take_down
from netns_lab.waiting import wait_until

ROUNDS = 5
SETTLE_SECONDS = 5.0


def demonstrate(folder: LabFolder, values: TopologyValues, say: Say) -> int:
    """Make a lab, show that every pod reaches every other and by what, and remove it all, whatever happens."""
    topology = parse_topology(values)
    leash = bring_up(folder, values, say)
    try:
        return run_inside(leash.holder, lambda: present(topology, say))
    finally:
        take_down(folder)
        say("the lab is removed")


def await_reach(end_points: Sequence[EndPoint], say: Say) -> None:
    """Give the nodes a moment to hear of each other's leases; if that does not do, the matrix will show it."""
    try:
        wait_until("every pod to answer", lambda: all(pair.mean for pair in ping_matrix(end_points, 1)), SETTLE_SECONDS)
    except WaitedInVainError as error:
        say(str(error))


def present(topology: Topology, say: Say) -> int:
    """Inside the lab: the matrix, then the explanation. Returns the exit status."""
    folder = LabFolder(INSIDE)
    end_points = pod_end_points(read_pods(folder))
    await_reach(end_points, say)
    say(f"every pod pings every other, {ROUNDS} times")
    status = show_matrix(end_points, ROUNDS)
    node = topology.nodes[0].name
    cluster = Cluster(
        addresses={address.ip: node.name for node in topology.nodes for address in node.addresses},
        subnets={subnet: node.name for node in topology.nodes for subnet in read_subnets(folder, node)},
    )
    show(f"\nWhat the kernel of {node} holds for this:")
    show(*(f"  {line}" for line in explain(read_kernel(node_place(node).network), cluster, node)))
    return status
