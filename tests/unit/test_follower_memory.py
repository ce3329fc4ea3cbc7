"""A follower fed from memory sees every batch once and in order, whatever was offered, lost or offered twice."""

import asyncio
import os
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventstore.events import encode_records
from eventstore.follower import OFFERED_MAX, Follower
from eventstore.log import EMPTY_HEAD, ZERO_TIP, Batch, Head, LogDamaged
from eventstore.memory_log import MemoryLog

BATCHES = 40


class Seen:
    def __init__(self) -> None:
        self.seqs: list[int] = []

    async def apply(self, partition: int, batches: Sequence[Batch]) -> None:
        self.seqs += [batch.seq for batch in batches]

    async def reset(self) -> None:
        self.seqs.clear()


def chain(count: int) -> list[Batch]:
    batches, prev = [], ZERO_TIP
    for seq in range(1, count + 1):
        batches.append(Batch(0, seq, prev, os.urandom(16), encode_records([], {}, received_ms=1), b""))
        prev = batches[-1].tip
    return batches


@given(offers=st.lists(st.integers(1, BATCHES), max_size=80), rounds=st.integers(1, 4))
async def test_every_batch_once_and_in_order(offers: list[int], rounds: int) -> None:
    log, seen, batches = MemoryLog(1), Seen(), chain(BATCHES)
    follower = Follower(log, seen, {0: EMPTY_HEAD})
    running = asyncio.ensure_future(follower.run())
    step = BATCHES // rounds
    for start in range(0, BATCHES, step):
        part = batches[start : start + step]
        await log.append(part)
        durable = part[-1].seq
        for seq in offers:
            if seq <= durable:  # only what is in the log is ever offered
                follower.offer(batches[seq - 1])
        await follower.wait_until(0, durable)
    assert seen.seqs == list(range(1, BATCHES + 1))
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_nobody_may_look_before_the_projection_is_known_to_be_of_this_log() -> None:
    """A log set back to its very beginning holds nothing to wait for, and the projection still holds the other log."""
    seen, built_on = Seen(), chain(3)[-1]
    seen.seqs = [1, 2, 3]
    follower = Follower(MemoryLog(1), seen, {0: Head(3, built_on.tip)})
    running = asyncio.ensure_future(follower.run())
    await follower.wait_until(0, 0)
    assert not seen.seqs
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_offers_that_nobody_follows_do_not_pile_up() -> None:
    follower = Follower(MemoryLog(1), Seen(), {0: EMPTY_HEAD})
    for batch in chain(OFFERED_MAX * 2 + 1):
        follower.offer(batch)
    assert len(follower._offered[0]) <= OFFERED_MAX


class Rotten(MemoryLog):
    """A log whose partition 0 is damaged from batch 3 on."""

    async def read(self, partition: int, first_seq: int, limit: int) -> list[Batch]:
        if partition == 0 and first_seq + limit > 3:
            raise LogDamaged(0, 3, "checksum")
        return await super().read(partition, first_seq, limit)


async def test_a_damaged_partition_is_left_and_the_others_are_followed() -> None:
    log, seen, told = Rotten(2), Seen(), list[LogDamaged]()
    await log.append(chain(5))
    await log.append([Batch(1, batch.seq, batch.prev, batch.tip, batch.payload, b"") for batch in chain(5)])
    follower = Follower(log, seen, {0: EMPTY_HEAD, 1: EMPTY_HEAD}, told.append)
    running = asyncio.ensure_future(follower.run())
    await follower.wait_until(1, 5)
    with pytest.raises(LogDamaged):
        await follower.wait_until(0, 5)
    assert seen.seqs == [1, 2, 3, 4, 5]
    assert len(told) == 1
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
