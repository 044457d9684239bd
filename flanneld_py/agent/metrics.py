"""The families of metrics: what each part of the daemon is asked when somebody looks, a line for each family.

The number of samples does not depend on the size of the cluster. Nothing is kept here; the parts count by themselves.
It is imported when somebody looks for the first time.
"""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from flanneld_py import __version__
from flanneld_py.core.metrics import Family, encode_families
from flanneld_py.core.probe_results import STATES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from flanneld_py.core.metrics import Labels, Values


class Metric(NamedTuple):
    """A family, and how its values are read from the part of the daemon that it belongs to."""

    name: str
    kind: str
    help: str
    read: Callable[[Any], Values | None]
    labels: Labels = ()


def encode_page(parts: Iterable[tuple[str, object]], started: float) -> str:
    """Return the page of a process that `started` then, with these parts, each by the name of its families."""
    return encode_families(_read_families([("process", Process(started)), *parts]))


def _read_families(parts: Iterable[tuple[str, object]]) -> Iterator[Family]:
    for group, part in parts:
        for name, kind, told, read, labels in FAMILIES[group]:
            yield Family(name, kind, told, labels, read(part))


class Process:
    """The process itself, by what the kernel says of it (proc(5))."""

    def __init__(self, started: float) -> None:
        """Tell of this process, which `started` then, in seconds since the epoch."""
        self.started = started

    @property
    def resident(self) -> int:
        """Its resident memory in bytes."""
        pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")

    @property
    def descriptors(self) -> int:
        """How many files and sockets it has open."""
        return sum(1 for _ in Path("/proc/self/fd").iterdir())


def _by_errno(errors: dict[int, int]) -> dict[str, int]:
    return {errno.errorcode.get(number, str(number)): count for number, count in errors.items()}


def _by_state(leases: Any) -> dict[str, int]:
    return {"peer": len(leases.peers), "skipped": len(leases.skipped), "unreadable": len(leases.rejected)}


