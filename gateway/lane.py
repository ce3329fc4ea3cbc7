"""One partition's path from a packed record to an answer: gather, claim, append, answer.

Theory. Everything that waits goes as one batch: one claim call, one log row, one share of an fsync. Batches are claimed
in the order they were made and appended in the order they were claimed; two may be under way at once, so that one is
claimed while the other is synced. A batch is answered when it is in the log, never before; whatever goes wrong on the
way (lost connection, refused append, time-out) leaves its scans UNRESOLVED, which means: ask again with the same id.
The lane then stops admitting and recovers (recovery.py). Nobody appends past a gap: when predecessors claimed by
another gateway are missing for GAP_WAIT_S, their batches are read from the redis stream and appended with ours.
A batch is claimed only if what its first record was judged by is still so, which it may not be after the process stood
still or another batch took long: a campaign that was purged meanwhile has no vouchers, and Valkey takes each for new.
"""

import asyncio
import enum
import struct
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Protocol

from eventstore.events import Extra, encode_records
from eventstore.log import AppendRefused, Batch, EventLog, LogDamaged, LogFailed, LogLost
from gateway.claims import KEY_FIRST, Arbiter, Behind, Claimed, Keyed
from gateway.messages import Verdict
from gateway.pipe import ArbiterLost, ArbiterRefused, ArbiterUnfit
from gateway.recovery import Fold, PartitionHalted, Recovered, Unsettled, recover

RECORDS_PER_BATCH_MAX = 1024  # 5 ms of Valkey at 5 us a record: the longest one partition may hold up the others
RECORDS_WAITING_MAX = 16_384  # a quarter of a second at full speed; more would be answered after the till gave up
BATCHES_UNDER_WAY_MAX = 2  # one being claimed, one being synced; a third would only split the batches
SECOND_BATCH_RECORDS = 256  # a smaller one waits for the first: it would cost a claim and a log row and win no time
GAP_WAIT_S = 0.005  # a healthy gateway appends within a millisecond of its claim
RECOVERY_WAIT_S = (0.05, 0.1, 0.2, 0.5, 1.0)  # between attempts; the last one repeats
TOLD = struct.Struct("<H32s")
UNRESOLVED = int(Verdict.UNRESOLVED)


class LaneState(enum.StrEnum):
    RECOVERING = "recovering"
    ADMITTING = "admitting"
    HALTED = "halted"


class Asked:
    """One message's records while they are under way: possibly spread over batches and partitions."""

    __slots__ = ("_remaining", "at_ms", "codes", "done", "notes", "places", "told")

    def __init__(self, count: int, done: Callable[["Asked"], None]) -> None:
        self.codes = bytearray([UNRESOLVED]) * count  # verdict bytes as logged
        self.places: list[tuple[int, int, int, int, int]] = []  # (first, partition, seq, index, count)
        self.told: dict[int, bytes] = {}  # 32-byte entries of the redemptions that stand in the way
        self.notes: dict[int, str] = {}  # what was wrong and where, for the ones that were refused unread
        self.at_ms = 0
        self.done = done
        self._remaining = count

    def settle(self, first: int, verdicts: bytes, partition: int, seq: int, index: int) -> None:
        """Records first.. have their verdicts, and stand at (partition, seq, index..) in the log."""
        count = len(verdicts)
        self.codes[first : first + count] = verdicts
        self.places.append((first, partition, seq, index, count))
        self._less(count)

    def give_up(self, first: int, count: int) -> None:
        """Records first.. stay UNRESOLVED."""
        self.places.append((first, 0, 0, 0, count))
        self._less(count)

    def _less(self, count: int) -> None:
        self._remaining -= count
        assert self._remaining >= 0, "a record was answered twice"
        if self._remaining == 0:
            self.places.sort()
            self.done(self)


class _Run:
    """Records that lie side by side in a message and in the batch."""

    __slots__ = ("asked", "count", "first")

    def __init__(self, asked: Asked, first: int, count: int) -> None:
        self.asked, self.first, self.count = asked, first, count


class _Forming:
    """A batch being gathered."""

    __slots__ = ("extras", "judged_by", "keys", "numbers", "records", "runs")

    def __init__(self) -> None:
        self.judged_by: int | None = None  # see Control.judged_by
        self.records: list[bytes] = []
        self.keys: dict[bytes, int] = {}
        self.numbers: list[int] = []
        self.runs: list[_Run] = []  # whose records these are, in order
        self.extras: dict[int, Extra] = {}

    def number(self, key: bytes) -> int:
        """The number of a hash key in the call: the same key, the same number."""
        keys = self.keys
        return keys.setdefault(key, len(keys) + KEY_FIRST)


class OnBatch(Protocol):
    """Told of every batch that became durable (metrics, followers); must not raise."""

    def __call__(self, batch: Batch, seconds: float) -> None: ...


