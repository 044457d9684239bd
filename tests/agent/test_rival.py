"""Somebody who keeps undoing what is ours in the kernel."""

import os
import time

import pytest

from tests.agent.reconciled_node import ReconciledNode, make_lease
from tests.waiting import until

pytestmark = pytest.mark.kernel


async def test_a_rival_is_named_and_answered_once_a_second(host, caplog):
    node = ReconciledNode(host)
    lease = make_lease(2)
    await node.begin(lease)
    try:
        reconciler, device = node.reconciler, node.device()
        while not reconciler.drift.rival:
            host.do(lambda ipr: ipr.route("del", dst="10.5.2.0/24"))
            await until(lambda: "10.5.2.0/24" in host.routes())
        assert reconciler.drift.rival.endswith("keeps changing what is ours in the kernel")
        assert caplog.text.count("keeps changing what is ours") == 1
        began, passes = time.monotonic(), reconciler.counts.passes
        for _ in range(3):
            host.do(lambda ipr: ipr.route("del", dst="10.5.2.0/24"))
            await until(lambda: "10.5.2.0/24" in host.routes())
        assert reconciler.counts.passes - passes <= time.monotonic() - began + 2
        assert node.device() == device
        await node.follows(lease)
    finally:
        await node.stop()


def test_a_port_is_named_by_its_process():
    from flanneld_py.kernel.monitor import describe_port

    assert describe_port(os.getpid()).endswith(f"(pid {os.getpid()})")
    assert describe_port(2**31 - 1) == "somebody"
