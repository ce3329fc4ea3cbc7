"""The till's rules with a real journal and outbox, without ports or network."""

import io
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from devices.feedback import tail_of
from devices.framing import Frame
from devices.journal import Journal
from devices.outbox import Outbox
from devices.page_view import PAGE_NAME
from devices.screen import TextScreen
from devices.till import Till
from gateway.messages import Notice, Place, RedeemMany, ReverseMany, Verdict, Verdicts, Welcome


class Desk:
    """One till, and a gateway that is a few lines of this file."""

    def __init__(self, directory: Path) -> None:
        self.journal = Journal.open(directory)
        self.outbox = Outbox()
        self.out = io.StringIO()
        self.till = Till(self.journal, self.outbox, TextScreen(self.out, "en"), "en")
        self.now_ms = 1 << 50  # later than anything is due
        self.seq = 0

    async def scan(self, code: str, source: str = "lane1") -> str:
        return await self.till.take_read(source, Frame(code.encode()))

    def sent(self) -> list[RedeemMany | ReverseMany]:
        return self.outbox.messages_due(self.now_ms)

    async def answer(self, verdict: Verdict) -> list[RedeemMany | ReverseMany]:
        messages = self.sent()
        self.now_ms += 10_000  # longer than any wait between two questions
        for message in messages:
            self.seq += 1
            count = len(message.scans if isinstance(message, RedeemMany) else message.reversals)
            place = Place(0, 0 if verdict == Verdict.UNRESOLVED else self.seq, 0, count)
            verdicts = Verdicts(message.ref, bytes([verdict]) * count, 1, [place], {})
            await self.till.on_answers(self.outbox.take(verdicts, self.now_ms, 0.5))
        return messages


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    one = Desk(tmp_path)
    yield one
    await one.journal.close()


async def test_an_unresolved_code_is_joined_from_any_scanner(desk: Desk) -> None:
    await desk.scan("CODE", "lane1")
    assert "still waiting" in await desk.scan("]Q1CODE", "lane2")
    [message] = desk.sent()
    assert isinstance(message, RedeemMany)
    assert len(message.scans) == desk.journal.ledger.open_count() == 1


async def test_after_a_refusal_a_further_read_is_a_new_question(desk: Desk) -> None:
    for _ in range(2):
        await desk.scan("CODE")
        await desk.answer(Verdict.PAUSED)
    assert len(desk.journal.ledger.records) == 2


async def test_an_accepted_code_read_by_another_scanner_is_a_new_question(desk: Desk) -> None:
    await desk.scan("CODE", "lane1")
    await desk.answer(Verdict.ACCEPTED)
    assert "read twice" in await desk.scan("CODE", "lane1")
    assert "heard" in await desk.scan("CODE", "lane2")


async def test_an_accepted_code_on_a_second_phone_is_a_new_question(desk: Desk) -> None:
    await desk.scan("CODE", PAGE_NAME)
    await desk.answer(Verdict.ACCEPTED)
    assert "heard" in await desk.scan("CODE", PAGE_NAME), "one name for all phones; each folds its own looks"


