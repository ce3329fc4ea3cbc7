"""The PostgreSQL log under bad weather: rivals, killed clients and backends, a crash, lying settings, an older copy."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import pytest
from log_batches import chain, head_of, id16

pytest.importorskip("asyncpg", reason="the package asyncpg is not installed (extra `postgres`)")

from eventstore.log import (
    CONTROL,
    ZERO_TIP,
    AppendRefused,
    Batch,
    Head,
    LogDamaged,
    LogFailed,
    LogLost,
    LogUnfit,
    LogUnreadable,
)
from eventstore.postgres_log import PostgresLog
from eventstore.postgres_server import Link, PostgresReader, connector
from eventstore.verify import verify

if TYPE_CHECKING:
    from private_postgres import PostgresServer

PARTITIONS = 2
WAIT_S = 20.0

# Claims the next place of partition 0 again and again; says `seq tip` for every append that returned.
RIVAL = """
import asyncio, os, sys
from eventstore.log import AppendRefused, Batch
from eventstore.postgres_log import PostgresLog
from eventstore.postgres_server import connector

async def main(url, stop_at):
    log = await PostgresLog.open(connector(url, None))
    while (head := await log.head(0)).seq < stop_at:
        batch = Batch(0, head.seq + 1, head.tip, os.urandom(16), os.urandom(3000), b"")
        try:
            await log.append([batch])
        except AppendRefused:
            continue
        print(batch.seq, batch.tip.hex(), flush=True)
    await log.close()

