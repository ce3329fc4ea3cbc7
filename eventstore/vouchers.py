"""A voucher's state as Valkey holds it, to the byte, and its fold from the log.

The claim function in Valkey writes the same bytes (its source is the other implementation; the tests compare the two).
Per partition `p` there are, as binary-safe hashes and one string:

    {p}v<campaign>:<serial >> 6>   field <serial & 63>   a voucher's value
    {p}r<first 2 bytes of the keyed hash, hex>   field 16-byte keyed hash   campaign u32, serial u64 of a typed or
                                                                            foreign code
    {p}head                        tip (16 bytes), then seq in ASCII decimal

A voucher's value is a row of 32-byte entries, big-endian: kind, claim_id (16), terminal u32, at_ms u48, seq u40, the
last two those of the batch that wrote the entry. The holder, if there is one, comes first; then what is settled, in the
order it was settled. No value at all means unused.

    R redeemed (holder)   V voided (holder)   r reversed (settled)   t tombstoned (settled)
    c conflict (settled): accepted offline at a till, after another redemption held the voucher
"""

import struct
from collections.abc import Iterable
from itertools import compress

import msgspec

from eventstore.events import (
    APPLIED,
    CONFLICT,
    HEADER_BYTES,
    IMPORT,
    RECORD_BYTES,
    REDEEM,
    REVERSE,
    TOMBSTONED,
    VOID,
    BadPayload,
    records_head,
)
from eventstore.log import CONTROL, EMPTY_HEAD, Batch, Head, LogDamaged

ENTRY_BYTES = 32
REDEEMED, VOIDED, REVERSED, TOMBSTONE, LOST = b"R", b"V", b"r", b"t", b"c"
CONFLICTS_BYTES_MAX = 256 * ENTRY_BYTES  # a voucher's value this long takes no more conflicts; see claim.lua
SERIALS_PER_KEY = 64  # neighbours share one small hash: 30 B a voucher where a key of its own takes 94 B (measured)
REGISTRY_VALUE = struct.Struct(">IQ")

_FIELDS = tuple(b"%d" % number for number in range(SERIALS_PER_KEY))
_FOLD = struct.Struct(">B3xIQ16s20s12x")  # op, campaign, serial, redemption_id, claim_id + terminal: see events.RECORD
_TOOK_EFFECT = bytes((1, 1, 0, 0, 1)) + bytes(251)  # by verdict byte: APPLIED, TOMBSTONED, and CONFLICT
_Effect = tuple[tuple[int, int, int, bytes, bytes], int]  # what _FOLD gives, and the verdict byte


class Entry(msgspec.Struct, frozen=True, gc=False):
    """One entry of a voucher's value."""

    kind: bytes
    claim_id: bytes
    terminal: int
    at_ms: int
    seq: int


class FoldedState(msgspec.Struct):
    """What Valkey must hold: hashes by key and field, and the head of each voucher partition."""

    hashes: dict[bytes, dict[bytes, bytes]]
    heads: dict[int, Head]
    purged: frozenset[int]  # campaigns whose vouchers are no longer kept


def empty_state(partitions: int, purged: Iterable[int] = ()) -> FoldedState:
    return FoldedState({}, dict.fromkeys(range(partitions), EMPTY_HEAD), frozenset(purged))