async def test_the_journal_is_bounded_by_what_is_open(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("devices.till.JOURNAL_UNRESOLVED_MAX", 2)
    for code in ("A", "B"):
        await desk.scan(code)
    assert "NOT TAKEN" in await desk.scan("C")
    assert "still waiting" in await desk.scan("A"), "what is open already needs no room"
    await desk.answer(Verdict.ACCEPTED)
    assert "heard" in await desk.scan("C")


async def test_a_code_that_is_being_undone_waits_its_turn(desk: Desk) -> None:
    await desk.scan("CODE")
    first = next(iter(desk.journal.ledger.records))
    await desk.till.execute("give-up last")
    assert "being undone first" in await desk.scan("CODE")
    [reversal] = await desk.answer(Verdict.REVERSED)
    assert isinstance(reversal, ReverseMany)
    assert reversal.reversals[0].redemption_id == first
    [redeem] = await desk.answer(Verdict.ACCEPTED)
    assert isinstance(redeem, RedeemMany)
    assert redeem.scans[0].redemption_id != first


async def test_commands_name_one_scan_or_say_why_not(desk: Desk) -> None:
    for code, verdict in (("A", Verdict.ACCEPTED), ("B", Verdict.VOIDED)):
        await desk.scan(code)
        await desk.answer(verdict)
    accepted, refused = (r.redemption_id for r in desk.journal.ledger.records.values())
    assert "nothing to undo" in await desk.till.execute(f"reverse {tail_of(refused)}")
    assert "use `reverse`" in await desk.till.execute(f"give-up {tail_of(accepted)}")
    assert "no scan like that" in await desk.till.execute("give-up last")
    assert "no scan like that" in await desk.till.execute("reverse ffffffffffffffffffffffffffffffff")
    assert "undoing" in await desk.till.execute(f"reverse {accepted.hex()}")
    assert "nothing to undo" in await desk.till.execute("reverse last"), "it is being undone already"
    assert tail_of(accepted) in await desk.till.execute("waiting")


async def test_a_refused_reversal_may_be_asked_again_with_a_new_id(desk: Desk) -> None:
    await desk.scan("CODE")
    await desk.answer(Verdict.ACCEPTED)
    ids = set()
    for verdict in (Verdict.NOT_YOURS, Verdict.ACCEPTED):
        assert "undoing" in await desk.till.execute("reverse last")
        [asked] = await desk.answer(verdict)
        assert isinstance(asked, ReverseMany)
        ids.add(asked.reversals[0].reversal_id)
    assert len(ids) == 2
    assert "nothing to undo" in await desk.till.execute("reverse last")


async def test_unsure_is_told_once_then_the_verdict(desk: Desk) -> None:
    await desk.scan("CODE")
    for verdict in (Verdict.UNRESOLVED, Verdict.UNRESOLVED, Verdict.ACCEPTED):
        await desk.answer(verdict)
    assert desk.out.getvalue().count("NO ANSWER YET") == desk.out.getvalue().count("ACCEPTED") == 1


async def test_what_was_given_up_is_not_waited_for_any_more(desk: Desk) -> None:
    await desk.scan("CODE")
    await desk.answer(Verdict.UNRESOLVED)
    assert len(desk.till._told_unsure) == 1
    await desk.till.execute("give-up last")
    await desk.answer(Verdict.UNRESOLVED)
    desk.now_ms += 10_000
    await desk.answer(Verdict.REVERSED)
    assert "UNDONE" in desk.out.getvalue()
    assert not desk.till._told_unsure


async def test_an_unsure_answer_that_a_give_up_overtakes_is_not_told(desk: Desk) -> None:
    await desk.scan("CODE")
    [message] = desk.sent()
    unsure = Verdicts(message.ref, bytes([Verdict.UNRESOLVED]), 1, [Place(0, 0, 0, 1)], {})
    answers = desk.outbox.take(unsure, desk.now_ms, 0.5)
    await desk.till.execute("give-up last")
    await desk.till.on_answers(answers)
    assert "NO ANSWER YET" not in desk.out.getvalue()
    assert not desk.till._told_unsure


async def test_a_gateways_words_stay_on_one_line(desk: Desk) -> None:
    desk.till.on_notice(Notice("clock\n", "your clock\x1b[31m is wrong\n\n"))
    desk.till.on_welcome(Welcome("store\n\n", 0, "zh"))
    assert desk.out.getvalue().count("\n") == 2
    assert "\x1b" not in desk.out.getvalue()
    assert "connected" in desk.out.getvalue(), "the language of the configuration stands"


async def test_what_was_given_up_while_its_yes_was_journalled_is_told_no_yes(desk: Desk) -> None:
    await desk.scan("CODE")
    [message] = desk.sent()
    verdicts = Verdicts(message.ref, bytes([Verdict.ACCEPTED]), 1, [Place(0, 1, 0, 1)], {})
    answers = desk.outbox.take(verdicts, desk.now_ms, 0.5)
    assert "undoing" in await desk.till.execute("give-up last")
    await desk.till.on_answers(answers)
    assert "ACCEPTED" not in desk.out.getvalue()
    await desk.answer(Verdict.ACCEPTED)
    assert "UNDONE" in desk.out.getvalue()
