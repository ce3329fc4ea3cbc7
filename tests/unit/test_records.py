"""The journal's format and ledger: every torn tail, every damage, and what compaction keeps."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devices.records import (
    MAGIC,
    Answered,
    Entry,
    JournalDamaged,
    Ledger,
    ReversalAnswered,
    ReversalAsked,
    Scanned,
    decode_file,
    encode_block,
    encode_file,
    fold,
)
from gateway.messages import Position, Verdict


def an_id(n: int) -> bytes:
    return n.to_bytes(16, "big")


def scanned(n: int, code: bytes = b"") -> Scanned:
    return Scanned(an_id(n), 1000 + n, code or b"hash of %d" % n, b"sealed %d" % n)


def answered(n: int, verdict: Verdict = Verdict.ACCEPTED) -> Answered:
    return Answered(an_id(n), verdict, 0, 100 + n, 3, 2000 + n)


LIFE: list[list[Entry]] = [
    [scanned(1)],
    [answered(1)],
    [scanned(2)],
    [ReversalAsked(an_id(91), an_id(2), 5, gave_up=True)],
    [scanned(3), answered(3, Verdict.EXPIRED)],
    [ReversalAnswered(an_id(91), an_id(2), Verdict.REVERSED, 0, 44, 0, 9)],
    [scanned(4)],
]


def test_a_file_says_what_was_written() -> None:
    content = MAGIC + b"".join(map(encode_block, LIFE))
    assert decode_file(content) == ([entry for block in LIFE for entry in block], len(content))


def test_a_tail_torn_at_any_byte_gives_the_whole_blocks_before_it() -> None:
    blocks = [encode_block(block) for block in LIFE]
    content = MAGIC + b"".join(blocks)
    ends = [len(MAGIC) + sum(map(len, blocks[:n])) for n in range(len(blocks) + 1)]
    for cut in range(len(content) + 1):
        entries, sound_bytes = decode_file(content[:cut])
        whole = [end for end in ends if end <= cut]
        assert sound_bytes == (whole[-1] if whole else 0)
        assert entries == [entry for block in LIFE[: max(0, len(whole) - 1)] for entry in block]


@given(at=st.integers(0, 10_000), noise=st.binary(max_size=60))
def test_garbage_in_the_last_block_is_a_torn_tail(at: int, noise: bytes) -> None:
    sound = MAGIC + b"".join(map(encode_block, LIFE[:3]))
    last = bytearray(encode_block(LIFE[3]))
    last[at % len(last)] ^= 0xFF
    assert decode_file(sound + bytes(last) + noise)[1] == len(sound)
    assert decode_file(sound + bytes(len(noise)))[1] == len(sound)  # zeros, as after a power cut


@pytest.mark.parametrize("offset", (0, 1, 3, 4, 8, 12))
def test_damage_before_the_last_block_is_never_cut_away(offset: int) -> None:
    blocks = [encode_block(block) for block in LIFE]
    content = bytearray(MAGIC + b"".join(blocks))
    content[len(MAGIC) + offset] ^= 0x01
    with pytest.raises(JournalDamaged, match=f"byte {len(MAGIC)}"):
        decode_file(bytes(content))


def test_another_kind_of_file_is_refused() -> None:
    with pytest.raises(JournalDamaged, match="not a journal"):
        decode_file(b"SQLite format 3\x00" + bytes(100))


def test_entries_about_nothing_are_damage() -> None:
    with pytest.raises(JournalDamaged, match="never scanned"):
        fold([answered(1)])
    with pytest.raises(JournalDamaged, match="never asked"):
        fold([scanned(1), ReversalAnswered(an_id(9), an_id(1), 0, 0, 1, 0, 1)])


def test_the_ledger_knows_what_is_open() -> None:
    ledger = fold(entry for block in LIFE for entry in block)
    assert [r.redemption_id for r in ledger.open_records()] == [an_id(4)]
    first, given_up = ledger.records[an_id(1)], ledger.records[an_id(2)]
    assert (first.verdict, first.place, first.at_ms) == (Verdict.ACCEPTED, Position(0, 101, 3), 2001)
    assert (given_up.verdict, given_up.undone, given_up.reversals[0].gave_up) == (None, True, True)
    assert ledger.last(unresolved=False) is ledger.last(unresolved=True) is ledger.records[an_id(4)]


def test_a_code_belongs_to_its_one_unresolved_id() -> None:
    ledger = fold([scanned(1, b"code"), answered(1), scanned(2, b"code")])
    assert ledger.unresolved_for(b"code") is ledger.records[an_id(2)]
    ledger.apply(ReversalAsked(an_id(9), an_id(2), 5, gave_up=True))
    assert ledger.unresolved_for(b"code") is None
    assert ledger.open_count() == 1, "the reversal is still to be answered"
    ledger.apply(scanned(3, b"code"))
    ledger.apply(ReversalAnswered(an_id(9), an_id(2), Verdict.ACCEPTED, 0, 1, 0, 1))
    assert ledger.unresolved_for(b"code") is ledger.records[an_id(3)]


def test_compaction_forgets_codes_of_the_settled_only_and_keeps_every_verdict() -> None:
    ledger = fold([*(entry for block in LIFE for entry in block), ReversalAsked(an_id(92), an_id(1), 7)])
    again = fold(decode_file(encode_file(ledger.compacted()))[0])
    kept = {n: bool(again.records[an_id(n)].sealed and again.records[an_id(n)].code_hash) for n in (1, 2, 3, 4)}
    assert kept == {1: True, 2: False, 3: False, 4: True}, "1 is being reversed, 4 has no answer yet"
    assert told(again) == told(ledger)
    assert fold(again.compacted()).records == again.records


def test_compaction_bounds_the_history_but_never_drops_what_is_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("devices.records.HISTORY_MAX", 2)
    ledger = fold([scanned(0), *(e for n in range(1, 6) for e in (scanned(n), answered(n)))])
    assert list(fold(ledger.compacted()).records) == [an_id(0), an_id(4), an_id(5)]


def told(ledger: Ledger) -> list[object]:
    return [(r.redemption_id, r.scanned_ms, r.verdict, r.place, r.at_ms, r.reversals) for r in ledger.records.values()]
