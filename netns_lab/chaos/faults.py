"""The faults: in the store, the leases, the daemons and the kernel; each done, and undone where that is needed.

A fault that touches what carries a node's packets excuses losses there. All others must cost no packet.
"""

from __future__ import annotations

import json
import os
import signal
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from netns_lab.etcd import CONFIG_KEY, PREFIX, START_SECONDS, is_healthy, member_program, start_member
from netns_lab.etcd_keys import SUBNETS, clear_no_space, compact, delete, delete_below, put, raise_no_space
from netns_lab.explain import AF_INET
from netns_lab.node import daemon_program, read_subnets, start_daemon
from netns_lab.places import node_place, plain_place
from netns_lab.topology import ETCD, ROUTER
from netns_lab.underlay import UPLINK, open_netlink, set_sysctl
from netns_lab.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from netns_lab.folder import LabFolder
    from netns_lab.processes import Program
    from netns_lab.topology import Node, Topology

DEVICE = "flannel.1"


def _lease(public_ip: str, mac: str) -> str:
    data = {"VNI": 1, "VtepMAC": mac}
    return json.dumps({"PublicIP": public_ip, "PublicIPv6": None, "BackendType": "vxlan", "BackendData": data})


POISON = {
    "10.244.1.7-24": "{}",
    "nonsense": "\x00",
    "10.244.0.0-16": _lease("203.0.113.9", "02:00:00:00:00:09"),
    "10.244.3.0-24/nested": "{",
    "172.20.0.0-16": _lease("203.0.113.9", "02:00:00:00:00:09"),
    "10.244.9.0-30": _lease("203.0.113.9", "01:00:00:00:00:09"),
}
STRANGER = _lease("203.0.113.7", "02:00:00:00:00:07")


def _nothing() -> None:
    return None


def _all(undo: Sequence[Callable[[], None]]) -> Callable[[], None]:
    def undo_all() -> None:
        for one in undo:
            one()

    return undo_all


@dataclass(frozen=True, slots=True)
class Fault:
    """`do` makes it for a target and returns what undoes it; `hits` says whether the target's packets may be lost."""

    do: Callable[[str], Callable[[], None]]
    targets: Sequence[str]
    hits: bool = False


