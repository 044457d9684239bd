"""Threads that wait for callers."""

import logging
import queue
import time

from flanneld_py.agent.pod_workers import Workers


def test_whatever_a_call_raises_the_thread_goes_on(caplog):
    callers, served, left = queue.Queue(), queue.Queue(), queue.Queue()

    def serve(caller):
        if isinstance(caller, Exception):
            raise caller
        served.put(caller)

    with caplog.at_level(logging.DEBUG):
        workers = Workers(callers.get, serve, lambda: left.put(None))
        for _ in range(20):
            callers.put(ValueError("odd"))
            callers.put(OSError("gone"))
        callers.put("plain")
        assert served.get(timeout=20) == "plain"
        workers.close(lambda count: [callers.put("woken") for _ in range(count)], time.monotonic() + 20)
    levels = {record.levelno for record in caplog.records}
    assert levels == {logging.ERROR, logging.DEBUG}
