"""Counts per store, campaign and hour, folded from the log and nothing else: the console's curves are made of them.

A batch is counted in memory the moment it is followed (0.1 us a record); what was counted reaches the file
every few seconds, in one transaction with the position it stands for. A crash loses both together, and the follower
counts those batches again. The file is rebuilt from the log whenever it is deleted: about half a microsecond a record,
reading included.

A cell is (store, campaign, hour, kind). The store "" is all of them together, so that a curve of the whole campaign is
one short range of the key. `kind` is what outcomes.py says. Rows grow with stores x campaigns x open hours, not with
scans: a festival of 1,000 stores, 5 campaigns, 30 days of 12 hours makes some 4 million rows of 30 bytes at most.
"""

import asyncio
import os
import sqlite3
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any, Self

import msgspec

from eventstore.log import EMPTY_HEAD, Batch, Head
from eventstore.outcomes import HOUR_MS, OUTCOMES, Cell, Scan, counted, kind_of
from eventstore.vouchers import checked_head

HOURLY_FORMAT = 1
DAY_HOURS = 24
SAVE_S = 2.0  # at most this much is counted again after a crash; each save is one small transaction
EVERYWHERE = ""  # the store of the cells that count all stores together
_DDL = (
    "CREATE TABLE meta (format INTEGER, partitions INTEGER, deployment_id TEXT)",
    "CREATE TABLE counted (partition INTEGER PRIMARY KEY, seq INTEGER NOT NULL, tip BLOB NOT NULL)",
    """CREATE TABLE cell (
        store TEXT, campaign INTEGER, hour INTEGER, kind INTEGER, n INTEGER NOT NULL,
        PRIMARY KEY (store, campaign, hour, kind)
    ) WITHOUT ROWID""",
    """CREATE TABLE till (
        terminal INTEGER PRIMARY KEY, last_ms INTEGER, redeemed INTEGER, refused INTEGER, undone INTEGER
    )""",
)
_ADD_CELL = """INSERT INTO cell VALUES (?,?,?,?,?)
ON CONFLICT (store, campaign, hour, kind) DO UPDATE SET n = n + excluded.n"""
_DAY = """SELECT hour, store, kind, sum(n) FROM cell
WHERE hour > (SELECT max(hour) FROM cell) - ? AND store <> '' GROUP BY hour, store, kind"""
_PRAGMAS = ("PRAGMA journal_mode=WAL", "PRAGMA synchronous=NORMAL")  # never corrupt, only older, with its position

Row = tuple[int, int, int]  # hour, kind, n
OnCounted = Callable[[Sequence[Batch], Mapping[int, Mapping[Cell, int]]], None]  # batches; what they add, by second


class TillCounts(msgspec.Struct):
    """What one terminal did since the log began. `last_ms`: its newest scan, by the gateway's clock, to the second."""

    last_ms: int = 0
    redeemed: int = 0
    refused: int = 0
    undone: int = 0  # reversals made at it


