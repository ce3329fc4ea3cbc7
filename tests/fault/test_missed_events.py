"""One redemption id took effect twice: the control partition says so once, whatever crashed in between."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from core_world import KEYS, Seen, connector, until, wall_ms
from log_batches import head_of, record, redeemed

from eventstore.events import IdReused, KeyAdded, decode_control
from eventstore.follower import Follower
from eventstore.log import CONTROL, EMPTY_HEAD
from eventstore.projections import RedemptionIndex
from eventstore.sqlite_log import SqliteLog
from gateway.core import INDEX_FILE, LOG_FILE, Core, open_core

TWICE = b"t" * 16
EVENTS = [IdReused(redemption_id=TWICE, first=(0, 1, 0), second=(0, 2, 0))]
KEY = KeyAdded(key_id=1)


class Counting(Seen):
    def __init__(self) -> None:
        super().__init__()
        self.violations: list[str] = []

    def claimed(self, seconds: float) -> None:
        pass

    def claim_failed(self, cause: str) -> None:
        pass

    def violated(self, invariant: str) -> None:
        self.violations.append(invariant)


async def create_with_an_id_used_twice(directory: Path) -> None:
    SqliteLog.create(directory / LOG_FILE, 1, "test", wall_ms())
    log = SqliteLog.open(directory / LOG_FILE)
    after = EMPTY_HEAD
    for serial in (1, 2):
        used = record(redemption_id=TWICE, serial=serial, claim_id=bytes([serial]) * 16)
        batch = redeemed(0, after, [(used, 0)])
        await log.append([batch])
        after = head_of(batch)
    await log.close()


async def index_and_die(directory: Path) -> None:
    """What a gateway leaves that dies between the commit of its index and the control event."""
    log = SqliteLog.open(directory / LOG_FILE)
    index = RedemptionIndex.open(directory / INDEX_FILE, 1, "test")
    follower = Follower(log, index, index.checkpoint)
    running = asyncio.create_task(follower.run())
    await follower.wait_until(0, 2)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert await index.reused() == EVENTS
    await index.close()
    await log.close()


@asynccontextmanager
async def opened(directory: Path, url: str) -> AsyncIterator[tuple[Core, Counting]]:
    seen = Counting()
    core = await open_core(directory, KEYS, connect=lambda: connector(url), observer=seen)
    try:
        await until(lambda: not core.troubles())
        yield core, seen
    finally:
        await core.close()


async def told(core: Core) -> list[object]:
    batches = await core.log.read(CONTROL, 1, 100)
    return [event for batch in batches for event in decode_control(batch.payload).events]


async def quiet(core: Core) -> None:
    """Until only what runs for ever is still running: the reader of the control partition and both followers."""
    await until(lambda: len(core._tasks) == 3)


async def test_what_a_crash_kept_from_the_control_partition_is_written_at_start(
    tmp_path: Path, valkey_endpoint: str
) -> None:
    await create_with_an_id_used_twice(tmp_path)
    await index_and_die(tmp_path)
    for _ in range(2):
        async with opened(tmp_path, valkey_endpoint) as (core, _):
            await quiet(core)
            assert await told(core) == EVENTS


async def test_an_index_built_anew_tells_nothing_twice(tmp_path: Path, valkey_endpoint: str) -> None:
    await create_with_an_id_used_twice(tmp_path)
    for _ in range(2):
        async with opened(tmp_path, valkey_endpoint) as (core, seen):
            await until(lambda seen=seen: seen.violations)
            await quiet(core)
            assert await told(core) == EVENTS
        (tmp_path / INDEX_FILE).unlink()


async def test_told_by_many_at_once_and_beside_other_events_it_is_written_once(
    tmp_path: Path, valkey_endpoint: str
) -> None:
    await create_with_an_id_used_twice(tmp_path)
    async with opened(tmp_path, valkey_endpoint) as (core, _):
        await quiet(core)
        third = IdReused(redemption_id=TWICE, first=(0, 1, 0), second=(0, 3, 0))
        swapped = IdReused(redemption_id=TWICE, first=(0, 2, 0), second=(0, 1, 0))
        writing = asyncio.create_task(core.control.record("test", lambda directory, now_ms: [KEY]))
        for _ in range(3):
            core.note_reused([third, swapped])
        await writing
        await quiet(core)
        written = await told(core)
        assert KEY in written
        assert [event for event in written if isinstance(event, IdReused)] == [*EVENTS, third]
