"""A gateway of the simulated world: the shipped parts, put together as gateway.core does, on model ports."""

import asyncio
import random
from collections.abc import Callable, Coroutine, Sequence
from functools import cache
from typing import Any

import msgspec
from sim.chance import Pace
from sim.deployment import BASE_MS, KEYS
from sim.log_store import LogStore
from sim.loop import Owner, SimLoop
from sim.models import ModelConnection, ModelIndex, ModelLog, Note

from eventstore.events import IdReused
from eventstore.follower import Follower
from eventstore.log import TIP_BYTES, Batch, LogFailed
from gateway.claims import ValkeyArbiter
from gateway.codes import KeyRing
from gateway.control import Control, ControlBusy
from gateway.desk import Desk
from gateway.facts import Facts
from gateway.lane import Asked, Lane, LaneState
from gateway.ledger import Ledger, add_ids_ahead, recent_ids
from gateway.lookup import ValkeyReader
from gateway.messages import Fact, Redeem, Reverse
from gateway.offline_codes import OfflineKeys
from gateway.offline_rules import Outage
from gateway.recovery import Folded, PartitionHalted, Recovered, fold_log
from gateway.redeem import Redeemer
from gateway.registry import Registry
from gateway.reversals import Reversals

BEAT_S, STALL_S_MAX = 0.25, 5.0  # as in gateway.core


class KnownCodes(KeyRing):
    """The same few codes are read again and again in every run, and always mean the same."""

    parse = cache(KeyRing.parse)
    genuine = cache(KeyRing.genuine)


RING = KnownCodes(KEYS)


class Surroundings(msgspec.Struct):
    """What every life of one gateway is put into."""

    name: str
    loop: SimLoop
    choose: random.Random
    pace: Pace
    log_pace: Pace
    store: LogStore
    index: ModelIndex
    connector: Callable[[Owner], Callable[[], ModelConnection]]
    note: Note
    on_recovered: Callable[[int, Recovered | PartitionHalted], None]
    on_end: Callable[["Gateway", str], None]
    log_repeats: float
    skew_ms: int = 0


