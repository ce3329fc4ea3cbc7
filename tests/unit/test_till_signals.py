"""What a scanner is told: kept or not as soon as the journal knows, and the verdict of its newest scan, once."""

import resource
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from test_till_rules import Desk

from devices.framing import FaultReason, Frame, FrameFault, Signal
from devices.journal import JOURNAL_NAME
from gateway.messages import Verdict, Welcome

GOOD, BAD, WAIT = Signal.GOOD, Signal.BAD, Signal.WAIT


class Counter(Desk):
    """A desk whose scanners are lists: what each was told, in order."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.told: dict[str, list[object]] = {}
        self.till.sound = lambda source, signal: self.of(source).append(signal)
        self.till.on_welcome(Welcome("store-1", 0, "en"))

    def of(self, source: str) -> list[object]:
        return self.told.setdefault(source, [])

    async def read(self, code: str, source: str = "lane1", *, resent: bool = False) -> str:
        frame = Frame(code.encode(), resent=resent)
        return await self.till.take_read(source, frame, settle=self.of(source).append)


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Counter]:
    one = Counter(tmp_path)
    yield one
    await one.journal.close()


@pytest.mark.parametrize(("verdict", "signal"), ((Verdict.ACCEPTED, GOOD), (Verdict.EXPIRED, BAD)))
async def test_kept_at_once_and_the_verdict_when_it_comes(desk: Counter, verdict: Verdict, signal: Signal) -> None:
    await desk.read("CODE")
    assert desk.of("lane1") == [True]
    await desk.answer(verdict)
    assert desk.of("lane1") == [True, signal]


async def test_kept_means_that_the_file_has_it(desk: Counter, tmp_path: Path) -> None:
    lengths: list[int] = []

    def settle(kept: bool) -> None:
        assert kept
        lengths.append((tmp_path / JOURNAL_NAME).stat().st_size)

    before = (tmp_path / JOURNAL_NAME).stat().st_size
    await desk.till.take_read("lane1", Frame(b"CODE"), settle=settle)
    [at_settle] = lengths
    assert before < at_settle == (tmp_path / JOURNAL_NAME).stat().st_size


async def test_a_full_disk_is_no_ack_and_a_bad_sound(desk: Counter, tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, ((tmp_path / JOURNAL_NAME).stat().st_size, hard))
    try:
        assert "NOT TAKEN" in await desk.read("CODE")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert desk.of("lane1") == [False, BAD]
    await desk.read("CODE")
    assert desk.of("lane1") == [False, BAD, True]


async def test_what_cannot_be_a_code_is_not_kept(desk: Counter) -> None:
    await desk.read(" ")
    await desk.till.take_read("lane1", FrameFault(FaultReason.CUT_OFF, 3), settle=desk.of("lane1").append)
    assert desk.of("lane1") == [False, BAD, False, BAD]


async def test_only_the_newest_scan_of_a_scanner_is_sounded(desk: Counter) -> None:
    await desk.read("A")
    await desk.read("B")
    await desk.read("C", "lane2")
    await desk.answer(Verdict.ACCEPTED)
    assert desk.of("lane1") == [True, True, GOOD]
    assert desk.of("lane2") == [True, GOOD]


async def test_a_second_read_of_what_is_asked_hears_the_same_verdict(desk: Counter) -> None:
    await desk.read("CODE", "lane1")
    await desk.read("CODE", "lane2")
    await desk.answer(Verdict.VOIDED)
    assert desk.of("lane1") == desk.of("lane2") == [True, BAD]


async def test_a_yes_is_sounded_once_for_one_voucher(desk: Counter) -> None:
    await desk.read("CODE")
    await desk.answer(Verdict.ACCEPTED)
    await desk.read("CODE")
    assert desk.of("lane1") == [True, GOOD, True, WAIT]


async def test_without_an_answer_a_scanner_is_told_once_not_to_wait(desk: Counter) -> None:
    await desk.read("CODE")
    await desk.answer(Verdict.UNRESOLVED)
    await desk.answer(Verdict.UNRESOLVED)
    desk.till.on_link_lost("gone")
    assert desk.of("lane1") == [True, WAIT]
    await desk.read("CODE", "lane2")
    assert desk.of("lane2") == [True, WAIT], "known to be without an answer"
    await desk.answer(Verdict.ACCEPTED)
    assert (desk.of("lane1"), desk.of("lane2")) == ([True, WAIT, GOOD], [True, WAIT, GOOD])


async def test_offline_is_wait_and_never_a_yes(desk: Counter) -> None:
    await desk.read("A")
    desk.till.on_link_lost("gone")
    await desk.read("B", "lane2")
    assert desk.of("lane1") == desk.of("lane2") == [True, WAIT]


async def test_giving_up_frees_the_scanner(desk: Counter) -> None:
    await desk.read("CODE")
    await desk.till.execute("give-up last")
    assert desk.of("lane1") == [True, WAIT]
    await desk.read("CODE")
    assert desk.of("lane1") == [True, WAIT, True, WAIT], "held back until the reversal is answered"


async def test_a_scan_sent_again_after_a_restart_is_the_accepted_one(desk: Counter, tmp_path: Path) -> None:
    await desk.read("CODE")  # and killed before the ACK is out
    await desk.journal.close()
    again = Counter(tmp_path)
    again.till.resume()
    await again.answer(Verdict.ACCEPTED)
    assert "read twice" in await again.read("CODE", resent=True)
    assert again.of("lane1") == [True, WAIT]
    assert len(again.journal.ledger.records) == 1
    assert "heard" in await again.read("CODE", "lane2"), "without the mark it is a new question"
    desk.journal = again.journal