PROCESS = (
    Metric("flanneld_build_info", "gauge", "The version that runs.", lambda _: {__version__: 1}, ("version",)),
    Metric("process_resident_memory_bytes", "gauge", "Resident memory.", lambda it: it.resident),
    Metric("process_cpu_seconds_total", "counter", "CPU time, user and system.", lambda _: time.process_time()),
    Metric("process_start_time_seconds", "gauge", "When it started, since the epoch.", lambda it: it.started),
    Metric("process_open_fds", "gauge", "Open files and sockets.", lambda it: it.descriptors),
)
STATUS = (
    Metric("flanneld_ready", "gauge", "1 if packets are carried, as /readyz says.", lambda it: int(it.is_ready)),
    Metric(
        "flanneld_healthy",
        "gauge",
        "1 if the daemon gets on with its work, as /healthz says.",
        lambda it: int(it.is_healthy),
    ),
)
STORE = (
    Metric("flanneld_store_up", "gauge", "1 if the store can be followed.", lambda it: int(it.trouble is None)),
    Metric(
        "flanneld_store_call_duration_seconds",
        "histogram",
        "Calls to the store, answered or not.",
        lambda it: it.counts.calls,
        ("call",),
    ),
    Metric(
        "flanneld_store_call_failures_total",
        "counter",
        "Calls to the store without an answer.",
        lambda it: it.counts.failures,
        ("call",),
    ),
    Metric(
        "flanneld_store_connections_total",
        "counter",
        "Connections to the store that were begun.",
        lambda it: it.counts.connections,
    ),
)
LEASE = (
    Metric(
        "flanneld_lease_remaining_seconds",
        "gauge",
        "Time until our lease ends unless it is renewed.",
        lambda it: it.time_left,
    ),
    Metric("flanneld_lease_lost", "gauge", "1 while our lease is not ours.", lambda it: int(it.is_lost)),
)
RECONCILER = (
    Metric("flanneld_leases", "gauge", "Leases of other nodes.", lambda it: _by_state(it.leases), ("state",)),
    Metric(
        "flanneld_skipped_leases",
        "gauge",
        "Leases that are not programmed.",
        lambda it: it.leases.count_skipped(),
        ("reason",),
    ),
    Metric(
        "flanneld_peers",
        "gauge",
        "Peers, one for each address family of a node.",
        lambda it: sum(map(len, it.leases.peers.values())),
    ),
    Metric(
        "flanneld_reconcile_duration_seconds",
        "histogram",
        "Passes that compare and mend.",
        lambda it: it.counts.durations,
    ),
    Metric(
        "flanneld_drift_total",
        "counter",
        "Changes by others that had to be looked into.",
        lambda it: it.drift.counts,
        ("kind",),
    ),
    Metric(
        "flanneld_kernel_operations_total",
        "counter",
        "Writes and deletes asked of the kernel.",
        lambda it: it.counts.operations,
    ),
    Metric(
        "flanneld_kernel_errors_total",
        "counter",
        "What the kernel refused.",
        lambda it: _by_errno(it.counts.errors),
        ("errno",),
    ),
    Metric(
        "flanneld_failing_entries",
        "gauge",
        "Entries that the kernel refused, which are tried again.",
        lambda it: len(it.retries),
    ),
)
TUNNELS = (
    Metric(
        "flanneld_tunnel_bytes_total",
        "counter",
        "Bytes through our devices.",
        lambda it: it.read(lambda s: s.rx_bytes, lambda s: s.tx_bytes),
        ("device", "direction"),
    ),
    Metric(
        "flanneld_tunnel_packets_total",
        "counter",
        "Packets through our devices.",
        lambda it: it.read(lambda s: s.rx_packets, lambda s: s.tx_packets),
        ("device", "direction"),
    ),
    Metric(
        "flanneld_tunnel_errors_total",
        "counter",
        "Packets that our devices could not carry.",
        lambda it: it.read(lambda s: s.rx_errors, lambda s: s.tx_errors),
        ("device", "direction"),
    ),
    Metric(
        "flanneld_tunnel_dropped_total",
        "counter",
        "Packets that our devices dropped.",
        lambda it: it.read(lambda s: s.rx_dropped, lambda s: s.tx_dropped),
        ("device", "direction"),
    ),
)
ON_DEMAND = (
    Metric(
        "flanneld_misses_total",
        "counter",
        "The kernel's questions for a peer.",
        lambda it: {"answered": it.answered, "refused": it.refused},
        ("outcome",),
    ),
    Metric("flanneld_evictions_total", "counter", "Idle peers that were taken away.", lambda it: it.evicted),
)
PODS = (
    Metric(
        "flanneld_cni_duration_seconds",
        "histogram",
        "Calls of the CNI plugin, as served here.",
        lambda it: it.durations,
        ("verb", "outcome"),
    ),
)
GUARD = (
    Metric(
        "flanneld_guard_dropped_packets_total",
        "counter",
        "Packets to the tunnel that came from no member of the network.",
        lambda it: it.describe()["dropped"],
        ("reason",),
    ),
)
PROBE = (
    Metric(
        "flanneld_probe_sent_total",
        "counter",
        "Probes of peers, large ones left out.",
        lambda it: it.counts.sent,
        ("way",),
    ),
    Metric(
        "flanneld_probe_lost_total",
        "counter",
        "Probes without an answer, of peers that have answered lately.",
        lambda it: it.counts.lost,
        ("way",),
    ),
    Metric(
        "flanneld_probe_round_trip_seconds",
        "histogram",
        "From a probe to its answer, both daemons' time included.",
        lambda it: it.counts.round_trips,
        ("way",),
    ),
    Metric(
        "flanneld_probe_peers",
        "gauge",
        "Peers by what probes have found.",
        lambda it: {state: it.counts.states[state] for state in STATES},
        ("state",),
    ),
    Metric(
        "flanneld_probe_refused_total",
        "counter",
        "Datagrams to the probes' port that were not answered.",
        lambda it: it.refused,
        ("reason",),
    ),
)
FAMILIES = {
    "process": PROCESS,
    "status": STATUS,
    "store": STORE,
    "lease": LEASE,
    "reconciler": RECONCILER,
    "tunnels": TUNNELS,
    "on demand": ON_DEMAND,
    "pods": PODS,
    "guard": GUARD,
    "probe": PROBE,
}
