"""The shipped scanner of one configuration, running in the test's own event loop, with everything it says kept."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Self

from waiting import until

from devices.config import ScannerConfig
from devices.framing import FaultReason, Frame, FrameFault
from devices.scanner import Settle
from devices.scanners import scanner_for


class Probe:
    """`keep` says whether the journal, which a test has none of, takes a read."""

    def __init__(self, config: ScannerConfig) -> None:
        self.scanner = scanner_for(config, self._on_read, self._on_port)
        self.keep = True
        self.frames: list[Frame] = []  # kept ones
        self.faults: list[FaultReason] = []
        self.ports: list[str | None] = []  # None: ready; else why it was lost
        self._stack = contextlib.AsyncExitStack()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Self]:
        """Without waiting for the device."""
        task = asyncio.create_task(self.scanner.run())
        try:
            yield self
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
            await asyncio.sleep(0.01)  # a port that is let go of is closed in a later turn of the loop

    async def __aenter__(self) -> Self:
        await self._stack.enter_async_context(self.running())
        await self.until_ready()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._stack.aclose()

    @property
    def texts(self) -> list[bytes]:
        return [frame.octets for frame in self.frames]

    async def until_ready(self, times: int = 1) -> None:
        await until(lambda: self.ports.count(None) >= times, lambda: f"{times} times ready in {self.ports}")

    async def until_lost(self, times: int = 1) -> None:
        await until(lambda: sum(port is not None for port in self.ports) >= times, lambda: f"loss in {self.ports}")

    async def until_read(self, count: int) -> list[bytes]:
        await until(lambda: len(self.frames) >= count, lambda: f"{count} reads in {self.texts} {self.faults}")
        return self.texts

    def _on_read(self, name: str, found: Frame | FrameFault, settle: Settle) -> None:
        if isinstance(found, FrameFault):
            self.faults.append(found.reason)
        elif self.keep:
            self.frames.append(found)
        settle(self.keep)

    def _on_port(self, name: str, lost: str | None) -> None:
        self.ports.append(lost)
