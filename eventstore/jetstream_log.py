"""The event log in NATS JetStream: many gateways append at once, and a quorum of servers decides who may.

Theory of operation. JetStream's compare-and-set knows sequences, not tips: a publish that expects `seq - 1` to be the
newest is taken or refused. Since nothing is ever deleted from these streams, the batch at a seq never changes; so if
this gateway has once seen that the batch at `seq - 1` has the tip its own batch names, a publish that expects `seq - 1`
compares both. `_confirmed` is what was seen: by an append of ours, or by asking the leader. A run of several batches is
one atomic publish (ADR-50); one of more than RUN_MAX is several, each behind the other, so that of such a run a
beginning may be durable when the rest is refused.

Failure. A broken connection, a time-out or an error of the servers is LogLost: whether the append took effect is
unknown. A publish that is on its way may still arrive after we asked for the head; it then joins or is refused like any
other. The next call connects anew, and looks whether the servers still have what they confirmed; if not, somebody has
put back an older copy, and the gateway must end.
"""

import time
from collections.abc import Callable, Sequence
from typing import Self

from nats.aio.client import Client

from eventstore.group_commit import GroupCommit
from eventstore.jetstream_reader import JetStreamReader
from eventstore.jetstream_server import (
    RUN_MAX,
    Session,
    connect,
    create,
    did_not_join,
    known_meta,
    publish,
    read_meta,
    refused,
    server_errors,
)
from eventstore.jetstream_url import Place
from eventstore.log import (
    CONTROL,
    EMPTY_HEAD,
    LOG_FORMAT,
    AppendRefused,
    Batch,
    Head,
    LogFailed,
    Meta,
    check_join,
)


class JetStreamLog:
    """An EventLog that other gateways may hold as well. `on_commit(seconds, batches)` is called per commit."""

    def __init__(self, place: Place, password: str | None, meta: Meta, on_commit: Callable[[float, int], None]) -> None:
        self.meta = meta
        self._place, self._password, self._on_commit = place, password, on_commit
        self._reader = JetStreamReader(place, meta, self._connect_plainly)
        self._session = Session(self._connect)
        self._commits = GroupCommit(self, (*range(meta.partitions), CONTROL), RUN_MAX)
        self._confirmed: dict[int, Head] = {}  # the newest batch of each partition that the servers told us of

    @staticmethod
    async def create(
        place: Place,
        password: str | None,
        partitions: int,
        deployment_id: str,
        created_ms: int,
        first: Sequence[Batch] = (),
    ) -> None:
        """Write a new log that begins with the control batches `first`. Raises FileExistsError, LogUnfit, LogLost."""
        await create(place, password, Meta(LOG_FORMAT, partitions, deployment_id, created_ms), first)

    @classmethod
    async def open(
        cls,
        place: Place,
        password: str | None,
        on_commit: Callable[[float, int], None] = lambda seconds, batches: None,
    ) -> Self:
        """Raises FileNotFoundError, LogUnreadable, LogUnfit, LogLost."""
        return cls(place, password, await read_meta(place, password), on_commit)

    @property
    def partitions(self) -> int:
        return self.meta.partitions

    async def head(self, partition: int) -> Head:
        """Raises LogLost, LogFailed, LogDamaged."""
        before = self._confirmed.get(partition, EMPTY_HEAD)
        head = await self._reader.head(partition)
        if head.seq < before.seq:  # a leader that does not know yet that it was deposed, or an older copy
            head = await self._looked_twice(partition, before)
        if head.seq == before.seq and head.tip != before.tip:
            raise LogFailed(_lost_text(partition, before.seq))
        self._confirm(partition, head)
        return head

    async def read(self, partition: int, first_seq: int, limit: int) -> list[Batch]:
        """Raises LogLost, LogDamaged."""
        return await self._reader.read(partition, first_seq, limit)

    async def append(self, batches: Sequence[Batch]) -> None:
        """Returns when a quorum has synced. Raises AppendRefused, LogLost, LogFailed, LogDamaged.

        A cancelled one may still take effect.
        """
        await self._commits.append(batches)

    async def close(self) -> None:
        """Write what waits, then let go of the connections."""
        await self._commits.close()
        await self._session.close()
        await self._reader.close()

    # --- writing one partition ---

    async def join(self, partition: int, batches: Sequence[Batch]) -> bool:
        """The compare-and-set."""
        began = time.perf_counter()
        for start in range(0, len(batches), RUN_MAX):
            run = batches[start : start + RUN_MAX]
            if self._confirmed.get(partition, EMPTY_HEAD) != Head(run[0].seq - 1, run[0].prev):
                return False
            with server_errors():
                error = await publish(await self._session.client(), self._place, run)
            if error is not None:
                if did_not_join(error):
                    return False
                raise refused(partition, error)
            self._confirm(partition, Head(run[-1].seq, run[-1].tip))
        self._on_commit(time.perf_counter() - began, len(batches))
        return True

    async def judge(self, partition: int, batches: Sequence[Batch]) -> AppendRefused | None:
        """What becomes of one run whose place is not plain."""
        while True:
            head = await self.head(partition)
            held = await self.read(partition, max(1, batches[0].seq), len(batches))
            fresh = check_join(head, batches, {batch.seq: batch.tip for batch in held}.get)
            if fresh is None:
                return AppendRefused(partition, batches[0].seq, head)
            if not fresh or await self.join(partition, fresh):
                return None  # else somebody was quicker: then it is there now, or another is

    # --- connecting ---

    def _confirm(self, partition: int, head: Head) -> None:
        if head.seq > self._confirmed.get(partition, EMPTY_HEAD).seq:
            self._confirmed[partition] = head

    async def _looked_twice(self, partition: int, before: Head) -> Head:
        """The head, where the leader told one below what was confirmed. Raises LogFailed if it is so."""
        held = await self._reader.read(partition, before.seq, 1)
        if not held or held[0].tip != before.tip:
            raise LogFailed(_lost_text(partition, before.seq))
        return before

    async def _connect_plainly(self) -> Client:
        return await connect(self._place, self._password)

    async def _connect(self) -> Client:
        """A connection to servers that still have what they confirmed. Raises LogLost, LogUnfit, LogFailed."""
        client = await connect(self._place, self._password)
        try:
            if (await known_meta(client, self._place)).deployment_id != self.meta.deployment_id:
                raise LogFailed("JetStream holds the log of another deployment now")
            for partition, head in list(self._confirmed.items()):
                await self._looked_twice(partition, head)
        except FileNotFoundError as error:
            await client.close()
            raise LogFailed(f"the log is gone: {error}") from error
        except BaseException:
            await client.close()
            raise
        return client


def _lost_text(partition: int, seq: int) -> str:
    return (
        f"JetStream no longer has batch {seq} of partition {partition}, which it had confirmed: "
        "was an older copy of the stream restored?"
    )
