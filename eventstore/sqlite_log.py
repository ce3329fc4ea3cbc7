"""The event log in one SQLite file, held by one process.

Theory of operation. `append` puts its run into a queue and waits. One thread does all the writing: it takes everything
that is queued, compares each run with the heads it keeps in memory, writes the runs that join in ONE SQLite
transaction, and tells the event loop all outcomes in one call. While it waits for the disk, further runs queue up and
share the next transaction: that is the group commit. A run that does not join is never written, so it cannot spoil its
neighbours. WAL with synchronous=FULL fsyncs before COMMIT returns; readers see a batch only after that.

A small transaction is ONE statement without BEGIN: each call into SQLite gives up the interpreter lock and must get it
back from a busy event loop, which costs more than the insert.

The interpreter's switch interval matters: a saturated event loop gives up the lock often and for microseconds, and each
time restarts the patience (5 ms by default) of a thread that wants it. Measured with a loop that never idles: appends
starved for seconds at 5 ms, p99 25 ms at 1 ms, 1.5 ms at 50 us. `open` therefore lowers it for the whole interpreter.

Failure. Any error of the storage ends the writer for good: every waiting and every later append raises LogFailed and
the process must end, because after a failed fsync the kernel forgets which pages never reached the disk. The next
`open` copies the whole WAL into the file and syncs it before anything is believed, so that a batch whose fsync failed,
but which the page cache still shows, is written afresh. Checkpoints run on the writer after the outcomes are told, and
not inside COMMIT, where SQLite would swallow their errors.
"""

import asyncio
import fcntl
import os
import sqlite3
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Self

from eventstore.log import (
    CONTROL,
    LOG_FORMAT,
    PARTITIONS_MAX,
    AppendRefused,
    Batch,
    Head,
    LogFailed,
    LogLocked,
    Meta,
    batch_crc,
    check_join,
    run_partition,
)
from eventstore.sqlite_file import SqliteReader, connect, row_id, write_empty

APPENDS_WAITING_MAX = 4096  # one per claim call in flight; beyond it the callers wait their turn, in order
COMMIT_BYTES_MAX = 4 << 20  # about 20 ms of writing: what the last caller of a transaction waits for its neighbours
CHECKPOINT_BYTES = 4 << 20  # a checkpoint of this much stalls the writer about 5 ms; rarer ones stall it longer
WAL_KEPT_BYTES = 64 << 20  # a WAL that a slow reader let grow is cut back to this
SWITCH_SECONDS = 50e-6  # how long the writer's thread is patient with a busy loop; see above
ROWS_PER_STATEMENT = 64  # statements are cached per row count; the usual transaction has one to sixteen rows

_PRAGMAS = (
    "PRAGMA synchronous=FULL",
    "PRAGMA fullfsync=ON",  # macOS only: there a plain fsync stops at the drive's cache
    "PRAGMA wal_autocheckpoint=0",
    f"PRAGMA journal_size_limit={WAL_KEPT_BYTES}",
)
_INSERT = "INSERT INTO batch VALUES (?,?,?,?,?,?)"
_INSERTS = tuple(_INSERT + ",(?,?,?,?,?,?)" * more for more in range(ROWS_PER_STATEMENT))
_Row = tuple[int, bytes, bytes, bytes, bytes, int]


