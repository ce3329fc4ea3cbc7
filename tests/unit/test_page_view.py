"""What the cashier's page shows: the newest scan in the middle, what is not certain never like a yes."""

import pytest

from devices.feedback import Mood, Told
from devices.framing import FaultReason
from devices.outbox import Answer
from devices.page_view import READY, Kind, Tone, View, fold, recents
from devices.records import Record, Reversal
from gateway.messages import PUBLIC, Verdict, Winner

A, B = b"a" * 16, b"b" * 16
NOW_MS = 1_790_000_000_000


def told(*many: Told) -> View:
    view = View(READY)
    for one in many:
        view = fold(view, one, NOW_MS)
    return view


def heard(redemption_id: bytes = A, key: str = "heard") -> Told:
    return Told(Mood.WAIT, key, redemption_id, "lane1")


def answered(verdict: int, redemption_id: bytes = A, *, is_reversal: bool = False, **more: object) -> Told:
    answer = Answer(redemption_id, redemption_id, is_reversal, verdict, None, 0, **more)
    return Told(Mood.PLAIN, redemption_id=redemption_id, answer=answer)


@pytest.mark.parametrize("verdict", range(256))
def test_only_accepted_looks_and_sounds_like_a_yes(verdict: int) -> None:
    view = told(heard(), answered(verdict))
    assert (view.scene.kind is Kind.ACCEPTED) == (view.tone is Tone.GOOD) == (verdict == Verdict.ACCEPTED)
    assert view.scene.head.en
    assert view.scene.head.zh
    assert view.scene.rest.en
    assert view.scene.tail == "#616161"


@pytest.mark.parametrize("key", ("heard", "heard_offline", "held", "again", "undoing", "journal_full", "too_fast"))
def test_what_is_heard_is_no_yes(key: str) -> None:
    view = told(heard(key=key))
    assert view.scene.kind is not Kind.ACCEPTED
    assert view.tone not in (Tone.GOOD, Tone.NONE)


def test_heard_ticks_and_the_verdict_sounds_once() -> None:
    first = told(heard())
    assert (first.scene.kind, first.tone, first.tones) == (Kind.CHECKING, Tone.TICK, 1)
    second = fold(first, answered(Verdict.ACCEPTED, offer="Tea, 5.00 CNY"), NOW_MS)
    assert (second.tone, second.tones) == (Tone.GOOD, 2)
    assert second.scene.worth.en == "Worth: Tea, 5.00 CNY."
    third = fold(second, heard(key="same_scan"), NOW_MS)
    assert (third.scene.kind, third.tone) == (Kind.ACCEPTED, Tone.TICK)
    assert third.scene.worth == second.scene.worth
    assert "once" in third.scene.rest.en


def test_who_was_first_is_told_with_the_time() -> None:
    winner = Winner("store-9", "**42", NOW_MS - 60_000)
    view = told(heard(), answered(Verdict.ALREADY_REDEEMED, winner=winner))
    assert "store-9" in view.scene.used.en
    assert "store-9" in view.scene.used.zh
    assert view.scene.used_ms == NOW_MS - 60_000


def test_an_answer_to_an_older_scan_stands_beside_the_newer_one() -> None:
    view = told(heard(A), heard(B), answered(Verdict.ACCEPTED, A))
    assert view.scene.kind is Kind.CHECKING
    assert view.late is not None
    assert (view.late.kind, view.late.tail, view.tone) == (Kind.ACCEPTED, "#616161", Tone.TICK)
    view = fold(view, answered(Verdict.EXPIRED, A), NOW_MS)
    assert view.tone is Tone.BAD
    view = fold(fold(view, answered(Verdict.ACCEPTED, B), NOW_MS), heard(A), NOW_MS)
    assert view.late is None, "it goes with the next scan"


def test_a_lost_line_ends_the_checking() -> None:
    view = told(Told(Mood.PLAIN, "online", words="store-1"), heard(), Told(Mood.WAIT, "offline", words="gone"))
    assert (view.online, view.scene.kind, view.tone) == (False, Kind.KEPT, Tone.WAIT)
    view = fold(view, Told(Mood.PLAIN, "online", words="store-1"), NOW_MS)
    assert (view.online, view.store, view.scene.kind) == (True, "store-1", Kind.KEPT)
    assert fold(view, answered(Verdict.ACCEPTED), NOW_MS).scene.kind is Kind.ACCEPTED


def test_without_a_line_a_further_read_is_kept_like_the_first() -> None:
    view = told(Told(Mood.WAIT, "offline"), heard(key="heard_offline"), heard(key="again"))
    assert (view.scene.kind, view.scene.head.en, view.tone) == (Kind.KEPT, "OFFLINE: KEPT", Tone.WAIT)