class Faults:
    """All faults of one lab, by name."""

    def __init__(self, folder: LabFolder, topology: Topology) -> None:
        self.folder = folder
        self.topology = topology
        self.keys = {node.name: self._key(node) for node in topology.nodes}

    def table(self) -> Mapping[str, Fault]:
        """Return the faults by name."""
        nodes = [node.name for node in self.topology.nodes]
        members = [member.name for member in self.topology.etcd]
        everywhere = ["etcd"]
        return {
            "store: a member is killed": Fault(self.kill_member, members),
            "store: all members are killed": Fault(self.kill_members, everywhere),
            "store: all members stand still": Fault(self.freeze_members, everywhere),
            "store: unplugged": Fault(self.unplug_store, everywhere),
            "store: full": Fault(self.fill_store, everywhere),
            "store: history compacted while unplugged": Fault(self.compact, everywhere),
            "store: came back empty": Fault(self.empty_store, everywhere),
            "lease: scribbled over": Fault(self.scribble, nodes),
            "lease: poison beside it": Fault(self.poison, everywhere),
            "lease: deleted": Fault(self.delete_lease, nodes, hits=True),
            "lease: taken by a stranger": Fault(self.take_lease, nodes, hits=True),
            "config: MTU": Fault(lambda _: self.change_config(MTU=1400), everywhere),
            "config: DirectRouting": Fault(lambda _: self.change_config(DirectRouting=True), everywhere),
            "daemon: killed": Fault(lambda node: self.end_daemon(node, signal.SIGKILL), nodes),
            "daemon: restarted": Fault(lambda node: self.end_daemon(node, signal.SIGTERM), nodes),
            "daemon: stands still": Fault(self.freeze_daemon, nodes),
            "kernel: device deleted": Fault(self.delete_device, nodes, hits=True),
            "kernel: device down": Fault(self.down_device, nodes, hits=True),
            "kernel: MAC of the device changed": Fault(self.change_mac, nodes, hits=True),
            "kernel: routes deleted": Fault(self.delete_routes, nodes, hits=True),
            "kernel: neighbours deleted": Fault(self.delete_neighbours, nodes, hits=True),
            "kernel: forwarding entries deleted": Fault(self.delete_fdb, nodes, hits=True),
            "kernel: forwarding off": Fault(self.stop_forwarding, nodes, hits=True),
            "kernel: uplink down": Fault(self.down_uplink, nodes, hits=True),
        }

    # The store

    def kill_member(self, name: str) -> Callable[[], None]:
        """Kill one member."""
        member = next(member for member in self.topology.etcd if member.name == name)
        member_program(self.folder, member).end(signal.SIGKILL)
        return lambda: start_member(self.folder, self.topology, member)

    def kill_members(self, _: str) -> Callable[[], None]:
        """Kill all members."""
        return _all([self.kill_member(member.name) for member in self.topology.etcd])

    def freeze_members(self, _: str) -> Callable[[], None]:
        """Have all members stand still, connections kept."""
        return _freeze(member_program(self.folder, member) for member in self.topology.etcd)

    def unplug_store(self, _: str) -> Callable[[], None]:
        """Cut the store off from all nodes."""
        _set_link(plain_place(ROUTER).network, ETCD, "down")
        return lambda: _set_link(plain_place(ROUTER).network, ETCD, "up")

    def fill_store(self, _: str) -> Callable[[], None]:
        """Have the store refuse writes as one without space does."""
        raise_no_space(self.topology)
        return lambda: clear_no_space(self.topology)

    def compact(self, _: str) -> Callable[[], None]:
        """Take away the history that the nodes would resume from."""
        plug_in = self._leave_alone()
        self.scribble(next(iter(self.keys)))
        self._lose_history()
        return plug_in

    def empty_store(self, _: str) -> Callable[[], None]:
        """Have the nodes find all leases gone after an outage, and the history too."""
        plug_in = self._leave_alone()
        delete_below(self.topology, SUBNETS)
        self._lose_history()
        return plug_in

    # The leases

    def scribble(self, node: str) -> Callable[[], None]:
        """Write something unreadable over a node's lease."""
        put(self.topology, SUBNETS + self.keys[node], "{scribble")
        return _nothing

    def poison(self, _: str) -> Callable[[], None]:
        """Write keys and values that nobody must program."""
        for name, value in POISON.items():
            put(self.topology, SUBNETS + name, value)
        return _all([partial(delete, self.topology, SUBNETS + name) for name in POISON])

    def delete_lease(self, node: str) -> Callable[[], None]:
        """Delete a node's lease."""
        delete(self.topology, SUBNETS + self.keys[node])
        return _nothing

    def take_lease(self, node: str) -> Callable[[], None]:
        """Have somebody else own a node's subnet for a while."""
        put(self.topology, SUBNETS + self.keys[node], STRANGER)
        return lambda: delete(self.topology, SUBNETS + self.keys[node])

    def change_config(self, **keys: object) -> Callable[[], None]:
        """Change what is followed of the configuration."""
        network = dict(self.topology.network)
        backend = network["Backend"]
        assert isinstance(backend, dict)  # noqa: S101  # the daemons run with it
        put(self.topology, CONFIG_KEY, json.dumps(network | {"Backend": backend | keys}))
        return lambda: put(self.topology, CONFIG_KEY, json.dumps(network))

    # The daemons

    def end_daemon(self, name: str, sign: signal.Signals) -> Callable[[], None]:
        """End a daemon, and start another later."""
        node = self.topology.find_node(name)
        daemon_program(self.folder, node).end(sign)
        return lambda: start_daemon(self.folder, self.topology, node)

    def freeze_daemon(self, name: str) -> Callable[[], None]:
        """Have a daemon stand still."""
        return _freeze([daemon_program(self.folder, self.topology.find_node(name))])

    # The kernel

    def delete_device(self, node: str) -> Callable[[], None]:
        """Delete the tunnel device, and all that is on it."""
        with open_netlink(node_place(node).network) as netlink:
            netlink.link("del", ifname=DEVICE)
        return _nothing

    def down_device(self, node: str) -> Callable[[], None]:
        """Take the tunnel device down."""
        _set_link(node_place(node).network, DEVICE, "down")
        return _nothing

    def change_mac(self, node: str) -> Callable[[], None]:
        """Give the tunnel device another MAC."""
        with open_netlink(node_place(node).network) as netlink:
            netlink.link("set", ifname=DEVICE, address="02:00:00:00:66:66")
        return _nothing

    def delete_routes(self, node: str) -> Callable[[], None]:
        """Delete the routes through the tunnel."""
        with open_netlink(node_place(node).network) as netlink:
            index = netlink.link_lookup(ifname=DEVICE)
            for route in list(netlink.get_routes(family=AF_INET, oif=index[0])) if index else []:
                if route.get("table") == 254:  # the main table
                    netlink.route("del", dst=f"{route.get('dst')}/{route['dst_len']}")
        return _nothing

    def delete_neighbours(self, node: str) -> Callable[[], None]:
        """Delete the neighbours on the tunnel device."""
        with open_netlink(node_place(node).network) as netlink:
            index = netlink.link_lookup(ifname=DEVICE)
            for entry in list(netlink.get_neighbours(family=AF_INET, ifindex=index[0])) if index else []:
                netlink.neigh("del", dst=entry.get("dst"), ifindex=index[0])
        return _nothing

    def delete_fdb(self, node: str) -> Callable[[], None]:
        """Delete the forwarding entries of the tunnel device."""
        with open_netlink(node_place(node).network) as netlink:
            index = netlink.link_lookup(ifname=DEVICE)
            for entry in list(netlink.fdb("dump", ifindex=index[0])) if index else []:
                if entry.get("dst"):
                    netlink.fdb("del", ifindex=index[0], lladdr=entry.get("lladdr"))
        return _nothing

    def stop_forwarding(self, node: str) -> Callable[[], None]:
        """Have the node forward no packet any more."""
        set_sysctl(node_place(node).network, "ipv4/ip_forward", "0")
        return _nothing

    def down_uplink(self, node: str) -> Callable[[], None]:
        """Take the uplink down; its default route goes with it, and somebody has to add it again."""
        network = node_place(node).network
        gateway = self.topology.find_node(node).underlay.gateways[0]
        _set_link(network, UPLINK, "down")

        def undo() -> None:
            _set_link(network, UPLINK, "up")
            with open_netlink(network) as netlink:
                netlink.route("replace", dst="default", gateway=str(gateway.ip))

        return undo

    def _leave_alone(self) -> Callable[[], None]:
        """Cut the store off with no connection left, in which it could still tell what happens meanwhile."""
        plug_in = self.unplug_store("")
        self.kill_members("")()
        wait_until("etcd to serve", lambda: all(map(is_healthy, self.topology.etcd)), START_SECONDS)
        return plug_in

    def _lose_history(self) -> None:
        """Compact all that has been written so far."""
        put(self.topology, f"{PREFIX}/chaos", "what was written last stays in the history")
        compact(self.topology)

    def _key(self, node: Node) -> str:
        subnet = read_subnets(self.folder, node)[0]
        return f"{subnet.network_address}-{subnet.prefixlen}"


def _freeze(programs: Iterable[Program]) -> Callable[[], None]:
    pids = [pid for program in programs if (pid := program.pid()) is not None]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)

    def undo() -> None:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)

    return undo


def _set_link(network: Path, name: str, state: str) -> None:
    with open_netlink(network) as netlink:
        netlink.link("set", ifname=name, state=state)
