"""Followers and read models: where every id lies, what each terminal did, and how they are built again."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from log_batches import AT_MS, chain, head_of, id16, record, redeemed

from eventstore.events import IMPORT, REDEEM, REVERSE, VOID, IdReused, encode_records
from eventstore.follower import FOLLOW_BATCHES, POLL_SECONDS, Follower, FollowerEnded
from eventstore.log import EMPTY_HEAD, Batch, EventLog, LogDamaged
from eventstore.memory_log import MemoryLog
from eventstore.projections import Place, RedemptionIndex, StoreCounters, Tally

APPLIED, TOMBSTONED, REPEATED, ALREADY_REDEEMED = 0, 1, 2, 21
A, B, C, D = (id16(name) for name in "abcd")
Row = tuple[bytes, int]


def row(redemption_id: bytes, verdict: int, op: int = REDEEM, serial: int = 1) -> Row:
    return record(op, redemption_id=redemption_id, serial=serial), verdict


async def append(log: EventLog, partition: int, *rows: Row) -> Batch:
    batch = redeemed(partition, await log.head(partition), rows)
    await log.append([batch])
    return batch


@asynccontextmanager
async def following(log: EventLog, index: RedemptionIndex) -> AsyncIterator[Follower]:
    follower = Follower(log, index, index.checkpoint)
    task = asyncio.create_task(follower.run())
    yield follower
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def catch_up(log: EventLog, index: RedemptionIndex) -> None:
    async with following(log, index) as follower:
        for partition in range(log.partitions):
            await follower.wait_until(partition, (await log.head(partition)).seq)


async def place_of(index: RedemptionIndex, name: bytes) -> Place | None:
    return (await index.find_many([name])).get(name)


@pytest.fixture
async def index(tmp_path: Path) -> AsyncIterator[RedemptionIndex]:
    opened = RedemptionIndex.open(tmp_path / "index.db", 2, "tests")
    yield opened
    await opened.close()


async def test_every_redemption_and_reversal_is_found(index: RedemptionIndex) -> None:
    log = MemoryLog(2)
    await append(log, 1, row(A, APPLIED), row(B, ALREADY_REDEEMED), row(C, TOMBSTONED, REVERSE))
    await append(log, 1, row(D, 12))
    await catch_up(log, index)
    assert [await place_of(index, name) for name in (A, B, C, D)] == [(1, 1, 0), (1, 1, 1), (1, 1, 2), (1, 2, 0)]
    assert await place_of(index, id16("never")) is None


async def test_voids_and_imports_are_not_redemptions(index: RedemptionIndex) -> None:
    log = MemoryLog(2)
    await append(log, 0, row(A, APPLIED, VOID), row(B, APPLIED, IMPORT))
    await catch_up(log, index)
    assert (await place_of(index, A), await place_of(index, B)) == (None, None)


async def test_the_first_effect_wins_else_the_first_occurrence(index: RedemptionIndex) -> None:
    log = MemoryLog(2)
    await append(log, 0, row(A, 34), row(A, APPLIED), row(A, REPEATED), row(B, 34), row(B, 35))
    await append(log, 0, row(B, 36), row(C, APPLIED))
    await append(log, 1, row(B, 12), row(A, REPEATED), row(C, 21))
    await catch_up(log, index)
    assert [await place_of(index, name) for name in (A, B, C)] == [(0, 1, 1), (0, 1, 3), (0, 2, 1)]
    assert await index.reused() == []


async def test_a_second_effect_of_an_id_is_surfaced(tmp_path: Path) -> None:
    heard: list[IdReused] = []
    index = RedemptionIndex.open(tmp_path / "index.db", 2, "tests", heard.extend)
    log = MemoryLog(2)
    await append(log, 0, row(A, APPLIED), row(B, APPLIED), row(A, APPLIED, serial=2))
    await catch_up(log, index)
    await append(log, 1, row(B, APPLIED, serial=9))
    await index.apply(1, await log.read(1, 1, 1))
    expected = [
        IdReused(redemption_id=A, first=(0, 1, 0), second=(0, 1, 2)),
        IdReused(redemption_id=B, first=(0, 1, 1), second=(1, 1, 0)),
    ]
    assert heard == await index.reused() == expected
    assert await place_of(index, A) == (0, 1, 0)
    await index.close()


async def test_an_index_goes_on_where_it_stopped(tmp_path: Path) -> None:
    log, path = MemoryLog(2), tmp_path / "index.db"
    first = RedemptionIndex.open(path, 2, "tests")
    newest = await append(log, 0, row(A, APPLIED))
    await catch_up(log, first)
    await first.close()
    second = RedemptionIndex.open(path, 2, "tests")
    assert second.checkpoint == {0: head_of(newest), 1: EMPTY_HEAD}
    newest = await append(log, 0, row(B, APPLIED))
    await catch_up(log, second)
    assert (await place_of(second, A), await place_of(second, B)) == ((0, 1, 0), (0, 2, 0))
    assert await second.reused() == []
    await second.close()
    third = RedemptionIndex.open(path, 2, "tests")
    assert third.checkpoint == {0: head_of(newest), 1: EMPTY_HEAD}
    await third.close()


@pytest.mark.parametrize(
    "spoil", ("damaged", "page damaged", "deleted", "other deployment", "other log", "log is shorter")
)
async def test_an_index_that_is_not_of_this_log_is_built_again(tmp_path: Path, spoil: str) -> None:
    path, log = tmp_path / "index.db", MemoryLog(2)
    old = RedemptionIndex.open(path, 2, "other" if spoil == "other deployment" else "tests")
    other = MemoryLog(2)
    await append(other, 0, row(C, APPLIED))
    if spoil == "log is shorter":
        await append(other, 0, row(C, REPEATED))
    if spoil == "other log":  # same length, another tip
        await old.apply(0, [Batch(0, 1, bytes(16), C, *(await _body(other)))])
    else:
        await catch_up(other, old)
    await old.close()
    if spoil == "damaged":
        path.write_bytes(b"not a database, but longer than a header would be" * 9)
    if spoil == "page damaged":
        content = path.read_bytes()
        path.write_bytes(content[:8192] + b"\xff" * (len(content) - 8192))  # after the schema and whose it is
    if spoil == "deleted":
        path.unlink()
    await append(log, 0, row(A, APPLIED))
    index = RedemptionIndex.open(path, 2, "tests")
    await catch_up(log, index)
    assert (await place_of(index, A), await place_of(index, C)) == ((0, 1, 0), None)
    await index.close()


async def _body(log: EventLog) -> tuple[bytes, bytes]:
    batch = (await log.read(0, 1, 1))[0]
    return batch.payload, batch.verdicts


async def test_nothing_of_a_spoilt_batch_is_indexed(index: RedemptionIndex) -> None:
    good = redeemed(0, EMPTY_HEAD, [row(A, APPLIED)])
    payload = encode_records([record(redemption_id=B)], {}, received_ms=AT_MS)
    for spoilt in (Batch(0, 2, good.tip, B, payload, b""), Batch(0, 2, good.tip, B, payload[:50], b"\0")):
        with pytest.raises(LogDamaged):
            await index.apply(0, [good, spoilt])
    assert await place_of(index, A) is None


async def test_a_batch_of_any_size_is_indexed(index: RedemptionIndex) -> None:
    ids = [id16("many", number) for number in range(5000)]
    await index.apply(0, [redeemed(0, EMPTY_HEAD, [row(name, APPLIED) for name in ids])])
    assert await place_of(index, ids[-1]) == (0, 1, 4999)
    assert await place_of(index, ids[0]) == (0, 1, 0)


class Seen:
    """A projection that remembers what it was given."""

    def __init__(self) -> None:
        self.batches: list[Batch] = []

    async def apply(self, partition: int, batches: Sequence[Batch]) -> None:
        assert len(batches) <= FOLLOW_BATCHES
        self.batches += batches

    async def reset(self) -> None:
        self.batches.clear()


async def test_a_follower_applies_everything_in_order_and_then_what_comes() -> None:
    log, seen = MemoryLog(1), Seen()
    batches = chain(0, 12 * FOLLOW_BATCHES + 7)
    await log.append(batches[:-1])
    follower = Follower(log, seen, {0: EMPTY_HEAD})
    task = asyncio.create_task(follower.run())
    async with asyncio.timeout(4 * POLL_SECONDS):  # it does not pause while there is more
        await follower.wait_until(0, len(batches) - 1)
    assert seen.batches == batches[:-1]
    waiting = asyncio.create_task(follower.wait_until(0, len(batches)))
    await log.append(batches[-1:])
    follower.offer(batches[-1])
    await waiting
    assert seen.batches == batches
    assert follower.applied(0) == head_of(batches[-1])
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_who_waits_for_an_ended_follower_is_told() -> None:
    log, seen = MemoryLog(1), Seen()
    follower = Follower(log, seen, {0: EMPTY_HEAD})
    task = asyncio.create_task(follower.run())
    waiting = asyncio.create_task(follower.wait_until(0, 1))
    await follower.wait_until(0, 0)
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(FollowerEnded):
        await waiting
    with pytest.raises(FollowerEnded):
        await follower.wait_until(0, 1)


async def test_store_counters_count_what_took_effect() -> None:
    counters = StoreCounters()

    def scan(op: int, terminal: int, campaign: int = 7) -> bytes:
        return record(op, terminal=terminal, campaign=campaign)

    rows = [
        (scan(REDEEM, 3), APPLIED),
        (scan(REDEEM, 3), APPLIED),
        (scan(REDEEM, 3), REPEATED),
        (scan(REDEEM, 4, 8), APPLIED),
        (scan(REVERSE, 3), APPLIED),
        (scan(REVERSE, 5), TOMBSTONED),
        (scan(VOID, 0), APPLIED),
    ]
    batch = redeemed(0, EMPTY_HEAD, rows)
    await counters.apply(0, [batch, redeemed(0, head_of(batch), rows[:1])])
    assert counters.tallies() == {(7, 3): Tally(3, 1), (8, 4): Tally(1, 0)}
    await counters.reset()
    assert counters.tallies() == {}
