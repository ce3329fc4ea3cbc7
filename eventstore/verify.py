"""Walks a whole log and proves that it is what was written: checksums, chain, payloads, counts."""

from collections.abc import Callable

import msgspec

from eventstore.events import BadPayload, decode_control, extras_of
from eventstore.log import CONTROL, EMPTY_HEAD, Batch, Head, LogDamaged, LogReader, SelfCheckedLog
from eventstore.vouchers import checked_head

VERIFY_BATCHES = 256  # per read; the backend bounds the bytes


class Verified(msgspec.Struct, frozen=True):
    """What an intact log holds; `heads` by partition."""

    batches: int
    records: int
    control_events: int
    heads: dict[int, Head]


async def verify(log: LogReader, progress: Callable[[int, int, int], None]) -> Verified:
    """Check every batch up to the heads found at the start. Raises LogDamaged at the first fault.

    The storage's own structure comes first: a search that a flipped bit leads astray finds no batches at all, and the
    log would look whole and short.

    `progress(partition, seq, head_seq)` is called after every read.
    """
    if isinstance(log, SelfCheckedLog):
        await log.check_storage()
    heads = {partition: await log.head(partition) for partition in (*range(log.partitions), CONTROL)}
    records = control_events = 0
    for partition, head in heads.items():
        reached = EMPTY_HEAD
        while reached.seq < head.seq:
            batches = await log.read(partition, reached.seq + 1, min(VERIFY_BATCHES, head.seq - reached.seq))
            if not batches:
                raise LogDamaged(partition, reached.seq + 1, "missing")
            for batch in batches:
                reached = _next_head(reached, batch)
                found = _count_checked(batch)
                if partition == CONTROL:
                    control_events += found
                else:
                    records += found
            progress(partition, reached.seq, head.seq)
    return Verified(sum(head.seq for head in heads.values()), records, control_events, heads)


def _next_head(head: Head, batch: Batch) -> Head:
    if batch.seq != head.seq + 1 or batch.prev != head.tip:
        raise LogDamaged(batch.partition, batch.seq, f"does not follow batch {head.seq}")
    return Head(batch.seq, batch.tip)


def _count_checked(batch: Batch) -> int:
    """How many records (or control events) a batch holds, its payload decoded. Raises LogDamaged."""
    try:
        if batch.partition == CONTROL:
            return len(decode_control(batch.payload).events)
        count, _ = checked_head(batch)
        extras_of(batch.payload)
    except BadPayload as error:
        raise LogDamaged(batch.partition, batch.seq, str(error)) from error
    return count
