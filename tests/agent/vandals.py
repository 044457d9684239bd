"""What the random tests of the reconciler share: vandals of the kernel's state, and a machine that runs one node."""

import asyncio
import errno
from contextlib import suppress

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test
from pyroute2.netlink.exceptions import NetlinkError

from tests.agent.reconciled_node import OWN_MAC
from tests.host import ONLINK, PERMANENT, SELF, UPLINK
from tests.waiting import until

INDEXES = st.integers(2, 6)
GENERATIONS = st.integers(0, 2)
STEPS = st.integers(0, 5)
NOTHING_TO_DO = ("No such", "Too many open files in system", "Device for nexthop is not up")
"""What a command says where there is nothing that it could change, a set is full, or the device is down."""
STRANGER = "02:00:00:00:00:99"
GATEWAY = "172.30.0.1"
ROOM = 1 << 17
"""Bytes that hold all notifications of a few acts."""
EXAMPLES = pytest.mark.parametrize(
    "examples", [20, pytest.param(120, marks=[pytest.mark.full, pytest.mark.timeout(900)])], ids=["few", "many"]
)
HAS_NEXTHOPS = pytest.mark.parametrize("has_nexthops", [True, False], ids=["nexthops", "plain routes"])


def base(index):
    return f"10.5.{index}.0"


def mac(index):
    return f"02:00:00:00:01:{index:02x}"


def add_strange_entries(host, device, _):
    def add(ipr):
        ipr.neigh("replace", ifindex=device, dst="10.5.98.0", lladdr=STRANGER, state=PERMANENT)
        ipr.fdb("replace", ifindex=device, lladdr=STRANGER, dst="172.30.0.99", flags=SELF, state=PERMANENT)

    host.do(add)


def _by_pyroute2(work):
    return lambda host, device, index: host.do(lambda ipr: work(ipr, device, index))


def by_command(words, program="ip"):
    """Vandalism by a command, in whose words `{index}` is the peer's."""

    def run(host, _, index):
        try:
            host.ip(words.format(index=index), program)
        except AssertionError as error:
            if not any(reason in str(error) for reason in NOTHING_TO_DO):
                raise

    return run


