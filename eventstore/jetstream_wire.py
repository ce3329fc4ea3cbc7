"""What a log in NATS JetStream is made of: names of streams, messages, and the answers of its API. Pure.

Format 1: a stream per partition, `<name>-p<n>` and `<name>-control`, one message a batch, so that the sequence which
JetStream gives a message is the batch's seq. A message is prev, tip, CRC-32, the payload's length (big endian), payload
and verdicts. What was fixed when the log was made stands in the control stream's metadata.
"""

import struct
from typing import Any

import msgspec

from eventstore.jetstream_url import Place
from eventstore.log import CONTROL, Batch, LogDamaged, batch_crc

WRONG_SEQUENCE = (10071, 10164)  # the same refusal before and after the servers agreed
NO_MESSAGE, NO_STREAM, NAME_TAKEN = 10037, 10059, 10058
_ROW = struct.Struct(">16s16sII")


class Error(msgspec.Struct):
    code: int = 0
    err_code: int = 0
    description: str = ""


class Message(msgspec.Struct):
    seq: int
    body: str = msgspec.field(default="", name="data")  # base64


class StreamConfig(msgspec.Struct):
    storage: str = ""
    num_replicas: int = 0
    retention: str = ""
    max_msgs: int = -1
    max_bytes: int = -1
    max_age: int = 0
    max_msgs_per_subject: int = -1
    deny_delete: bool = False
    deny_purge: bool = False
    allow_atomic: bool = False
    persist_mode: str = ""
    metadata: dict[str, str] = {}


class StreamState(msgspec.Struct):
    messages: int = 0
    last_seq: int = 0


class Answer(msgspec.Struct):
    """Of JetStream's API and of a publish, as far as it matters here."""

    error: Error | None = None
    message: Message | None = None
    config: StreamConfig | None = None
    state: StreamState | None = None
    seq: int = 0


class JetStreamVarz(msgspec.Struct):
    sync_always: bool = False


class Varz(msgspec.Struct):
    class _Held(msgspec.Struct):
        config: JetStreamVarz | None = None

    jetstream: _Held = msgspec.field(default_factory=_Held)


def stream_of(place: Place, partition: int) -> str:
    """The stream's name, and its subject's last part."""
    return f"{place.name}-{'control' if partition == CONTROL else f'p{partition}'}"


def subject_of(place: Place, partition: int) -> str:
    return f"tillgate-log.{stream_of(place, partition)}"


def pack(batch: Batch) -> bytes:
    """A message."""
    head = _ROW.pack(batch.prev, batch.tip, batch_crc(batch), len(batch.payload))
    return head + batch.payload + batch.verdicts


def unpack(partition: int, seq: int, message: bytes) -> Batch:
    """Raises LogDamaged."""
    if len(message) < _ROW.size:
        raise LogDamaged(partition, seq, f"a message of {len(message)} bytes is no batch")
    prev, tip, crc, length = _ROW.unpack_from(message)
    body = message[_ROW.size :]
    batch = Batch(partition, seq, prev, tip, body[:length], body[length:])
    if batch_crc(batch) != crc:
        raise LogDamaged(partition, seq, "checksum does not match")
    return batch


def stream_config(place: Place, partition: int, metadata: dict[str, str]) -> dict[str, Any]:
    return {
        "name": stream_of(place, partition),
        "subjects": [subject_of(place, partition)],
        "storage": "file",
        "retention": "limits",
        "discard": "new",
        "num_replicas": place.replicas,
        "max_msgs": -1,
        "max_bytes": -1,
        "max_age": 0,
        "duplicate_window": 100_000_000,  # ns, the least there is: the chain knows repeats by itself
        "deny_delete": True,
        "deny_purge": True,
        "allow_direct": True,
        "allow_atomic": True,
        "metadata": metadata,
    }


def unfit(place: Place, config: StreamConfig) -> str | None:
    if config.storage != "file" or config.persist_mode == "async":
        return "it is not kept in files that are synced"
    if config.num_replicas < place.replicas:
        return f"it has {config.num_replicas} replicas, and log.url says {place.replicas}"
    if config.retention != "limits" or max(config.max_msgs, config.max_bytes, config.max_msgs_per_subject) > 0:
        return "it has limits, beyond which messages are refused or deleted"
    if config.max_age or not (config.deny_delete and config.deny_purge):
        return "messages can be deleted from it"
    return None if config.allow_atomic else "it does not take several batches at once (allow_atomic)"
