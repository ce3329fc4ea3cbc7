"""A rebuild reads a long log, and lets the rest of the gateway live meanwhile."""

import asyncio

from log_batches import chain

from eventstore.memory_log import MemoryLog
from gateway.recovery import FOLD_BATCHES, fold_log

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