VANDALISM = {
    "device deleted": _by_pyroute2(lambda ipr, device, _: ipr.link("del", index=device)),
    "device down": _by_pyroute2(lambda ipr, device, _: ipr.link("set", index=device, state="down")),
    "device changed": _by_pyroute2(lambda ipr, device, _: ipr.link("set", index=device, address=STRANGER, mtu=1400)),
    "address flushed": _by_pyroute2(lambda ipr, device, _: ipr.flush_addr(index=device)),
    "routes flushed": _by_pyroute2(lambda ipr, device, _: ipr.flush_routes(oif=device, family=2)),
    "route deleted": _by_pyroute2(lambda ipr, _, index: ipr.route("del", dst=f"{base(index)}/24")),
    "route replaced": _by_pyroute2(
        lambda ipr, device, index: ipr.route(
            "replace", dst=f"{base(index)}/24", gateway="10.5.99.0", oif=device, flags=ONLINK, proto=3
        )
    ),
    "neighbours flushed": by_command("neigh flush dev flannel.1 nud permanent"),
    "neighbour deleted": _by_pyroute2(lambda ipr, device, index: ipr.neigh("del", ifindex=device, dst=base(index))),
    "neighbour replaced": _by_pyroute2(
        lambda ipr, device, index: ipr.neigh(
            "replace", ifindex=device, dst=base(index), lladdr=STRANGER, state=PERMANENT
        )
    ),
    "FDB entry deleted": _by_pyroute2(
        lambda ipr, device, index: ipr.fdb("del", ifindex=device, lladdr=mac(index), flags=SELF)
    ),
    "FDB entry replaced": _by_pyroute2(
        lambda ipr, device, index: ipr.fdb(
            "replace", ifindex=device, lladdr=mac(index), dst="172.30.0.99", flags=SELF, state=PERMANENT
        )
    ),
    "nexthops flushed": by_command("nexthop flush proto 119"),
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


class Foreign:
    """What others have on the host: never touched, though much of it is about our network."""

    def __init__(self, host):
        self._host = host
        for words in (
            f"route add 10.5.2.0/24 via {GATEWAY} table 100 proto static",
            f"route add 10.6.0.0/24 via {GATEWAY} table 100 proto 119",
            "rule add to 10.5.0.0/16 lookup 100 priority 40000",
            f"nexthop add id 7 via {GATEWAY} dev {UPLINK} proto static",
            f"neigh add 172.30.0.98 lladdr {STRANGER} dev {UPLINK} nud permanent",
        ):
            host.ip(words)
        self._before = self._read()

    def _read(self):
        words = (
            "route show table 100",
            "rule show",
            "nexthop show id 7",
            f"neigh show dev {UPLINK} nud permanent",
        )
        return [self._host.ip(one) for one in words]

    def check(self):
        assert self._read() == self._before


def acts_of(machine):
    return st.tuples(st.sampled_from(sorted(machine.vandalism)), INDEXES)


class Vandals(RuleBasedStateMachine):
    """One node, and everybody who disturbs it; what its leases are is added by subclasses.

    They say in `begin` how the node is started, in `converge` what the kernel is to be in the end.
    """

    host = None
    foreign = None
    has_nexthops = True
    vandalism = VANDALISM

    def __init__(self):
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.sock = self.host.sock
        self.refusing = self.host.sock = RefusingSocket(self.sock)
        self.leases = {}
        self.node = None
        self.loop.run_until_complete(self.begin())

    def run(self, steps):
        async def let_run():
            for _ in range(steps):
                await asyncio.sleep(0)

        self.loop.run_until_complete(let_run())

    @rule(
        acts=st.runner().flatmap(lambda machine: st.lists(acts_of(machine), min_size=1, max_size=4)),
        room=st.sampled_from([1, ROOM]),
        steps=STEPS,
    )
    def vandalise(self, acts, room, steps):
        """Do several things at once, of which most is not heard where notifications have little room."""
        self.node.give_notifications(room)
        for what, index in acts:
            device = self.node.device()
            if device is not None:
                with suppress(NetlinkError):
                    self.vandalism[what](self.host, device, index)
        self.run(steps)
        self.node.give_notifications(ROOM)

    @rule(refusals=st.lists(st.sampled_from([0, errno.ENOMEM, errno.ENOBUFS, errno.EBUSY]), max_size=6))
    def kernel_refuses(self, refusals):
        self.refusing.refusals += refusals

    def check(self):
        self.refusing.refusals.clear()
        self.loop.run_until_complete(self.converge())
        self.loop.run_until_complete(until(self.device_is_right))

    def device_is_right(self):
        told = self.host.link("flannel.1")
        right = told.get_attr("IFLA_ADDRESS") == OWN_MAC and told.get_attr("IFLA_MTU") == 1450 and told["flags"] & 1
        return right and self.host.addresses(self.node.device()) == {"10.5.1.0/32"}

    def teardown(self):
        try:
            self.check()
            self.foreign.check()
        finally:
            self.loop.run_until_complete(self.end())
            self.loop.close()
            self.host.sock = self.sock
            device = self.node.device()
            if device is not None:
                self.host.do(lambda ipr: ipr.link("del", index=device))

    async def end(self):
        await self.node.stop()


def run_vandals(machine, examples, **attributes):
    """Run a machine with these attributes of its class.

    The steps that failed are printed as they were found, as lines of code, and are what the next run begins with. To
    look for fewer of them would take more time than a test has: each try that fails waits for what does not come.
    """
    run_state_machine_as_test(
        type("VandalsHere", (machine,), attributes),
        settings=settings(
            max_examples=examples,
            stateful_step_count=20,
            deadline=None,
            phases=(Phase.reuse, Phase.generate),
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
        ),
    )
