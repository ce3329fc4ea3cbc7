"""What is done to a deployment on purpose while it is loaded, by the name a scenario calls it.

A fault says beforehand why it cannot be done to a target; then it begins, and ends. Both may take their time: the run
goes on meanwhile, and notes when each was over.
"""

import asyncio
import os
import signal
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol

import msgspec

from loadtest.fault_disk import SlowSync, fill, free, small_disk
from loadtest.own_server import Server

SLOW_SYNC_MS = 100.0  # a disk array whose write cache has failed
WORKERS_S_MAX = 120.0  # to replace all workers, one after the other
POLL_SECONDS = 0.05


class Target(msgspec.Struct, frozen=True):
    """The deployment under load, as far as the run knows it."""

    url: str
    directory: Path | None  # its data directory, where it is on this machine
    pids: dict[str, int]  # gateway, valkey, as they are now. Empty for a gateway elsewhere
    server: Server | None = None  # made for this run: it may be broken
    slow_sync: SlowSync | None = None  # on its disk
    has_small_disk: bool = False

    @property
    def own(self) -> bool:
        return self.server is not None

    def look_again(self) -> None:
        """At which processes there are, after one was replaced."""
        assert self.server is not None
        self.pids["gateway"] = self.server.pid
        valkey = self.server.directory / "valkey" / "valkey.pid"
        if valkey.exists():
            self.pids["valkey"] = int(valkey.read_text())


class Fault(Protocol):
    """One kind of fault."""

    def refusal(self, target: Target) -> str | None:
        """Why it cannot be done there; None: it can."""

    async def begin(self, target: Target) -> None:
        """Break it. Raises GatewayFailed."""

    async def end(self, target: Target) -> None:
        """Mend it, where it does not mend itself. Raises GatewayFailed."""


def _not_ours(target: Target, deed: str) -> str | None:
    return None if target.own else f"it would {deed} a gateway that was not made for this run"


class Freeze:
    """The gateway's process stands still, as a virtual machine does that is moved."""

    def refusal(self, target: Target) -> str | None:
        return _not_ours(target, "freeze")

    async def begin(self, target: Target) -> None:
        os.kill(target.pids["gateway"], signal.SIGSTOP)

    async def end(self, target: Target) -> None:
        os.kill(target.pids["gateway"], signal.SIGCONT)


class KillGateway:
    """SIGKILL to the gateway, its Valkey with it or without as it happens; then it is started again."""

    def refusal(self, target: Target) -> str | None:
        return _not_ours(target, "kill")

    async def begin(self, target: Target) -> None:
        assert target.server is not None
        await asyncio.to_thread(target.server.kill)

    async def end(self, target: Target) -> None:
        assert target.server is not None
        await asyncio.to_thread(target.server.start)
        target.look_again()


class KillValkey:
    """SIGKILL to the private Valkey, which the gateway starts again by itself."""

    def refusal(self, target: Target) -> str | None:
        return _not_ours(target, "kill the Valkey of") or (
            None if "valkey" in target.pids else "its Valkey is not a private one"
        )

    async def begin(self, target: Target) -> None:
        os.kill(target.pids["valkey"], signal.SIGKILL)

    async def end(self, target: Target) -> None:
        former = target.pids["valkey"]
        async with asyncio.timeout(WORKERS_S_MAX):
            while target.pids["valkey"] == former:
                await asyncio.sleep(POLL_SECONDS)
                target.look_again()


class FullDisk:
    """Nothing more can be written where the log and Valkey's files are."""

    def refusal(self, target: Target) -> str | None:
        return _not_ours(target, "fill the disk of")

    async def begin(self, target: Target) -> None:
        assert target.server is not None
        assert target.has_small_disk, "the stage makes one"
        await asyncio.to_thread(fill, target.server.directory)

    async def end(self, target: Target) -> None:
        """A gateway that could not write its log has ended, as it must; whoever watches over it starts it again."""
        assert target.server is not None
        free(target.server.directory)
        if target.server.has_ended:
            await asyncio.to_thread(target.server.start)
            target.look_again()


class SlowFsync:
    """Each fsync of the log takes SLOW_SYNC_MS longer."""

    def refusal(self, target: Target) -> str | None:
        return _not_ours(target, "slow down the disk of")

    async def begin(self, target: Target) -> None:
        assert target.slow_sync is not None, "the stage makes one"
        target.slow_sync.slow(SLOW_SYNC_MS)

    async def end(self, target: Target) -> None:
        assert target.slow_sync is not None
        target.slow_sync.slow(0)


class RollingRestart:
    """Every worker drains and is replaced; a gateway without workers drains and is started again."""

    def refusal(self, target: Target) -> str | None:
        return _not_ours(target, "restart")

    async def begin(self, target: Target) -> None:
        assert target.server is not None
        if target.server.workers == 1:
            await asyncio.to_thread(target.server.leave)
            await asyncio.to_thread(target.server.start)
            target.look_again()
            return
        said = target.server.workers_replaced()
        os.kill(target.server.pid, signal.SIGHUP)
        async with asyncio.timeout(WORKERS_S_MAX):
            while target.server.workers_replaced() == said:  # noqa: ASYNC110 - it is another process's doing
                await asyncio.sleep(POLL_SECONDS)

    async def end(self, target: Target) -> None:
        """It has mended itself."""


FAULTS: dict[str, Fault] = {
    "freeze-5s": Freeze(),
    "kill-worker": KillGateway(),
    "kill-redis": KillValkey(),
    "disk-full": FullDisk(),
    "slow-fsync": SlowFsync(),
    "rolling-restart": RollingRestart(),
}


class Ground:
    """What faults need of a deployment before it is started: a disk that can be slow, a small one that can be full."""

    def __init__(self, home: Path, side: Path, faults: set[str], stack: ExitStack) -> None:
        """`home`: where the deployment will be; `side`: for files of the faults. Raises FaultImpossible."""
        self.has_small_disk = "disk-full" in faults
        if self.has_small_disk:
            home.mkdir(mode=0o700)
            stack.enter_context(small_disk(home))
        self.slow_sync = SlowSync(side) if "slow-fsync" in faults else None

    @property
    def environment(self) -> dict[str, str]:
        return {} if self.slow_sync is None else self.slow_sync.environment
