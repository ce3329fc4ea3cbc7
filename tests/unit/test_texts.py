"""Every public verdict has its text, in both languages, with nothing left to fill in."""

import re
import string

import pytest

from gateway.messages import PUBLIC, Verdict, Winner
from gateway.texts import (
    LANGUAGES,
    PHRASES,
    REVERSAL_PHRASES,
    Language,
    Phrase,
    cashier_text,
    moment_text,
    reversal_text,
)

TOLD = tuple(sorted({public for public in PUBLIC if public is not None}))
WINNER = Winner(store="bar-1", terminal="..5", at_ms=1_763_719_380_000)
LATIN, HAN = re.compile(r"[A-Za-z]{3}"), re.compile(r"[\u4e00-\u9fff]")
RETIRED = re.compile(r"transaction|process|handle|status|\bdata\b|\binfo|\bitem|ticket|coupon|cancel", re.I)


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("verdict", TOLD)
def test_every_public_verdict_is_told_with_and_without_details(verdict: Verdict, language: Language) -> None:
    plain = cashier_text(verdict, language)
    detailed = cashier_text(verdict, language, winner=WINNER, note="2025-11-22 11:00 (UTC+8)", value="12.50 CNY")
    for text in (plain, detailed, reversal_text(verdict, language)):
        assert text
        assert not set("{}") & set(text)
        assert "None" not in text
        assert text.endswith("." if language == "en" else "。")
        assert len(text) <= (240 if language == "en" else 90)
        assert not RETIRED.search(text)
        assert bool(HAN.search(text)) == (language == "zh")
    if language == "zh":
        assert not LATIN.search(plain)


def test_no_phrase_belongs_to_a_verdict_that_is_never_told() -> None:
    for language in LANGUAGES:
        assert tuple(PHRASES[language]) == TOLD
        assert set(REVERSAL_PHRASES[language]) == {Verdict.ACCEPTED, Verdict.REVERSED}


def names(phrase: Phrase) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(phrase.detailed) if name}


def test_both_languages_tell_the_same_facts() -> None:
    for verdict in TOLD:
        facts = names(PHRASES["en"][verdict])
        assert facts == names(PHRASES["zh"][verdict])
        assert facts <= {"value", "note", "store", "terminal", "time"}


@pytest.mark.parametrize("language", LANGUAGES)
def test_unknown_forged_and_never_issued_are_told_alike(language: Language) -> None:
    alike = (Verdict.UNKNOWN_CODE, Verdict.FORGED, Verdict.NOT_ISSUED)
    texts = {cashier_text(verdict, language, winner=WINNER, note="a note", value="1.00 CNY") for verdict in alike}
    assert texts == {cashier_text(Verdict.UNKNOWN_CODE, language)}


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_repeat_reads_like_the_first_answer(language: Language) -> None:
    repeated, first = (
        cashier_text(verdict, language, value="12.50 CNY") for verdict in (Verdict.REPEATED, Verdict.ACCEPTED)
    )
    assert repeated == first
    assert "12.50 CNY" in first


@pytest.mark.parametrize("language", LANGUAGES)
def test_already_redeemed_names_where_and_when(language: Language) -> None:
    text = cashier_text(Verdict.ALREADY_REDEEMED, language, winner=WINNER, time_zone="Asia/Shanghai")
    assert all(fact in text for fact in ("bar-1", "..5", "2025-11-21 18:03 (UTC+8)"))


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("verdict", (Verdict.NOT_YET_VALID, Verdict.OUTSIDE_HOURS, Verdict.TERMINAL_LOCKED))
def test_the_next_legal_time_is_told(verdict: Verdict, language: Language) -> None:
    assert "2025-11-22 11:00 (UTC+8)" in cashier_text(verdict, language, note="2025-11-22 11:00 (UTC+8)")


def test_braces_in_what_others_wrote_stay_braces() -> None:
    braced = Winner(store="{note}", terminal="{0}", at_ms=0)
    assert "{note}, till {0}," in cashier_text(Verdict.ALREADY_REDEEMED, "en", winner=braced)


@pytest.mark.parametrize("language", LANGUAGES)
def test_an_accepted_reversal_never_reads_like_an_accepted_redemption(language: Language) -> None:
    redeemed = cashier_text(Verdict.ACCEPTED, language)
    assert reversal_text(Verdict.ACCEPTED, language) != redeemed
    assert reversal_text(Verdict.TOMBSTONED, language) != cashier_text(Verdict.TOMBSTONED, language)
    assert reversal_text(Verdict.WINDOW_OVER, language) == cashier_text(Verdict.WINDOW_OVER, language)


@pytest.mark.parametrize(
    ("zone", "text"),
    (
        ("UTC", "2025-11-21 10:03 (UTC)"),
        ("Asia/Shanghai", "2025-11-21 18:03 (UTC+8)"),
        ("Asia/Kathmandu", "2025-11-21 15:48 (UTC+5:45)"),
        ("America/St_Johns", "2025-11-21 06:33 (UTC-3:30)"),
        ("America/New_York", "2025-11-21 05:03 (UTC-5)"),
    ),
)
def test_a_moment_says_its_offset(zone: str, text: str) -> None:
    assert moment_text(WINNER.at_ms, zone) == text