def test_a_lost_line_changes_no_verdict() -> None:
    view = told(heard(), answered(Verdict.ACCEPTED), Told(Mood.WAIT, "offline"))
    assert view.scene.kind is Kind.ACCEPTED


@pytest.mark.parametrize("reason", FaultReason)
def test_a_read_that_failed_asks_for_another(reason: FaultReason) -> None:
    view = told(Told(Mood.BAD, reason.value, source="lane1"))
    assert (view.scene.kind, view.scene.head.en, view.tone) == (Kind.AGAIN, "TRY AGAIN", Tone.AGAIN)
    assert view.scene.source == "lane1"
    assert "can" in view.scene.rest.en.lower()


def test_unreadable_is_scanned_again_but_not_its_reversal() -> None:
    assert told(heard(), answered(Verdict.UNREADABLE)).scene.kind is Kind.AGAIN
    assert told(answered(Verdict.UNREADABLE, is_reversal=True)).late.kind is Kind.REFUSED  # type: ignore[union-attr]


def test_a_full_journal_is_said_until_there_is_room() -> None:
    view = told(Told(Mood.BAD, "journal_full", source="lane1"))
    assert (view.full, view.scene.kind, view.tone) == (True, Kind.REFUSED, Tone.BAD)
    assert fold(view, Told(Mood.BAD, "empty", source="lane1"), NOW_MS).full
    assert not fold(view, heard(), NOW_MS).full


def test_scanners_are_missed_by_name() -> None:
    lost = Told(Mood.WAIT, "scanner_lost", source="lane2", words="unplugged")
    view = told(lost, lost, Told(Mood.WAIT, "scanner_lost", source="lane1"))
    assert view.lost == ("lane1", "lane2")
    assert fold(view, Told(Mood.PLAIN, "scanner_ready", source="lane2"), NOW_MS).lost == ("lane1",)
    assert told(Told(Mood.WAIT, "scanner_lost", source="page")).lost == (), "a phone's camera is switched off by hand"


@pytest.mark.parametrize("key", ("notice", "nothing_open", "no_such", "commands", "ref_cashier", "no_ref_receipt"))
def test_what_is_no_scan_leaves_the_scene_alone(key: str) -> None:
    view = told(heard(), answered(Verdict.ACCEPTED), Told(Mood.PLAIN, key, words="draining: soon"))
    assert view.scene.kind is Kind.ACCEPTED
    assert view.notice.en
    assert view.notice.zh
    assert view.tones == 2


def test_a_gateways_words_cannot_break_the_page() -> None:
    view = told(heard(), answered(Verdict.NOT_YET_VALID, note="x\x1b[2J\n" * 500))
    assert view.scene.note.isprintable()
    assert len(view.scene.note) <= 200


def record(verdict: int | None, *reversals: int | None) -> Record:
    made = Record(A, NOW_MS, b"", b"", verdict)
    made.reversals = [Reversal(B, NOW_MS, False, one) for one in reversals]
    return made


@pytest.mark.parametrize(
    ("kept", "kind", "head", "reversible"),
    (
        (record(Verdict.ACCEPTED), Kind.ACCEPTED, "ACCEPTED", True),
        (record(Verdict.EXPIRED), Kind.REFUSED, "EXPIRED", False),
        (record(Verdict.UNREADABLE), Kind.AGAIN, "UNREADABLE", False),
        (record(None), Kind.KEPT, "WAITING", True),
        (record(Verdict.ACCEPTED, None), Kind.CHECKING, "UNDOING", False),
        (record(Verdict.ACCEPTED, Verdict.ACCEPTED), Kind.UNDONE, "UNDONE", False),
        (record(Verdict.ACCEPTED, Verdict.WINDOW_OVER), Kind.ACCEPTED, "ACCEPTED", True),
    ),
)
def test_the_last_scans_come_from_the_journal(kept: Record, kind: Kind, head: str, reversible: bool) -> None:
    [row] = recents([kept])
    assert (row.kind, row.head.en, row.reversible, row.tail) == (kind, head, reversible, "#616161")
    assert len(recents([kept] * 9)) == 5


def test_every_verdict_has_a_row() -> None:
    for verdict in PUBLIC:
        if verdict is not None and verdict != Verdict.UNRESOLVED:
            [row] = recents([record(verdict)])
            assert row.head.en
            assert (row.kind is Kind.ACCEPTED) == (verdict is Verdict.ACCEPTED)
