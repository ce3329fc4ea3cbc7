"""Makes chains of batches for tests of the log and of what is computed from it."""

import hashlib
from collections.abc import Sequence

from eventstore.events import NO_ID, RECORD, REDEEM, encode_records
from eventstore.log import EMPTY_HEAD, Batch, Head

AT_MS = 1_700_000_000_000


def id16(*words: object) -> bytes:
    """Sixteen bytes that are the same for the same words."""
    return hashlib.blake2b(repr(words).encode(), digest_size=16).digest()


def chain(partition: int, count: int, after: Head = EMPTY_HEAD, payload: bytes | None = None) -> list[Batch]:
    """`count` batches that follow `after`, each with one refused scan (or the given payload)."""
    batches: list[Batch] = []
    for _ in range(count):
        body = encode_records([record()], {}, received_ms=AT_MS) if payload is None else payload
        after, batch = _follow(partition, after, body, b"\x0c")
        batches.append(batch)
    return batches


def redeemed(partition: int, after: Head, rows: Sequence[tuple[bytes, int]]) -> Batch:
    """The batch after `after`, of packed records and their verdicts."""
    payload = encode_records([packed for packed, _ in rows], {}, received_ms=AT_MS)
    return _follow(partition, after, payload, bytes(verdict for _, verdict in rows))[1]


def _follow(partition: int, after: Head, payload: bytes, verdicts: bytes) -> tuple[Head, Batch]:
    tip = id16(partition, after.seq + 1)
    batch = Batch(partition, after.seq + 1, after.tip, tip, payload, verdicts)
    return Head(batch.seq, tip), batch


def head_of(batch: Batch) -> Head:
    return Head(batch.seq, batch.tip)


def record(
    op: int = REDEEM,
    *,
    campaign: int = 7,
    serial: int = 1,
    redemption_id: bytes = NO_ID,
    claim_id: bytes = NO_ID,
    terminal: int = 3,
    static: int = 0,
) -> bytes:
    """One packed record."""
    return RECORD.pack(op, static, 1, 0, campaign, serial, redemption_id, claim_id, terminal, AT_MS - 5, 9)
