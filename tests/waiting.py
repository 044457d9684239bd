"""Waiting for conditions that tell nobody when they come: bounded, and never longer than it takes."""

import asyncio
import time

SECONDS = 20.0
"""Long enough for a machine that is busy with other things."""


def wait_until(condition, seconds=SECONDS):
    """Wait in this thread."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come"
        time.sleep(0.002)


async def until(condition, seconds=SECONDS):
    """Wait while the event loop runs."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come"
        await asyncio.sleep(0.005)
