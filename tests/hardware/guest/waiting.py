"""Waiting for what a kernel does in its own time."""

import asyncio
import time
from collections.abc import Callable

DEADLINE_S = 90.0  # under emulation a plug takes a second or two, on a busy host many


async def until(condition: Callable[[], object], wanted: Callable[[], str] | str) -> None:
    """Poll, with the event loop running in between."""
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, f"timed out waiting for {wanted if isinstance(wanted, str) else wanted()}"
        await asyncio.sleep(0.005)


def until_sync(condition: Callable[[], object], wanted: str) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, f"timed out waiting for {wanted}"
        time.sleep(0.005)
