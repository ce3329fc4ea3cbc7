"""The SQLite log under bad weather: killed, without space, with a failing disk, damaged, held twice."""

import asyncio
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import msgspec
import pytest
from log_batches import chain, head_of, id16

from eventstore import sqlite_file
from eventstore.log import Batch, LogDamaged, LogFailed, LogLocked, LogUnreadable, batch_crc
from eventstore.sqlite_file import open_reader
from eventstore.sqlite_log import SqliteLog
from eventstore.verify import VERIFY_BATCHES, verify

# Appends to partitions 0 to 2 at once until it is stopped; says `partition seq` for every append that returned.
WRITER = """
import asyncio, resource, sys
from pathlib import Path
from log_batches import chain, head_of
from eventstore.log import EMPTY_HEAD, LogFailed
from eventstore.sqlite_log import SqliteLog

async def fill(log, partition, stop_at):
    head = EMPTY_HEAD
    while head.seq < stop_at:
        (batch,) = chain(partition, 1, head)
        head = head_of(batch)
        await log.append([batch])
        print(partition, batch.seq, flush=True)

async def main(path, partitions, stop_at, file_bytes_max):
    log = SqliteLog.open(Path(path))
    if file_bytes_max:
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes_max, file_bytes_max))
    try:
        await asyncio.gather(*(fill(log, partition, stop_at) for partition in range(partitions)))
    except LogFailed:
        for refused in (log.append(chain(0, 1)), log.head(0)):
            try:
                await refused
            except LogFailed:
                print("failed", "still", flush=True)
    await log.close()

asyncio.run(main(sys.argv[1], *map(int, sys.argv[2:])))
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "log.db"
    SqliteLog.create(path, 3, "faults", 1)
    return path


def writer_command(path: Path, partitions: int, stop_at: int, file_bytes_max: int = 0) -> list[str]:
    return [sys.executable, "-c", WRITER, str(path), str(partitions), str(stop_at), str(file_bytes_max)]


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}


def run_writer(
    path: Path, partitions: int, stop_at: int, file_bytes_max: int = 0, under: Sequence[str] = ()
) -> list[str]:
    """Lets a writer run to its end, under a tracer perhaps; what it said."""
    command = [*under, *writer_command(path, partitions, stop_at, file_bytes_max)]
    writer = subprocess.run(command, capture_output=True, text=True, env=environment(), timeout=30)
    assert writer.returncode == 0, writer.stderr
    return writer.stdout.splitlines()


def kill_writer(path: Path, appends: int) -> list[str]:
    """Kills a writer after `appends` acknowledged appends; what it said."""
    command = writer_command(path, 3, 1 << 30)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment()) as writer:
        assert writer.stdout is not None
        lines = [writer.stdout.readline() for _ in range(appends)]
        writer.send_signal(signal.SIGKILL)
        lines += writer.stdout.readlines()
    assert writer.returncode == -signal.SIGKILL
    return lines


def told(lines: Sequence[str]) -> dict[str, int]:
    """The newest acknowledged seq by partition."""
    newest: dict[str, int] = {}
    for line in lines:
        partition, _, seq = line.strip().partition(" ")
        if seq.isdigit():
            newest[partition] = int(seq)
    return newest


async def check_holds(path: Path, acknowledged: dict[str, int]) -> None:
    log = SqliteLog.open(path)
    await verify(log, lambda *progress: None)
    for partition, seq in acknowledged.items():
        assert (await log.head(int(partition))).seq >= seq
        assert (await log.read(int(partition), seq, 1))[0].tip == id16(int(partition), seq)
    await log.close()


@pytest.mark.parametrize("appends", (1, 30, 400))
async def test_every_acknowledged_append_survives_kill_9(path: Path, appends: int) -> None:
    lines = kill_writer(path, appends)
    reader = open_reader(path)  # before anybody repairs: a verifier must be able to read what a killed holder left
    await verify(reader, lambda *progress: None)
    await reader.close()
    await check_holds(path, told(lines))


async def test_a_full_disk_fails_the_log_for_good(path: Path) -> None:
    lines = run_writer(path, 3, 1 << 30, 400_000)
    assert lines[-2:] == ["failed still", "failed still"]
    acknowledged = told(lines)
    assert acknowledged["0"] > 1
    await check_holds(path, acknowledged)


def can_trace() -> bool:
    strace = shutil.which("strace")
    return strace is not None and subprocess.run([strace, "-o", os.devnull, "true"]).returncode == 0


@pytest.mark.skipif(not can_trace(), reason="needs strace")
async def test_every_commit_is_synced_and_a_failed_sync_fails_the_log(path: Path, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    strace = ["strace", "-f", "-qq", "-o", str(trace), "-e", "trace=fdatasync,fsync"]
    run_writer(path, 1, 20, under=strace)
    assert trace.read_text().count("sync(") >= 20
    other = tmp_path / "other.db"
    SqliteLog.create(other, 3, "faults", 1)
    lines = run_writer(other, 1, 20, under=[*strace, "-e", "inject=fdatasync,fsync:error=EIO:when=10+"])
    assert lines[-2:] == ["failed still", "failed still"]
    acknowledged = told(lines)
    assert 0 < acknowledged["0"] < 20
    await check_holds(other, acknowledged)


async def test_one_holder_only(path: Path) -> None:
    log = SqliteLog.open(path)
    with pytest.raises(LogLocked, match=str(os.getpid())):
        SqliteLog.open(path)
    with pytest.raises(LogLocked):
        SqliteLog.create(path, 1, "other", 1)
    await log.close()
    await SqliteLog.open(path).close()


async def test_a_wal_that_cannot_be_made_durable_is_not_believed(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = SqliteLog.open(path)
    await log.append(chain(0, 1))
    with closing(sqlite3.connect(path, isolation_level=None)) as stuck:
        stuck.execute("BEGIN")
        stuck.execute("SELECT count(*) FROM batch").fetchone()
        await log.append(chain(0, 2))  # after its snapshot: cannot be copied into the file while it reads
        await log.close()
        monkeypatch.setattr(sqlite_file, "BUSY_SECONDS", 0.05)
        with pytest.raises(LogLocked, match="open read"):
            SqliteLog.open(path)
    await check_holds(path, {"0": 2})


async def test_a_reader_follows_a_writing_holder(path: Path) -> None:
    log = SqliteLog.open(path)
    reader = open_reader(path)
    assert (reader.partitions, reader.meta.deployment_id, reader.meta.created_ms) == (3, "faults", 1)
    for batch in chain(0, 20):
        await log.append([batch])
        assert await reader.head(0) == head_of(batch)
    await log.close()
    assert await reader.read(0, 1, 100) == chain(0, 20)
    await reader.close()
    idle = open_reader(path)  # nobody holds it now
    assert await idle.read(0, 1, 100) == chain(0, 20)
    await idle.close()


def change(path: Path, statement: str) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        assert connection.execute(statement).rowcount == 1


DAMAGE = {
    "payload": ("UPDATE batch SET payload = CAST(payload || x'00' AS BLOB) WHERE id = 3", 3),
    "verdicts": ("UPDATE batch SET verdicts = x'00' WHERE id = 3", 3),
    "tip": ("UPDATE batch SET tip = zeroblob(16) WHERE id = 3", 3),
    "short tip": ("UPDATE batch SET tip = x'00' WHERE id = 3", 3),
    "moved": ("UPDATE batch SET id = 9 WHERE id = 5", 9),
    "removed": ("DELETE FROM batch WHERE id = 2", 2),
    "first removed": ("DELETE FROM batch WHERE id = 1", 1),
}


@pytest.mark.parametrize("name", DAMAGE)
async def test_damage_is_named_and_never_served(path: Path, name: str) -> None:
    log = SqliteLog.open(path)
    await log.append(chain(0, 5))
    await log.close()
    statement, seq = DAMAGE[name]
    change(path, statement)
    reader = open_reader(path)
    with pytest.raises(LogDamaged) as damaged:
        await verify(reader, lambda *progress: None)
    assert (damaged.value.partition, damaged.value.seq) == (0, seq)
    await reader.close()


@pytest.mark.parametrize("seq", (3, VERIFY_BATCHES + 1))
async def test_a_row_with_a_good_checksum_in_a_broken_chain_is_damage(path: Path, seq: int) -> None:
    batches = chain(0, seq + 1)
    log = SqliteLog.open(path)
    await log.append(batches)
    await log.close()
    foreign = msgspec.structs.replace(batches[seq - 1], prev=id16("foreign"))
    change(path, f"UPDATE batch SET prev = x'{foreign.prev.hex()}', crc = {batch_crc(foreign)} WHERE id = {seq}")
    reader = open_reader(path)
    with pytest.raises(LogDamaged, match="does not follow") as damaged:
        await verify(reader, lambda *progress: None)
    assert (damaged.value.partition, damaged.value.seq) == (0, seq)
    with pytest.raises(LogDamaged, match="does not follow"):  # already one read of its neighbours shows it
        await reader.read(0, max(1, seq - 1), 3)
    await reader.close()


async def test_a_batch_that_was_written_wrong_is_found_by_verify(path: Path) -> None:
    log = SqliteLog.open(path)
    await log.append(chain(1, 1, payload=b"no header"))
    with pytest.raises(LogDamaged, match="no header") as damaged:
        await verify(log, lambda *progress: None)
    assert (damaged.value.partition, damaged.value.seq) == (1, 1)
    await log.close()


async def fill(path: Path, count: int) -> None:
    log = SqliteLog.open(path)
    await log.append(chain(0, count))
    await log.close()


async def read_all(path: Path) -> list[Batch]:
    reader = open_reader(path)
    try:
        head = await reader.head(0)
        return await reader.read(0, 1, head.seq or 1)
    finally:
        await reader.close()


def test_a_flipped_byte_never_changes_a_batch(path: Path) -> None:
    asyncio.run(fill(path, 50))
    intact = path.read_bytes()
    refused = 0
    for offset in range(0, len(intact), 499):
        path.write_bytes(intact[:offset] + bytes([intact[offset] ^ 0xFF]) + intact[offset + 1 :])
        try:
            found = asyncio.run(read_all(path))
        except (LogDamaged, LogFailed, LogUnreadable):
            refused += 1
        else:
            assert found == chain(0, 50)[: len(found)]  # a byte nobody reads, or a tail that is gone
    assert refused > 10


def test_what_is_no_log_is_refused(tmp_path: Path, path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        SqliteLog.open(tmp_path / "none.db")
    text = tmp_path / "text.db"
    text.write_text("not a database, but longer than a header would be" * 9)
    for opener in (SqliteLog.open, open_reader):
        with pytest.raises(LogUnreadable):
            opener(text)
    change(path, "UPDATE meta SET value = 2 WHERE name = 'format'")
    with pytest.raises(LogUnreadable, match="format 2"):
        SqliteLog.open(path)


def test_create_never_touches_what_is_there(tmp_path: Path, path: Path) -> None:
    before = path.read_bytes()
    with pytest.raises(FileExistsError):
        SqliteLog.create(path, 3, "other", 2)
    assert path.read_bytes() == before
    stray = tmp_path / "gone.db-wal"
    stray.write_bytes(b"of a log that was deleted")
    with pytest.raises(FileExistsError, match="wal"):
        SqliteLog.create(tmp_path / "gone.db", 3, "other", 2)
    assert not (tmp_path / "gone.db").exists()
    assert path.stat().st_mode & 0o777 == 0o600
