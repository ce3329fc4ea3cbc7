"""The event log in PostgreSQL: many gateways append to the same partitions, and the server's chain decides who may.

Theory of operation. What waits for a partition and hangs together (group_commit.py) is sent as ONE call of `append_1`
(postgres_server.py), which is one transaction. Partitions commit on connections of their own, and the server lets them
share an fsync.

Nothing is known here of the head: another gateway may have moved it a moment ago. The call says what it follows, and
the server compares. Only if it says no are head and tips asked for, and each run is judged alone by `check_join`: it is
durable already (somebody recovered and appended it for us, or an answer got lost), or it joins now, or it is refused.

Failure. A broken connection, a time-out or an error of the server is LogLost: whether the append took effect is
unknown, and nobody guesses. The next call connects anew and first looks whether the server still has the newest batch
of each partition that it ever confirmed to us. If not, an older copy took its place (a standby that was behind was
promoted), and the gateway must end: what it knows is of another history.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any, Self

import asyncpg

from eventstore.group_commit import GroupCommit
from eventstore.log import (
    CONTROL,
    EMPTY_HEAD,
    LOG_FORMAT,
    AppendRefused,
    Batch,
    Head,
    LogFailed,
    LogLost,
    LogUnfit,
    Meta,
    batch_crc,
    check_join,
)
from eventstore.postgres_server import (
    SETTINGS,
    Connect,
    Link,
    PostgresReader,
    create,
    read_meta,
    storage_errors,
    unfit,
)

BATCHES_MAX = 10_000  # of a call; its size in bytes is the limit that counts
WRITING_LINKS_MAX = 4  # connections that append; a server has 100 for all gateways, and each has two more for reading

_APPEND = f"SELECT tillgate.append_{LOG_FORMAT}($1, $2, $3, $4, $5, $6, $7) AS joined, {SETTINGS}"
_TIPS = "SELECT seq, tip FROM tillgate.batch WHERE partition = $1 AND seq = ANY ($2::bigint[])"
_LOST = """
    SELECT seen.partition, seen.seq FROM unnest($1::int[], $2::bigint[], $3::bytea[]) AS seen (partition, seq, tip)
    JOIN tillgate.head ON head.partition = seen.partition
    LEFT JOIN tillgate.batch ON (batch.partition, batch.seq) = (seen.partition, seen.seq)
    WHERE head.seq < seen.seq OR batch.tip <> seen.tip
"""  # a batch that is gone below the head is damage, which halts its partition only
_WHOSE = "SELECT deployment_id FROM tillgate.meta"


class PostgresLog:
    """An EventLog that other gateways may hold as well. `on_commit(seconds, batches)` is called per commit."""

    def __init__(self, connect: Connect, meta: Meta, on_commit: Callable[[float, int], None]) -> None:
        self.meta = meta
        self._connect_anew, self._on_commit = connect, on_commit
        self._reader = PostgresReader(self._connect, meta)
        self._links = [Link(self._connect) for _ in range(min(meta.partitions + 1, WRITING_LINKS_MAX))]
        self._commits = GroupCommit(self, (*range(meta.partitions), CONTROL), BATCHES_MAX)
        self._confirmed: dict[int, Head] = {}  # the newest batch of each partition that the server told us of

    @staticmethod
    async def create(
        connect: Connect, partitions: int, deployment_id: str, created_ms: int, first: Sequence[Batch] = ()
    ) -> None:
        """Write a new log that begins with the control batches `first`. Raises FileExistsError, LogUnfit, LogLost."""
        await create(connect, Meta(LOG_FORMAT, partitions, deployment_id, created_ms), first)

    @classmethod
    async def open(
        cls, connect: Connect, on_commit: Callable[[float, int], None] = lambda seconds, batches: None
    ) -> Self:
        """Raises FileNotFoundError, LogUnreadable, LogUnfit, LogLost."""
        return cls(connect, await read_meta(connect), on_commit)

    @property
    def partitions(self) -> int:
        return self.meta.partitions

    async def head(self, partition: int) -> Head:
        """Raises LogLost, LogFailed, LogDamaged."""
        before = self._confirmed.get(partition, EMPTY_HEAD)
        head = await self._reader.head(partition)
        if head.seq < before.seq or (head.seq == before.seq and head.tip != before.tip):
            raise LogFailed(_lost_text(partition, before.seq))
        self._confirm(partition, head)
        return head

    async def read(self, partition: int, first_seq: int, limit: int) -> list[Batch]:
        """Raises LogLost, LogDamaged."""
        return await self._reader.read(partition, first_seq, limit)

    async def append(self, batches: Sequence[Batch]) -> None:
        """Returns after COMMIT. Raises AppendRefused, LogLost, LogFailed; a cancelled one may still take effect."""
        await self._commits.append(batches)

    async def close(self) -> None:
        """Write what waits, then let go of the connections."""
        await self._commits.close()
        for link in self._links:
            await link.close()
        await self._reader.close()

    # --- writing one partition ---

    def _link(self, partition: int) -> Link:
        return self._links[-1 if partition == CONTROL else partition % max(1, len(self._links) - 1)]

    async def join(self, partition: int, batches: Sequence[Batch]) -> bool:
        """The compare-and-set."""
        began, link = time.perf_counter(), self._link(partition)
        first, last = batches[0], batches[-1]
        columns = [(b.tip, b.payload, b.verdicts, batch_crc(b)) for b in batches]
        with storage_errors(partition, first.seq):
            rows = await link.fetch(
                _APPEND, partition, first.seq - 1, first.prev, *map(list, zip(*columns, strict=True))
            )
        if (why := unfit(rows[0])) is not None:
            raise LogUnfit(why)
        if link.warning is not None:
            raise LogLost(f"PostgreSQL: {link.warning}")
        if not rows[0]["joined"]:
            return False
        self._confirm(partition, Head(last.seq, last.tip))
        self._on_commit(time.perf_counter() - began, len(batches))
        return True

    async def judge(self, partition: int, batches: Sequence[Batch]) -> AppendRefused | None:
        """What becomes of one run whose place is not plain."""
        while True:
            head = await self.head(partition)
            with storage_errors(partition, batches[0].seq):
                rows = await self._link(partition).fetch(_TIPS, partition, [batch.seq for batch in batches])
            fresh = check_join(head, batches, dict(map(tuple, rows)).get)
            if fresh is None:
                return AppendRefused(partition, batches[0].seq, head)
            if not fresh or await self.join(partition, fresh):
                return None  # else somebody was quicker: then it is there now, or another is

    # --- connecting ---

    def _confirm(self, partition: int, head: Head) -> None:
        if head.seq > self._confirmed.get(partition, EMPTY_HEAD).seq:
            self._confirmed[partition] = head

    async def _connect(self) -> "asyncpg.Connection[Any]":
        """A connection to a server that still has what it confirmed. Raises what asyncpg raises, and LogFailed."""
        connection = await self._connect_anew()
        try:
            if await connection.fetchval(_WHOSE) != self.meta.deployment_id:
                raise LogFailed("the database holds the log of another deployment now")
            seen = [(partition, head.seq, head.tip) for partition, head in self._confirmed.items()]
            columns = zip(*seen, strict=True) if seen else ((), (), ())
            for partition, seq in await connection.fetch(_LOST, *map(list, columns)):
                raise LogFailed(_lost_text(partition, seq))
        except BaseException:
            connection.terminate()
            raise
        return connection


def _lost_text(partition: int, seq: int) -> str:
    return (
        f"PostgreSQL no longer has batch {seq} of partition {partition}, which it had confirmed: "
        "was a standby promoted that was behind, or an older copy restored?"
    )
