"""Make one partition's Valkey state agree with the log again, or halt that partition.

Theory. The log's chain is the truth. Valkey carries the same chain (seq, tip) in `{p}head` plus a redis stream with the
newest batches. Comparing the two heads leaves these cases:

    READY      same seq and tip
    BEHIND     Valkey's head is an older batch of the log's chain (lost its tail, restored from a backup, wiped): append
               one empty batch first, because it refuses every append in flight that was claimed on the older state,
               then replay
    AHEAD      Valkey has batches the log never got (a gateway died between claim and append) and its stream joins the
               log's head: append that run; retries will find their answers
    FORKED     Valkey's head is on another chain: throw its state away and rebuild it from the log
    RESTARTED  the head is the log's, or older, but Valkey has read its state from an append-only file since it was last
               rebuilt, and such a file has no checksums: a rotten bit would be believed. Rebuild it, too (decision 11)
    HALT       Valkey is ahead and the joining batches are gone, or the log ends before what was read of it once, or it
               is damaged: nobody can tell what was promised, so an operator must

`plan` decides, `recover` carries it out and looks again until it is READY. It may run in several gateways at once: an
append joins once, `restore` is compare-and-set on the head, a rebuild whose token was taken away changes nothing any
more, and nobody takes it away from one that makes progress.
"""

import asyncio
import enum
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from functools import partial
from itertools import chain, pairwise

import msgspec

from eventstore.events import encode_records
from eventstore.finished import Finished
from eventstore.log import AppendRefused, Batch, EventLog, Head, LogDamaged, LogReader
from eventstore.vouchers import apply_batch, empty_state
from gateway.claims import Arbiter
from gateway.loading import forget

ROUNDS_MAX = 20  # each round makes progress unless another gateway interferes; after twenty it is left alone a while
READ_BATCHES = 500  # log rows read at a time: at most about 40 MB of full batches
LOAD_WATCH_S = 0.25  # a rebuild makes a call every few milliseconds; one that makes none for so long is gone
FEW_RECORDS = 50_000  # 0.2 s record by record; in columns 0.1 s, but the import of numpy 0.2 s and 20 MB (measured)
FOLD_BATCHES = 2  # folded in one go: full ones take 4 to 10 ms, for which whatever else this process answers waits
RESTORES_IN_FLIGHT = 2  # Valkey works on one while the next is made
REPLAY_BATCHES_MAX = 20_000  # beyond this a rebuild by bulk load is faster than replaying call by call


class Branch(enum.StrEnum):
    READY = "ready"
    BEHIND = "behind"
    AHEAD = "ahead"
    FORKED = "forked"
    RESTARTED = "restarted"
    HALT = "halt"


class PartitionHalted(Exception):
    """This partition answers nobody until an operator decides; says what was found and the next step."""

    def __init__(self, partition: int, why: str) -> None:
        super().__init__(f"partition {partition} halted: {why}")
        self.partition, self.why = partition, why


class Unsettled(Exception):
    """Valkey and the log did not come to agree, because others moved them meanwhile: try again later."""


class Folded(msgspec.Struct, frozen=True):
    """A partition's state at one of its batches, to be gone through once."""

    head: Head
    hashes: Iterable[Finished]


Purged = Callable[[], Awaitable[Collection[int]]]  # the campaigns that are, by all that the control log says now
Fold = Callable[[int], Awaitable[Folded]]
"""A partition's state as the log says it is now, or as a snapshot said it was not long ago; what follows is replayed.

Raises LogDamaged, LogFailed, LogLost.
"""


class Counted(msgspec.Struct, frozen=True):
    """What took effect up to these heads: op, campaign, how many."""

    heads: Mapping[int, Head]
    applied: Sequence[tuple[int, int, int]]


UNCOUNTED = Counted({}, ())


async def nothing_stored(partition: int) -> Folded | None:
    """No snapshot: every recovery folds the log itself."""
    return None


class Recovered(msgspec.Struct, frozen=True):
    head: Head
    branches: tuple[Branch, ...]  # what was done, in order


