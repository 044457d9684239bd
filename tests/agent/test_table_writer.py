"""How many operations go into one system call: as many as the kernel carries out in a short time."""

import random
from types import SimpleNamespace

from flanneld_py.agent import table_writer
from flanneld_py.agent.driven_tables import DrivenTables
from flanneld_py.agent.table_writer import TableWriter
from flanneld_py.core.entries import FdbEntry, Kind
from flanneld_py.core.plan import Operation

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
