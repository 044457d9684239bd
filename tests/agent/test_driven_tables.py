"""Tables of drivers in the reconciler's care, beside the kernel's own; the driver's table is kept in memory."""

import asyncio
import errno

import pytest

from flanneld_py.agent.driven_tables import DrivenTables
from flanneld_py.backends.backend import EntrySource
from flanneld_py.core.entries import DrivenEntry
from flanneld_py.core.plan import plan_change
from tests.agent.reconciled_node import ReconciledNode, make_lease, nodes_by
from tests.waiting import until

A, B = make_lease(2), make_lease(3)


class MemoryDriver:
    """A table outside of rtnetlink; `refused` holds keys that it takes no operation on."""

    def __init__(self, table="guests", batch=3):
        self.table, self.batch = table, batch
        self.held = {}
        self.refused, self.begun = set(), set()
        self.broken = False
        self.sizes = []
        self.watch = lambda operation: None

    def read(self):
        if self.broken:
            raise OSError(errno.ECONNREFUSED, "nobody listens")
        return [DrivenEntry(self.table, key, value) for key, value in self.held.items()]

    def apply(self, operations):
        if self.broken:
            raise OSError(errno.ECONNREFUSED, "nobody listens")
        self.sizes.append(len(operations))
        failed = {}
        for index, operation in enumerate(operations):
            self.watch(operation)
            key = operation.entry.key
            if key in self.refused:
                failed[index] = (errno.EINVAL, "refused")
            elif operation.delete:
                self.held.pop(key, None)
            elif key not in self.begun:
                self.held[key] = operation.entry.value
        return failed


class Guests(EntrySource):
    """Lets every peer's public address in, and one address for good."""

    def __init__(self, *drivers):
        self.drivers = drivers

    def desired(self, peer, ground):
        return tuple(DrivenEntry(driver.table, (peer.public_ip,), "guest") for driver in self.drivers)

    def standing(self, ground):
        return [DrivenEntry(driver.table, ("always",)) for driver in self.drivers]


def held_with(*leases):
    return {(lease.attrs.public_ip,): "guest" for lease in leases} | {("always",): None}


@pytest.fixture
def driver():
    return MemoryDriver()


@pytest.fixture
async def make_node(host):
    async with nodes_by(lambda *drivers, **keys: ReconciledNode(host, extras=(Guests(*drivers),), **keys)) as make:
        yield make


@pytest.mark.kernel
async def test_entries_follow_the_leases_and_come_before_the_route_and_go_after_it(make_node, driver, host):
    node, routed = make_node(driver), []
    driver.watch = lambda operation: routed.append((operation.delete, operation.entry.key, set(node.state()[2])))
    await node.begin(A)
    assert driver.held == held_with(A)
    assert routed == [(False, ("always",), set()), (False, (A.attrs.public_ip,), set())]
    routed.clear()
    node.put(B)
    node.remove(A)
    await node.settled()
    assert driver.held == held_with(B)
    assert routed == [
        (False, (B.attrs.public_ip,), {"10.5.2.0/24"}),
        (True, (A.attrs.public_ip,), {"10.5.3.0/24"}),
    ]


@pytest.mark.kernel
async def test_nothing_is_deleted_before_the_first_snapshot(make_node, driver):
    driver.held = {("stale",): None, (A.attrs.public_ip,): b"old"}
    node = make_node(driver)
    await node.start()
    await node.reconciler.grounded.wait()
    node.put(B)
    node.reconciler.doubt()
    await until(lambda: node.reconciler.counts.passes > 1 and node.reconciler.busy_since is None)
    assert ("stale",) in driver.held
    node.tell_all(A)
    await node.settled()
    assert driver.held == held_with(A)


@pytest.mark.kernel
async def test_drift_is_healed_by_doubt_and_by_resync(make_node, driver):
    node = make_node(driver, resync_interval=0.2)
    await node.begin(A)
    driver.held = {("stranger",): None}
    node.reconciler.doubt()
    await until(lambda: driver.held == held_with(A))
    driver.held[A.attrs.public_ip,] = b"another"
    await until(lambda: driver.held == held_with(A))