def plan(log_head: Head, valkey: Head, log_tip_there: bytes | None, stream: Sequence[Batch]) -> Branch:
    """Which case this is. `log_tip_there` is the log's tip at Valkey's seq, None if the log has no such batch;
    `stream` is what the redis stream holds from log_head.seq + 1 on, needed only if Valkey is ahead."""
    if valkey == log_head:
        return Branch.READY
    if valkey.seq == 0:
        return Branch.BEHIND
    if valkey.seq <= log_head.seq:
        return Branch.BEHIND if log_tip_there == valkey.tip else Branch.FORKED
    if not stream or stream[0].seq != log_head.seq + 1:
        return Branch.HALT
    if stream[0].prev != log_head.tip:
        return Branch.FORKED
    return Branch.AHEAD if _joins(stream, valkey) else Branch.HALT


def _joins(stream: Sequence[Batch], valkey: Head) -> bool:
    linked = all(b.seq == a.seq + 1 and b.prev == a.tip for a, b in pairwise(stream))
    return linked and (stream[-1].seq, stream[-1].tip) == (valkey.seq, valkey.tip)


async def recover(
    arbiter: Arbiter,
    log: EventLog,
    partition: int,
    *,
    mint_tip: Callable[[], bytes],
    now_ms: Callable[[], int],
    fold: Fold,
    seen_seq: int = 0,
) -> Recovered:
    """Bring Valkey and the log together; `seen_seq` is the newest batch that was ever read of this log.

    Raises PartitionHalted, LogFailed; and, to be tried again, Unsettled, LogLost, ArbiterLost/Refused/Unfit.
    """
    await arbiter.check(partition)
    done: list[Branch] = []
    rounds = 0
    while rounds < ROUNDS_MAX:
        try:
            log_head, valkey = await log.head(partition), await arbiter.head(partition)
            if valkey.seq == 0 and await _is_being_loaded(arbiter, partition):
                continue
            rounds += 1
            branch, stream = await _look(arbiter, log, partition, log_head, valkey)
            if branch in (Branch.READY, Branch.BEHIND) and not await arbiter.is_believed(partition):
                branch = Branch.RESTARTED if valkey.seq else branch
            if branch is Branch.HALT:
                # Both moved on while we looked if another gateway is at work: then these were no two ends of one gap.
                if (log_head, valkey) != (await log.head(partition), await arbiter.head(partition)):
                    continue
                raise PartitionHalted(partition, halt_text("Valkey is at", valkey.seq, log_head.seq))
            if branch is not Branch.AHEAD and log_head.seq < seen_seq:
                raise PartitionHalted(partition, halt_text("this gateway had read up to", seen_seq, log_head.seq))
            if branch is Branch.READY:
                return Recovered(log_head, tuple(done) or (branch,))
            done.append(branch)
            if branch is Branch.AHEAD:
                await log.append(stream)
                if valkey.seq < seen_seq or not await arbiter.is_believed(partition):
                    continue
                # From here on Valkey's head is on the log's chain. Looking again would find it ahead again as long as
                # another gateway claims faster than we look.
                return Recovered(valkey, tuple(done))
            await _catch_up(arbiter, log, partition, branch, log_head, valkey, mint_tip, now_ms, fold)
        except AppendRefused:
            continue  # another gateway was quicker: look again
        except LogDamaged as error:
            raise PartitionHalted(partition, f"{error}: restore the log from its backup") from error
    raise Unsettled(f"no agreement after {ROUNDS_MAX} rounds: is another gateway recovering it too? Trying again")


async def _is_being_loaded(arbiter: Arbiter, partition: int) -> bool:
    """Whether another rebuild is under way and makes progress; waits a little to see it."""
    before = await arbiter.load_progress(partition)
    if before is None:
        return False
    await asyncio.sleep(LOAD_WATCH_S)
    return await arbiter.load_progress(partition) not in (None, before)


def halt_text(who: str, seq: int, log_seq: int) -> str:
    """Why nobody may go on by himself: somebody has seen batches that the log does not have."""
    return (
        f"{who} batch {seq}, the log ends at {log_seq}, and the batches between are gone. "
        "If the log was restored from a backup, restore a newer one; "
        "to accept the log as it is, run `tillgate rebuild`"
    )


async def _look(
    arbiter: Arbiter, log: EventLog, partition: int, log_head: Head, valkey: Head
) -> tuple[Branch, list[Batch]]:
    """Which case this is, and what the redis stream holds beyond the log."""
    stream: list[Batch] = []
    tip_there: bytes | None = None
    if valkey.seq > log_head.seq:
        stream = await arbiter.stream(partition, log_head.seq + 1, valkey.seq)
    elif valkey.seq > 0:
        tip_there = (await _read(log, partition, valkey.seq, 1))[0].tip
    return plan(log_head, valkey, tip_there, stream), stream


