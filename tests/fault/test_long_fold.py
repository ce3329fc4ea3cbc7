"""A rebuild reads a long log, and lets the rest of the gateway live meanwhile."""

import asyncio

from core_world import connector
from log_batches import chain

from eventstore.memory_log import MemoryLog
from gateway.claims import ValkeyArbiter
from gateway.recovery import FOLD_BATCHES, rebuild

BATCHES = 400  # one read


async def test_others_have_their_turn_while_a_page_is_folded(valkey_endpoint: str) -> None:
    log, arbiter = MemoryLog(1), ValkeyArbiter(lambda: connector(valkey_endpoint), lambda partition: None)
    await log.append(chain(0, BATCHES))
    await arbiter.check(0)
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
    await rebuild(arbiter, log, 0, token=b"t" * 16, purged=(), advance=folded)
    living.cancel()
    assert turns_when_folded >= BATCHES // FOLD_BATCHES
    assert FOLD_BATCHES <= 16
    await arbiter.close()