asyncio.run(main(sys.argv[1], int(sys.argv[2])))
"""


@pytest.fixture
async def url(postgres: "PostgresServer") -> str:
    url = await postgres.emptied()
    await PostgresLog.create(connector(url, None), PARTITIONS, "faults", 1)
    return url


@pytest.fixture
async def log(url: str) -> AsyncIterator[PostgresLog]:
    opened = await PostgresLog.open(connector(url, None))
    yield opened
    await opened.close()


def rival(url: str, stop_at: int) -> subprocess.Popen[str]:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}
    command = [sys.executable, "-c", RIVAL, url, str(stop_at)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)


def said(rivals: list[subprocess.Popen[str]]) -> list[str]:
    lines: list[str] = []
    for each in rivals:
        with each:
            assert each.stdout is not None
            lines += each.stdout.readlines()
    return lines


async def places(log: PostgresLog) -> dict[int, str]:
    """seq -> tip of partition 0, every chain and checksum checked."""
    head = await log.head(0)
    batches = await log.read(0, 1, head.seq)
    assert head_of(batches[-1]) == head
    return {batch.seq: batch.tip.hex() for batch in batches}


async def test_processes_that_append_at_once_make_one_chain_and_each_yes_is_in_it_once(
    url: str, log: PostgresLog
) -> None:
    rivals = [rival(url, 150) for _ in range(3)]
    lines = await asyncio.to_thread(said, rivals)
    assert [each.returncode for each in rivals] == [0, 0, 0]
    acknowledged = dict(line.split() for line in lines)
    assert len(lines) == len(acknowledged) >= 150, "no place was given twice"
    assert {str(seq): tip for seq, tip in (await places(log)).items()} == acknowledged


async def test_a_client_killed_inside_an_append_leaves_a_whole_chain(url: str, log: PostgresLog) -> None:
    doomed = rival(url, 1 << 30)
    assert doomed.stdout is not None
    first = [await asyncio.to_thread(doomed.stdout.readline) for _ in range(20)]
    doomed.kill()
    lines = first + await asyncio.to_thread(said, [doomed])
    held = await places(log)
    assert all(held[int(seq)] == tip for seq, tip in (line.split() for line in lines))
    assert len(held) in (len(lines), len(lines) + 1), "one may have got in whose yes was never heard"
    head = await log.head(0)
    await log.append([Batch(0, head.seq + 1, head.tip, id16("next"), b"", b"")])


async def lost(log: PostgresLog, batches: list[Batch]) -> bool:
    """Whether an append was answered with LogLost."""
    try:
        await log.append(batches)
    except LogLost:
        return True
    return False


async def until_taken(log: PostgresLog, batches: list[Batch]) -> None:
    async with asyncio.timeout(WAIT_S):
        while await lost(log, batches):  # noqa: ASYNC110 - a server that comes back tells nobody
            await asyncio.sleep(0.02)


async def test_a_killed_backend_is_unknown_and_the_same_batches_again_are_success(
    postgres: "PostgresServer", log: PostgresLog
) -> None:
    batches = chain(0, 400)
    (pid,) = await _writing_backend(postgres, log, batches[:1])
    appends = [asyncio.create_task(log.append([batch])) for batch in batches[1:]]
    await asyncio.sleep(0)
    os.kill(pid, signal.SIGKILL)  # PostgreSQL ends every other backend as well, and recovers from its WAL
    outcomes = await asyncio.gather(*appends, return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} <= {type(None), LogLost, AppendRefused}
    assert LogLost in {type(outcome) for outcome in outcomes}
    await until_taken(log, batches)
    assert await log.read(0, 1, 1000) == batches


async def _writing_backend(postgres: "PostgresServer", log: PostgresLog, batches: list[Batch]) -> list[int]:
    await log.append(batches)
    rows = await postgres.run(
        "SELECT pid FROM pg_stat_activity WHERE query LIKE '%append_1%' AND pid <> pg_backend_pid()"
    )
    return [int(str(pid)) for (pid,) in rows]


async def test_a_server_that_crashed_still_has_every_yes(postgres: "PostgresServer", log: PostgresLog) -> None:
    batches, told = chain(1, 300), 0
    for batch in batches[:150]:
        await log.append([batch])
        told = batch.seq
    await asyncio.to_thread(postgres.stop, signal.SIGQUIT)
    assert await lost(log, batches[150:151])
    with pytest.raises(LogLost):
        await log.head(1)
    await asyncio.to_thread(postgres.start)
    assert (await log.head(1)).seq >= told
    await log.append(batches)
    assert (await verify_heads(log))[1] == head_of(batches[-1])


async def verify_heads(log: PostgresLog) -> dict[int, Head]:
    return (await verify(log, lambda *progress: None)).heads


async def test_a_server_that_is_silent_is_lost_in_time(
    postgres: "PostgresServer", log: PostgresLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = chain(0, 2)
    (pid,) = await _writing_backend(postgres, log, [first])
    monkeypatch.setitem(Link.fetch.__kwdefaults__, "seconds", 0.3)
    os.kill(pid, signal.SIGSTOP)
    try:
        assert await lost(log, [second])
    finally:
        os.kill(pid, signal.SIGCONT)  # whether it takes effect now is its own affair
    await until_taken(log, [second])
    assert await log.read(0, 1, 10) == [first, second]


@pytest.mark.parametrize("setting", ("fsync", "full_page_writes", "synchronous_commit"))
async def test_a_setting_that_makes_a_yes_a_lie_is_refused_by_name(
    postgres: "PostgresServer", url: str, log: PostgresLog, setting: str
) -> None:
    await postgres.run(f"ALTER SYSTEM SET {setting} = off")
    await postgres.run("SELECT pg_reload_conf()")
    try:
        async with asyncio.timeout(WAIT_S):
            with pytest.raises(LogUnfit, match=f"{setting} = o"):
                await _asked_for_ever(log)  # a log that is open already sees it too
        for opener in (PostgresLog.open, PostgresReader.open):
            with pytest.raises(LogUnfit, match=setting):
                await opener(connector(url, None))
        with pytest.raises(LogUnfit, match=setting):
            await PostgresLog.create(connector(url, None), 1, "other", 1)
    finally:
        await postgres.run(f"ALTER SYSTEM RESET {setting}")
        await postgres.run("SELECT pg_reload_conf()")


async def _asked_for_ever(log: PostgresLog) -> None:
    while True:
        await log.head(CONTROL)


async def test_a_setting_of_the_user_alone_binds_new_connections_and_is_seen_by_the_append_itself(
    postgres: "PostgresServer", log: PostgresLog
) -> None:
    first, second = chain(0, 2)
    await log.head(0)  # over a connection that has the old setting, and keeps it
    (pid,) = await _writing_backend(postgres, log, [first])
    await postgres.run("ALTER ROLE till SET synchronous_commit = off")
    try:
        await postgres.run(f"SELECT pg_terminate_backend({pid}, 5000)")
        with pytest.raises(LogUnfit, match="synchronous_commit = off"):
            await until_taken(log, [second])
    finally:
        await postgres.run("ALTER ROLE till RESET synchronous_commit")


async def _commits_wait(postgres: "PostgresServer") -> None:
    """Until commits wait for the standby: a reload is taken up by one process of the server after the other."""
    async with asyncio.timeout(WAIT_S):
        while True:
            commit = asyncio.create_task(postgres.run("SELECT pg_logical_emit_message(true, 'probe', 'x')"))
            if not (await asyncio.wait([commit], timeout=0.3))[0]:
                commit.cancel()
                await asyncio.wait([commit])
                return


async def test_a_wait_for_a_standby_that_is_broken_off_is_no_yes(postgres: "PostgresServer", log: PostgresLog) -> None:
    first, second = chain(0, 2)
    (pid,) = await _writing_backend(postgres, log, [first])
    await postgres.run("ALTER SYSTEM SET synchronous_standby_names = 'absent'")
    await postgres.run("SELECT pg_reload_conf()")
    await _commits_wait(postgres)
    waiting = f"SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE pid = {pid} AND wait_event = 'SyncRep'"
    try:
        for _ in range(2):  # the second one finds the batch there, which is no yes either
            append = asyncio.create_task(log.append([second]))
            async with asyncio.timeout(WAIT_S):
                while not append.done():
                    await postgres.run(waiting)
                    await asyncio.sleep(0.02)
            with pytest.raises(LogLost, match="canceling wait for synchronous replication"):
                await append
    finally:
        await postgres.run("ALTER SYSTEM RESET synchronous_standby_names")
        await postgres.run("SELECT pg_reload_conf()")
    await log.append([second])


async def test_an_unlogged_table_is_refused(postgres: "PostgresServer", url: str) -> None:
    await postgres.run("ALTER TABLE tillgate.batch SET UNLOGGED")
    with pytest.raises(LogUnfit, match="UNLOGGED"):
        await PostgresLog.open(connector(url, None))


async def test_an_older_copy_in_place_of_the_log_ends_the_gateway(postgres: "PostgresServer", log: PostgresLog) -> None:
    batches = chain(0, 5)
    await log.append(batches)
    await postgres.run("DELETE FROM tillgate.batch WHERE seq > 3")
    older = "SELECT tip FROM tillgate.batch WHERE seq = 3"
    await postgres.run(f"UPDATE tillgate.head SET seq = 3, tip = ({older}) WHERE partition = 0")
    with pytest.raises(LogFailed, match="no longer has batch 5 of partition 0"):
        await log.head(0)
    await postgres.run("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")
    rival = Batch(0, 4, batches[2].tip, id16("other"), b"", b"")
    with pytest.raises((LogFailed, LogLost)):
        await log.append([rival])  # the old connection is gone
    with pytest.raises(LogFailed, match="no longer has batch 5"):
        await log.append([rival])


async def test_what_is_no_log_is_named(postgres: "PostgresServer") -> None:
    connect = connector(await postgres.emptied(), None)
    with pytest.raises(FileNotFoundError, match="no log"):
        await PostgresLog.open(connect)
    await PostgresLog.create(connect, 1, "one", 1, [Batch(CONTROL, 1, ZERO_TIP, id16("init"), b"", b"")])
    with pytest.raises(FileExistsError, match="already"):
        await PostgresLog.create(connect, 1, "two", 1)
    reader = await PostgresReader.open(connect)
    assert (reader.meta.deployment_id, await reader.head(CONTROL)) == ("one", Head(1, id16("init")))
    await reader.close()
    await postgres.run("UPDATE tillgate.meta SET format = 2")
    with pytest.raises(LogUnreadable, match="format 2"):
        await PostgresLog.open(connect)
    with pytest.raises(LogLost, match="does not exist"):
        await PostgresLog.open(connector(postgres.url().replace("/postgres?", "/nowhere?"), None))


async def test_a_damaged_batch_is_named_and_the_other_partitions_are_read(
    postgres: "PostgresServer", log: PostgresLog
) -> None:
    for partition in (0, 1):
        await log.append(chain(partition, 4))
    await postgres.run("UPDATE tillgate.batch SET payload = payload || '\\x00' WHERE (partition, seq) = (0, 3)")
    with pytest.raises(LogDamaged, match="partition 0, batch 3: checksum"):
        await log.read(0, 1, 10)
    await postgres.run("DELETE FROM tillgate.batch WHERE (partition, seq) = (0, 3)")
    with pytest.raises(LogDamaged, match="partition 0, batch 3: missing"):
        await log.read(0, 1, 10)
    await postgres.run("DELETE FROM tillgate.batch WHERE (partition, seq) = (0, 4)")
    with pytest.raises(LogDamaged, match="newest"):
        await log.head(0)
    assert await log.read(1, 1, 10) == chain(1, 4)
