"""A rebuild reads a long log, and lets the rest of the gateway live meanwhile."""

import asyncio

import pytest
from log_batches import chain, head_of, id16, record, redeemed

from eventstore.events import APPLIED
from eventstore.finished import by_field
from eventstore.log import EMPTY_HEAD
from eventstore.memory_log import MemoryLog
from gateway.recovery import FEW_BATCHES, FOLD_BATCHES, fold_log

BATCHES = 400  # one read


async def test_others_have_their_turn_while_a_page_is_folded() -> None:
    log = MemoryLog(1)
    await log.append(chain(0, BATCHES))
    turns, turns_when_folded = 0, 0

    async def live() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    def folded(batches: int) -> None:
        nonlocal turns_when_folded
        assert batches == BATCHES
        turns_when_folded = turns

    living = asyncio.create_task(live())
    await fold_log(log, 0, (), folded)
    living.cancel()
    assert turns_when_folded >= BATCHES // FOLD_BATCHES
    assert FOLD_BATCHES <= 16


@pytest.mark.parametrize("purged", ((), (7,)))
async def test_a_short_log_comes_to_the_same_record_by_record(
    purged: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    log, head = MemoryLog(2), EMPTY_HEAD
    for n in range(FEW_BATCHES):
        packed = record(campaign=7 + n % 2, serial=n, claim_id=id16(n))
        await log.append([batch := redeemed(1, head, [(packed, APPLIED)])])
        head = head_of(batch)
    short = await fold_log(log, 1, purged)
    monkeypatch.setattr("gateway.recovery.FEW_BATCHES", 0)
    long = await fold_log(log, 1, purged)
    assert short.head == long.head == head
    hashes = dict(short.hashes)
    assert hashes
    assert hashes == {key: by_field(held) for key, held in long.hashes}
