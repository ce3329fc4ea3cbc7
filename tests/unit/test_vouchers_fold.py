"""The fold of voucher state from the log: every step of a voucher's life, and what no intact log can say."""

import pytest
from log_batches import AT_MS, head_of, id16, record, redeemed

from eventstore.events import IMPORT, REDEEM, REVERSE, VOID, encode_records
from eventstore.log import CONTROL, EMPTY_HEAD, Batch, Head, LogDamaged
from eventstore.vouchers import (
    Entry,
    FoldedState,
    apply_batch,
    empty_state,
    entries,
    head_key,
    head_value,
    registry_key,
    registry_partition,
    voucher_field,
    voucher_key,
)

APPLIED, TOMBSTONED, REPEATED, REVERSED, ALREADY_REDEEMED = 0, 1, 2, 3, 21
A, B, C = id16("a"), id16("b"), id16("c")
Step = tuple[int, bytes, int]  # op, claim_id, verdict


def folded(*steps: Step, serial: int = 1) -> FoldedState:
    """Each step in a batch of its own, at terminal 10, 11, ... in turn."""
    state = empty_state(1)
    for number, (op, claim_id, verdict) in enumerate(steps):
        packed = record(op, claim_id=claim_id, terminal=10 + number, serial=serial)
        apply_batch(state, redeemed(0, state.heads[0], [(packed, verdict)]))
    return state


def life(*steps: Step) -> list[tuple[bytes, bytes, int, int]]:
    """(kind, claim_id, terminal, seq) of the entries after these steps."""
    value = folded(*steps).hashes.get(b"{0}v7:0", {}).get(b"1", b"")
    assert all(entry.at_ms == AT_MS for entry in entries(value))
    return [(entry.kind, entry.claim_id, entry.terminal, entry.seq) for entry in entries(value)]


def test_an_unused_voucher_has_no_value() -> None:
    assert folded().hashes == {}
    assert folded((REDEEM, A, ALREADY_REDEEMED), (REDEEM, A, 34), (REDEEM, A, REPEATED)).hashes == {}


def test_a_redeemed_voucher_to_the_byte() -> None:
    state = folded((REDEEM, A, APPLIED), serial=130)
    value = b"R" + A + (10).to_bytes(4, "big") + AT_MS.to_bytes(6, "big") + (1).to_bytes(5, "big")
    assert state.hashes == {b"{0}v7:2": {b"2": value}}
    assert (voucher_key(0, 7, 130), voucher_field(130)) == (b"{0}v7:2", b"2")
    assert entries(value) == [Entry(b"R", A, 10, AT_MS, 1)]


LIVES = {
    "redeemed": ([(REDEEM, A, APPLIED)], [(b"R", A, 10, 1)]),
    "asked again": ([(REDEEM, A, APPLIED), (REDEEM, A, REPEATED)], [(b"R", A, 10, 1)]),
    "second till": ([(REDEEM, A, APPLIED), (REDEEM, B, ALREADY_REDEEMED)], [(b"R", A, 10, 1)]),
    "voided": ([(VOID, A, APPLIED)], [(b"V", A, 10, 1)]),
    "reversed": ([(REDEEM, A, APPLIED), (REVERSE, A, APPLIED)], [(b"r", A, 10, 2)]),
    "reversal overtook": ([(REVERSE, A, TOMBSTONED), (REDEEM, A, REVERSED)], [(b"t", A, 10, 1)]),
    "redeemed after a reversal": (
        [(REDEEM, A, APPLIED), (REVERSE, A, APPLIED), (REDEEM, B, APPLIED)],
        [(b"R", B, 12, 3), (b"r", A, 10, 2)],
    ),
    "reversed twice": (
        [(REDEEM, A, APPLIED), (REVERSE, A, APPLIED), (REDEEM, B, APPLIED), (REVERSE, B, APPLIED)],
        [(b"r", A, 10, 2), (b"r", B, 12, 4)],
    ),
    "tombstone beside a holder": (
        [(REDEEM, A, APPLIED), (REVERSE, B, TOMBSTONED), (REVERSE, A, APPLIED), (VOID, C, APPLIED)],
        [(b"V", C, 13, 4), (b"t", B, 11, 2), (b"r", A, 10, 3)],
    ),
}


@pytest.mark.parametrize("name", LIVES)
def test_lives(name: str) -> None:
    steps, expected = LIVES[name]
    assert life(*steps) == expected


