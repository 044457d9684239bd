"""What the page is told of the lab: three feeds, each a process of its own, because each waits for something else.

A feed writes a line of JSON for each thing that it tells: an object with one key, which names its kind. All of them
run inside the lab, in processes with a single thread, and end with the process that started them.
"""

import errno
import json
import os
import select
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from netns_lab.errors import LabError
from netns_lab.faults import Lab
from netns_lab.journal import GROUPS, IFINFOMSG, RTM_GETLINK, RTM_NEWLINK, Journal, Message
from netns_lab.matrix import ping_matrix
from netns_lab.names import pod_end_points
from netns_lab.namespaces import die_with_parent, in_network
from netns_lab.places import node_place
from netns_lab.pods import read_pods
from netns_lab.routes import RECEIVE_SIZE, dump, read_routes, split_messages
from netns_lab.status import NodeStatus, read_status
from netns_lab.traffic import read_tunnels

INTERVAL = 1.0
"""Seconds between two looks at the same thing."""
GATHER = 0.02
"""Seconds in which the kernel's messages of one cause come together."""
QUEUE_BYTES = 1 << 22

Json = dict[str, Any]
Feed = Callable[[Lab], Iterator[Json]]


def start_feed(feed: Feed, lab: Lab) -> int:
    """Run a feed in a process of its own; returns the descriptor that its lines come from."""
    reading, writing = os.pipe()
    if os.fork() == 0:
        os.close(reading)
        _write_lines(feed, lab, writing)
    os.close(writing)
    return reading


def _write_lines(feed: Feed, lab: Lab, writing: int) -> None:
    status = 1
    try:
        die_with_parent(signal.SIGKILL)
        for told in feed(lab):
            os.write(writing, json.dumps(told).encode() + b"\n")
    except KeyboardInterrupt:
        status = 0
    finally:
        os._exit(status)


def feed_reach(lab: Lab) -> Iterator[Json]:
    """Ping all pairs of pods, each second: `reach`, with the round trip in ms, or what came back in its place."""
    while True:
        began = time.monotonic()
        pairs = ping_matrix(pod_end_points(read_pods(lab.folder)), 1)
        yield {
            "reach": [
                {
                    "from": pair.source.name,
                    "to": pair.destination.name,
                    "ms": None if pair.mean is None else round(pair.mean * 1000, 3),
                    "refusal": pair.refusal,
                }
                for pair in pairs
            ]
        }
        _sleep_until(began + INTERVAL)


def feed_state(lab: Lab) -> Iterator[Json]:
    """Look at nodes and etcd, each second: `state`."""
    while True:
        began = time.monotonic()
        try:
            status = read_status(lab.folder, lab.topology)
        except (LabError, OSError) as error:
            yield {"event": {"time": time.time(), "place": "lab", "text": str(error)}}
        else:
            yield {
                "state": {
                    "etcd": [
                        {"name": member.name, "running": member.pid is not None, "healthy": member.healthy}
                        for member in status.etcd
                    ],
                    "nodes": [_describe_node(node) for node in status.nodes],
                }
            }
        _sleep_until(began + INTERVAL)


def _describe_node(node: NodeStatus) -> Json:
    network = node_place(node.name).network
    tunnels = read_tunnels(network)
    devices = _device_names(network)
    return {
        "name": node.name,
        "underlay": node.underlay,
        "addresses": node.addresses,
        "subnets": node.subnets,
        "daemon": "ended" if node.pid is None else "ready" if node.ready else "starting",
        "devices": [
            {"name": name, "received": found.received_bytes, "sent": found.sent_bytes}
            for name, found in tunnels.items()
        ],
        "routes": [
            {"to": str(route.destination), "via": str(route.gateway), "device": devices.get(route.ifindex, "?")}
            for route in read_routes(network)
            if route.destination.prefixlen and route.gateway is not None
        ],
        "pods": [{"name": pod.name, "addresses": pod.addresses} for pod in node.pods],
    }


def _device_names(network: Path) -> dict[int | None, str]:
    with in_network(network):
        return dict(socket.if_nameindex())


def feed_journal(lab: Lab) -> Iterator[Json]:
    """Tell what the kernel does on each node, as it happens: `event`, with the time in seconds since the epoch."""
    with ExitStack() as stack:
        places: dict[socket.socket, tuple[str, Journal]] = {}
        for node in lab.topology.nodes:
            journal = Journal()
            listening = stack.enter_context(_listen(node.name, journal))
            places[listening] = (node.name, journal)
        while True:
            readable, _, _ = select.select(list(places), [], [])
            now = time.time()
            time.sleep(GATHER)
            for listening in readable:
                name, journal = places[listening]
                for text in journal.describe(_read_all(listening)):
                    yield {"event": {"time": now, "place": name, "text": text}}


def _listen(node: str, journal: Journal) -> socket.socket:
    """Return a socket that the kernel tells a node's changes to; the journal learns what devices are there."""
    with in_network(node_place(node).network):
        listening = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as asking:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, QUEUE_BYTES)
            listening.bind((0, GROUPS))
            links = dump(asking, RTM_GETLINK, IFINFOMSG.pack(0, 0, 0, 0, 0))
    listening.setblocking(False)
    journal.describe((RTM_NEWLINK, link) for link in links)
    return listening


def _read_all(listening: socket.socket) -> Iterator[Message]:
    while True:
        try:
            yield from split_messages(listening.recv(RECEIVE_SIZE))
        except BlockingIOError:
            return
        except OSError as error:  # a storm was too much for the queue: what came of it shows in the next state
            if error.errno != errno.ENOBUFS:
                raise


def _sleep_until(moment: float) -> None:
    time.sleep(max(0.0, moment - time.monotonic()))
