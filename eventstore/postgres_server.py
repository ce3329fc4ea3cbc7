"""A log that lives in a PostgreSQL database: its format, its server's duties, connections, and reading it.

Format 1, in the schema `tillgate`: `meta` holds one row; `head` one row per partition with its newest seq and tip, the
row that every append must move; `batch` the batches. `append_1` is the compare-and-set: it locks the head row, which
waits for an append under way, moves it if seq and tip are those the run follows, and inserts the run. It is one
statement, so it is one transaction and one trip to the server. The version in its name lets builds run side by side.

A durable "yes" rests on settings that anybody with the right to may change at any time, for all or for one user, so
they are told with every head and every append. A commit whose wait for a synchronous standby is broken off (by
pg_cancel_backend, statement_timeout or a shutdown) is a success to the server, with a WARNING: an append that is warned
of anything is no yes. No NOTIFY: it takes a lock of the whole database in each commit, and the followers
look four times a second anyway.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Self

import asyncpg
import msgspec

from eventstore.log import (
    CONTROL,
    LOG_FORMAT,
    PARTITIONS_MAX,
    TIP_BYTES,
    ZERO_TIP,
    Batch,
    Head,
    LogDamaged,
    LogFailed,
    LogLost,
    LogUnfit,
    LogUnreadable,
    Meta,
    batch_crc,
    check_meta,
)

CONNECT_SECONDS_MAX = 5.0  # in the same region it takes 20 ms; a server that is starting refuses at once
ANSWER_SECONDS_MAX = 5.0  # a commit takes milliseconds; a server that is silent for so long is as good as gone
READ_SECONDS_MAX = 30.0  # 500 full batches are 40 MB
DURABLE = ("on", "remote_apply")  # of synchronous_commit: a commit is told after it is on disk, here and on standbys

Connect = Callable[[], Awaitable["asyncpg.Connection[Any]"]]

_DDL = f"""
CREATE SCHEMA tillgate;
CREATE TABLE tillgate.meta (
    format int NOT NULL, partitions int NOT NULL, deployment_id text NOT NULL, created_ms bigint NOT NULL
);
CREATE UNIQUE INDEX one_row ON tillgate.meta ((true));
CREATE TABLE tillgate.head (partition int PRIMARY KEY, seq bigint NOT NULL, tip bytea NOT NULL) WITH (fillfactor = 10);
CREATE TABLE tillgate.batch (
    partition int NOT NULL, seq bigint NOT NULL, prev bytea NOT NULL, tip bytea NOT NULL,
    payload bytea NOT NULL, verdicts bytea NOT NULL, crc bigint NOT NULL, PRIMARY KEY (partition, seq)
);
ALTER TABLE tillgate.batch ALTER payload SET STORAGE EXTERNAL, ALTER verdicts SET STORAGE EXTERNAL;
CREATE FUNCTION tillgate.append_{LOG_FORMAT}(
    of_partition int, prev_seq bigint, prev_tip bytea,
    tips bytea[], payloads bytea[], verdict_bytes bytea[], crcs bigint[]
) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    PERFORM 1 FROM tillgate.head WHERE partition = of_partition FOR UPDATE;
    UPDATE tillgate.head SET seq = prev_seq + cardinality(tips), tip = tips[cardinality(tips)]
        WHERE partition = of_partition AND seq = prev_seq AND tip = prev_tip;
    IF NOT FOUND THEN RETURN false; END IF;
    INSERT INTO tillgate.batch
        SELECT of_partition, prev_seq + run.n, lag(run.tip, 1, prev_tip) OVER (ORDER BY run.n),
            run.tip, run.payload, run.verdicts, run.crc
        FROM unnest(tips, payloads, verdict_bytes, crcs) WITH ORDINALITY AS run (tip, payload, verdicts, crc, n);
    RETURN true;
END $$;
"""  # noqa: S608 - a number of ours
SETTINGS = """
    current_setting('fsync') AS fsync, current_setting('full_page_writes') AS full_page_writes,
    current_setting('synchronous_commit') AS synchronous_commit
"""
_FITNESS = f"""
    {SETTINGS}, pg_is_in_recovery() AS standby,
    (SELECT bool_and(relpersistence = 'p') FROM pg_class WHERE oid = ANY
        (ARRAY[to_regclass('tillgate.head'), to_regclass('tillgate.batch')]::oid[])) AS logged
