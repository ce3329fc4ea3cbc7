"""What a camera's view means: when a code that is seen frame after frame is a scan, and when it is the same one. Pure.

One voucher held before the camera is one scan, however many frames show it: until it has left the view, and for 5 s
after it was read. A refusal, or a read that the journal did not take, lifts the 5 s, so that showing it again is a new
try; but never while it stays in view, which would ask the gateway ten times a second. Two vouchers in view are none:
the cashier is told to show one.
"""

from collections.abc import Container

import msgspec

from devices.camera_ladder import Seen
from devices.framing import FaultReason, Frame, FrameFault, Signal

FOLD_MS = 5000  # a shopper's hand trembles and comes back; who means it again, after a yes, takes longer
GONE_MS = 700  # out of view that long, and ...
GONE_FRAMES = 3  # ... in so many frames that were looked at: one blurred frame is no absence
SEVERAL_MS = 400  # two codes that stay: told. Shorter, it is a phone that is being put over another
APART_MS = 250  # another code so soon after one is beside it, not after it: nobody changes phones that fast
AGREE_FRAMES = 5  # without error correction a code counts when two of so many frames show it
KNOWN_MAX = 16  # codes remembered at once: a wallet with more in view is not read anyhow


class _Known(msgspec.Struct):
    """A code that was handed over."""

    read_ms: int
    missed: int = 0  # frames in a row that did not show it
    missed_since_ms: int = 0
    lifted: bool = False  # refused, or not taken
    again: bool = False  # it left, and came back as a new try

    def is_gone(self, now_ms: int) -> bool:
        return self.missed >= GONE_FRAMES and now_ms - self.missed_since_ms >= GONE_MS


class View:
    """One camera, since it was opened at `opened_ms`. Times are monotonic milliseconds."""

    def __init__(self, opened_ms: int) -> None:
        self._opened_ms = opened_ms
        self._known: dict[Frame, _Known] = {}  # the newest last
        self._lately: list[frozenset[Frame]] = []  # what the last frames showed
        self._last: tuple[Frame | None, int] = (None, 0)  # the last code that stood alone, and when
        self._several_since_ms: int | None = None
        self._several_ms = 0
        self._several_told = False
        self._fault_taken = False  # the next no is about a fault

    @property
    def known(self) -> frozenset[Frame]:
        """Codes that need no second look."""
        return frozenset(self._known)

    def see(self, seen: Seen, now_ms: int) -> Frame | FrameFault | None:
        """What one frame adds: a scan, the fault that two codes are in view, or nothing."""
        self._note_presence(seen.codes, now_ms)
        self._lately = [*self._lately, frozenset(seen.codes)][-AGREE_FRAMES:]
        if self._is_several(seen, now_ms):
            return self._several(now_ms)
        if self._several_since_ms is not None and now_ms - self._several_ms < GONE_MS:
            return None  # one of them is hidden for a moment, and the other is no more meant than before
        self._several_since_ms = None
        for code, sure in seen.codes.items():
            known = self._known.get(code)
            if (known is None or known.again) and (sure or self._is_agreed(code)):
                return self._take(code, now_ms)
        return None

    def hear(self, signal: Signal) -> None:
        """The verdict on the newest scan. Only a yes stands for 5 s."""
        if self._fault_taken and signal is Signal.BAD:
            self._fault_taken = False
        elif self._known:
            self._known[next(reversed(self._known))].lifted = signal is not Signal.GOOD

    def note_fault(self) -> None:
        """The till has taken a fault, and says no to that: what stood before it keeps its own verdict."""
        self._fault_taken = True

    def refuse(self, code: Frame) -> None:
        """The journal did not take what was handed over."""
        if known := self._known.get(_bare(code)):
            known.lifted = True

    def _note_presence(self, codes: Container[Frame], now_ms: int) -> None:
        for code, known in self._known.items():
            if code not in codes:
                known.missed_since_ms = known.missed_since_ms if known.missed else now_ms
                known.missed += 1
                continue
            if known.is_gone(now_ms):
                known.again = known.lifted or now_ms - known.read_ms >= FOLD_MS
            known.missed = 0

    def _is_several(self, seen: Seen, now_ms: int) -> bool:
        if len(seen.codes) > 1 or seen.doubt:
            return True
        last, last_ms = self._last
        for code in seen.codes:
            self._last = (code, now_ms)
            return last not in (None, code) and now_ms - last_ms < APART_MS
        return False

    def _several(self, now_ms: int) -> FrameFault | None:
        if self._several_since_ms is None or now_ms - self._several_ms >= GONE_MS:
            self._several_since_ms, self._several_told = now_ms, False
        self._several_ms = now_ms
        if self._several_told or now_ms - self._several_since_ms < SEVERAL_MS:
            return None
        self._several_told = True
        return FrameFault(FaultReason.SEVERAL, 0)

    def _is_agreed(self, code: Frame) -> bool:
        return sum(code in codes for codes in self._lately) > 1

    def _take(self, code: Frame, now_ms: int) -> Frame:
        self._known.pop(code, None)
        self._known[code] = _Known(now_ms)
        if len(self._known) > KNOWN_MAX:
            del self._known[next(iter(self._known))]
        # It may have been in view before this program was there: the till looks whether it just had it.
        return Frame(code.octets, code.aim, resent=now_ms - self._opened_ms < FOLD_MS)


def _bare(code: Frame) -> Frame:
    return Frame(code.octets, code.aim)
