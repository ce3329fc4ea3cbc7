"""Ids in memory: what is forgotten must not count as new."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import ids
from gateway.guesses import GUESSES_MAX, WINDOW_MS, Guesses
from gateway.ids import RecentIds

START_MS = 1_000_000


def uuid7(at_ms: int, n: int) -> bytes:
    raw = bytearray(at_ms.to_bytes(6, "big") + n.to_bytes(10, "big"))
    raw[6] = raw[6] & 15 | 0x70
    return bytes(raw)


def test_a_new_id_stands_for_its_first_claim() -> None:
    recent = RecentIds(START_MS)
    key = uuid7(START_MS + 1, 1)
    assert recent.use(key, b"a" * 16, START_MS) == b"a" * 16
    assert recent.use(key, b"b" * 16, START_MS) == b"a" * 16


def test_memory_cannot_tell_for_old_ids_and_other_kinds() -> None:
    recent = RecentIds(START_MS)
    assert recent.use(uuid7(START_MS, 1), b"a" * 16, START_MS) is None
    assert recent.use(b"\xff" * 16, b"a" * 16, START_MS) is None
    recent.put(b"\xff" * 16, b"a" * 16, START_MS)
    assert recent.use(b"\xff" * 16, b"b" * 16, START_MS) == b"a" * 16


@given(
    steps=st.lists(
        st.tuples(st.integers(0, 50), st.integers(0, 12), st.booleans()),  # clock moves, terminal's skew, kind of id
        min_size=1,
        max_size=120,
    )
)
def test_a_forgotten_id_is_never_taken_for_new(steps: list[tuple[int, int, bool]]) -> None:
    kept = ids.GENERATION_IDS
    ids.GENERATION_IDS = 8
    try:
        recent, now_ms, used = RecentIds(START_MS), START_MS, {}
        for n, (passed, skew, timed) in enumerate(steps):
            now_ms += passed
            key = uuid7(now_ms + skew * 10 - 60, n) if timed else n.to_bytes(16, "little")
            claim = n.to_bytes(16, "big")
            if recent.use(key, claim, now_ms) is None:
                recent.put(key, claim, now_ms)
            used[key] = claim
            for old, first in used.items():
                assert recent.use(old, b"other", now_ms) in (None, first)
    finally:
        ids.GENERATION_IDS = kept


def test_what_left_memory_while_it_was_filled_is_not_new_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    """At a start more ids may be read back than memory holds."""
    monkeypatch.setattr(ids, "GENERATION_IDS", 8)
    recent = RecentIds()
    for n in range(1, 30):
        recent.put(uuid7(START_MS + n, n), b"first", START_MS + 100)
    recent.trust_from(START_MS)
    assert recent.use(uuid7(START_MS + 1, 1), b"other", START_MS + 100) is None
    assert recent.use(uuid7(START_MS + 29, 29), b"other", START_MS + 100) == b"first"
    assert recent.use(uuid7(START_MS + 30, 30), b"new", START_MS + 100) == b"new"


def test_twenty_wrong_codes_in_ten_minutes_are_too_many() -> None:
    guesses = Guesses()
    assert [guesses.wrong(7, n, bytes([n])) for n in range(GUESSES_MAX)] == [False] * (GUESSES_MAX - 1) + [True]
    assert not guesses.wrong(7, GUESSES_MAX, b"x"), "counting starts afresh"


def test_wrong_codes_spread_over_time_or_terminals_are_not() -> None:
    guesses = Guesses()
    spread_ms = WINDOW_MS // (GUESSES_MAX - 1) + 1
    assert not any(guesses.wrong(7, n * spread_ms, bytes([n])) for n in range(100))
    assert not any(Guesses().wrong(7, 0, b"") or guesses.wrong(1000 + n, 0, b"") for n in range(100))