class HourlyCounts:
    """A projection for a Follower. `store_of` tells where a terminal stands ("" for an operator's 0), None if that is
    not known yet: then `learn` is awaited, after which it must be.

    `on_counted` is told of every run of batches as it is counted. `totals`, `day` and `tills` are in memory and exact;
    hours of long ago are read from the file by `hours`.
    """

    def __init__(
        self,
        connection: sqlite3.Connection,
        partitions: int,
        store_of: Callable[[int], str | None],
        learn: Callable[[], Awaitable[object]],
        on_counted: OnCounted,
    ) -> None:
        self._connection, self._on_counted = connection, on_counted
        self._store_of, self._learn = store_of, learn
        self._thread = ThreadPoolExecutor(1, "console-counts")
        self._dirty: Counter[tuple[str, int, int, int]] = Counter()
        self._dirty_tills: set[int] = set()
        self._counted: dict[int, Head] = {}  # moved since the last save
        self._saved_s = time.monotonic()
        rows = connection.execute("SELECT partition, seq, tip FROM counted")
        self.checkpoint: Mapping[int, Head] = dict.fromkeys(range(partitions), EMPTY_HEAD) | {
            partition: Head(seq, tip) for partition, seq, tip in rows
        }
        self.totals: Counter[Cell] = Counter()
        self.tills: dict[int, TillCounts] = {}
        for store, campaign, kind, n in connection.execute(
            "SELECT store, campaign, kind, sum(n) FROM cell GROUP BY store, campaign, kind"
        ):
            self.totals[store, campaign, kind] = n
        self.day: dict[int, Counter[tuple[str, int]]] = {}  # hour -> (store, kind) -> n, of the newest DAY_HOURS
        for hour, store, kind, n in connection.execute(_DAY, (DAY_HOURS,)):
            self.day.setdefault(hour, Counter())[store, kind] = n
        for terminal, *counts in connection.execute("SELECT * FROM till"):
            self.tills[terminal] = TillCounts(*counts)

    @classmethod
    def open(
        cls,
        path: Path,
        partitions: int,
        deployment_id: str,
        store_of: Callable[[int], str | None],
        learn: Callable[[], Awaitable[object]],
        on_counted: OnCounted,
    ) -> Self:
        """Open the file; one that is damaged or of another deployment is begun again. Blocks. Raises sqlite3.Error."""
        owner = (HOURLY_FORMAT, partitions, deployment_id)
        if not _belongs(path, owner):
            _create(path, owner)
        connection = _connect(path)
        try:
            return cls(connection, partitions, store_of, learn, on_counted)
        except sqlite3.DatabaseError:  # a page that is not the first one
            connection.close()
            _create(path, owner)
            return cls(_connect(path), partitions, store_of, learn, on_counted)

    # --- the follower's side ---

    async def apply(self, partition: int, batches: Sequence[Batch]) -> None:
        """Raises LogDamaged, sqlite3.Error."""
        seconds: dict[int, Counter[Scan]] = {}
        for batch in batches:
            count, at_ms = checked_head(batch)
            seconds.setdefault(at_ms // 1000, Counter()).update(counted(batch, count))
        terminals = {terminal for found in seconds.values() for _, _, terminal, _ in found}
        if any(self._store_of(terminal) is None for terminal in terminals):
            await self._learn()
        told = {at_s: self._add(at_s, found) for at_s, found in seconds.items()}
        self._counted[partition] = Head(batches[-1].seq, batches[-1].tip)
        self._on_counted(batches, told)
        if time.monotonic() - self._saved_s >= SAVE_S:
            await self.save()

    async def reset(self) -> None:
        """Raises sqlite3.Error."""
        for kept in (self._dirty, self._dirty_tills, self._counted, self.totals, self.tills, self.day):
            kept.clear()
        await asyncio.get_running_loop().run_in_executor(self._thread, self._forget)

    def _add(self, at_s: int, found: Mapping[Scan, int]) -> Counter[Cell]:
        hour, cells = at_s * 1000 // HOUR_MS, Counter[Cell]()
        for (op, campaign, terminal, verdict), n in found.items():
            kind, store = kind_of(op, verdict), self._store_of(terminal)
            assert store is not None, f"the log names terminal {terminal}, and no event ever did"
            cells[store, campaign, kind] += n
            if terminal:
                self._count_till(terminal, kind, n, at_s * 1000)
        day = self.day.setdefault(hour, Counter())
        for (store, campaign, kind), n in cells.items():
            for where in (store, EVERYWHERE) if store else (EVERYWHERE,):
                self._dirty[where, campaign, hour, kind] += n
                self.totals[where, campaign, kind] += n
            day[store, kind] += n
        for old in [kept for kept in self.day if kept <= hour - DAY_HOURS]:
            del self.day[old]
        return cells

    def _count_till(self, terminal: int, kind: int, n: int, at_ms: int) -> None:
        till = self.tills.get(terminal) or self.tills.setdefault(terminal, TillCounts())
        till.last_ms = max(till.last_ms, at_ms)
        match OUTCOMES.get(kind):
            case "redeemed":
                till.redeemed += n
            case "refused":
                till.refused += n
            case "reversed":
                till.undone += n
        self._dirty_tills.add(terminal)

    # --- the reader's side ---

    async def hours(self, store: str, campaigns: Iterable[int], first_hour: int) -> list[Row]:
        """(hour, kind, n) of a store (EVERYWHERE: of all) from `first_hour` on, oldest first. Raises sqlite3.Error."""
        await self.save()
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, self._hours, store, list(campaigns), first_hour)

    def _hours(self, store: str, campaigns: list[int], first_hour: int) -> list[Row]:
        sql = "SELECT hour, kind, n FROM cell WHERE store = ? AND campaign = ? AND hour >= ?"
        rows: list[Row] = []
        for campaign in campaigns:
            rows += self._connection.execute(sql, (store, campaign, first_hour)).fetchall()
        return sorted(rows)

    # --- the file ---

    async def save(self) -> None:
        """Write what was counted, and up to where, together. Raises sqlite3.Error."""
        self._saved_s = time.monotonic()
        if not self._counted:
            return
        cells = [(*cell, n) for cell, n in self._dirty.items()]
        tills = [(terminal, *msgspec.structs.astuple(self.tills[terminal])) for terminal in self._dirty_tills]
        heads = [(partition, head.seq, head.tip) for partition, head in self._counted.items()]
        for kept in (self._dirty, self._dirty_tills, self._counted):
            kept.clear()
        await asyncio.get_running_loop().run_in_executor(self._thread, self._write, cells, tills, heads)

    def _write(
        self,
        cells: list[tuple[str, int, int, int, int]],
        tills: list[tuple[Any, ...]],
        heads: list[tuple[int, int, bytes]],
    ) -> None:
        with self._connection:
            self._connection.execute("BEGIN")
            self._connection.executemany(_ADD_CELL, cells)
            self._connection.executemany("INSERT OR REPLACE INTO till VALUES (?,?,?,?,?)", tills)
            self._connection.executemany("INSERT OR REPLACE INTO counted VALUES (?,?,?)", heads)

    def _forget(self) -> None:
        with self._connection:
            self._connection.execute("BEGIN")
            for table in ("cell", "till", "counted"):
                self._connection.execute(f"DELETE FROM {table}")  # noqa: S608 - the names stand right above

    async def close(self) -> None:
        """Save, and let go of the file. Raises sqlite3.Error."""
        try:
            await self.save()
        finally:
            await asyncio.get_running_loop().run_in_executor(self._thread, self._connection.close)
            self._thread.shutdown()


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    try:
        for pragma in _PRAGMAS:
            connection.execute(pragma)
    except sqlite3.DatabaseError:
        connection.close()
        raise
    return connection


def _belongs(path: Path, owner: tuple[int, int, str]) -> bool:
    if not path.exists():
        return False
    try:
        with closing(_connect(path)) as connection:
            return bool(connection.execute("SELECT * FROM meta").fetchone() == owner)
    except sqlite3.DatabaseError:
        return False


def _create(path: Path, owner: tuple[int, int, str]) -> None:
    for suffix in ("", "-wal", "-shm"):
        Path(f"{path}{suffix}").unlink(missing_ok=True)
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    with closing(_connect(path)) as connection, connection:
        connection.execute("BEGIN")
        for statement in _DDL:
            connection.execute(statement)
        connection.execute("INSERT INTO meta VALUES (?,?,?)", owner)
