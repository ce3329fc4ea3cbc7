"""The SQLite log's queue: appends that wait, are given up, share a commit, or meet the end."""

import asyncio
from pathlib import Path

import pytest
from log_batches import chain, head_of

from eventstore import sqlite_log
from eventstore.log import CONTROL, EMPTY_HEAD
from eventstore.sqlite_log import SqliteLog


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "log.db"
    SqliteLog.create(path, 3, "faults", 1)
    return path


async def test_concurrent_appends_share_commits(path: Path) -> None:
    commits: list[tuple[float, int]] = []
    log = SqliteLog.open(path, lambda seconds, batches: commits.append((seconds, batches)))
    await asyncio.gather(*(log.append([batch]) for partition in range(3) for batch in chain(partition, 200)))
    await log.close()
    assert sum(batches for _, batches in commits) == 600
    assert len(commits) < 60
    assert all(seconds > 0 for seconds, _ in commits)


async def test_appends_beyond_the_queue_wait_their_turn(path: Path) -> None:
    log = SqliteLog.open(path)
    batches = chain(0, sqlite_log.APPENDS_WAITING_MAX + 500)
    await asyncio.gather(*(log.append([batch]) for batch in batches))
    assert await log.head(0) == head_of(batches[-1])
    await log.close()


async def test_a_cancelled_append_leaves_the_others_alone(path: Path) -> None:
    log = SqliteLog.open(path)
    batches = chain(0, 3)
    appends = [asyncio.create_task(log.append([batch])) for batch in batches]
    await asyncio.sleep(0)
    appends[1].cancel()
    await asyncio.gather(appends[0], appends[2])
    assert appends[1].cancelled()
    assert await log.read(0, 1, 10) == batches
    await log.close()


async def test_close_writes_what_waits(path: Path) -> None:
    log = SqliteLog.open(path)
    appends = [asyncio.create_task(log.append([batch])) for batch in chain(CONTROL, 50)]
    await asyncio.sleep(0)
    await log.close()
    await asyncio.gather(*appends)
    assert not path.with_name("log.db-wal").exists()
    reopened = SqliteLog.open(path)
    assert (await reopened.head(CONTROL)).seq == 50
    assert await reopened.head(0) == EMPTY_HEAD
    await reopened.close()


async def test_the_wal_stays_small(path: Path) -> None:
    log = SqliteLog.open(path)
    head = EMPTY_HEAD
    for _ in range(40):
        batches = chain(0, 8, head, bytes(65_536))
        head = head_of(batches[-1])
        await log.append(batches)
    assert path.with_name("log.db-wal").stat().st_size < 3 * sqlite_log.CHECKPOINT_BYTES
    await log.close()
