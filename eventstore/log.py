"""The event log's contract: a chain of batches per partition, and the exact bytes of a batch.

A partition is a chain. Every batch carries a random 128-bit `tip` and the `prev` tip of its predecessor; the log takes
a batch only if `seq == head.seq + 1` and `prev == head.tip`. The same batch again (same seq, same tip) is success, so a
caller that lost an answer may simply ask again. Anything else is refused and changes nothing. An append that returned
is on stable storage; an append that raised `LogFailed` must end the process, because after a failed fsync the page
cache lies (Rebello et al., "Can Applications Recover from fsync Failures?", ATC 2020).
"""

import struct
import zlib
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Protocol, runtime_checkable

import msgspec

TIP_BYTES = 16
ZERO_TIP = bytes(TIP_BYTES)  # the tip before the first batch of a partition
CONTROL = 0xFFFF  # the partition of campaign, terminal, role and key events; never touched by Valkey
PARTITIONS_MAX = 1024  # 16 slots a partition in a 16,384-slot cluster; far above any use we measured
LOG_FORMAT = 1
SEQ_BITS = 40  # a seq fits 40 bits wherever it is packed: 35 years at 1,000 batches a second


class Batch(msgspec.Struct, frozen=True, gc=False):
    """One log row: what one claim call carried (or one control append), with its place in the chain."""

    partition: int
    seq: int  # 1 for the first batch of a partition
    prev: bytes
    tip: bytes
    payload: bytes  # eventstore.events.encode_records / encode_control
    verdicts: bytes  # one byte a record; empty for control batches


class Head(msgspec.Struct, frozen=True, gc=False):
    """The newest batch of a partition; `Head(0, ZERO_TIP)` when it has none."""

    seq: int
    tip: bytes


EMPTY_HEAD = Head(0, ZERO_TIP)


class AppendRefused(Exception):
    """The batch does not join the chain: `head` is what the log has. Nothing was written."""

    def __init__(self, partition: int, seq: int, head: Head) -> None:
        super().__init__(f"partition {partition}: batch {seq} does not join head {head.seq}")
        self.partition, self.seq, self.head = partition, seq, head


class LogFailed(Exception):
    """The storage failed (I/O error, disk full). Whether the append is durable is unknown; the process must end."""


class LogDamaged(Exception):
    """A stored batch fails its checksum or the chain is broken; names partition and seq."""

    def __init__(self, partition: int, seq: int, why: str) -> None:
        super().__init__(f"partition {partition}, batch {seq}: {why}")
        self.partition, self.seq, self.why = partition, seq, why


class LogLocked(Exception):
    """Another process holds this log."""


class LogUnreadable(Exception):
    """The file is no event log, or of a format this build does not read; says which."""


class LogLost(Exception):
    """A shared log cannot be reached, or the connection broke under way: whether an append took effect is unknown.

    Nothing is wrong with the log. The caller asks again later: the same batch once more is success or refused.
    """


class LogUnfit(LogFailed):
    """The server's settings would make a durable append a lie: names the setting and the fix."""


class Meta(msgspec.Struct, frozen=True):
    """What was fixed when the log was initialised."""

    format: int
    partitions: int
    deployment_id: str
    created_ms: int


def check_meta(meta: Meta) -> Meta:
    """Raises LogUnreadable when this build cannot read such a log."""
    if meta.format != LOG_FORMAT:
        raise LogUnreadable(f"log format {meta.format}, this build reads {LOG_FORMAT}")
    if not 1 <= meta.partitions <= PARTITIONS_MAX:
        raise LogUnreadable(f"{meta.partitions} partitions cannot be")
    return meta


class LogReader(Protocol):
    """What one can ask of a log without the right to write it. All methods may be called from one event loop."""

    @property
    def partitions(self) -> int:
        """NP, the number of voucher partitions (0 .. NP-1); fixed when the log was initialised."""
        ...

    async def head(self, partition: int) -> Head:
        """The newest durable batch, asked of the storage itself (this is what confirms a control head).

        Of a shared log this, `read` and `append` may raise LogLost.
        """
        ...

    async def read(self, partition: int, first_seq: int, limit: int) -> list[Batch]:
        """Up to `limit` batches from `first_seq` on, in order, each checked. Raises LogDamaged."""
        ...

    async def close(self) -> None: ...


@runtime_checkable
class SelfCheckedLog(Protocol):
    """A log whose storage can be checked below what reading it shows."""

    async def check_storage(self) -> None:
        """Takes as long as reading everything. Raises LogDamaged, LogFailed."""
        ...


class EventLog(LogReader, Protocol):
    """What every backend offers; appends are group-committed."""

    async def append(self, batches: Sequence[Batch]) -> None:
        """Make a run of batches of ONE partition durable, in order, all or nothing.

        A prefix the log already has (same seq and tip) is skipped. Raises AppendRefused, LogFailed.
        Concurrent calls share one fsync (group commit); calls for one partition take effect in call order.
        """
        ...


class DeploymentLog(EventLog, Protocol):
    """An EventLog that knows whose it is."""

    @property
    def meta(self) -> Meta: ...


_CRC_HEAD = struct.Struct(">BHQ16s16sI")


def batch_crc(batch: Batch) -> int:
    """CRC-32 over every field, so that a swapped, truncated or flipped row is seen (format 1)."""
    head = _CRC_HEAD.pack(LOG_FORMAT, batch.partition, batch.seq, batch.prev, batch.tip, len(batch.payload))
    return zlib.crc32(batch.verdicts, zlib.crc32(batch.payload, zlib.crc32(head)))


def run_partition(batches: Sequence[Batch]) -> int:
    """The one partition of a run to be appended; a run over two, or a tip of another length, is a bug of the caller."""
    partition = batches[0].partition
    for batch in batches:
        assert batch.partition == partition, "an append is a run of one partition"
        assert len(batch.prev) == len(batch.tip) == TIP_BYTES, "a tip is 16 bytes"
        assert 0 < batch.seq < 1 << SEQ_BITS, "a seq fits 40 bits"
    return partition


def is_chain(batches: Sequence[Batch]) -> bool:
    """Whether each batch follows the one before it."""
    return all(later.seq == earlier.seq + 1 and later.prev == earlier.tip for earlier, later in pairwise(batches))


def check_join(
    head: Head, batches: Sequence[Batch], stored_tip: Callable[[int], bytes | None]
) -> Sequence[Batch] | None:
    """The compare-and-set of the chain, pure: the batches still to write after `head`, or None if refused.

    The run itself must be a chain. A prefix the log already holds is skipped; `stored_tip(seq)` is asked once, for its
    last member (the chain vouches for the ones before it).
    """
    if not is_chain(batches):
        return None
    if not batches:
        return batches
    held = min(len(batches), head.seq - batches[0].seq + 1)
    if held > 0:
        last_held = batches[held - 1]
        return batches[held:] if stored_tip(last_held.seq) == last_held.tip else None
    joins = held == 0 and batches[0].prev == head.tip
    return batches if joins else None
