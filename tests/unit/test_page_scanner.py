"""A phone as scanner: one voucher in view is one scan, and a refusal may be shown again."""

import asyncio

import pytest

from devices.framing import Frame, FrameFault, Signal
from devices.page_scanner import HOLD_MS, IN_VIEW_MAX, LEFT_VIEW_MS, InView, PageScanner
from devices.scanner import Feedback, Scanner, Settle, State

LOOK_MS = 110


def scans_of(in_view: InView, looks: list[tuple[int, str]]) -> list[tuple[int, str]]:
    return [(now_ms, code) for now_ms, code in looks if in_view.is_new(code, now_ms)]


def test_a_voucher_in_view_is_one_scan_however_long() -> None:
    assert scans_of(InView(), [(at, "A") for at in range(0, 60_000, LOOK_MS)]) == [(0, "A")]


def test_a_blurred_look_does_not_end_it() -> None:
    looks = [(0, "A"), (LEFT_VIEW_MS - 1, "A"), (HOLD_MS + LEFT_VIEW_MS - 2, "A")]
    assert len(scans_of(InView(), looks[:2])) == 1
    assert len(scans_of(InView(), looks)) == 2


def test_an_accepted_voucher_that_comes_back_at_once_is_the_same_scan() -> None:
    assert scans_of(InView(), [(0, "A"), (HOLD_MS - 1, "A")]) == [(0, "A")]


def test_a_refused_voucher_may_be_shown_again_as_soon_as_it_has_left_the_view() -> None:
    in_view = InView()
    assert in_view.is_new("A", 0)
    in_view.lift()
    assert not in_view.is_new("A", LEFT_VIEW_MS - 1)
    assert in_view.is_new("A", 2 * LEFT_VIEW_MS - 1)


def test_two_vouchers_in_turns_are_two_scans() -> None:
    looks = [(at, "AB"[at // LOOK_MS % 2]) for at in range(0, 3000, LOOK_MS)]
    assert [code for _, code in scans_of(InView(), looks)] == ["A", "B"]


def test_what_is_remembered_is_bounded() -> None:
    in_view = InView()
    for n in range(1000):
        assert in_view.is_new(f"code {n}", n)
    assert len(in_view._shown) == IN_VIEW_MAX


class Desk:
    def __init__(self) -> None:
        self.reads: list[tuple[str, bytes]] = []
        self.settles: list[Settle] = []
        self.ports: list[str | None] = []
        self.scanner = PageScanner(self.on_read, lambda name, lost: self.ports.append(lost))

    def on_read(self, name: str, found: Frame | FrameFault, settle: Settle) -> None:
        assert isinstance(found, Frame)
        self.reads.append((name, found.octets))
        self.settles.append(settle)


def test_it_is_a_scanner_like_any_other() -> None:
    desk = Desk()
    scanner: Scanner = desk.scanner
    assert (scanner.state, scanner.feedback(Signal.GOOD)) == (State.LOST, Feedback.LOST)
    desk.scanner.switch(1, True)
    desk.scanner.switch(2, True)
    assert (scanner.state, desk.ports) == (State.READY, [None])
    desk.scanner.see(1, "CODE")
    desk.scanner.see(1, "CODE")
    desk.scanner.see(2, "CODE")
    desk.scanner.see(3, "CODE")
    assert desk.reads == [("page", b"CODE")] * 2, "each page for itself, and only those whose camera is on"
    for settle in desk.settles:
        settle(True)
    assert (scanner.statistics.reads, scanner.statistics.refused) == (2, 0)
    assert scanner.feedback(Signal.BAD) is Feedback.SENT
    desk.scanner.switch(1, False)
    desk.scanner.switch(2, False)
    assert (scanner.state, len(desk.ports)) == (State.LOST, 2)
    assert (scanner.statistics.opened, scanner.statistics.lost) == (1, 1)


def test_what_the_journal_refused_may_be_shown_again(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter((0, LEFT_VIEW_MS * 1_000_000))
    monkeypatch.setattr("time.monotonic_ns", lambda: next(now))
    desk = Desk()
    desk.scanner.switch(1, True)
    desk.scanner.see(1, "CODE")
    desk.settles[0](False)
    desk.scanner.see(1, "CODE")
    assert len(desk.reads) == 2
    assert desk.scanner.statistics.refused == 1


async def test_it_runs_until_it_is_ended() -> None:
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(Desk().scanner.run(), 0.01)
