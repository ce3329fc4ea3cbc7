"""What a verdict is told as over HTTP: texts, moments, winners, and what must not be told."""

import msgspec
import pytest

from eventstore import events as e
from eventstore.events import Control, Hours, Offer
from gateway import answers
from gateway.directory import Directory
from gateway.messages import Answer, Position, Verdict, Winner
from gateway.texts import cashier_text

DAY_MS = 86_400_000
NOON_MS = 1_763_697_600_000  # 2025-11-21 12:00 in Shanghai
OFFER = Offer(
    title="Cake",
    kind="prepaid",
    value_minor=1250,
    currency="CNY",
    starts_ms=NOON_MS - DAY_MS,
    ends_ms=NOON_MS + DAY_MS,
    stores=("s1",),
)
PLACE = Position(0, 7, 3)


def directory() -> Directory:
    made = Directory()
    events = (
        e.MerchantAdded(merchant="m1", title="M"),
        e.StoreOpened(store="s1", merchant="m1", title="S"),
        e.StoreOpened(store="s2", merchant="m1", title="S"),
        e.TerminalOffered(terminal=4711, store="s1", label="t", token_hash=b"1" * 32, expires_ms=1),
        e.TerminalOffered(terminal=5, store="s2", label="t", token_hash=b"2" * 32, expires_ms=1),
        e.CampaignCreated(campaign=1, slug="cake", offer=OFFER),
    )
    made.apply(Control("test", events), 1, 0)
    return made


HERE = directory()


def refused(verdict: Verdict, *, terminal: int = 4711, winner: Winner | None = None, note: str | None = None) -> Answer:
    return answers.refused(
        "ab" * 16,
        verdict,
        at_ms=NOON_MS,
        position=PLACE,
        directory=HERE,
        terminal=HERE.terminals[terminal],
        named=(1, 9),
        winner=winner,
        note=note,
    )


def entry(kind: bytes, terminal: int, at_ms: int) -> bytes:
    return kind + b"c" * 16 + terminal.to_bytes(4, "big") + at_ms.to_bytes(6, "big") + b"\0\0\0\0\7"


def test_accepted_tells_all_of_it() -> None:
    answer = answers.accepted("ab" * 16, HERE.campaigns[1], 9, NOON_MS, PLACE)
    assert msgspec.to_builtins(answer) == {
        "redemption_id": "ab" * 16,
        "verdict": "accepted",
        "text_en": "Accepted: 12.50 CNY. Complete the sale.",
        "text_zh": cashier_text(Verdict.ACCEPTED, "zh", value="12.50 CNY"),
        "at_ms": NOON_MS,
        "position": {"partition": 0, "seq": 7, "index": 3},
        "voucher_id": "1-9",
        "campaign": "cake",
        "value_minor": 1250,
        "currency": "CNY",
    }


@pytest.mark.parametrize("verdict", [verdict for verdict in Verdict if verdict > Verdict.REPEATED])
def test_every_verdict_has_an_answer_in_public_words(verdict: Verdict) -> None:
    answer = refused(verdict)
    public = answers.public_verdict(verdict)
    assert answer.verdict == public.name.lower()
    assert answer.text_en
    assert answer.text_zh
    assert (answer.position, answer.value_minor) == (PLACE, None)


def test_unknown_forged_and_never_issued_are_one_answer() -> None:
    told = [refused(verdict) for verdict in (Verdict.UNKNOWN_CODE, Verdict.FORGED, Verdict.NOT_ISSUED)]
    assert told[0] == told[1] == told[2]
    assert (told[0].voucher_id, told[0].campaign) == (None, None)


def test_the_winner_is_named_and_its_terminal_masked() -> None:
    winner = answers.winner_of(HERE, entry(b"R", 4711, NOON_MS))
    assert winner == Winner("s1", "*11", NOON_MS)
    answer = refused(Verdict.ALREADY_REDEEMED, winner=winner)
    assert answer.winner == winner
    assert "s1, till *11, 2025-11-21 12:00 (UTC+8)" in answer.text_en
    assert refused(Verdict.VOIDED, winner=winner).winner is None


@pytest.mark.parametrize("verdict", (Verdict.ALREADY_REDEEMED, Verdict.CONFLICT))
def test_a_store_the_campaign_is_not_for_hears_of_no_winner(verdict: Verdict) -> None:
    answer = refused(verdict, terminal=5, winner=Winner("s1", "*11", NOON_MS))
    assert answer.winner is None
    assert (answer.text_en, answer.text_zh) == (cashier_text(verdict, "en"), cashier_text(verdict, "zh"))


@pytest.mark.parametrize("raw", (None, entry(b"V", 0, NOON_MS), entry(b"r", 4711, NOON_MS), entry(b"R", 77, NOON_MS)))
def test_who_is_no_winner(raw: bytes | None) -> None:
    assert answers.winner_of(HERE, raw) is None


def test_a_campaign_is_named_only_where_it_is_valid() -> None:
    assert refused(Verdict.PAUSED).campaign == "cake"
    elsewhere = refused(Verdict.NOT_ELIGIBLE, terminal=5)
    assert (elsewhere.campaign, elsewhere.voucher_id) == (None, None)


def test_notes_are_moments_in_the_campaigns_zone() -> None:
    lunch = msgspec.structs.replace(OFFER, hours=(Hours((1, 2, 3, 4, 5, 6, 7), 11 * 60, 12 * 60),))
    assert answers.note_of(Verdict.OUTSIDE_HOURS, lunch, NOON_MS) == "2025-11-22 11:00 (UTC+8)"
    assert answers.note_of(Verdict.OUTSIDE_HOURS, lunch, OFFER.ends_ms) is None
    assert answers.note_of(Verdict.NOT_YET_VALID, OFFER, NOON_MS - 2 * DAY_MS) == "2025-11-20 12:00 (UTC+8)"
    assert answers.note_of(Verdict.EXPIRED, OFFER, NOON_MS + 2 * DAY_MS) == "2025-11-22 12:00 (UTC+8)"
    assert answers.note_of(Verdict.PAUSED, OFFER, NOON_MS) is None


def test_a_lock_says_until_when() -> None:
    till = msgspec.structs.replace(HERE.terminals[4711], locked_until_ms=NOON_MS + 60_000)
    answer = answers.refused(
        "ab" * 16,
        Verdict.TERMINAL_LOCKED,
        at_ms=NOON_MS,
        position=None,
        directory=HERE,
        terminal=till,
        named=(1, 9),
        winner=None,
        note=None,
    )
    assert answer.note == "2025-11-21 04:01 (UTC)"
    assert answer.note in answer.text_en
    assert (answer.campaign, answer.voucher_id) == (None, None)


def test_nothing_known_asks_to_come_again() -> None:
    answer = answers.unresolved("ab" * 16)
    assert (answer.verdict, answer.retry, answer.position) == ("unresolved", True, None)


def reversal(byte: int) -> Answer:
    return answers.reversal("ab" * 16, byte, at_ms=NOON_MS, position=PLACE, note=None)


def test_a_reversal_that_took_effect_is_told_as_reversed() -> None:
    done, early = reversal(Verdict.ACCEPTED), reversal(Verdict.TOMBSTONED)
    assert done.verdict == early.verdict == reversal(Verdict.REPEATED).verdict == "reversed"
    assert done.text_en != early.text_en
    for byte in (Verdict.NOT_FOUND, Verdict.NOT_YOURS, Verdict.WINDOW_OVER, Verdict.ID_REUSED):
        assert reversal(byte).verdict == byte.name.lower()