IMPOSSIBLE = {
    "redeemed twice": [(REDEEM, A, APPLIED), (REDEEM, B, APPLIED)],
    "redeemed when voided": [(VOID, A, APPLIED), (REDEEM, B, APPLIED)],
    "voided when redeemed": [(REDEEM, A, APPLIED), (VOID, B, APPLIED)],
    "reversal of nothing": [(REVERSE, A, APPLIED)],
    "reversal of another": [(REDEEM, A, APPLIED), (REVERSE, B, APPLIED)],
    "reversal of a void": [(VOID, A, APPLIED), (REVERSE, A, APPLIED)],
    "settled id applied": [(REDEEM, A, APPLIED), (REVERSE, A, APPLIED), (REDEEM, A, APPLIED)],
    "tombstone of the holder": [(REDEEM, A, APPLIED), (REVERSE, A, TOMBSTONED)],
    "second tombstone": [(REVERSE, A, TOMBSTONED), (REVERSE, A, TOMBSTONED)],
    "redemption tombstoned": [(REDEEM, A, TOMBSTONED)],
    "unknown op": [(9, A, APPLIED)],
    "import tombstoned": [(IMPORT, A, TOMBSTONED)],
}


@pytest.mark.parametrize("name", IMPOSSIBLE)
def test_what_no_intact_log_says(name: str) -> None:
    steps = IMPOSSIBLE[name]
    with pytest.raises(LogDamaged, match="7-1") as damaged:
        folded(*steps)
    assert (damaged.value.partition, damaged.value.seq) == (0, len(steps))


def test_effects_of_one_batch_see_each_other() -> None:
    rows = [
        (record(claim_id=A), APPLIED),
        (record(claim_id=B), ALREADY_REDEEMED),
        (record(REVERSE, claim_id=A), APPLIED),
        (record(claim_id=B, serial=2), APPLIED),
        (record(claim_id=C), APPLIED),
    ]
    state = empty_state(1)
    apply_batch(state, redeemed(0, EMPTY_HEAD, rows))
    values = state.hashes[b"{0}v7:0"]
    assert [(entry.kind, entry.claim_id) for entry in entries(values[b"1"])] == [(b"R", C), (b"r", A)]
    assert [(entry.kind, entry.claim_id) for entry in entries(values[b"2"])] == [(b"R", B)]


def test_imports_fill_the_registry_once() -> None:
    keyed_hash = bytes.fromhex("ab01") + bytes(14)
    packed = record(IMPORT, redemption_id=keyed_hash, campaign=9, serial=5)
    state = empty_state(4)
    assert registry_partition(keyed_hash, 4) == 0xAB010000 % 4 == 0
    apply_batch(state, redeemed(0, EMPTY_HEAD, [(packed, APPLIED), (packed, REPEATED)]))
    assert state.hashes == {b"{0}rab01": {keyed_hash: (9).to_bytes(4, "big") + (5).to_bytes(8, "big")}}
    assert registry_key(0, keyed_hash) == b"{0}rab01"
    with pytest.raises(LogDamaged):
        apply_batch(state, redeemed(0, state.heads[0], [(packed, APPLIED)]))


def test_a_purged_campaign_is_left_out() -> None:
    state = empty_state(1, purged={7})
    rows = [(record(claim_id=A), APPLIED), (record(claim_id=B, campaign=8), APPLIED)]
    apply_batch(state, redeemed(0, EMPTY_HEAD, [*rows, (record(IMPORT), APPLIED)]))
    assert set(state.hashes) == {b"{0}v8:0"}


def test_the_head_moves_with_every_batch() -> None:
    state = empty_state(2)
    first = redeemed(1, EMPTY_HEAD, [])
    apply_batch(state, first)
    assert state.heads == {0: EMPTY_HEAD, 1: head_of(first)}
    assert (head_key(1), head_value(Head(12, A))) == (b"{1}head", A + b"12")
    for foreign in (first, redeemed(1, Head(2, A), []), redeemed(1, Head(1, A), [])):
        with pytest.raises(LogDamaged, match="does not follow batch 1"):
            apply_batch(state, foreign)
    assert state.heads[1] == head_of(first)


def test_a_batch_that_is_not_whole_is_damage() -> None:
    one = encode_records([record()], {}, received_ms=AT_MS)
    for payload, verdicts in ((one, b""), (one, b"\0\0"), (one[:40], b"\0"), (b"", b"")):
        with pytest.raises(LogDamaged):
            apply_batch(empty_state(1), Batch(0, 1, bytes(16), A, payload, verdicts))
    with pytest.raises(AssertionError):
        apply_batch(empty_state(1), Batch(CONTROL, 1, bytes(16), A, one, b"\0"))