@pytest.mark.kernel
async def test_resync_of_what_is_right_writes_nothing(make_node, driver):
    node = make_node(driver, resync_interval=0.05)
    await node.begin(A, B)
    passes, operations = node.reconciler.counts.passes, node.reconciler.counts.operations
    await until(lambda: node.reconciler.counts.passes > passes + 2)
    assert node.reconciler.counts.operations == operations


@pytest.mark.kernel
async def test_entry_that_two_peers_share_stays_with_the_second(make_node, driver):
    first = make_lease(2)
    second = make_lease(3, remote="172.30.1.2")
    node = make_node(driver)
    await node.begin(first, second)
    node.remove(first)
    await node.settled()
    assert driver.held == held_with(first)


@pytest.mark.kernel
async def test_refused_entry_is_tried_again_and_holds_up_nothing(make_node, driver):
    driver.refused = {(A.attrs.public_ip,)}
    node = make_node(driver)
    await node.begin(A, B)
    assert driver.held == held_with(B)
    assert len(node.state()[2]) == 2
    assert [failure.reason for failure in node.reconciler.retries] == ["refused"]
    driver.refused = set()
    await until(lambda: driver.held == held_with(A, B))
    assert len(node.reconciler.retries) == 0


@pytest.mark.kernel
async def test_operation_that_fails_after_it_was_begun_is_tried_again(make_node, driver):
    begun = []
    driver.begun = {(A.attrs.public_ip,)}
    driver.watch = begun.append
    node = make_node(driver)
    await node.begin(A)
    driver.begun = set()
    node.reconciler.refused(begun[-1], errno.ETIMEDOUT, "took too long")
    assert [failure.errno for failure in node.reconciler.retries] == [errno.ETIMEDOUT]
    await until(lambda: driver.held == held_with(A))


@pytest.mark.kernel
async def test_driver_that_cannot_be_reached_holds_up_no_route(make_node, driver):
    other = MemoryDriver("others")
    driver.broken = True
    node = make_node(driver, other, resync_interval=0.2)
    await node.begin(A)
    await node.follows(A)
    assert other.held == held_with(A)
    driver.broken = False
    driver.held = {("stale",): None}
    await until(lambda: driver.held == held_with(A))


@pytest.mark.kernel
async def test_large_plans_are_written_in_the_drivers_own_batches(make_node, driver):
    node = make_node(driver)
    await node.begin(*(make_lease(index) for index in range(2, 10)))
    assert sum(driver.sizes) == 9
    assert max(driver.sizes) == driver.batch


@pytest.mark.kernel
async def test_what_is_written_ahead_reaches_drivers_at_once(make_node, driver):
    node = make_node(driver)
    await node.begin()
    entry = DrivenEntry("guests", ("ahead",), 1)
    node.reconciler.change_standing([], [entry])
    assert driver.held["ahead",] == 1
    node.reconciler.change_standing([entry], [])
    assert ("ahead",) not in driver.held


def test_table_that_cannot_be_read_is_known_as_such(driver):
    tables = DrivenTables([driver])
    driver.held = {(1,): None}
    driver.broken = True
    assert list(tables.read_steps()) == []
    assert not tables.is_readable
    driver.broken = False
    assert list(tables.read_steps()) == [[DrivenEntry("guests", (1,))]]
    assert tables.is_readable


def test_table_that_fails_while_it_is_read_is_known_as_such(driver):
    def read():
        yield DrivenEntry("guests", (1,))
        raise OSError(errno.EIO, "the rest is lost")

    driver.read = read
    tables = DrivenTables([driver])
    list(tables.read_steps())
    assert not tables.is_readable


def test_driver_that_cannot_be_reached_refuses_each_operation(driver):
    driver.broken = True
    operations = plan_change([], [DrivenEntry("guests", (1,)), DrivenEntry("guests", (2,))])
    failure = (errno.ECONNREFUSED, "nobody listens")
    assert DrivenTables([driver]).apply("guests", operations) == {0: failure, 1: failure}


async def test_source_that_wants_nothing_has_nothing_to_do():
    class Nothing(EntrySource):
        pass

    source = Nothing()
    assert (source.desired(None, None), source.standing(None), source.drivers) == ((), (), ())
    async with asyncio.timeout(5):
        await source.run(None, None)
