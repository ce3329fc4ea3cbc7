"""A phone or tablet as scanner: what the camera of a cashier's page reads, as a scanner like any other.

A camera reads one voucher many times a second for as long as it is in view, so further reads fold into the first one,
for a while and until the voucher has left the view. A refusal lifts that as soon as it has left the view: whoever shows
it again means it. Two pages never fold into one another; what they read twice is told apart by the gateway.
"""

import asyncio
import time
from typing import NoReturn

import msgspec

from devices.framing import Frame, Signal
from devices.page_view import PAGE_NAME
from devices.scanner import Capabilities, Feedback, OnPort, OnRead, Settle, State, Statistics, counted

HOLD_MS = 5000  # an accepted voucher is put away within this
LEFT_VIEW_MS = 700  # not seen for this long, of some eight looks a second: it is gone, and not only blurred
IN_VIEW_MAX = 4  # vouchers that one camera sees at once and reads in turns


class _Shown(msgspec.Struct):
    """A code that a camera sees."""

    first_ms: int
    seen_ms: int
    lifted: bool = False

    def folds(self, now_ms: int) -> bool:
        in_view = now_ms - self.seen_ms < LEFT_VIEW_MS
        return in_view or (not self.lifted and now_ms - self.first_ms < HOLD_MS)


class InView:
    """What one camera sees. Times are monotonic milliseconds."""

    def __init__(self) -> None:
        self._shown: dict[str, _Shown] = {}
        self._newest: _Shown | None = None

    def is_new(self, code: str, now_ms: int) -> bool:
        """Whether this read is a scan, and not one more look at the same."""
        shown = self._shown.get(code)
        if shown and shown.folds(now_ms):
            shown.seen_ms = now_ms
            return False
        self._shown.pop(code, None)
        while len(self._shown) >= IN_VIEW_MAX:
            del self._shown[next(iter(self._shown))]
        self._shown[code] = self._newest = _Shown(now_ms, now_ms)
        return True

    def lift(self) -> None:
        """The newest scan came to nothing: the same voucher may be shown again at once."""
        if self._newest:
            self._newest.lifted = True


class PageScanner:
    """The cameras of all pages, as one scanner. Pages are named by numbers."""

    name = PAGE_NAME
    capabilities = Capabilities(verdict_good=True, verdict_bad=True, length_framed=True)

    def __init__(self, on_read: OnRead, on_port: OnPort) -> None:
        self.statistics = Statistics()
        self._on_read = counted(self.statistics, on_read)
        self._on_port = on_port
        self._cameras: dict[int, InView] = {}
        self._last_page = 0

    @property
    def state(self) -> State:
        return State.READY if self._cameras else State.LOST

    def switch(self, page: int, on: bool) -> None:
        """A page's camera was switched on or off, or the page is gone."""
        before = self.state
        if on:
            self._cameras.setdefault(page, InView())
        else:
            self._cameras.pop(page, None)
        if self.state is before:
            return
        if on:
            self.statistics.opened += 1
            self._on_port(self.name, None)
        else:
            self.statistics.lost += 1
            self._on_port(self.name, "no camera is on")

    def see(self, page: int, code: str) -> None:
        """A page's camera sees this code."""
        in_view = self._cameras.get(page)
        if in_view and code and in_view.is_new(code, time.monotonic_ns() // 1_000_000):
            self._last_page = page
            self._on_read(self.name, Frame(code.encode()), self._settle_of(in_view))

    def feedback(self, signal: Signal) -> Feedback:
        """Every page sounds what it shows; this only makes room for the next look."""
        in_view = self._cameras.get(self._last_page)
        if in_view is None:
            return Feedback.LOST
        if signal is Signal.BAD:
            in_view.lift()
        return Feedback.SENT

    async def run(self) -> NoReturn:
        """Nothing to open: the pages come by themselves."""
        await asyncio.get_running_loop().create_future()
        raise AssertionError("nobody sets this future")

    @staticmethod
    def _settle_of(in_view: InView) -> Settle:
        def settle(kept: bool) -> None:
            if not kept:
                in_view.lift()

        return settle
