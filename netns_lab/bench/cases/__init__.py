"""The cases, by name; each is one file, which is read only when it is played."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from netns_lab.bench.cases.case import Case

CASES = {
    "start": "exec → subnet.env with N leases in etcd, and the daemon's size a second later",
    "cold": "exec → every route, neighbour and forwarding entry of N leases is in the kernel",
    "churn": "N leases added one by one, and by transactions of 100: first put → all programmed",
    "latency": "one lease, put → its route, with N leases there already; 300 times",
    "idle": "CPU seconds while nothing happens, for --seconds, with N leases programmed",
    "restart-loss": "packets lost of 100 a second each way while one of two nodes' daemons is exchanged",
    "throughput": "one TCP stream over the overlay between two nodes, for --seconds",
    "backends": "one TCP stream and small datagrams by each backend, beside the bare veth, for --seconds each",
    "cni": "a pod wired and unwired by the CNI plugins, one by one and 20 at once, beside N pods",
    "head-of-line": "one lease, put → its route, beside N peers whose routes the kernel refuses; SIGTERM → ended",
    "miss": "on demand: the first packet to each of 1,000 new peers, with N leases in etcd",
    "fleet": "N watchers on one etcd with N leases: 20 nodes join, then all list at once",
}
"""What each measures."""


def find_case(name: str) -> Case:
    """Return the case of that name."""
    case: Case = import_module(f"{__name__}.{name.replace('-', '_')}").CASE
    return case
