"""The gateway without its doors: log, lanes, control, index and counters, opened and closed in the right order."""

import asyncio
import os
import time
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, Protocol

import msgspec
from redis.asyncio import Connection

from eventstore.events import IdReused
from eventstore.follower import Follower
from eventstore.log import TIP_BYTES, Batch
from eventstore.projections import RedemptionIndex
from eventstore.sqlite_log import SqliteLog
from gateway.claims import ValkeyArbiter
from gateway.codes import CodeKeys, KeyRing
from gateway.control import Control
from gateway.desk import Desk
from gateway.lane import Lane
from gateway.ledger import Ledger, add_ids_ahead, recent_ids
from gateway.recovery import PartitionHalted, Recovered
from gateway.redeem import Redeemer
from gateway.reversals import Reversals

LOG_FILE, INDEX_FILE = "log.db", "index.db"
BEAT_S = 0.25
STALL_S_MAX = 5.0  # after a stop this long whatever waits unread is stale: the till has asked again elsewhere


class Observer(Protocol):
    """Told what happens inside; must not raise."""

    def batch(self, batch: Batch, seconds: float) -> None: ...

    def commit(self, seconds: float, batches: int) -> None: ...

    def recovered(self, partition: int, outcome: Recovered | PartitionHalted) -> None: ...

    def violated(self, invariant: str) -> None: ...


def wall_ms() -> int:
    """UTC milliseconds."""
    return time.time_ns() // 1_000_000


def mint_tip() -> bytes:
    """A fresh random tip."""
    return os.urandom(TIP_BYTES)


class Core:
    """Everything that decides and remembers. `fatal` gets the exception after which the process must end."""

    def __init__(self, log: SqliteLog, index: RedemptionIndex, parts: "_Parts") -> None:
        self.log, self.index = log, index
        self.control, self.lanes, self.arbiter = parts.control, parts.lanes, parts.arbiter
        self.redeemer, self.desk, self.ledger = parts.redeemer, parts.desk, parts.ledger
        self.reversals = parts.reversals
        self.fatal, self.follower = parts.fatal, parts.follower
        self.on_stall: Callable[[float], None] = lambda seconds: None
        self.leaving = False  # set when the process is asked to end: from then on it is not ready
        self._tasks = [self._watched(self.control.run()), self._watched(self.follower.run())]
        self._loop = asyncio.get_running_loop()
        self._beat_s = self._loop.time()
        self._beating = self._loop.call_later(BEAT_S, self._beat)

    @property
    def ring(self) -> KeyRing:
        return self.redeemer.ring

    def reload_keys(self, code_keys: CodeKeys) -> None:
        """Use another set of code keys from the next scan on."""
        self.redeemer.ring = KeyRing(code_keys)

    def is_stalled(self) -> bool:
        """Whether the loop stood still so long that unread input must not be believed any more."""
        return self._loop.time() - self._beat_s > STALL_S_MAX

    def _beat(self) -> None:
        gap_s = self._loop.time() - self._beat_s
        if gap_s > STALL_S_MAX:
            self.on_stall(gap_s)
        self._beat_s = self._loop.time()
        self._beating = self._loop.call_later(BEAT_S, self._beat)

    def note_reused(self, reused: Sequence[IdReused]) -> None:
        """One redemption id took effect twice: a race that admission could not see becomes an event."""
        self._tasks.append(self._watched(self._write_reused(reused)))

    async def _write_reused(self, reused: Sequence[IdReused]) -> None:
        await self.control.record("gateway", lambda directory, now_ms: reused)

    def watch(self, work: Coroutine[Any, Any, None]) -> None:
        """Run something beside the gateway; if it fails, the gateway ends."""
        self._tasks.append(self._watched(work))

    def troubles(self) -> list[str]:
        """Why this gateway is not ready, in words; empty when it is."""
        found = [f"partition {lane.partition} is {lane.state}: {lane.why}" for lane in self.lanes if lane.why]
        if not self.control.is_confirmed():
            found.append("the control partition's head is not confirmed")
        if self.fatal.done():
            found.append("the event log failed")
        if self.leaving:
            found.append("this gateway is leaving")
        return found

    def _watched(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None and not self.fatal.done():
            self.fatal.set_exception(error)

    async def close(self) -> None:
        """Let what is under way finish, then let go of log and Valkey."""
        self._beating.cancel()
        await self.redeemer.close()
        for lane in self.lanes:
            await lane.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.arbiter.close()
        await self.index.close()
        await self.log.close()
        if self.fatal.done():
            self.fatal.exception()  # seen


class _Parts(msgspec.Struct):
    control: Control
    lanes: list[Lane]
    arbiter: ValkeyArbiter
    redeemer: Redeemer
    desk: Desk
    reversals: Reversals
    ledger: Ledger
    follower: Follower
    fatal: asyncio.Future[None]


async def open_core(
    data_dir: Path,
    code_keys: CodeKeys,
    *,
    connect: Callable[[], Connection],
    observer: Observer,
    now_ms: Callable[[], int] = wall_ms,
) -> Core:
    """Open the log, fold control, start every lane's recovery. Raises LogLocked, LogDamaged, FileNotFoundError."""
    log = SqliteLog.open(data_dir / LOG_FILE, observer.commit)
    control = Control(log, now_ms=now_ms, mint_tip=mint_tip)
    await control.confirm()
    lanes: list[Lane] = []
    arbiter = ValkeyArbiter(connect, lambda partition: lanes[partition].recover("the connection to Valkey was lost"))

    def on_reused(reused: Sequence[IdReused]) -> None:
        observer.violated("id_reused")
        core.note_reused(reused)

    index = RedemptionIndex.open(data_dir / INDEX_FILE, log.partitions, log.meta.deployment_id, on_reused)
    follower = Follower(log, index, index.checkpoint)
    fatal: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def on_batch(batch: Batch, seconds: float) -> None:
        follower.offer(batch)
        observer.batch(batch, seconds)

    def on_fatal(error: BaseException) -> None:
        if not fatal.done():
            fatal.set_exception(error)

    lanes.extend(
        Lane(
            partition,
            arbiter,
            log,
            now_ms=now_ms,
            mint_tip=mint_tip,
            purged=control.purged,
            on_batch=on_batch,
            on_fatal=on_fatal,
            on_recovered=observer.recovered,
        )
        for partition in range(log.partitions)
    )
    ledger = Ledger(log, follower, index)
    core: Core
    recent, complete_since_ms = await recent_ids(log, now_ms())
    redeemer = Redeemer(
        ring=KeyRing(code_keys),
        control=control,
        lanes=lanes,
        arbiter=arbiter,
        used=ledger,
        recent=recent,
        now_ms=now_ms,
        on_fatal=on_fatal,
        is_stalled=lambda: core.is_stalled(),  # noqa: PLW0108 - core is made of this
    )
    desk = Desk(redeemer=redeemer, control=control, lanes=lanes, arbiter=arbiter, ledger=ledger, now_ms=now_ms)
    reversals = Reversals(desk=desk, redeemer=redeemer, control=control, lanes=lanes, ledger=ledger, now_ms=now_ms)
    core = Core(log, index, _Parts(control, lanes, arbiter, redeemer, desk, reversals, ledger, follower, fatal))
    core.watch(add_ids_ahead(recent, ledger, index, complete_since_ms, now_ms()))
    for lane in lanes:
        lane.recover("starting")
    return core
