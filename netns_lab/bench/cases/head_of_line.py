"""Whether peers whose entries the kernel refuses hold up others, or the daemon's end.

A gateway that is an address of the node itself is one that the kernel takes for no route, on the link or not
(net/ipv4/fib_semantics.c, fib_check_nh); and a peer's gateway is its subnet's first address.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from ipaddress import IPv4Address
from pathlib import Path

from netns_lab.bench.cases.case import Case, Extent, LacksModeError, Turn, begin_empty
from netns_lab.bench.cases.churn import put_by_hundreds
from netns_lab.bench.cases.latency import time_one
from netns_lab.bench.daemon import Daemon
from netns_lab.bench.entries import KernelEntries
from netns_lab.bench.figures import Reading, cost_readings, percentile
from netns_lab.bench.leases import PeerLease, expected_entries, make_leases
from netns_lab.bench.listener import RouteListener
from netns_lab.bench.stage import Stage
from netns_lab.bench.subnet_wait import wait_for_subnet_file
from netns_lab.errors import LabError, WaitedInVainError
from netns_lab.places import node_place
from netns_lab.underlay import open_netlink

PUTS = 200
SETTLE_SECONDS = 2.0


def play(stage: Stage, turn: Turn) -> list[Reading]:
    """Put PUTS leases one by one; N that the kernel refuses; PUTS more; then end the daemon."""
    network = node_place(stage.node.name).network
    refused = make_leases(turn.n, stage.length)
    before = make_leases(PUTS, stage.length, first=turn.n)
    after = make_leases(PUTS, stage.length, first=turn.n + PUTS)
    try:
        with gateways_at_home(network, refused), KernelEntries(network) as kernel, RouteListener(network) as listener:
            daemon = stage.start(stage.node, turn.subject)
            wait_for_subnet_file(stage, daemon)
            time.sleep(SETTLE_SECONDS)
            readings = time_puts(stage, listener, daemon, before, "with all taken")
            put_by_hundreds(stage, refused)
            readings += time_puts(stage, listener, daemon, after, "with N refused")
            if not expected_entries(refused).routes.isdisjoint(kernel.read().routes):
                raise LabError("the kernel has taken routes that it was to refuse")
            cost = daemon.read_cost()
            told = time.monotonic()
            daemon.stop()
            ended = time.monotonic()
    finally:
        stage.etcd.delete_peers([*refused, *before, *after])
    return [*readings, Reading("SIGTERM → ended", "ms", (ended - told) * 1000), *cost_readings(cost)]


@contextmanager
def gateways_at_home(network: Path, leases: Sequence[PeerLease]) -> Iterator[None]:
    """Give the node the first address of each of these subnets, for a while."""
    with open_netlink(network) as netlink:
        index = netlink.link_lookup(ifname="lo")[0]
        addresses = [str(IPv4Address(lease.subnet)) for lease in leases]
        try:
            for address in addresses:
                netlink.addr("add", index=index, address=address, prefixlen=32)
            yield
        finally:
            netlink.flush_addr(index=index, prefixlen=32)


def time_puts(
    stage: Stage, listener: RouteListener, daemon: Daemon, leases: Sequence[PeerLease], when: str
) -> list[Reading]:
    """Put each after the former's route has come and a short pause. Raises LacksModeError where one does not come."""
    etcd_lease = stage.etcd.grant()
    try:
        times = [time_one(stage, listener, lease, etcd_lease)[0] * 1000 for lease in leases]
    except WaitedInVainError as error:
        raise LacksModeError(f"programs no more leases {when}: {error}; {daemon.tail().splitlines()[-1]}") from error
    return [
        Reading(f"{when}: put → route, p50", "ms", percentile(times, 0.5)),
        Reading(f"{when}: put → route, slowest", "ms", max(times)),
    ]


CASE = Case(
    "head-of-line",
    play,
    begin_empty,
    default=Extent((1, 100)),
    quick=Extent((1,)),
    spare=2 * PUTS,
)
