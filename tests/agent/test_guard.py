"""What the guard does where the kernel refuses it: says so once, and tries again more and more seldom."""

import asyncio
import logging
from itertools import pairwise

import pytest

from flanneld_py.agent.guard import DROP, Guard
from flanneld_py.core.errors import KernelError
from flanneld_py.kernel.nf_tables_socket import has_nf_tables
from tests.waiting import until

pytestmark = pytest.mark.kernel


class RefusedTable:
    """A table that the kernel refuses for these reasons, one a try, and then takes."""

    name, port = "flanneld-py-test", 0

    def __init__(self, *reasons):
        self.reasons = list(reasons)
        self.tries = []

    def arm(self):
        self.tries.append(asyncio.get_running_loop().time())
        if self.reasons:
            raise KernelError(95, "write table", self.reasons.pop(0))
        return True

    def disarm(self, after):
        pass

    def read_counts(self):
        return {}

    def close(self):
        pass


class Followed:
    """A reconciler that has always tried all that is wanted."""

    def doubt(self):
        pass

    async def followed(self):
        pass


@pytest.mark.skipif(not has_nf_tables(), reason="this kernel has no nftables")
async def test_a_refusal_is_told_when_it_changes_and_tried_again_with_growing_pauses(caplog):
    caplog.set_level(logging.INFO)
    table = RefusedTable("no family", "no family", "no family", "no hook")
    guard = Guard(DROP, table)
    running = asyncio.create_task(guard.run(None, Followed()))
    await until(lambda: len(table.tries) == 5)
    assert [record.args[0] for record in caplog.records if "not as it should be" in record.msg] == [
        str(KernelError(95, "write table", reason)) for reason in ("no family", "no hook")
    ]
    assert caplog.messages[-1] == "guard armed: mode=drop table=flanneld-py-test"
    assert guard.describe()["problem"] == ""
    pauses = [later - earlier for earlier, later in pairwise(table.tries)]
    assert all(pause >= 0.1 * 2**index for index, pause in enumerate(pauses))
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