class Gateway:
    """One life of a gateway: from its start to its end, after which nothing of it runs."""

    def __init__(self, around: Surroundings, life: int) -> None:
        self.around, self.life = around, life
        self.owner = Owner(f"{around.name}.{life}")
        self.log = ModelLog(around.loop, around.log_pace, around.store, self.owner, around.choose, around.note)
        self.log.repeats = around.log_repeats
        self.is_up = False
        self.lanes: list[Lane] = []
        self._beat_s = 0.0
        around.loop.at(around.loop.now_s, self.owner, lambda: self._watched(self._open()))

    @property
    def is_alive(self) -> bool:
        return not self.owner.dead

    def _now_ms(self) -> int:
        return BASE_MS + int(self.around.loop.now_s * 1000) + self.around.skew_ms

    def _mint_tip(self) -> bytes:
        return self.around.choose.randbytes(TIP_BYTES)

    async def _open(self) -> None:
        around = self.around
        self.control = Control(self.log, now_ms=self._now_ms, mint_tip=self._mint_tip)
        await self.control.confirm()
        connect: Any = around.connector(self.owner)
        arbiter = ValkeyArbiter(connect, lambda partition: self.lanes[partition].recover("the connection was lost"))
        index: Any = around.index.reopened()
        index.on_reused = self._note_reused
        follower = Follower(self.log, index, index.checkpoint)
        self.lanes.extend(self._lane(number, arbiter, follower) for number in range(self.log.partitions))
        ledger, reader = Ledger(self.log, follower, index), ValkeyReader(self.lanes, arbiter, self.log)
        recent, complete_since_ms = await recent_ids(self.log, self._now_ms())
        self.redeemer = Redeemer(
            ring=RING,
            control=self.control,
            lanes=self.lanes,
            registry=Registry(reader, self.log.partitions),
            used=ledger,
            recent=recent,
            now_ms=self._now_ms,
            is_stalled=self._is_stalled,
            on_fatal=self._on_fatal,
        )
        self.desk = Desk(
            redeemer=self.redeemer,
            control=self.control,
            lanes=self.lanes,
            arbiter=arbiter,
            reader=reader,
            ledger=ledger,
            now_ms=self._now_ms,
        )
        self.reversals = Reversals(
            desk=self.desk,
            redeemer=self.redeemer,
            control=self.control,
            lanes=self.lanes,
            ledger=ledger,
            now_ms=self._now_ms,
        )
        self.facts = Facts(
            keys=OfflineKeys(KEYS),
            redeemer=self.redeemer,
            desk=self.desk,
            control=self.control,
            lanes=self.lanes,
            ledger=ledger,
            now_ms=self._now_ms,
        )
        for lane in self.lanes:
            lane.seen_seq = index.checkpoint[lane.partition].seq
            lane.recover("starting")
        self._beat()
        self._watched(self.control.run())
        self._watched(follower.run())
        self._watched(add_ids_ahead(recent, ledger, index, complete_since_ms, self._now_ms()))
        self.is_up = True

    def _lane(self, number: int, arbiter: ValkeyArbiter, follower: Follower) -> Lane:
        def on_batch(batch: Batch, seconds: float) -> None:
            follower.offer(batch)

        return Lane(
            number,
            arbiter,
            self.log,
            now_ms=self._now_ms,
            mint_tip=self._mint_tip,
            judged_by=self.control.judged_by,
            fold=self._fold,
            on_batch=on_batch,
            on_fatal=self._on_fatal,
            on_recovered=self.around.on_recovered,
        )

    async def _fold(self, partition: int) -> Folded:
        folded = await fold_log(self.log, partition, self.control.purged_now)
        await self.control.purges_heard()
        return folded

    def _on_fatal(self, error: BaseException) -> None:
        if not isinstance(error, LogFailed):
            raise error  # a bug: the loop tells the world
        self.end(str(error))

    def _beat(self) -> None:
        self._beat_s = self.around.loop.now_s
        self.around.loop.call_later(BEAT_S, self._beat)

    def _is_stalled(self) -> bool:
        return self.around.loop.now_s - self._beat_s > STALL_S_MAX

    def _note_reused(self, reused: Sequence[IdReused]) -> None:
        async def write() -> None:
            await self.control.record("gateway", lambda directory, now_ms: reused)

        self._watched(write())

    def _watched(self, work: Coroutine[Any, Any, None]) -> None:
        self.around.loop.create_task(work).add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if isinstance(error, (LogFailed, ControlBusy)):
            self.end(str(error))
        elif error is not None:
            raise error  # a bug: the loop tells the world

    def end(self, why: str) -> None:
        """The process ends here and now."""
        if self.is_alive:
            self.owner.kill()
            self.is_up = False
            self.around.on_end(self, why)

    # --- its doors ---

    def redeem(self, terminal: int, scans: Sequence[Redeem], done: Callable[[Asked], None]) -> None:
        known = self.control.directory.terminals.get(terminal)
        if self.is_up and known is not None:
            self.redeemer.redeem(known, scans, done)

    def take_facts(self, terminal: int, facts: Sequence[Fact], done: Callable[[Asked], None]) -> None:
        known = self.control.directory.terminals.get(terminal)

        async def take() -> None:
            assert known is not None
            done(await self.facts.take(known, facts, Outage()))

        if self.is_up and known is not None:
            self._watched(take())

    def reverse(self, terminal: int, reversals: Sequence[Reverse], done: Callable[[Asked], None]) -> None:
        asker = self.control.directory.principal_of_terminal(terminal)
        if self.is_up and asker is not None:
            self._watched(self.reversals.reverse(asker, terminal, reversals, done))

    def is_ready(self) -> bool:
        """Whether every lane admits."""
        for lane in self.lanes:
            if lane.state is not LaneState.ADMITTING:
                return False
        return self.is_up

    def is_halted(self) -> bool:
        return any(lane.state is LaneState.HALTED for lane in self.lanes)