class Lane:
    """The path of one partition."""

    def __init__(
        self,
        partition: int,
        arbiter: Arbiter,
        log: EventLog,
        *,
        now_ms: Callable[[], int],
        mint_tip: Callable[[], bytes],
        judged_by: Callable[[], int | None],
        fold: Fold,
        on_batch: OnBatch,
        on_fatal: Callable[[BaseException], None],
        on_recovered: Callable[[int, Recovered | PartitionHalted], None],
    ) -> None:
        self.partition = partition
        self.state, self.why = LaneState.RECOVERING, "starting"  # and why it is not admitting
        self.durable_seq = 0
        self.seen_seq = 0  # what this gateway had read of the log before: it must not end sooner now
        self._arbiter, self._log = arbiter, log
        self._now_ms, self._mint_tip, self._judged_by = now_ms, mint_tip, judged_by
        self._agree = partial(recover, arbiter, log, partition, mint_tip=mint_tip, now_ms=now_ms, fold=fold)
        self._on_batch, self._on_fatal, self._on_recovered = on_batch, on_fatal, on_recovered
        self._forming = _Forming()
        self._full: deque[_Forming] = deque()
        self._waiting, self._flush_planned = 0, False
        self.under_way: set[asyncio.Task[None]] = set()  # batches from their claim to their answer
        self._recovery: asyncio.Task[None] | None = None
        self._loop = asyncio.get_running_loop()

    # --- gather ---

    def add(self, record: bytes, key: bytes | None, asked: Asked, first: int, extra: Extra | None = None) -> None:
        """Take one packed record; `key` is its voucher's hash (None: it names none). Answers through `asked`."""
        if self.state is not LaneState.ADMITTING or self._waiting >= RECORDS_WAITING_MAX:
            asked.give_up(first, 1)
            return
        forming = self._forming
        if extra is not None:
            forming.extras[len(forming.records)] = extra
        forming.records.append(record)
        forming.numbers.append(forming.number(key) if key is not None else 0)
        self._took(asked, first, 1)

    def add_run(self, records: list[bytes], keys: list[bytes], asked: Asked, first: int) -> None:
        """Take records first.. of one message, each with its voucher's hash."""
        if self.state is not LaneState.ADMITTING or self._waiting >= RECORDS_WAITING_MAX:
            asked.give_up(first, len(records))
            return
        forming = self._forming
        forming.records += records
        known = forming.keys
        forming.numbers += [known.setdefault(key, len(known) + KEY_FIRST) for key in keys]  # number(), without the call
        self._took(asked, first, len(records))

    def _took(self, asked: Asked, first: int, count: int) -> None:
        forming = self._forming
        run = forming.runs[-1] if forming.runs else None
        if run is not None and run.asked is asked and run.first + run.count == first:
            run.count += count
        else:
            if run is None:
                forming.judged_by = self._judged_by()
            forming.runs.append(_Run(asked, first, count))
        self._waiting += count
        if len(forming.records) >= RECORDS_PER_BATCH_MAX:
            self._full.append(forming)
            self._forming = _Forming()
        if not self._flush_planned and self._may_leave():
            # At the end of this turn of the loop, so that all messages read in it share the batch.
            self._flush_planned = True
            self._loop.call_soon(self._flush)

    def _may_leave(self) -> bool:
        under_way = len(self.under_way)
        return not under_way or (under_way < BATCHES_UNDER_WAY_MAX and self._waiting >= SECOND_BATCH_RECORDS)

    def _flush(self) -> None:
        self._flush_planned = False
        while self._waiting and self._may_leave():
            if self._full:
                forming = self._full.popleft()
            else:
                forming, self._forming = self._forming, _Forming()
            self._waiting -= len(forming.records)
            task = self._loop.create_task(self._carry(forming))
            self.under_way.add(task)
            task.add_done_callback(self._carried)

    def _carried(self, task: asyncio.Task[None]) -> None:
        self.under_way.discard(task)
        self._ended(task)
        self._flush()

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._on_fatal(error)  # a bug: nothing this gateway says can be relied on any more

    # --- claim, append, answer ---

    async def _carry(self, forming: _Forming) -> None:
        if forming.judged_by is None or forming.judged_by != self._judged_by():
            _give_up(forming)
            return
        started = self._loop.time()
        try:
            batch, claimed = await self._claim(forming)
            await self._append(batch)
        except (ArbiterLost, ArbiterRefused, AppendRefused, LogLost, _ClaimBehind) as error:
            _give_up(forming)
            self.recover(f"{type(error).__name__}: {error}")
        except LogDamaged as error:
            _give_up(forming)
            self.halt(str(error))
        except LogFailed as error:
            _give_up(forming)
            self._on_fatal(error)
        else:
            self.durable_seq = max(self.durable_seq, batch.seq)
            self._answer(forming, batch, claimed)
            self._on_batch(batch, self._loop.time() - started)

    async def _claim(self, forming: _Forming) -> tuple[Batch, Claimed]:
        at_ms = self._now_ms()
        payload = encode_records(forming.records, forming.extras, received_ms=at_ms)
        keyed = Keyed(list(forming.keys), struct.pack(f"<{len(forming.numbers)}H", *forming.numbers))
        tip = self._mint_tip()
        claimed = await self._arbiter.claim(
            self.partition, payload, keyed, tip=tip, at_ms=at_ms, durable_seq=self.durable_seq
        )
        if isinstance(claimed, Behind):
            raise _ClaimBehind(f"Valkey is at batch {claimed.head.seq}, the log at {self.durable_seq}")
        return Batch(self.partition, claimed.seq, claimed.prev, tip, payload, claimed.verdicts), claimed

    async def _append(self, batch: Batch) -> None:
        try:
            await self._log.append([batch])
            return
        except AppendRefused as refused:
            if refused.head.seq >= batch.seq - 1:
                raise
        await asyncio.sleep(GAP_WAIT_S)
        head = await self._log.head(self.partition)
        gap = head.seq < batch.seq - 1
        run = await self._arbiter.stream(self.partition, head.seq + 1, batch.seq - 1) if gap else []
        await self._log.append([*run, batch])

    def _answer(self, forming: _Forming, batch: Batch, claimed: Claimed) -> None:
        verdicts, seq, offset = batch.verdicts, batch.seq, 0
        if claimed.told:
            _tell(forming, claimed.told)
        at_ms = int.from_bytes(batch.payload[8:16], "big")
        for run in forming.runs:
            end = offset + run.count
            run.asked.at_ms = at_ms
            run.asked.settle(run.first, verdicts[offset:end], self.partition, seq, offset)
            offset = end

    # --- recover ---

    def recover(self, why: str) -> None:
        """Stop admitting, fail what waits as UNRESOLVED, and recover in the background."""
        if self.state is LaneState.HALTED:
            return
        self._stop_admitting(LaneState.RECOVERING, why)
        if self._recovery is None or self._recovery.done():
            self._recovery = self._loop.create_task(self._recover())
            self._recovery.add_done_callback(self._ended)

    def halt(self, why: str) -> None:
        """Stop admitting until an operator has decided; what waits stays UNRESOLVED."""
        if self.state is LaneState.HALTED:
            return
        self._stop_admitting(LaneState.HALTED, why)
        self._on_recovered(self.partition, PartitionHalted(self.partition, why))

    def _stop_admitting(self, state: LaneState, why: str) -> None:
        self.state, self.why = state, why
        waiting = (*self._full, self._forming)
        self._full, self._forming, self._waiting = deque(), _Forming(), 0
        for forming in waiting:
            _give_up(forming)

    async def _recover(self) -> None:
        attempt = 0
        while self.state is LaneState.RECOVERING:
            if self.under_way:  # own appends first: they may still join
                await asyncio.wait(self.under_way)
            try:
                outcome = await self._agree(seen_seq=max(self.seen_seq, self.durable_seq))
            except (ArbiterLost, ArbiterRefused, ArbiterUnfit, LogLost, Unsettled) as error:
                if self.state is LaneState.RECOVERING:  # nobody halted it meanwhile
                    self.why = str(error)
                await asyncio.sleep(RECOVERY_WAIT_S[min(attempt, len(RECOVERY_WAIT_S) - 1)])
                attempt += 1
            except PartitionHalted as halted:
                self.halt(halted.why)
            except LogFailed as error:
                self._on_fatal(error)
                return
            else:
                self._admit(outcome)

    def _admit(self, outcome: Recovered) -> None:
        if self.state is LaneState.HALTED:
            return
        self.state, self.why = LaneState.ADMITTING, ""
        self.durable_seq = outcome.head.seq
        self._on_recovered(self.partition, outcome)

    async def close(self) -> None:
        """Let what is under way finish; what only waits stays UNRESOLVED."""
        if self._recovery is not None:
            self._recovery.cancel()
            await asyncio.gather(self._recovery, return_exceptions=True)
        self.state, self.why = LaneState.HALTED, "closed"
        while self.under_way:
            await asyncio.wait(self.under_way)


class _ClaimBehind(Exception): ...


def _give_up(forming: _Forming) -> None:
    for run in forming.runs:
        run.asked.give_up(run.first, run.count)


def _tell(forming: _Forming, told: bytes) -> None:
    entries = dict(TOLD.iter_unpack(told))
    offset = 0
    for run in forming.runs:
        for index in range(offset, offset + run.count):
            entry = entries.get(index)
            if entry is not None:
                run.asked.told[run.first + index - offset] = entry
        offset += run.count
