"""The gateway without its doors: log, lanes, control, index and counters, opened and closed in the right order."""

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, Protocol

import msgspec

from eventstore.events import IdReused
from eventstore.follower import Follower
from eventstore.log import CONTROL, EMPTY_HEAD, TIP_BYTES, Batch, DeploymentLog, EventLog, LogDamaged, LogLost
from eventstore.projections import CampaignCounters, RedemptionIndex
from eventstore.sqlite_log import SqliteLog
from gateway.claims import ValkeyArbiter
from gateway.cluster import Cluster, Valkey, keep_watch
from gateway.codes import CodeKeys, KeyRing
from gateway.contacts import Contacts
from gateway.control import Control, ControlBusy
from gateway.desk import Desk
from gateway.directory import Directory, Rejected
from gateway.facts import Facts
from gateway.lane import Lane, OnBatch
from gateway.ledger import Ledger, add_ids_ahead, recent_ids, rememberer
from gateway.lookup import ValkeyReader
from gateway.offline_codes import OfflineKeys
from gateway.recovery import UNCOUNTED, Counted, Fold, Folded, PartitionHalted, Recovered, fold_log, nothing_stored
from gateway.redeem import Redeemer
from gateway.registry import Registry
from gateway.reported import Reported
from gateway.reversals import Reversals

LOG_FILE, INDEX_FILE = "log.db", "index.db"
LATER_S = 1.0  # after a shared log was lost, or other gateways were quicker ten times
BEAT_S = 0.25
STALL_S_MAX = 5.0  # after a stop this long whatever waits unread is stale: the till has asked again elsewhere


class Observer(Protocol):
    """Told what happens inside; must not raise."""

    def batch(self, batch: Batch, seconds: float) -> None: ...

    def commit(self, seconds: float, batches: int) -> None: ...

    def recovered(self, partition: int, outcome: Recovered | PartitionHalted) -> None: ...

    def violated(self, invariant: str) -> None: ...

    def claimed(self, seconds: float) -> None: ...

    def claim_failed(self, cause: str) -> None: ...


def wall_ms() -> int:
    """UTC milliseconds."""
    return time.time_ns() // 1_000_000


def mint_tip() -> bytes:
    """A fresh random tip."""
    return os.urandom(TIP_BYTES)


