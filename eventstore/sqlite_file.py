"""A log that lives in one SQLite file: its format, and reading it, also from another process than the one that writes.

Format 1: `batch(id, prev, tip, payload, verdicts, crc)` with id = partition << 40 | seq, so that one integer key keeps
every partition in order; `meta(name, value)` holds format, partitions, deployment_id and created_ms.
"""

import asyncio
import os
import sqlite3
import struct
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path

import msgspec

from eventstore.log import (
    CONTROL,
    EMPTY_HEAD,
    SEQ_BITS,
    TIP_BYTES,
    Batch,
    Head,
    LogDamaged,
    LogFailed,
    LogUnreadable,
    Meta,
    batch_crc,
    check_meta,
)

BUSY_SECONDS = 5.0  # SQLite's locks are held for milliseconds; longer means a stuck foreign program
_NEWEST = "SELECT id, prev, tip, payload, verdicts, crc FROM batch WHERE id >= ? AND id < ? ORDER BY id DESC LIMIT 1"
_RUN = "SELECT id, prev, tip, payload, verdicts, crc FROM batch WHERE id >= ? AND id < ? ORDER BY id LIMIT ?"

_DDL = (
    "CREATE TABLE meta (name TEXT PRIMARY KEY, value ANY NOT NULL) STRICT, WITHOUT ROWID",
    """CREATE TABLE batch (
        id INTEGER PRIMARY KEY, prev BLOB NOT NULL, tip BLOB NOT NULL, payload BLOB NOT NULL,
        verdicts BLOB NOT NULL, crc INTEGER NOT NULL
    ) STRICT""",
)
_Row = tuple[int, bytes, bytes, bytes, bytes, int]


def row_id(partition: int, seq: int) -> int:
    """A batch's key in the file."""
    return partition << SEQ_BITS | seq


def connect(path: Path, mode: str) -> sqlite3.Connection:
    """A connection in autocommit mode; `mode` is `ro` or `rw`. Raises FileNotFoundError."""
    if not path.is_file():
        raise FileNotFoundError(f"no log at {path}")
    uri = f"{path.absolute().as_uri()}?mode={mode}"
    # One thread at a time uses a connection, but not the one that opened it.
    return sqlite3.connect(uri, uri=True, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)


def read_meta(connection: sqlite3.Connection) -> Meta:
    """Raises LogUnreadable when this is no event log or one of another format."""
    try:
        meta = msgspec.convert(dict(connection.execute("SELECT name, value FROM meta")), Meta)
    except (sqlite3.DatabaseError, msgspec.ValidationError) as error:
        raise LogUnreadable(f"not an event log: {error}") from error
    return check_meta(meta)


def write_empty(path: Path, meta: Meta) -> None:
    """Write a log without batches; `path` appears whole or not at all, and does not exist yet."""
    draft = Path(f"{path}.new")
    draft.unlink(missing_ok=True)
    os.close(os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    with closing(connect(draft, "rw")) as connection:
        for statement in ("PRAGMA journal_mode=WAL", "PRAGMA synchronous=FULL", *_DDL):
            connection.execute(statement)
        connection.executemany("INSERT INTO meta VALUES (?,?)", msgspec.structs.asdict(meta).items())
    draft.rename(path)
    directory_fd = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory_fd)  # the rename
    finally:
        os.close(directory_fd)


class SqliteReader:
    """A LogReader on its own connection and thread."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.meta = read_meta(connection)
        self._connection = connection
        self._thread = ThreadPoolExecutor(1, "log-reader")

    @property
    def partitions(self) -> int:
        return self.meta.partitions

    async def head(self, partition: int) -> Head:
        """Raises LogDamaged, LogFailed."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self.head_now, partition)

    async def read(self, partition: int, first_seq: int, limit: int) -> list[Batch]:
        """Raises LogDamaged, LogFailed."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, self._read_now, partition, first_seq, limit)

    async def close(self) -> None:
        await asyncio.get_running_loop().run_in_executor(self._thread, self._connection.close)
        self._thread.shutdown()

    async def check_storage(self) -> None:
        """SQLite's own check of its pages and of the order of their keys. Raises LogDamaged, LogFailed."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._check_now)

    def _check_now(self) -> None:
        with _storage_errors(CONTROL, 0):
            (told,) = self._connection.execute("PRAGMA quick_check(1)").fetchone()
        if told != "ok":
            raise LogDamaged(CONTROL, 0, f"file: {told}")

    def head_now(self, partition: int) -> Head:
        """`head` without an event loop, for the time before there is one."""
        assert partition < self.meta.partitions or partition == CONTROL, f"partition {partition}"
        with _storage_errors(partition, 0):
            bounds = row_id(partition, 0), row_id(partition + 1, 0)
            row = self._connection.execute(_NEWEST, bounds).fetchone()
        if row is None:
            return EMPTY_HEAD
        newest = _checked(partition, row[0] - row_id(partition, 0), row)
        return Head(newest.seq, newest.tip)

    def _read_now(self, partition: int, first_seq: int, limit: int) -> list[Batch]:
        assert first_seq > 0, "the first batch is 1"
        found: list[Batch] = []
        bounds = row_id(partition, first_seq), row_id(partition + 1, 0), limit
        with _storage_errors(partition, first_seq), closing(self._connection.execute(_RUN, bounds)) as rows:
            for row in rows:
                batch = _checked(partition, first_seq + len(found), row)
                if found and batch.prev != found[-1].tip:
                    raise LogDamaged(partition, batch.seq, "does not follow the batch before it")
                found.append(batch)
        return found


def open_reader(path: Path) -> SqliteReader:
    """Read a log that another process may be writing. Raises FileNotFoundError, LogUnreadable."""
    connection = connect(path, "ro")
    try:
        return SqliteReader(connection)
    except LogUnreadable:
        connection.close()
        raise


@contextmanager
def _storage_errors(partition: int, seq: int) -> Iterator[None]:
    try:
        yield
    except sqlite3.OperationalError as error:
        raise LogFailed(f"reading partition {partition} from batch {seq}: {error}") from error
    except sqlite3.DatabaseError as error:
        raise LogDamaged(partition, seq, f"file: {error}") from error


def _checked(partition: int, seq: int, row: _Row) -> Batch:
    key, prev, tip, payload, verdicts, crc = row
    if key != row_id(partition, seq):
        raise LogDamaged(partition, seq, f"missing; the next one is {key - row_id(partition, 0)}")
    batch = Batch(partition, seq, prev, tip, payload, verdicts)
    try:
        intact = len(prev) == len(tip) == TIP_BYTES and batch_crc(batch) == crc
    except (TypeError, struct.error):  # a flipped type byte in the row: a column is no longer a blob
        intact = False
    if not intact:
        raise LogDamaged(partition, seq, "checksum does not match")
    return batch
