"""A rebuild reads a long log, and lets the rest of the gateway live meanwhile."""

import asyncio
from functools import partial
from typing import Any

import pytest
from log_batches import chain, head_of, id16, record, redeemed

from eventstore.bulk_fold import BulkFold
from eventstore.events import APPLIED, IMPORT
from eventstore.finished import by_field
from eventstore.log import EMPTY_HEAD
from eventstore.memory_log import MemoryLog
from gateway.recovery import FOLD_BATCHES, READ_BATCHES, fold_log

BATCHES = 400  # one read


async def purged_are(*campaigns: int) -> tuple[int, ...]:
    return campaigns


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
    await fold_log(log, 0, purged_are, folded)
    living.cancel()
    assert turns_when_folded >= BATCHES // FOLD_BATCHES
    assert FOLD_BATCHES <= 16


@pytest.mark.parametrize("purged", ((), (7,)))
async def test_a_short_log_comes_to_the_same_record_by_record(
    purged: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    log, head = MemoryLog(2), EMPTY_HEAD
    for n in range(200):
        packed = record(campaign=7 + n % 2, serial=n, claim_id=id16(n))
        await log.append([batch := redeemed(1, head, [(packed, APPLIED)])])
        head = head_of(batch)
    short = await fold_log(log, 1, partial(purged_are, *purged))
    monkeypatch.setattr("gateway.recovery.FEW_RECORDS", 0)
    long = await fold_log(log, 1, partial(purged_are, *purged))
    assert short.head == long.head == head
    hashes = dict(short.hashes)
    assert hashes
    assert hashes == {key: by_field(held) for key, held in long.hashes}


@pytest.mark.parametrize(
    ("batches", "records", "few", "in_columns"),
    ((3, 10, 30, False), (3, 10, 29, True), (READ_BATCHES, 1, 10_000, False), (READ_BATCHES + 1, 1, 10_000, True)),
)
async def test_how_a_log_is_folded_is_told_by_its_records(
    batches: int, records: int, few: int, in_columns: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, head = MemoryLog(1), EMPTY_HEAD
    for n in range(batches):
        rows = [(record(serial=n * records + i, claim_id=id16(n, i)), APPLIED) for i in range(records)]
        await log.append([batch := redeemed(0, head, rows)])
        head = head_of(batch)
    monkeypatch.setattr("gateway.recovery.FEW_RECORDS", few)
    made: list[BulkFold] = []

    class Noted(BulkFold):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            made.append(self)

    monkeypatch.setattr("eventstore.bulk_fold.BulkFold", Noted)
    told: list[int] = []
    folded = await fold_log(log, 0, purged_are, told.append)
    assert bool(made) is in_columns
    assert sum(len(by_field(held)) for _, held in folded.hashes) == batches * records
    assert (folded.head, sum(told)) == (head, batches)


async def test_a_log_without_a_batch_comes_to_nothing() -> None:
    folded = await fold_log(MemoryLog(1), 0, purged_are)
    assert (folded.head, list(folded.hashes)) == (EMPTY_HEAD, [])


@pytest.mark.parametrize("few", (0, 10))
async def test_what_is_purged_is_asked_for_after_the_head(few: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another gateway purges a campaign and registers one of its codes again, just when we ask."""
    monkeypatch.setattr("gateway.recovery.FEW_RECORDS", few)
    log = MemoryLog(1)
    code = id16("a code")
    await log.append([first := redeemed(0, EMPTY_HEAD, [(record(IMPORT, campaign=7, redemption_id=code), APPLIED)])])
    again = redeemed(0, head_of(first), [(record(IMPORT, campaign=8, redemption_id=code), APPLIED)])

    async def asked_late() -> tuple[int, ...]:
        await log.append([again])
        return ()

    folded = await fold_log(log, 0, asked_late)
    assert folded.head == head_of(first)
    assert len(list(folded.hashes)) == 1
