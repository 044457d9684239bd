"""First packets to peers that the kernel does not know yet, with a daemon that answers misses on demand.

All made-up nodes live at one real one: the router sends it their whole address range, it takes every address for its
own, and a plain UDP socket stands in for their vxlan devices. A packet counts when it comes out there, decapsulated.

An unanswered miss is a neighbour that stays unresolved for a while, and gc_thresh3 counts those of all namespaces
together: packets are sent one after the other, and after MOST_LOST unanswered ones no more.
"""

import select
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Network

from netns_lab.bench.cases.case import Case, Extent, LacksModeError, Turn, load_leases
from netns_lab.bench.cases.pair import change_loopback
from netns_lab.bench.daemon import Daemon
from netns_lab.bench.entries import KernelEntries
from netns_lab.bench.etcd_cost import count_watches
from netns_lab.bench.figures import Reading, cost_readings, percentile
from netns_lab.bench.leases import PUBLIC, make_leases
from netns_lab.bench.stage import Stage
from netns_lab.bench.subnet_wait import wait_for_subnet_file
from netns_lab.errors import LabError
from netns_lab.namespaces import in_network
from netns_lab.places import node_place, plain_place
from netns_lab.topology import ROUTER
from netns_lab.underlay import open_netlink

FLAG = "--on-demand"
PEERS = 1_000
MOST_LOST = 32
PAUSE = 0.002
LOST_SECONDS = 2.0
SETTLE_SECONDS = 2.0
VXLAN_PORT = 8472
PUBLIC_RANGE = IPv4Network((PUBLIC, 10))
HEADERS = 8 + 14 + 20 + 8  # of vxlan, Ethernet, IPv4 and UDP, before the datagram's own bytes
NUMBER = struct.Struct("!I")
PORT = 9


@dataclass(frozen=True, slots=True)
class Packets:
    """Seconds until arrival of each peer's first packet and of another one; and how many first ones were lost."""

    first: list[float]
    later: list[float]
    lost: int

    @property
    def peers(self) -> int:
        """How many peers got a packet."""
        return len(self.first) + self.lost


def play(stage: Stage, turn: Turn) -> list[Reading]:
    """Start the daemon on demand, and send one packet to each of many peers."""
    with KernelEntries(node_place(stage.node.name).network) as kernel:
        daemon = stage.start(stage.node, turn.subject, FLAG)
        ready = wait_until_ready(stage, daemon)
        time.sleep(SETTLE_SECONDS)
        before, entries = daemon.read_cost(), sum(kernel.count(stage.length))
        numbers = pick_numbers(turn.n, PEERS)
        packets = send_packets(stage, numbers)
        after = daemon.read_cost()
        programmed, unresolved = sum(kernel.count(stage.length)), kernel.count_unresolved()
    if not packets.later:
        raise LabError(f"no first packet arrived; the end of the daemon's log:\n{daemon.tail()}")
    return [
        Reading("exec → subnet.env", "s", ready - daemon.started),
        Reading("resident before the first miss", "MB", before.resident),
        Reading("first packet, p50", "ms", percentile(packets.first, 0.5) * 1000),
        Reading("first packet, p99", "ms", percentile(packets.first, 0.99) * 1000),
        Reading("first packet, slowest", "ms", max(packets.first) * 1000),
        Reading("a later packet, p50", "ms", percentile(packets.later, 0.5) * 1000),
        Reading("peers", "", packets.peers),
        Reading("lost", "packets", packets.lost),
        Reading("CPU a miss", "ms", (after.cpu - before.cpu) / packets.peers * 1000),
        Reading("kernel entries before", "", entries),
        Reading("kernel entries after", "", programmed),
        Reading("unresolved neighbours after", "", unresolved),
        Reading("etcd watches after", "", count_watches(stage)),
        *cost_readings(after),
    ]


def wait_until_ready(stage: Stage, daemon: Daemon) -> float:
    """Return the moment of the subnet file. Raises LacksModeError if the daemon ended at the flag."""
    try:
        return wait_for_subnet_file(stage, daemon)
    except LabError as error:
        status = daemon.ended()
        if status is not None and status >= 0 and daemon.has_said(FLAG.lstrip("-")):
            raise LacksModeError(f"has no on-demand mode: it ends at {FLAG} with status {status}") from error
        raise


def pick_numbers(n: int, peers: int) -> list[int]:
    """Return the numbers of the leases to send to, spread over all."""
    count = min(n, peers)
    return [index * n // count for index in range(count)]


def send_packets(stage: Stage, numbers: list[int]) -> Packets:
    """Send a packet to each of these leases' subnets, and another one once the first has arrived."""
    first: list[float] = []
    later: list[float] = []
    lost = 0
    address = str(stage.subnet(stage.node)[1])
    with open_responder(stage) as responder, open_sender(stage, address) as sender:
        for index, number in enumerate(numbers):
            time.sleep(PAUSE)
            (lease,) = make_leases(1, stage.length, number)
            target = socket.inet_ntoa((lease.subnet + 1).to_bytes(4, "big"))
            took = time_packet(sender, responder, target, 2 * index)
            if took is not None:
                first.append(took)
                again = time_packet(sender, responder, target, 2 * index + 1)
                later += [again] if again is not None else []
                continue
            lost += 1
            if lost == MOST_LOST:
                stage.say(f"{MOST_LOST} packets are lost: no more are sent, to keep unresolved neighbours few")
                break
    return Packets(first, later, lost)


def time_packet(sender: socket.socket, responder: socket.socket, address: str, number: int) -> float | None:
    """Return the seconds from sending to arrival; None if it is lost."""
    start = time.monotonic()
    sender.sendto(NUMBER.pack(number), (address, PORT))
    while (left := start + LOST_SECONDS - time.monotonic()) > 0:
        if not select.select([responder], [], [], left)[0]:
            return None
        packet = responder.recv(2048)
        moment = time.monotonic()
        if packet[HEADERS:] == NUMBER.pack(number):
            return moment - start
    return None


@contextmanager
def open_sender(stage: Stage, address: str) -> Iterator[socket.socket]:
    """Yield a socket at an overlay address of the first node."""
    change_loopback("add", stage.node, address)
    try:
        with in_network(node_place(stage.node.name).network):
            opened = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with opened:
            opened.bind((address, 0))
            yield opened
    finally:
        change_loopback("del", stage.node, address)


@contextmanager
def open_responder(stage: Stage) -> Iterator[socket.socket]:
    """Yield a socket on the second node that gets what is sent to any made-up node's vxlan device."""
    node = stage.topology.nodes[1]
    network = node_place(node.name).network
    with open_netlink(network) as netlink:
        loopback = netlink.link_lookup(ifname="lo")[0]
        netlink.route("replace", dst=str(PUBLIC_RANGE), oif=loopback, type="local", table=255, scope=254)
    with open_netlink(plain_place(ROUTER).network) as netlink:
        netlink.route("replace", dst=str(PUBLIC_RANGE), gateway=str(node.address.ip))
    with in_network(network):
        opened = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with opened:
        opened.bind(("", VXLAN_PORT))
        yield opened


CASE = Case(
    "miss",
    play,
    load_leases,
    default=Extent((100_000,), rounds=1),
    quick=Extent((10_000,), rounds=1),
    nodes=2,
)
