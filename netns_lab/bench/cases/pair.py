"""Two nodes that reach each other over the overlay, each at an address of its subnet, without pods."""

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from netns_lab.bench.daemon import Daemon
from netns_lab.bench.stage import Stage
from netns_lab.bench.subject import Subject
from netns_lab.errors import WaitedInVainError
from netns_lab.namespaces import in_network
from netns_lab.places import node_place
from netns_lab.topology import Node
from netns_lab.underlay import open_netlink

REACH_SECONDS = 20.0
PROBE_SECONDS = 0.05
PORT = 7000


@dataclass(frozen=True, slots=True)
class End:
    """A node with its daemon, and its address in the overlay."""

    node: Node
    daemon: Daemon
    address: str

    def open_socket(self, kind: socket.SocketKind, port: int) -> socket.socket:
        """Return a socket on the node, bound to the overlay address."""
        with in_network(node_place(self.node.name).network):
            opened = socket.socket(socket.AF_INET, kind)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.bind((self.address, port))
        return opened


@contextmanager
def open_pair(stage: Stage, subject: Subject) -> Iterator[tuple[End, End]]:
    """Start the daemon on two nodes and yield them once packets go both ways. Raises LabError."""
    daemons = [stage.start(node, subject) for node in stage.topology.nodes[:2]]
    addresses = [str(stage.subnet(node)[1]) for node in stage.topology.nodes[:2]]
    nodes = stage.topology.nodes[:2]
    for node, address in zip(nodes, addresses, strict=True):
        change_loopback("add", node, address)
    try:
        one, two = (End(*each) for each in zip(nodes, daemons, addresses, strict=True))
        wait_until_reached(one, two)
        wait_until_reached(two, one)
        yield one, two
    finally:
        for node, address in zip(nodes, addresses, strict=True):
            change_loopback("del", node, address)


def change_loopback(verb: str, node: Node, address: str) -> None:
    """Add or delete an address of a node's loopback device, which stands for all its pods."""
    with open_netlink(node_place(node.name).network) as netlink:
        netlink.addr(verb, index=netlink.link_lookup(ifname="lo")[0], address=address, prefixlen=32)


def wait_until_reached(source: End, destination: End) -> None:
    """Return once a datagram gets there. Raises WaitedInVainError."""
    deadline = time.monotonic() + REACH_SECONDS
    with (
        source.open_socket(socket.SOCK_DGRAM, PORT) as ours,
        destination.open_socket(socket.SOCK_DGRAM, PORT) as theirs,
    ):
        theirs.settimeout(PROBE_SECONDS)
        while time.monotonic() < deadline:
            try:
                ours.sendto(b"probe", (destination.address, PORT))
                theirs.recv(16)
            except OSError:  # no route yet, or nothing has come yet
                time.sleep(PROBE_SECONDS)
            else:
                return
    raise WaitedInVainError(
        f"waited {REACH_SECONDS:g} s for {source.node.name} to reach {destination.node.name} over the overlay; the end "
        f"of its daemon's log:\n{source.daemon.tail()}"
    )