"""  # noqa: S608
_ALIVE = f"SELECT {_FITNESS}"
_META = "SELECT format, partitions, deployment_id, created_ms FROM tillgate.meta"
_HEAD = f"""
    SELECT h.seq, h.tip, b.tip AS newest, {_FITNESS} FROM tillgate.head h
    LEFT JOIN tillgate.batch b ON (b.partition, b.seq) = (h.partition, h.seq) WHERE h.partition = $1
"""  # noqa: S608
_RUN = """
    SELECT seq, prev, tip, payload, verdicts, crc FROM tillgate.batch
    WHERE partition = $1 AND seq >= $2 ORDER BY seq LIMIT $3
"""
_DAMAGED = (asyncpg.DataCorruptedError, asyncpg.IndexCorruptedError)
_GONE = (
    asyncpg.UndefinedTableError,
    asyncpg.UndefinedColumnError,
    asyncpg.UndefinedFunctionError,
    asyncpg.InvalidSchemaNameError,
)
_LOST = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError, TimeoutError)


def connector(url: str, password: str | None) -> Connect:
    """Makes connections to `url` (a postgresql:// URL without a password); what they need is set on each of them."""

    async def connect() -> "asyncpg.Connection[Any]":
        return await asyncpg.connect(
            url,
            password=password,
            timeout=CONNECT_SECONDS_MAX,
            server_settings={
                "application_name": "tillgate",
                "default_transaction_isolation": "read committed",
                "client_min_messages": "warning",  # see Link.warning
            },
        )

    return connect


@contextmanager
def storage_errors(partition: int, seq: int) -> Iterator[None]:
    """What PostgreSQL and its client raise, as a log raises it."""
    try:
        yield
    except _DAMAGED as error:
        raise LogDamaged(partition, seq, f"PostgreSQL: {error}") from error
    except _GONE as error:
        raise LogFailed(f"the log is gone from the database: {error}") from error
    except _LOST as error:
        raise LogLost(f"PostgreSQL: {str(error) or type(error).__name__}") from error


class Link:
    """One connection, made anew when it broke. One caller at a time, in the order they came."""

    def __init__(self, connect: Connect) -> None:
        self._connect = connect
        self._turn = asyncio.Lock()
        self._connection: asyncpg.Connection[Any] | None = None
        self.warning: str | None = None  # what the server warned of during the newest fetch

    async def fetch(self, query: str, *args: object, seconds: float = ANSWER_SECONDS_MAX) -> "list[asyncpg.Record]":
        """The rows. Raises what asyncpg raises; whatever broke off under way takes the connection with it."""
        async with self._turn:
            whole, self.warning = False, None
            try:
                async with asyncio.timeout(seconds):
                    if self._connection is None or self._connection.is_closed():
                        self._connection = await self._connect()
                        self._connection.add_log_listener(self._on_message)
                    found = await self._connection.fetch(query, *args)
                whole = True
                return found
            except asyncpg.PostgresError:
                whole = self._connection is not None and not self._connection.is_closed()
                raise
            finally:
                if not whole:
                    self._drop()

    def _on_message(self, _: object, message: "asyncpg.PostgresLogMessage") -> None:
        if message.severity_en == "WARNING":
            self.warning = message.message

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.terminate()
        self._connection = None

    async def close(self) -> None:
        """Say goodbye, shortly; what is under way is broken off."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        try:
            await connection.close(timeout=1.0)
        except _LOST:
            connection.terminate()


def unfit(row: "asyncpg.Record") -> str | None:
    """Which setting of this server would make a durable append a lie, and the fix; None if none does."""
    for name in ("fsync", "full_page_writes"):
        if row[name] != "on":
            return f"PostgreSQL runs with {name} = {row[name]}: a power failure could undo a yes. Set {name} = on"
    if row["synchronous_commit"] not in DURABLE:
        return (
            f"PostgreSQL gives this user synchronous_commit = {row['synchronous_commit']}: a yes would be told before "
            "it is on disk. Set synchronous_commit = on, for the server, the database and the user"
        )
    if row.get("logged") is False:
        return "a table of the log is UNLOGGED: a crash would empty it. ALTER TABLE ... SET LOGGED"
    return None


def check_fit(row: "asyncpg.Record") -> None:
    """Raises LogUnfit, and LogLost when this is no primary (now)."""
    if row["standby"]:
        raise LogLost("PostgreSQL: this server is a standby; name the primary in log.url")
    if (why := unfit(row)) is not None:
        raise LogUnfit(why)


async def read_meta(connect: Connect) -> Meta:
    """Whose log this is. Raises LogUnreadable, LogUnfit, LogLost, FileNotFoundError where there is none."""
    link, rows = Link(connect), None
    try:
        with storage_errors(CONTROL, 0):
            check_fit((await link.fetch(_ALIVE))[0])
            with suppress(*_GONE):
                rows = await link.fetch(_META)
    finally:
        await link.close()
    if rows is None:
        raise FileNotFoundError("there is no log in this database")
    if len(rows) != 1:
        raise LogUnreadable(f"not an event log: {len(rows)} rows in tillgate.meta")
    return check_meta(msgspec.convert(dict(rows[0]), Meta))


async def create(connect: Connect, meta: Meta, first: Sequence[Batch] = ()) -> None:
    """Write a new log that begins with the control batches `first`, all or nothing.

    Raises FileExistsError, LogUnfit, LogLost.
    """
    assert 1 <= meta.partitions <= PARTITIONS_MAX, f"{meta.partitions} partitions"
    with storage_errors(CONTROL, 0):
        async with asyncio.timeout(READ_SECONDS_MAX):
            written = await _create(connect, meta, first)
    if not written:
        raise FileExistsError("the database holds a log already")


async def _create(connect: Connect, meta: Meta, first: Sequence[Batch]) -> bool:
    connection = await connect()
    try:
        check_fit((await connection.fetch(_ALIVE))[0])
        async with connection.transaction():
            await connection.execute(_DDL)
            await connection.execute("INSERT INTO tillgate.meta VALUES ($1,$2,$3,$4)", *msgspec.structs.astuple(meta))
            heads = [(partition, 0, ZERO_TIP) for partition in (*range(meta.partitions), CONTROL)]
            await connection.executemany("INSERT INTO tillgate.head VALUES ($1,$2,$3)", heads)
            rows = [(b.partition, b.seq, b.prev, b.tip, b.payload, b.verdicts, batch_crc(b)) for b in first]
            await connection.executemany("INSERT INTO tillgate.batch VALUES ($1,$2,$3,$4,$5,$6,$7)", rows)
            moved = [(b.partition, b.seq, b.tip) for b in first]
            await connection.executemany("UPDATE tillgate.head SET seq = $2, tip = $3 WHERE partition = $1", moved)
    except (asyncpg.DuplicateSchemaError, asyncpg.UniqueViolationError):  # the other: two at the same moment
        return False
    finally:
        connection.terminate()
    return True


class PostgresReader:
    """A LogReader on two connections, so that a head is never asked for behind a long read."""

    def __init__(self, connect: Connect, meta: Meta) -> None:
        self.meta = meta
        self._asking, self._reading = Link(connect), Link(connect)

    @classmethod
    async def open(cls, connect: Connect) -> Self:
        """Raises FileNotFoundError, LogUnreadable, LogUnfit, LogLost."""
        return cls(connect, await read_meta(connect))

    @property
    def partitions(self) -> int:
        return self.meta.partitions

    async def head(self, partition: int) -> Head:
        """Raises LogLost, LogUnfit, LogDamaged."""
        assert partition < self.meta.partitions or partition == CONTROL, f"partition {partition}"
        with storage_errors(partition, 0):
            rows = await self._asking.fetch(_HEAD, partition)
        if not rows:
            raise LogDamaged(partition, 0, "it has no row in tillgate.head")
        (row,) = rows
        check_fit(row)
        if row["seq"] and row["newest"] != row["tip"]:
            raise LogDamaged(partition, row["seq"], "the newest batch is not the one that tillgate.head names")
        return Head(row["seq"], row["tip"])

    async def read(self, partition: int, first_seq: int, limit: int) -> list[Batch]:
        """Raises LogLost, LogDamaged."""
        assert first_seq > 0, "the first batch is 1"
        with storage_errors(partition, first_seq):
            rows = await self._reading.fetch(_RUN, partition, first_seq, limit, seconds=READ_SECONDS_MAX)
        found: list[Batch] = []
        for seq, prev, tip, payload, verdicts, crc in rows:
            wanted = first_seq + len(found)
            if seq != wanted:
                raise LogDamaged(partition, wanted, f"missing; the next one is {seq}")
            batch = Batch(partition, seq, prev, tip, payload, verdicts)
            if len(prev) != TIP_BYTES or len(tip) != TIP_BYTES or batch_crc(batch) != crc:
                raise LogDamaged(partition, seq, "checksum does not match")
            if found and prev != found[-1].tip:
                raise LogDamaged(partition, seq, "does not follow the batch before it")
            found.append(batch)
        return found

    async def close(self) -> None:
        await self._asking.close()
        await self._reading.close()
