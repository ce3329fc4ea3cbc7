"""The servers of a log in NATS JetStream: their duties, connections to them, and making a log.

A durable "yes" rests on `sync_interval: always` in every server's configuration: by default a server answers before it
syncs, and a power failure then takes back what was told (Jepsen, NATS 2.12.1, 2025). A client can see that setting on
the monitoring port only, so that port is asked at every new connection. It also rests on the streams' own settings:
files, enough replicas, nothing that deletes.
"""

import asyncio
import urllib.request
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager

import msgspec
import nats
import nats.errors
from nats.aio.client import Client

from eventstore.jetstream_url import Place
from eventstore.jetstream_wire import (
    NAME_TAKEN,
    NO_STREAM,
    WRONG_SEQUENCE,
    Answer,
    Error,
    Varz,
    pack,
    stream_config,
    stream_of,
    subject_of,
    unfit,
)
from eventstore.log import (
    CONTROL,
    PARTITIONS_MAX,
    Batch,
    LogFailed,
    LogLost,
    LogUnfit,
    LogUnreadable,
    Meta,
    check_meta,
)

CONNECT_SECONDS_MAX = 5.0
ANSWER_SECONDS_MAX = 5.0  # an append takes milliseconds, an election a second or two
MONITOR_SECONDS_MAX = 2.0
PING_SECONDS = 5  # a server that leaves two pings without an answer is gone, whatever the kernel still takes for it
PAYLOAD_MAX_LEAST = 8 << 20  # what a server must take in a message; a batch is at most half of it, base64 is longer
BATCH_BYTES_MAX = 4 << 20
RUN_MAX = 1000  # messages of an atomic publish (the server's own limit)
_UNREACHABLE = (nats.errors.Error, OSError, TimeoutError)

Link = Callable[[], Awaitable[Client]]


@contextmanager
def server_errors() -> Iterator[None]:
    """What NATS and its client raise, as a log raises it; and whoever was cancelled meanwhile learns it here."""
    try:
        yield
    except (FileExistsError, FileNotFoundError):  # ours, of whole logs
        raise
    except _UNREACHABLE as error:
        _heed_cancel()
        raise LogLost(f"NATS: {str(error) or type(error).__name__}") from error
    _heed_cancel()