class SqliteLog:
    """An EventLog; the only holder of its file. `on_commit(seconds, batches)` is called from the loop per commit."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        reader: SqliteReader,
        lock_fd: int,
        on_commit: Callable[[float, int], None],
    ) -> None:
        self._connection, self._reader, self._lock_fd, self._on_commit = connection, reader, lock_fd, on_commit
        partitions = (*range(reader.partitions), CONTROL)
        self._heads = {partition: reader.head_now(partition) for partition in partitions}  # the writer's
        self._queue: SimpleQueue[Sequence[Batch] | None] = SimpleQueue()  # None: write what came before, then end
        self._room = asyncio.Semaphore(APPENDS_WAITING_MAX)
        self._waiting: deque[asyncio.Future[None]] = deque()  # one per run in the queue, in its order
        self._failure: str | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ended = asyncio.Event()
        # A daemon: a process that ends without `close` must end, whatever waits here was promised to nobody.
        threading.Thread(target=self._run, name="log-writer", daemon=True).start()

    @staticmethod
    def create(path: Path, partitions: int, deployment_id: str, created_ms: int) -> None:
        """Write a new, empty log. Raises FileExistsError, LogLocked; a crash in between leaves no half log."""
        assert 1 <= partitions <= PARTITIONS_MAX, f"{partitions} partitions"
        with ExitStack() as undo:
            undo.callback(os.close, _take_lock(path))
            for taken in (path, Path(f"{path}-wal")):  # SQLite would replay a stray WAL into the new file
                if taken.exists():
                    raise FileExistsError(f"{taken} exists")
            write_empty(path, Meta(LOG_FORMAT, partitions, deployment_id, created_ms))

    @classmethod
    def open(cls, path: Path, on_commit: Callable[[float, int], None] = lambda seconds, batches: None) -> Self:
        """Hold the log for appending. Raises FileNotFoundError, LogLocked, LogUnreadable, LogDamaged, LogFailed."""
        with ExitStack() as undo:
            lock_fd = _take_lock(path)
            undo.callback(os.close, lock_fd)
            connection = undo.enter_context(closing(connect(path, "rw")))
            reading = undo.enter_context(closing(connect(path, "ro")))
            reader = SqliteReader(reading)
            _make_durable(connection, path)
            sys.setswitchinterval(min(SWITCH_SECONDS, sys.getswitchinterval()))
            log = cls(connection, reader, lock_fd, on_commit)
            undo.pop_all()
            return log

    @property
    def meta(self) -> Meta:
        return self._reader.meta

    @property
    def partitions(self) -> int:
        return self._reader.partitions

    async def head(self, partition: int) -> Head:
        """Raises LogFailed, LogDamaged."""
        if self._failure is not None:
            raise LogFailed(self._failure)
        return await self._reader.head(partition)

    async def read(self, partition: int, first_seq: int, limit: int) -> list[Batch]:
        """Raises LogFailed, LogDamaged."""
        return await self._reader.read(partition, first_seq, limit)

    async def append(self, batches: Sequence[Batch]) -> None:
        """Returns after COMMIT. Raises AppendRefused, LogFailed; a cancelled append may still take effect."""
        if not batches:
            return
        assert run_partition(batches) in self._heads, f"partition {batches[0].partition}"
        assert not self._ended.is_set() or self._failure, "append after close"
        await self._room.acquire()
        if self._failure is not None:
            self._room.release()
            raise LogFailed(self._failure)
        self._loop = asyncio.get_running_loop()
        outcome = self._loop.create_future()
        self._waiting.append(outcome)
        self._queue.put(batches)
        await outcome

    async def close(self) -> None:
        """Write what waits, then let go of the file."""
        self._loop = asyncio.get_running_loop()
        self._queue.put(None)
        await self._ended.wait()
        await self._reader.close()
        self._connection.close()
        os.close(self._lock_fd)

    # --- on the event loop, called by the writer ---

    def _tell(self, outcomes: list[AppendRefused | None], seconds: float, batches: int) -> None:
        for refused in outcomes:
            waiting = self._waiting.popleft()
            self._room.release()
            if waiting.done():  # its caller was cancelled
                continue
            if refused is None:
                waiting.set_result(None)
            else:
                waiting.set_exception(refused)
        self._on_commit(seconds, batches)

    def _end(self, failure: str | None) -> None:
        self._failure = failure
        while self._waiting:
            waiting = self._waiting.popleft()
            self._room.release()
            if not waiting.done():
                waiting.set_exception(LogFailed(failure))
        self._ended.set()

    # --- on the writer's thread ---

    def _run(self) -> None:
        failure: str | None = "the log writer ended by a fault of its own"
        try:
            self._write_until_closed()
            failure = None
        except sqlite3.Error as error:
            failure = f"log storage failed: {error}"
        finally:
            assert self._loop is not None, "only append and close wake the writer"
            self._loop.call_soon_threadsafe(self._end, failure)

    def _write_until_closed(self) -> None:
        closing_down, since_checkpoint = False, 0
        while not closing_down:
            runs, closing_down = self._next_runs()
            started = time.perf_counter()
            outcomes, rows = self._join(runs)
            self._insert(rows)
            seconds = time.perf_counter() - started
            assert self._loop is not None, "only append and close wake the writer"
            self._loop.call_soon_threadsafe(self._tell, outcomes, seconds, len(rows))
            since_checkpoint += sum(len(payload) for _, _, _, payload, _, _ in rows)
            if since_checkpoint >= CHECKPOINT_BYTES:
                self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
                since_checkpoint = 0

    def _next_runs(self) -> tuple[list[Sequence[Batch]], bool]:
        """Everything that is queued, at least one run; and whether it is the last there will be."""
        runs: list[Sequence[Batch]] = []
        waiting_bytes = 0
        run = self._queue.get()
        while run is not None:
            runs.append(run)
            waiting_bytes += sum(len(batch.payload) for batch in run)
            if waiting_bytes >= COMMIT_BYTES_MAX:
                break
            try:
                run = self._queue.get_nowait()
            except Empty:
                break
        return runs, run is None

    def _join(self, runs: Sequence[Sequence[Batch]]) -> tuple[list[AppendRefused | None], list[_Row]]:
        """What becomes of each run, and the rows of those that join."""
        outcomes: list[AppendRefused | None] = []
        rows: list[_Row] = []
        unwritten: dict[int, bytes] = {}  # tips of this transaction, by row id
        for run in runs:
            partition = run[0].partition
            head = self._heads[partition]
            fresh = check_join(head, run, partial(self._stored_tip, unwritten, partition))
            if fresh is None:
                outcomes.append(AppendRefused(partition, run[0].seq, head))
                continue
            outcomes.append(None)
            for batch in fresh:
                key = row_id(partition, batch.seq)
                unwritten[key] = batch.tip
                rows.append((key, batch.prev, batch.tip, batch.payload, batch.verdicts, batch_crc(batch)))
                self._heads[partition] = Head(batch.seq, batch.tip)
        return outcomes, rows

    def _stored_tip(self, unwritten: dict[int, bytes], partition: int, seq: int) -> bytes | None:
        key = row_id(partition, seq)
        if key in unwritten:
            return unwritten[key]
        row = self._connection.execute("SELECT tip FROM batch WHERE id = ?", (key,)).fetchone()
        return None if row is None else row[0]

    def _insert(self, rows: Sequence[_Row]) -> None:
        if len(rows) <= ROWS_PER_STATEMENT:
            self._insert_some(rows)
            return
        self._connection.execute("BEGIN IMMEDIATE")
        for start in range(0, len(rows), ROWS_PER_STATEMENT):
            self._insert_some(rows[start : start + ROWS_PER_STATEMENT])
        self._connection.execute("COMMIT")

    def _insert_some(self, rows: Sequence[_Row]) -> None:
        if rows:
            self._connection.execute(_INSERTS[len(rows) - 1], [field for row in rows for field in row])


def _take_lock(path: Path) -> int:
    lock_fd = os.open(f"{path}.lock", os.O_CREAT | os.O_RDWR, 0o600)
    try:
        fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.read(lock_fd, 20).decode("ascii", "replace") or "unknown"
        os.close(lock_fd)
        raise LogLocked(f"{path} is held by the process {holder}") from None
    os.truncate(lock_fd, 0)
    os.write(lock_fd, b"%d" % os.getpid())
    return lock_fd


def _make_durable(connection: sqlite3.Connection, path: Path) -> None:
    """Set the connection up, and bring what an earlier holder left in the WAL into the file, synced."""
    try:
        for pragma in _PRAGMAS:
            connection.execute(pragma)
        _, frames, copied = connection.execute("PRAGMA wal_checkpoint(FULL)").fetchone()
    except sqlite3.Error as error:
        raise LogFailed(f"{path}: {error}") from error
    if frames != copied:
        raise LogLocked(f"{path} is kept busy by another program's open read")
