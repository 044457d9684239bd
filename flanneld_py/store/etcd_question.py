"""A call whose answer is taken as soon as it is read, without a task: somebody's first packet waits for it."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from flanneld_py.store.grpc_status import CallError

if TYPE_CHECKING:
    from collections.abc import Callable

    from flanneld_py.store.counts import StoreCounts
    from flanneld_py.store.etcd_api import Method, Request, Response
    from flanneld_py.store.grpc_call import Call


def hand_over(
    call: Call,
    method: Method[Request, Response],
    answered: Callable[[Response | None], None],
    patience: float,
    counts: StoreCounts,
) -> None:
    """Have `answered` called once, with a call's response or, if none comes in `patience` seconds, with None.

    It is called by whatever the connection reads, and must not raise.
    """
    name, began = method.path.rpartition("/")[2], time.monotonic()

    def take() -> None:
        timer.cancel()
        try:
            message = call.take_next()
            response = None if message is None else method.decode(message)
        except CallError:
            response = None
        answered(response)
        counts.calls[name].observe(time.monotonic() - began)
        if response is None:
            counts.failures[name] += 1

    call.listen(take)
    timer = asyncio.get_running_loop().call_later(patience, call.cancel)
