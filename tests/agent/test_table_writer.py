"""How many operations go into one system call: as many as the kernel carries out in a short time; what goes ahead."""

import errno
import random
from types import SimpleNamespace

import pytest

from flanneld_py.agent import table_writer
from flanneld_py.agent.driven_tables import DrivenTables
from flanneld_py.agent.table_writer import TableWriter
from flanneld_py.core.entries import UNREACHABLE, FdbEntry, Kind, Route
from flanneld_py.core.plan import Operation
from flanneld_py.core.prefix import Prefix

OPERATIONS = [Operation(Kind.FDB, False, FdbEntry(7, number.to_bytes(6, "big"), 4, number)) for number in range(5000)]


async def write(monkeypatch, seconds_an_operation):
    """Write all to a kernel that takes so long; return the sizes of batches, and the operations in their order."""
    clock = 0.0
    batches = []

    def apply(_, batch):
        nonlocal clock
        clock += seconds_an_operation * len(batch)
        batches.append(batch)
        return {}

    monkeypatch.setattr(table_writer, "apply_batch", apply)
    monkeypatch.setattr(table_writer, "time", SimpleNamespace(monotonic=lambda: clock))
    writer = TableWriter(None, DrivenTables(()), lambda: None, random.Random(0))  # noqa: S311
    await writer.apply(OPERATIONS)
    assert [operation for batch in batches for operation in batch] == OPERATIONS
    return [len(batch) for batch in batches]


async def test_a_kernel_that_is_fast_is_given_more_at_once(monkeypatch):
    sizes = await write(monkeypatch, 3e-6)
    assert sizes[:4] == [40, 80, 160, 320]
    assert max(sizes) == 320  # and no more, however fast it is


async def test_a_kernel_that_is_slow_does_not_hold_up_the_daemon(monkeypatch):
    sizes = await write(monkeypatch, 1e-3)
    assert sizes[:3] == [40, 20, 10]
    assert set(sizes[2:]) == {10}


async def test_in_between_the_size_stays(monkeypatch):
    assert set(await write(monkeypatch, 5e-5)) == {40}


ROUTES = [Route(Prefix(4, number << 8, 24), 0, 0, 0, 0, onlink=False, type=UNREACHABLE) for number in range(100)]
REPLACES, DELETES = ([Operation(Kind.ROUTE, delete, route) for route in ROUTES] for delete in (False, True))


async def write_while(monkeypatch, operations, ahead, refuses=frozenset()):
    """Write operations, some others ahead after the first batch; return the writer and what has been written."""
    written, pending = [], [ahead]

    def apply(_, batch):
        written.extend(one for one in batch if one not in refuses)
        return {index: (errno.ENOMEM, "no memory") for index, one in enumerate(batch) if one in refuses}

    def notice():
        if pending:
            writer.apply_now(pending.pop())

    monkeypatch.setattr(table_writer, "apply_batch", apply)
    writer = TableWriter(None, DrivenTables(()), notice, random.Random(0))  # noqa: S311
    await writer.apply(operations)
    return writer, written


async def test_what_is_written_ahead_stays(monkeypatch):
    writer, written = await write_while(monkeypatch, DELETES, REPLACES[-1:])
    assert DELETES[-1] not in written
    assert REPLACES[-1] in written
    assert not writer.take_doubtful()


async def test_what_is_deleted_ahead_stays_away(monkeypatch):
    writer, written = await write_while(monkeypatch, DELETES, DELETES[-1:])
    assert written.count(DELETES[-1]) == 1
    assert not writer.take_doubtful()


@pytest.mark.parametrize("planned", [REPLACES[-1], DELETES[-1]._replace(entry=ROUTES[-1]._replace(protocol=3))])
async def test_table_is_doubtful_where_a_delete_ahead_may_not_have_found_what_a_plan_is_against(monkeypatch, planned):
    writer, written = await write_while(monkeypatch, [*REPLACES[:-1], planned], DELETES[-1:])
    assert planned not in written
    assert writer.take_doubtful() == {Kind.ROUTE}


async def test_what_a_new_plan_says_is_written(monkeypatch):
    writer, written = await write_while(monkeypatch, REPLACES[:-1], DELETES[-1:])
    writer.begin_plan()
    await writer.apply(REPLACES[-1:])
    assert written[-1] == REPLACES[-1]


async def test_failure_of_what_is_written_ahead_outlives_the_batch_before(monkeypatch):
    writer, _ = await write_while(monkeypatch, REPLACES[:1], DELETES[:1], refuses={DELETES[0]})
    assert [failure.operation for failure in writer.retries] == DELETES[:1]


async def test_refusals_of_a_batch_are_one_line_of_the_log(monkeypatch, caplog):
    refused = set(REPLACES[:3])
    await write_while(monkeypatch, REPLACES[:5], (), refuses=refused)
    assert [record.getMessage() for record in caplog.records] == [
        "kernel refused to write route unreachable 0.0.0.0/24, and 2 more: no memory (errno 12); trying again"
    ]
