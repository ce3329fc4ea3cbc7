"""What is done to a deployment on purpose while it is loaded, by the name a scenario calls it.

A fault says beforehand why it cannot be done to a target; then it begins, and ends. Both may take their time: the run
goes on meanwhile, and notes when each was over.
"""

import asyncio
import os
import signal
from pathlib import Path
from typing import Protocol

import msgspec


class Target(msgspec.Struct, frozen=True):
    """The deployment under load, as far as the run knows it."""

    url: str
    directory: Path | None  # its data directory, where it is on this machine
    pids: dict[str, int]  # gateway, valkey; worker-2 where there are several. Empty for a gateway elsewhere
    own: bool  # made for this run: it may be broken


class Fault(Protocol):
    """One kind of fault."""

    def refusal(self, target: Target) -> str | None:
        """Why it cannot be done there; None: it can."""

    async def begin(self, target: Target) -> None:
        """Break it."""

    async def end(self, target: Target) -> None:
        """Mend it, where it does not mend itself."""


class Freeze:
    """The gateway's process stands still, as a virtual machine does that is moved."""

    def refusal(self, target: Target) -> str | None:
        if "gateway" not in target.pids:
            return "the gateway's process is not on this machine"
        return None if target.own else "this would freeze a gateway that was not made for this run"

    async def begin(self, target: Target) -> None:
        os.kill(target.pids["gateway"], signal.SIGSTOP)

    async def end(self, target: Target) -> None:
        os.kill(target.pids["gateway"], signal.SIGCONT)
        await asyncio.sleep(0)


class NotBuilt:
    """A fault that scenarios may name and no code does yet."""

    def refusal(self, target: Target) -> str | None:
        return "this fault cannot be made by this version"

    async def begin(self, target: Target) -> None:
        raise AssertionError("refused before")

    async def end(self, target: Target) -> None:
        raise AssertionError("refused before")


FAULTS: dict[str, Fault] = {
    "freeze-5s": Freeze(),
    "kill-worker": NotBuilt(),
    "kill-redis": NotBuilt(),
    "disk-full": NotBuilt(),
    "slow-fsync": NotBuilt(),
    "rolling-restart": NotBuilt(),
}
