"""Reading a log in NATS JetStream.

Batches are read from any replica (direct get), because what is at a seq never changes; where a replica has none or a
damaged one, the leader is asked. Heads are asked of the leader only. A leader that was deposed without knowing may tell
an older head for as long as its lease lasts (about 4 s); appends are safe from that, they need a quorum.
"""

import asyncio
import base64
from itertools import pairwise
from typing import Self

import msgspec
from nats.aio.client import Client

from eventstore.jetstream_server import (
    ANSWER_SECONDS_MAX,
    Link,
    Session,
    ask,
    connect,
    read_meta,
    refused,
    server_errors,
)
from eventstore.jetstream_url import Place
from eventstore.jetstream_wire import NO_MESSAGE, Error, stream_of, subject_of, unpack
from eventstore.log import CONTROL, EMPTY_HEAD, Batch, Head, LogDamaged, Meta

READ_SECONDS_MAX = 30.0  # 500 full batches are 40 MB


class JetStreamReader:
    """A LogReader."""

    def __init__(self, place: Place, meta: Meta, connect_anew: Link) -> None:
        self.meta = meta
        self._place, self._session = place, Session(connect_anew)

    @classmethod
    async def open(cls, place: Place, password: str | None) -> Self:
        """Raises FileNotFoundError, LogUnreadable, LogUnfit, LogLost."""

        async def connect_anew() -> Client:
            return await connect(place, password)

        return cls(place, await read_meta(place, password), connect_anew)

    @property
    def partitions(self) -> int:
        return self.meta.partitions

    async def head(self, partition: int) -> Head:
        """Raises LogLost, LogUnfit, LogDamaged, LogFailed."""
        assert partition < self.meta.partitions or partition == CONTROL, f"partition {partition}"
        newest = await self._from_leader(partition, {"last_by_subj": subject_of(self._place, partition)})
        return EMPTY_HEAD if newest is None else Head(newest.seq, newest.tip)

    async def read(self, partition: int, first_seq: int, limit: int) -> list[Batch]:
        """Raises LogLost, LogDamaged, LogFailed."""
        assert first_seq > 0, "the first batch is 1"
        with server_errors():
            found = await self._from_anyone(partition, first_seq, limit)
        while len(found) < limit:  # the end, or a replica that is behind or damaged
            wanted = first_seq + len(found)
            batch = await self._from_leader(partition, {"seq": wanted})
            if batch is None:
                if (await self.head(partition)).seq < wanted:
                    break
                batch = await self._from_leader(partition, {"seq": wanted})
                if batch is None:
                    raise LogDamaged(partition, wanted, "missing")
            found.append(batch)
        for earlier, later in pairwise(found):
            if later.prev != earlier.tip:
                raise LogDamaged(partition, later.seq, "does not follow the batch before it")
        return found

    async def _from_leader(self, partition: int, body: object) -> Batch | None:
        with server_errors():
            client = await self._session.client()
            answer = await ask(client, f"STREAM.MSG.GET.{stream_of(self._place, partition)}", body)
        if answer.error is not None and answer.error.err_code == NO_MESSAGE:
            return None
        if answer.error is not None or answer.message is None:
            raise refused(partition, answer.error or Error(description="no answer to MSG.GET"))
        return unpack(partition, answer.message.seq, base64.b64decode(answer.message.body))

    async def _from_anyone(self, partition: int, first_seq: int, limit: int) -> list[Batch]:
        """The batches in order, until one is missing or damaged (ADR-31, batched direct get)."""
        found: list[Batch] = []
        client = await self._session.client()
        inbox = await client.subscribe(client.new_inbox())
        try:
            body = msgspec.json.encode({"seq": first_seq, "batch": limit})
            call = f"$JS.API.DIRECT.GET.{stream_of(self._place, partition)}"
            await client.publish(call, body, reply=inbox.subject)
            async with asyncio.timeout(READ_SECONDS_MAX):
                while len(found) < limit:
                    message = await inbox.next_msg(timeout=ANSWER_SECONDS_MAX)
                    headers = message.headers or {}
                    if headers.get("Status") or headers.get("Nats-Sequence") != str(first_seq + len(found)):
                        break
                    try:
                        found.append(unpack(partition, first_seq + len(found), message.data))
                    except LogDamaged:
                        break  # this replica's; the leader may have a good one
        finally:
            await inbox.unsubscribe()
        return found

    async def close(self) -> None:
        await self._session.close()