async def _catch_up(
    arbiter: Arbiter,
    log: EventLog,
    partition: int,
    branch: Branch,
    log_head: Head,
    valkey: Head,
    mint_tip: Callable[[], bytes],
    now_ms: Callable[[], int],
    fold: Fold,
) -> None:
    """Fence off what was claimed on the older state, then replay or rebuild it."""
    empty = encode_records([], {}, received_ms=now_ms())
    fence = Batch(partition, log_head.seq + 1, log_head.tip, mint_tip(), empty, b"")
    await log.append([fence])
    if branch is Branch.BEHIND and valkey.seq > 0 and fence.seq - valkey.seq <= REPLAY_BATCHES_MAX:
        await _replay(arbiter, log, partition, valkey.seq + 1, fence.seq)
        return
    state = await fold(partition)
    if await _is_being_loaded(arbiter, partition):
        return
    if await arbiter.rebuild(partition, state.hashes, state.head, mint_tip()):
        await _replay(arbiter, log, partition, state.head.seq + 1, fence.seq)


async def _replay(arbiter: Arbiter, log: EventLog, partition: int, first_seq: int, last_seq: int) -> None:
    """Ends early if another gateway replays too, or Valkey fell back again: look again.

    Each call joins the chain or changes nothing, so when one did not, those in flight behind it do not either.
    """
    under_way: deque[tuple[Batch, asyncio.Future[Head]]] = deque()

    async def joined() -> bool:
        batch, call = under_way.popleft()
        return await call == Head(batch.seq, batch.tip)

    try:
        while first_seq <= last_seq:
            batches = await _read(log, partition, first_seq, READ_BATCHES)
            for batch in batches:
                under_way.append((batch, asyncio.ensure_future(arbiter.restore(batch))))
                await asyncio.sleep(0)  # so that it is sent before the next is made
                if len(under_way) >= RESTORES_IN_FLIGHT and not await joined():
                    return
            first_seq = batches[-1].seq + 1
        while under_way and await joined():
            pass
    finally:
        forget(call for _, call in under_way)


async def fold_log(
    log: LogReader, partition: int, purged: Purged, advance: Callable[[int], None] = lambda batches: None
) -> Folded:
    """Fold the partition's whole log in this process's memory; `advance` is told how many more batches were folded.

    Raises LogDamaged, LogFailed, LogLost.
    """
    head = await log.head(partition)
    gone = await purged()  # after the head: what was purged later freed no code that is registered again before it
    page = await _read(log, partition, 1, min(READ_BATCHES, head.seq)) if head.seq else []
    if len(page) == head.seq and sum(len(batch.verdicts) for batch in page) <= FEW_RECORDS:
        state = empty_state(partition + 1, gone)
        await _apply_all(log, partition, head, page, partial(apply_batch, state), advance)
        return Folded(state.heads[partition], state.hashes.items())
    from eventstore.bulk_fold import BulkFold  # and numpy

    fold = BulkFold(partition, purged=gone, is_counting=False)
    await _apply_all(log, partition, head, page, fold.apply, advance)
    return Folded(fold.head, chain.from_iterable(fold.finished()))


async def _apply_all(
    log: LogReader,
    partition: int,
    upto: Head,
    batches: list[Batch],
    apply: Callable[[Batch], None],
    advance: Callable[[int], None],
) -> None:
    """`batches`: the first ones, which were read already."""
    while batches:
        for number, batch in enumerate(batches):
            if number % FOLD_BATCHES == 0:
                await asyncio.sleep(0)
            apply(batch)
        advance(len(batches))
        seq = batches[-1].seq
        batches = await _read(log, partition, seq + 1, min(READ_BATCHES, upto.seq - seq)) if seq < upto.seq else []


async def _read(log: LogReader, partition: int, first_seq: int, limit: int) -> list[Batch]:
    batches = await log.read(partition, first_seq, limit)
    if not batches or batches[0].seq != first_seq:
        raise LogDamaged(partition, first_seq, "the batch is missing")
    return batches