def voucher_key(partition: int, campaign: int, serial: int) -> bytes:
    return b"{%d}v%d:%d" % (partition, campaign, serial // SERIALS_PER_KEY)


def voucher_field(serial: int) -> bytes:
    return _FIELDS[serial % SERIALS_PER_KEY]


def registry_partition(keyed_hash: bytes, partitions: int) -> int:
    return int.from_bytes(keyed_hash[:4], "big") % partitions


def registry_key(partition: int, keyed_hash: bytes) -> bytes:
    return b"{%d}r%s" % (partition, keyed_hash[:2].hex().encode())


def head_key(partition: int) -> bytes:
    return b"{%d}head" % partition


def head_value(head: Head) -> bytes:
    return head.tip + b"%d" % head.seq


def entries(value: bytes) -> list[Entry]:
    """A voucher's value, decoded."""
    assert len(value) % ENTRY_BYTES == 0, f"a voucher value of {len(value)} bytes"
    return [entry_of(value[start : start + ENTRY_BYTES]) for start in range(0, len(value), ENTRY_BYTES)]


def entry_of(packed: bytes) -> Entry:
    """One entry, decoded."""
    terminal, at_ms, seq = (int.from_bytes(packed[a:b], "big") for a, b in ((17, 21), (21, 27), (27, 32)))
    return Entry(packed[:1], packed[1:17], terminal, at_ms, seq)


def apply_batch(state: FoldedState, batch: Batch) -> None:
    """Apply the next voucher batch of its partition, in place. Raises LogDamaged where it cannot follow."""
    assert batch.partition != CONTROL, "control events hold no vouchers"
    head = state.heads[batch.partition]
    if batch.seq != head.seq + 1 or batch.prev != head.tip:
        raise LogDamaged(batch.partition, batch.seq, f"does not follow batch {head.seq}")
    count, received_ms = checked_head(batch)
    stamp = received_ms.to_bytes(6, "big") + batch.seq.to_bytes(5, "big")
    records = zip(_FOLD.iter_unpack(records_view(batch.payload, count)), batch.verdicts, strict=True)
    _apply_effects(state, batch, stamp, compress(records, batch.verdicts.translate(_TOOK_EFFECT)))
    state.heads[batch.partition] = Head(batch.seq, batch.tip)


def _apply_effects(state: FoldedState, batch: Batch, stamp: bytes, effects: Iterable[_Effect]) -> None:
    partition, hashes, purged = batch.partition, state.hashes, state.purged
    for (op, campaign, serial, redemption_id, claim), verdict in effects:
        if campaign in purged:
            continue
        value: bytes | None
        if op == IMPORT:
            key, field = registry_key(partition, redemption_id), redemption_id
            held = hashes.get(key, {}).get(field)
            value = REGISTRY_VALUE.pack(campaign, serial) if held is None and verdict == APPLIED else None
        else:  # voucher_key and voucher_field without the calls: this is the hot line of a rebuild
            key, field = b"{%d}v%d:%d" % (partition, campaign, serial >> 6), _FIELDS[serial & 63]
            fields = hashes.get(key)
            value = next_value(fields.get(field, b"") if fields else b"", op, verdict, claim, stamp)
        if value is None:
            why = f"op {op} cannot have had verdict {verdict} on voucher {campaign}-{serial}"
            raise LogDamaged(partition, batch.seq, why)
        hashes.setdefault(key, {})[field] = value


def next_value(value: bytes, op: int, verdict: int, claim: bytes, stamp: bytes) -> bytes | None:
    """A voucher's value after one effect, or None where the claim function would never have said so.

    `claim` is claim_id + terminal u32 as they lie in the record, `stamp` is at_ms u48 + seq u40.
    """
    holder = value[:1]
    if op == REVERSE and verdict == APPLIED:
        undone = holder == REDEEMED and value[1:17] == claim[:16]
        return value[ENTRY_BYTES:] + REVERSED + value[1:21] + stamp if undone else None
    if value and claim[:16] in _claim_ids(value):
        return None  # an id that is held or settled is answered from the value, never applied again
    if verdict == CONFLICT:
        loses = op == REDEEM and holder in (REDEEMED, VOIDED)
        settled = LOST + claim + stamp if len(value) < CONFLICTS_BYTES_MAX else b""
        return value + settled if loses else None
    if op == REVERSE and verdict == TOMBSTONED:
        return value + TOMBSTONE + claim + stamp
    if verdict != APPLIED or holder in (REDEEMED, VOIDED) or op not in (REDEEM, VOID):
        return None
    return (REDEEMED if op == REDEEM else VOIDED) + claim + stamp + value


def _claim_ids(value: bytes) -> list[bytes]:
    return [value[start + 1 : start + 17] for start in range(0, len(value), ENTRY_BYTES)]


def checked_head(batch: Batch) -> tuple[int, int]:
    """(count, received_ms) of a voucher batch that has a verdict for every record. Raises LogDamaged."""
    try:
        count, received_ms = records_head(batch.payload)
    except BadPayload as error:
        raise LogDamaged(batch.partition, batch.seq, str(error)) from error
    if len(batch.verdicts) != count:
        raise LogDamaged(batch.partition, batch.seq, f"{len(batch.verdicts)} verdicts for {count} records")
    return count, received_ms


def records_view(payload: bytes, count: int) -> memoryview:
    """The bytes of all records side by side, for `iter_unpack`; `count` as `checked_head` told it."""
    return memoryview(payload)[HEADER_BYTES : HEADER_BYTES + count * RECORD_BYTES]