def _heed_cancel() -> None:
    """End a cancelled task whose CancelledError was lost under way.

    The client waits with asyncio.wait_for, which up to CPython 3.11 returns the answer, as if nothing were, to a task
    that is cancelled in the turn of the loop in which the answer comes (python/cpython#86296); and a connection that
    closes turns the CancelledError into one of the client's own. A reader that polls for ever would never end.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


async def ask(client: Client, call: str, body: object = None) -> Answer:
    """One call of JetStream's API, which a stream's leader answers; its errors are part of the answer."""
    content = b"" if body is None else msgspec.json.encode(body)
    message = await client.request(f"$JS.API.{call}", content, timeout=ANSWER_SECONDS_MAX)
    return msgspec.json.decode(message.data, type=Answer)


def refused(partition: int, error: Error) -> LogLost | LogFailed:
    """An answer that no caller expected."""
    if error.err_code == NO_STREAM:
        return LogFailed(f"the stream of partition {partition} is gone from JetStream")
    return LogLost(f"JetStream: {error.description} ({error.err_code})")


async def _quietly(_: Exception) -> None:
    """Whoever waits for an answer is told; nobody else needs to be."""


async def connect(place: Place, password: str | None) -> Client:
    """A connection to servers that are fit for a log. Raises LogLost, LogUnfit."""
    client: Client | None = None
    try:
        with server_errors():
            client = await nats.connect(
                place.urls,
                name="tillgate",
                user=place.user or None,
                password=password,
                connect_timeout=round(CONNECT_SECONDS_MAX),
                ping_interval=PING_SECONDS,
                allow_reconnect=False,  # it would send again what was under way; a Session connects anew instead
                error_cb=_quietly,
            )
        if client.max_payload < PAYLOAD_MAX_LEAST:
            raise LogUnfit(f"NATS takes {client.max_payload} bytes a message. Set max_payload: {PAYLOAD_MAX_LEAST}")
        await _check_sync(place)
    except BaseException:
        if client is not None:
            await client.close()
        raise
    return client


async def _check_sync(place: Place) -> None:
    told = await asyncio.gather(*(asyncio.to_thread(_varz, url) for url in place.monitors))
    if not any(told):
        raise LogLost("NATS: no monitoring port answers, and only there can be seen whether yes means on disk")
    for url, found in zip(place.monitors, told, strict=True):
        if found is not None and (found.jetstream.config is None or not found.jetstream.config.sync_always):
            raise LogUnfit(
                f"the NATS server at {url} answers before it syncs: a power failure could undo a yes. "
                "Set sync_interval: always in its jetstream block"
            )


def _varz(url: str) -> Varz | None:
    try:
        with urllib.request.urlopen(f"{url}/varz", timeout=MONITOR_SECONDS_MAX) as answer:  # noqa: S310 - http by type
            return msgspec.json.decode(answer.read(), type=Varz)
    except OSError:
        return None  # this one is down or starting


class Session:
    """One connection, made anew when it broke."""

    def __init__(self, connect_anew: Link) -> None:
        self._connect_anew = connect_anew
        self._turn = asyncio.Lock()
        self._client: Client | None = None

    async def client(self) -> Client:
        """Raises what connecting raises."""
        async with self._turn:
            if self._client is None or not self._client.is_connected:
                await self._drop()
                self._client = await self._connect_anew()
            return self._client

    async def _drop(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    async def close(self) -> None:
        """Say goodbye."""
        async with self._turn:
            await self._drop()


# --- making and knowing a log ---


async def create(place: Place, password: str | None, meta: Meta, first: Sequence[Batch] = ()) -> None:
    """Write a new log that begins with the control batches `first`; it is there when the last of them is.

    Raises FileExistsError, LogUnfit, LogLost.
    """
    assert 1 <= meta.partitions <= PARTITIONS_MAX, f"{meta.partitions} partitions"
    client = await connect(place, password)
    try:
        with server_errors():
            for partition in range(meta.partitions):
                await _make(client, place, partition, {})
            known = {"tillgate": msgspec.json.encode(meta).decode(), "tillgate-first": str(len(first))}
            await _make(client, place, CONTROL, known)
            for batch in first:
                told = await publish(client, place, [batch])
                if told is not None and told.err_code not in WRONG_SEQUENCE:
                    raise refused(CONTROL, told)
                if told is not None:
                    raise FileExistsError("JetStream holds a log of this name already")
    finally:
        await client.close()


async def _make(client: Client, place: Place, partition: int, metadata: dict[str, str]) -> None:
    body = stream_config(place, partition, metadata)
    answer = await ask(client, f"STREAM.CREATE.{body['name']}", body)
    if answer.error is not None and answer.error.err_code == NAME_TAKEN:
        raise FileExistsError("JetStream holds a log of this name already")
    if answer.error is not None:
        raise refused(partition, answer.error)
    if answer.state is not None and answer.state.messages:
        raise FileExistsError("JetStream holds a log of this name already")


async def read_meta(place: Place, password: str | None) -> Meta:
    """Whose log this is. Raises LogUnreadable, LogUnfit, LogLost, FileNotFoundError where there is none."""
    client = await connect(place, password)
    try:
        return await known_meta(client, place)
    finally:
        await client.close()


async def known_meta(client: Client, place: Place) -> Meta:
    """As `read_meta`, over a connection."""
    with server_errors():
        answer = await ask(client, f"STREAM.INFO.{stream_of(place, CONTROL)}")
    if answer.error is not None and answer.error.err_code == NO_STREAM:
        raise FileNotFoundError("there is no log of this name in JetStream")
    if answer.error is not None or answer.config is None or answer.state is None:
        raise refused(CONTROL, answer.error or Error(description="no answer to STREAM.INFO"))
    if (why := unfit(place, answer.config)) is not None:
        raise LogUnfit(f"the stream {stream_of(place, CONTROL)} is not fit for a log: {why}")
    known = answer.config.metadata
    try:
        meta = msgspec.json.decode(known["tillgate"], type=Meta)
        first = int(known["tillgate-first"])
    except (KeyError, ValueError, msgspec.DecodeError) as error:
        raise LogUnreadable(f"not an event log: its stream's metadata: {error}") from error
    if answer.state.last_seq < first:
        raise FileNotFoundError("the log of this name in JetStream is only half made")
    return check_meta(meta)


async def publish(client: Client, place: Place, batches: Sequence[Batch]) -> Error | None:
    """At most RUN_MAX batches behind the seq before theirs, all or none; None: they are durable.

    The server compares the seq only: that the batch before has the tip that these name is the caller's to know.
    Raises LogFailed, and what NATS raises.
    """
    partition = batches[0].partition
    subject = subject_of(place, partition)
    expected = {"Nats-Expected-Last-Sequence": str(batches[0].seq - 1)}
    run = {"Nats-Batch-Id": batches[-1].tip.hex()}
    for number, batch in enumerate(batches[:-1], start=1):
        headers = run | {"Nats-Batch-Sequence": str(number)} | (expected if number == 1 else {})
        await client.publish(subject, _checked(batch), headers=headers)
    headers = expected
    if len(batches) > 1:
        headers = run | {"Nats-Batch-Sequence": str(len(batches)), "Nats-Batch-Commit": "1"}
    message = await client.request(subject, _checked(batches[-1]), headers=headers, timeout=ANSWER_SECONDS_MAX)
    answer = msgspec.json.decode(message.data, type=Answer)
    if answer.error is None and answer.seq != batches[-1].seq:
        raise LogFailed(f"JetStream put batch {batches[-1].seq} of partition {partition} at {answer.seq}")
    return answer.error


def did_not_join(error: Error) -> bool:
    """Whether the server's head is not what was expected, and nothing was written."""
    return error.err_code in WRONG_SEQUENCE


def _checked(batch: Batch) -> bytes:
    message = pack(batch)
    if len(message) > BATCH_BYTES_MAX:
        raise LogFailed(f"a batch of {len(message)} bytes is more than a message may have ({BATCH_BYTES_MAX})")
    return message
