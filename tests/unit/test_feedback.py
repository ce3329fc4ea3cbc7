"""The cashier's lines: every public verdict in both languages, with what to do next."""

import io
from datetime import UTC

import pytest

from devices.feedback import (
    Mood,
    Told,
    head_and_rest,
    line,
    mood_of,
    say,
    tail_of,
    told_text,
    verdict_text,
    verdict_words,
)
from devices.framing import FaultReason
from devices.outbox import Answer
from devices.screen import Screens, TextScreen
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


def test_an_answer_can_say_what_the_voucher_is_worth() -> None:
    answer = Answer(bytes(16), bytes(16), False, Verdict.ACCEPTED, None, 0, offer="Mooncake\x1b[2J, 12.50 CNY")
    assert verdict_text("en", answer).endswith("Give the value. Worth: Mooncake [2J, 12.50 CNY.")
    assert "12.50 CNY" in verdict_text("zh", answer)


@pytest.mark.parametrize("is_reversal", (False, True))
@pytest.mark.parametrize("language", ("en", "zh"))
def test_every_verdict_begins_with_a_word_that_stands_alone(language: str, is_reversal: bool) -> None:
    for verdict in range(256):
        head, rest = head_and_rest(verdict_words(language, verdict, is_reversal=is_reversal))
        assert 2 <= len(head) <= 16
        assert rest


def test_what_is_told_is_one_line_that_names_its_scan_or_its_scanner() -> None:
    scan = Told(Mood.WAIT, "heard", bytes(13) + b"\xab\xcd\xef", "lane1")
    assert told_text("en", scan) == "#abcdef heard, asking the gateway"
    assert told_text("en", Told(Mood.BAD, "checksum", source="lane1")).startswith("[lane1] NOT READ")
    assert told_text("en", Told(Mood.PLAIN, "online", words="s\n1")) == "connected to the gateway (s 1)"
    assert told_text("zh", Told(Mood.PLAIN, "notice", words="draining: soon")) == "通知 draining: soon"


def test_all_screens_are_told_and_the_first_one_answers() -> None:
    outs = io.StringIO(), io.StringIO()
    screens = Screens(TextScreen(outs[0], "en"), TextScreen(outs[1], "en"))
    screens.language = "zh"
    assert screens.tell(Told(Mood.PLAIN, "stopped")) == "已停止"
    assert [out.getvalue().strip().endswith("· 已停止") for out in outs] == [True, True]
