"""The cashier's lines: every public verdict in both languages, with what to do next."""

from datetime import UTC

import pytest

from devices.feedback import Mood, line, mood_of, say, tail_of, verdict_text
from devices.framing import FaultReason
from devices.outbox import Answer
from gateway.messages import PUBLIC, Verdict, Winner

TOLD = sorted({verdict for verdict in PUBLIC if verdict is not None})
NOT_FOR_TILLS = {Verdict.NOT_FOUND, Verdict.NOT_YOURS, Verdict.WINDOW_OVER, Verdict.DUPLICATE}  # of a redemption


def an_answer(verdict: int, *, is_reversal: bool = False, winner: Winner | None = None, note: str = "") -> Answer:
    return Answer(bytes(16), bytes(16), is_reversal, verdict, None, 0, winner, note or None)


@pytest.mark.parametrize("language", ("en", "zh"))
@pytest.mark.parametrize("verdict", TOLD)
def test_every_public_verdict_has_words_of_its_own(language: str, verdict: Verdict) -> None:
    text = verdict_text(language, an_answer(verdict))
    assert (str(int(verdict)) in text) == (verdict in NOT_FOR_TILLS)
    assert any(c > "\u4e00" for c in text) == (language == "zh")
    others = [verdict_text(language, an_answer(other)) for other in TOLD if other != verdict]
    assert text not in others


@pytest.mark.parametrize("language", ("en", "zh"))
def test_only_accepted_looks_like_a_yes(language: str) -> None:
    good = [v for v in range(256) if mood_of(an_answer(v)) is Mood.GOOD]
    assert good == [Verdict.ACCEPTED]
    assert mood_of(an_answer(Verdict.UNRESOLVED)) is Mood.WAIT
    assert "44" in verdict_text(language, an_answer(44)), "a reason newer than this till is a refusal with its number"


@pytest.mark.parametrize("reason", FaultReason)
def test_every_lost_scan_has_words(reason: FaultReason) -> None:
    assert say("en", reason).startswith("NOT READ")
    assert say("zh", reason).startswith("未读取")


def test_reversals_have_their_own_words() -> None:
    assert verdict_text("en", an_answer(Verdict.ACCEPTED, is_reversal=True)).startswith("UNDONE")
    assert verdict_text("en", an_answer(Verdict.WINDOW_OVER, is_reversal=True)).startswith("NOT UNDONE")
    assert mood_of(an_answer(Verdict.NOT_YOURS, is_reversal=True)) is Mood.BAD
    assert "77" in verdict_text("zh", an_answer(77, is_reversal=True))


def test_the_winner_is_named_with_store_till_and_local_time() -> None:
    winner = Winner("store-2", "**17", 1_790_000_000_000)
    text = verdict_text("en", an_answer(Verdict.ALREADY_REDEEMED, winner=winner), UTC)
    assert text.endswith("Used at store-2, till **17, 2026-09-21 14:13.")
    assert "store-2" in verdict_text("zh", an_answer(Verdict.ALREADY_REDEEMED, winner=winner), UTC)


@pytest.mark.parametrize("at_ms", (-1, 1 << 62))
def test_a_gateways_words_cannot_break_the_screen(at_ms: int) -> None:
    winner = Winner("a\x1b[2J\nb", "t" * 5000, at_ms)
    text = verdict_text("en", an_answer(Verdict.ALREADY_REDEEMED, winner=winner, note="x\r\ny\x07" * 500), UTC)
    assert text.isprintable()
    assert len(text) < 1000


def test_colour_only_repeats_the_mark() -> None:
    plain = line(Mood.GOOD, "ACCEPTED", at_ms=3_600_000, colour=False, zone=UTC)
    assert plain == "01:00:00 ✓ ACCEPTED"
    assert line(Mood.GOOD, "ACCEPTED", at_ms=3_600_000, colour=True, zone=UTC) == "01:00:00 \x1b[32;1m✓ ACCEPTED\x1b[0m"


def test_short_texts_and_tails() -> None:
    assert say("en", "heard") != say("zh", "heard")
    assert tail_of(bytes(13) + b"\xab\xcd\xef") == "#abcdef"
