"""What can be broken in a running lab, and mended again: each fault by its name, done at once from inside the lab."""

import signal
from collections.abc import Callable
from dataclasses import dataclass

from netns_lab.errors import LabError, UsageError
from netns_lab.etcd import member_program, start_member
from netns_lab.folder import LabFolder
from netns_lab.node import daemon_program, start_daemon
from netns_lab.places import node_place, plain_place
from netns_lab.processes import run_to_end
from netns_lab.routes import read_routes
from netns_lab.topology import ROUTER, EtcdMember, Topology
from netns_lab.traffic import read_tunnels

SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Lab:
    """The lab that faults are done to."""

    folder: LabFolder
    topology: Topology


@dataclass(frozen=True, slots=True)
class Fault:
    """Something done to a node or to an etcd member; `label` names it on a button."""

    label: str
    act: Callable[[Lab, str], None]


def do_fault(lab: Lab, name: str, target: str) -> str:
    """Do a fault to a node or an etcd member, and return what was done. Raises LabError."""
    for kind, faults, targets in (
        ("node", NODE_FAULTS, [node.name for node in lab.topology.nodes]),
        ("etcd member", MEMBER_FAULTS, [member.name for member in lab.topology.etcd]),
    ):
        if name in faults:
            if target not in targets:
                raise UsageError(f"{target!r} is no {kind} of this lab; there are {', '.join(targets)}")
            faults[name].act(lab, target)
            return f"{target}: {faults[name].label}"
    raise UsageError(f"no fault is named {name!r}; there are {', '.join([*NODE_FAULTS, *MEMBER_FAULTS])}")


def _set_port(state: str) -> Callable[[Lab, str], None]:
    """Cut or mend the cable at the router: the node sees its uplink without or with a carrier."""

    def act(_: Lab, node: str) -> None:
        # By `ip`, not by netlink: pyroute2 cannot run where an event loop does, as in the page's server.
        done = run_to_end(["ip", "link", "set", node, state], plain_place(ROUTER), seconds=SECONDS)
        if done.returncode != 0:
            raise LabError(f"the router's port to {node} cannot be set {state}: {done.stderr.strip()}")

    return act


def _kill_daemon(lab: Lab, node: str) -> None:
    daemon_program(lab.folder, lab.topology.find_node(node)).end(signal.SIGKILL)


def _start_daemon(lab: Lab, name: str) -> None:
    node = lab.topology.find_node(name)
    if daemon_program(lab.folder, node).pid() is None:
        start_daemon(lab.folder, lab.topology, node)


def _delete_device(_: Lab, node: str) -> None:
    for device in read_tunnels(node_place(node).network):
        _run_on(node, "ip", "link", "del", device)


def _flush_tables(_: Lab, node: str) -> None:
    for route in read_routes(node_place(node).network):
        if route.gateway is not None and route.destination.prefixlen:
            # One by one: `ip route flush` fails on routes that have a nexthop object (iproute2 6.1).
            _run_on(node, "ip", "route", "del", str(route.destination))
    for device in read_tunnels(node_place(node).network):
        _run_on(node, "ip", "neigh", "flush", "nud", "permanent", "dev", device)


def _run_on(node: str, *command: str) -> None:
    """Run a command on a node; that there is nothing left for it to do is no failure."""
    run_to_end(command, node_place(node), seconds=SECONDS)


def _find_member(lab: Lab, name: str) -> EtcdMember:
    return next(member for member in lab.topology.etcd if member.name == name)


def _kill_member(lab: Lab, name: str) -> None:
    member_program(lab.folder, _find_member(lab, name)).end(signal.SIGKILL)


def _start_member(lab: Lab, name: str) -> None:
    member = _find_member(lab, name)
    if member_program(lab.folder, member).pid() is None:
        start_member(lab.folder, lab.topology, member)


NODE_FAULTS = {
    "cut-link": Fault("cut the link", _set_port("down")),
    "mend-link": Fault("mend the link", _set_port("up")),
    "kill-daemon": Fault("kill the daemon", _kill_daemon),
    "start-daemon": Fault("start the daemon", _start_daemon),
    "delete-device": Fault("delete the tunnel device", _delete_device),
    "flush-tables": Fault("flush its routes and neighbours", _flush_tables),
}
MEMBER_FAULTS = {
    "kill-etcd": Fault("kill etcd", _kill_member),
    "start-etcd": Fault("start etcd", _start_member),
}