class Core:
    """Everything that decides and remembers. `fatal` gets the exception after which the process must end."""

    def __init__(self, log: DeploymentLog, index: RedemptionIndex, parts: "_Parts") -> None:
        self.log, self.index = log, index
        self.control, self.lanes, self.arbiter = parts.control, parts.lanes, parts.arbiter
        self.redeemer, self.desk, self.ledger = parts.redeemer, parts.desk, parts.ledger
        self.reversals, self.fatal, self.follower = parts.reversals, parts.fatal, parts.follower
        self.counters, self.counting, self.facts = parts.counters, parts.counting, parts.facts
        self.on_stall: Callable[[float], None] = lambda seconds: None
        self.offers: list[Callable[[Batch], None]] = []  # told of every batch of ours that is durable; must not raise
        self.contacts = Contacts(wall_ms())
        self.leaving = False  # set when the process is asked to end: from then on it is not ready
        self._reported, self._reporting = Reported(log), asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        for work in (self.control.run(), self.follower.run(), self.counting.run(), self._report_missed()):
            self.watch(work)
        self._loop = asyncio.get_running_loop()
        self._beat_s = self._loop.time()
        self._beating = self._loop.call_later(BEAT_S, self._beat)

    @property
    def ring(self) -> KeyRing:
        return self.redeemer.ring

    def reload_keys(self, code_keys: CodeKeys) -> None:
        """Use another set of code keys from the next scan on."""
        self.redeemer.ring = KeyRing(code_keys)
        self.facts.keys = OfflineKeys(code_keys)

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
        self.watch(self._report(reused))

    async def _report(self, reused: Sequence[IdReused]) -> None:
        """Write what the control partition does not say yet: an index built anew tells everything again."""

        def make(directory: Directory, _: int) -> Sequence[IdReused]:
            return news if directory.control_seq == self._reported.seq else ()  # or look again at what is said there

        async with self._reporting:
            while True:
                try:
                    await self._reported.catch_up()
                    while news := self._reported.news(reused):
                        outcome = await self.control.record("gateway", make)
                        assert not isinstance(outcome, Rejected), f"{outcome.field}: {outcome.why}"
                        await self._reported.catch_up()
                    return
                except (LogLost, ControlBusy):
                    await asyncio.sleep(LATER_S)

    async def _report_missed(self) -> None:
        """Write what a crash kept from the control partition: the index had committed it, and tells it only once."""
        try:
            for lane in self.lanes:  # before that, the index may be one that the follower will begin again
                await self.follower.wait_until(lane.partition, await self._head_seq(lane.partition))
        except LogDamaged as damage:
            self.halt(damage)
            return
        if reused := await self.index.reused():
            await self._report(reused)

    async def _head_seq(self, partition: int) -> int:
        while True:
            try:
                return (await self.log.head(partition)).seq
            except LogLost:
                await asyncio.sleep(LATER_S)

    def halt(self, damage: LogDamaged) -> None:
        """Halt the damaged partition; the others go on. Raises it if it is the control partition's: all need that."""
        if damage.partition == CONTROL:
            raise damage
        self.lanes[damage.partition].halt(f"{damage}: restore the log from its backup")

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

    def watch(self, work: Coroutine[Any, Any, None]) -> None:
        """Run something beside the gateway; if it fails, the gateway ends."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None and not self.fatal.done():
            self.fatal.set_exception(error)

    async def close(self) -> None:
        """Let what is under way finish, then let go of log and Valkey."""
        self._beating.cancel()
        await self.redeemer.close()
        for lane in self.lanes:
            await lane.close()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
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
    facts: Facts
    ledger: Ledger
    follower: Follower
    counters: CampaignCounters
    counting: Follower
    fatal: asyncio.Future[None]


class _Hooks(msgspec.Struct, frozen=True):
    """What all lanes share."""

    now_ms: Callable[[], int]
    judged_by: Callable[[], int | None]
    fold: Fold
    on_batch: OnBatch
    on_fatal: Callable[[BaseException], None]
    observer: Observer


def _lane(partition: int, arbiter: ValkeyArbiter, log: EventLog, hooks: _Hooks) -> Lane:
    return Lane(
        partition,
        arbiter,
        log,
        now_ms=hooks.now_ms,
        mint_tip=mint_tip,
        judged_by=hooks.judged_by,
        fold=hooks.fold,
        on_batch=hooks.on_batch,
        on_fatal=hooks.on_fatal,
        on_recovered=hooks.observer.recovered,
    )


def _fold(stored: Callable[[int], Awaitable[Folded | None]], log: EventLog, control: Control) -> Fold:
    async def fold(partition: int) -> Folded:
        folded = await stored(partition) or await fold_log(log, partition, control.purged_now)
        await control.purges_heard()  # a rebuild that leaves their vouchers out makes Valkey forget them
        return folded

    return fold


def _counting(log: EventLog, counted: Counted) -> tuple[CampaignCounters, Follower]:
    counters = CampaignCounters(applied=counted.applied)
    begins = {partition: counted.heads.get(partition, EMPTY_HEAD) for partition in range(log.partitions)}
    return counters, Follower(log, counters, begins, lambda damage: None)


def _slow_doors(
    redeemer: Redeemer,
    control: Control,
    lanes: list[Lane],
    arbiter: ValkeyArbiter,
    reader: ValkeyReader,
    ledger: Ledger,
    now_ms: Callable[[], int],
    keys: OfflineKeys,
) -> tuple[Desk, Reversals, Facts]:
    """What is asked for, besides to redeem."""
    desk = Desk(
        redeemer=redeemer, control=control, lanes=lanes, arbiter=arbiter, reader=reader, ledger=ledger, now_ms=now_ms
    )
    reversals = Reversals(desk=desk, redeemer=redeemer, control=control, lanes=lanes, ledger=ledger, now_ms=now_ms)
    facts = Facts(keys=keys, redeemer=redeemer, desk=desk, control=control, lanes=lanes, ledger=ledger, now_ms=now_ms)
    return desk, reversals, facts


async def open_core(
    data_dir: Path,
    code_keys: CodeKeys,
    *,
    connect: Valkey,
    observer: Observer,
    now_ms: Callable[[], int] = wall_ms,
    shared: DeploymentLog | None = None,
    stored: Callable[[int], Awaitable[Folded | None]] = nothing_stored,
    counted: Counted = UNCOUNTED,
) -> Core:
    """Open the log, fold control, start every lane's recovery. Raises LogLocked, LogDamaged, FileNotFoundError.

    The log is the one in `data_dir`, or `shared`; then nobody else uses `data_dir`, and `close` closes it too. `stored`
    gives a partition's state of not long ago where folding the whole log would take long, `counted` what was counted.
    """
    log = shared or SqliteLog.open(data_dir / LOG_FILE, observer.commit)
    control = Control(log, now_ms=now_ms, mint_tip=mint_tip)
    await control.confirm()
    lanes: list[Lane] = []
    arbiter = ValkeyArbiter(
        connect, lambda partition: lanes[partition].recover("the connection to Valkey was lost"), observer
    )

    def on_reused(reused: Sequence[IdReused]) -> None:
        observer.violated("id_reused")
        core.note_reused(reused)

    index = RedemptionIndex.open(data_dir / INDEX_FILE, log.partitions, log.meta.deployment_id, on_reused)

    def on_damage(damage: LogDamaged) -> None:
        observer.violated("chain_broken")
        core.halt(damage)

    recent, complete_since_ms = await recent_ids(log, now_ms())
    on_read = rememberer(recent, now_ms) if shared else None
    follower = Follower(log, index, index.checkpoint, on_damage, on_read)
    counters, counting = _counting(log, counted)
    fatal: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def on_batch(batch: Batch, seconds: float) -> None:
        for offer in (follower.offer, counting.offer, *core.offers):
            offer(batch)
        observer.batch(batch, seconds)

    def on_fatal(error: BaseException) -> None:
        if not fatal.done():
            fatal.set_exception(error)

    hooks = _Hooks(now_ms, control.judged_by, _fold(stored, log, control), on_batch, on_fatal, observer)
    lanes.extend(_lane(partition, arbiter, log, hooks) for partition in range(log.partitions))
    ledger, reader = Ledger(log, follower, index), ValkeyReader(lanes, arbiter, log)
    core: Core
    redeemer = Redeemer(
        ring=KeyRing(code_keys),
        control=control,
        lanes=lanes,
        registry=Registry(reader, log.partitions),
        used=ledger,
        recent=recent,
        now_ms=now_ms,
        on_fatal=on_fatal,
        is_stalled=lambda: core.is_stalled(),  # noqa: PLW0108 - core is made of this
    )
    slow = _slow_doors(redeemer, control, lanes, arbiter, reader, ledger, now_ms, OfflineKeys(code_keys))
    parts = _Parts(control, lanes, arbiter, redeemer, *slow, ledger, follower, counters, counting, fatal)
    core = Core(log, index, parts)
    if isinstance(connect, Cluster):
        core.watch(keep_watch(arbiter.find_whole, arbiter.on_lost, log.partitions))
    core.watch(add_ids_ahead(recent, ledger, index, complete_since_ms, now_ms()))
    for lane in lanes:
        lane.seen_seq = index.checkpoint[lane.partition].seq
        lane.recover("starting")
    return core
