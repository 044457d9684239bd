"""Random leases, random vandalism and random refusals of the kernel: in the end the kernel is as the leases say."""

import asyncio
import errno
from contextlib import suppress

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test
from pyroute2.netlink.exceptions import NetlinkError

from flanneld_py.core.lease_event import LeaseRejected
from tests.agent.reconciled_node import OWN_MAC, ReconciledNode, make_lease
from tests.host import ONLINK, PERMANENT, SELF
from tests.waiting import until

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(240)]

INDEXES = st.integers(2, 6)
STRANGER = "02:00:00:00:00:99"


def add_strange_entries(ipr, device, _):
    ipr.neigh("replace", ifindex=device, dst="10.5.98.0", lladdr=STRANGER, state=PERMANENT)
    ipr.fdb("replace", ifindex=device, lladdr=STRANGER, dst="172.30.0.99", flags=SELF, state=PERMANENT)


def base(index):
    return f"10.5.{index}.0"


def mac(index):
    return f"02:00:00:00:01:{index:02x}"


VANDALISM = {
    "device deleted": lambda ipr, device, _: ipr.link("del", index=device),
    "device down": lambda ipr, device, _: ipr.link("set", index=device, state="down"),
    "device changed": lambda ipr, device, _: ipr.link("set", index=device, address=STRANGER, mtu=1400),
    "address flushed": lambda ipr, device, _: ipr.flush_addr(index=device),
    "routes flushed": lambda ipr, device, _: ipr.flush_routes(oif=device, family=2),
    "route deleted": lambda ipr, _, index: ipr.route("del", dst=f"{base(index)}/24"),
    "route replaced": lambda ipr, device, index: ipr.route(
        "replace", dst=f"{base(index)}/24", gateway="10.5.99.0", oif=device, flags=ONLINK, proto=3
    ),
    "neighbour deleted": lambda ipr, device, index: ipr.neigh("del", ifindex=device, dst=base(index)),
    "neighbour replaced": lambda ipr, device, index: ipr.neigh(
        "replace", ifindex=device, dst=base(index), lladdr=STRANGER, state=PERMANENT
    ),
    "FDB entry deleted": lambda ipr, device, index: ipr.fdb("del", ifindex=device, lladdr=mac(index), flags=SELF),
    "FDB entry replaced": lambda ipr, device, index: ipr.fdb(
        "replace", ifindex=device, lladdr=mac(index), dst="172.30.0.99", flags=SELF, state=PERMANENT
    ),
    "strange entries": add_strange_entries,
}


class RefusingSocket:
    """Our socket, which has the kernel refuse some of the coming requests without asking it."""

    def __init__(self, sock):
        self._sock = sock
        self.refusals = []

    def __getattr__(self, name):
        return getattr(self._sock, name)

    def execute_batch(self, requests):
        failed = {}
        for index, request in enumerate(requests):
            number = self.refusals.pop(0) if self.refusals else 0
            result = {0: (number, "refused for the test")} if number else self._sock.execute_batch((request,))
            if 0 in result:
                failed[index] = result[0]
        return failed


class Vandals(RuleBasedStateMachine):
    host = None
    has_nexthops = True

    def __init__(self):
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.sock = self.host.sock
        self.refusing = self.host.sock = RefusingSocket(self.sock)
        self.leases = {}
        self.node = ReconciledNode(self.host, has_nexthops=self.has_nexthops)
        self.loop.run_until_complete(self.node.begin())

    def run(self, steps):
        async def let_run():
            for _ in range(steps):
                await asyncio.sleep(0)

        self.loop.run_until_complete(let_run())

    @rule(index=INDEXES, generation=st.integers(0, 2), steps=st.integers(0, 5))
    def lease_put(self, index, generation, steps):
        """A node comes, or takes another MAC or another address."""
        self.leases[index] = make_lease(
            index, mac_index=index + 16 * generation, remote=f"172.30.{1 + generation}.{index}"
        )
        self.node.put(self.leases[index])
        self.run(steps)

    @rule(index=INDEXES, steps=st.integers(0, 5))
    def lease_removed(self, index, steps):
        self.leases.pop(index, None)
        self.node.remove(make_lease(index))
        self.run(steps)

    @rule(index=INDEXES)
    def lease_broken(self, index):
        self.node.reconciler.take_events([LeaseRejected(f"10.5.{index}.0-24", "no JSON")])

    @rule(kept=st.sets(INDEXES), steps=st.integers(0, 5))
    def listed_anew(self, kept, steps):
        self.leases = {index: lease for index, lease in self.leases.items() if index in kept}
        self.node.tell_all(*self.leases.values())
        self.run(steps)

    @rule(what=st.sampled_from(sorted(VANDALISM)), index=INDEXES, steps=st.integers(0, 5))
    def vandalism(self, what, index, steps):
        device = self.node.device()
        if device is not None:
            with suppress(NetlinkError):
                self.host.do(lambda ipr: VANDALISM[what](ipr, device, index))
        self.run(steps)

    @rule(refusals=st.lists(st.sampled_from([0, errno.ENOMEM, errno.ENOBUFS, errno.EBUSY]), max_size=6))
    def kernel_refuses(self, refusals):
        self.refusing.refusals += refusals

    @rule()
    def quiet(self):
        self.check()

    def check(self):
        self.refusing.refusals.clear()
        self.loop.run_until_complete(self.node.follows(*self.leases.values()))
        self.loop.run_until_complete(until(self.device_is_right))

    def device_is_right(self):
        told = self.host.link("flannel.1")
        right = told.get_attr("IFLA_ADDRESS") == OWN_MAC and told.get_attr("IFLA_MTU") == 1450 and told["flags"] & 1
        return right and self.host.addresses(self.node.device()) == {"10.5.1.0/32"}

    def teardown(self):
        try:
            self.check()
        finally:
            self.loop.run_until_complete(self.node.stop())
            self.loop.close()
            self.host.sock = self.sock
            device = self.node.device()
            if device is not None:
                self.host.do(lambda ipr: ipr.link("del", index=device))


@pytest.mark.parametrize("has_nexthops", [True, False], ids=["nexthops", "plain routes"])
def test_kernel_is_as_wanted_in_the_end(host, has_nexthops):
    machine = type("VandalsHere", (Vandals,), {"host": host, "has_nexthops": has_nexthops})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=25,
            stateful_step_count=20,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
        ),
    )
