"""How a lab comes to be, in order, and how it ends."""

import json
from collections.abc import Callable, Mapping

from netns_lab.boundary import Holder, Leash, end_holder, read_holder, run_inside, start_holder
from netns_lab.errors import EXIT_OK, LabError, NoLabError
from netns_lab.etcd import CONFIG_KEY, endpoints, start_etcd
from netns_lab.etcd_keys import put
from netns_lab.folder import INSIDE, LabFolder
from netns_lab.kubernetes import api_server, start_kubernetes
from netns_lab.node import make_node, start_daemon, wait_for_daemon
from netns_lab.pods import add_pod
from netns_lab.topology import Topology, parse_topology
from netns_lab.underlay import build_router

Say = Callable[[str], None]
TopologyValues = Mapping[str, object]


class BuildError(LabError):
    """The lab could not be built; what went wrong is said already."""


def bring_up(folder: LabFolder, values: TopologyValues, say: Say) -> Leash:
    """Make the lab that a topology file's values describe. Whatever goes wrong, nothing of it is left."""
    topology = parse_topology(values)
    clear_ended(folder)
    folder.create()
    try:
        folder.topology.write_text(json.dumps(values))
        leash = start_holder(folder)
        require_built(run_inside(leash.holder, lambda: build(topology, say)))
    except BaseException:
        take_down(folder)
        raise
    return leash


def require_built(status: int) -> None:
    """Raise BuildError unless the status is that of success."""
    if status != EXIT_OK:
        raise BuildError("the lab is not up; nothing of it is left")


def clear_ended(folder: LabFolder) -> None:
    """Remove what a lab that has ended left. Raises LabError if it lives."""
    if folder.root.exists():
        try:
            read_holder(folder)
        except NoLabError:
            folder.remove()
        else:
            raise LabError(f"there is a lab at {folder.root} already: netns-lab down ends it")


def take_down(folder: LabFolder) -> None:
    """End the lab and remove its folder. Raises NoLabError if there is none."""
    if not folder.root.exists():
        raise NoLabError(f"there is no lab at {folder.root}")
    if folder.holder.exists():
        end_holder(Holder(**json.loads(folder.holder.read_text())))
    folder.remove()


def build(topology: Topology, say: Say) -> int:
    """Inside the new lab: wires, etcd, nodes with their daemons, pods. Raises LabError or OSError."""
    folder = LabFolder(INSIDE)
    build_router(topology)
    for node in topology.nodes:
        make_node(folder, topology, node)
    say(f"{len(topology.nodes)} nodes on {len(topology.underlays)} underlay subnets are wired to the router")
    start_etcd(folder, topology)
    if topology.kubernetes:
        start_kubernetes(folder, topology)
        say(f"kube-apiserver serves at {api_server(folder, topology).url} and has a Node for each node")
    else:
        put(topology, CONFIG_KEY, json.dumps(topology.network))
        say(f"etcd serves at {endpoints(topology)} and holds the network's configuration")
    for node in topology.nodes:
        start_daemon(folder, topology, node)
    for node in topology.nodes:
        wait_for_daemon(folder, node)
        say(f"the daemon on {node.name} is ready")
    _build_pods(folder, topology, say)
    return EXIT_OK


def _build_pods(folder: LabFolder, topology: Topology, say: Say) -> None:
    folder.pods.mkdir()
    for node in topology.nodes:
        for name in node.pods:
            pod = add_pod(folder, name, node)
            say(f"{name} on {node.name} has {' and '.join(pod.addresses)}")
