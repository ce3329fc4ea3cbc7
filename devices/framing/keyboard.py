"""Keyboard wedge: a scanner that types. Key events of the kernel become the characters it meant, and those a frame.

Theory of operation. What comes is `struct input_event` (linux/input.h): time, type, code, value. Keys count when they
go down; the kernel's own repeats (value 2) are left out and nothing else is, because a doubled digit is two reports.
The shift keys that are held, caps lock and the country table of the scanner give the character; Ctrl makes a control
character of it, such as Ctrl+] for GS. A frame ends with the suffix key, or without one when `gap_ms` pass.

Three things must never look like a scan:

- Keys of a person. A scanner's keys follow each other within milliseconds, by the kernel's clock. Slower ones are
  counted and told once (`TYPED`) when their line ends, when they fall silent, or when a scan follows them.
- A scan that is not certain. A key without a character, Alt with keypad digits (the kernel loses doubled digits of that
  mode before we see them), or events that the kernel dropped because nobody read them in time: all up to the next end
  is one fault. After dropped events the end may be among them; then a pause as long as a person needs to scan again
  ends it.
- Half a scan: silence where keys should follow is a fault, and so is an unplug.
"""

import statistics
import struct
import unicodedata
from collections.abc import Iterable

from devices.framing import FRAME_BYTES_MAX, FaultReason, Frame, FrameFault, Framer
from devices.framing.key_layouts import (
    ACCENTS,
    ALTGR,
    KEYPAD,
    KEYPAD_DIGITS,
    LAYOUTS,
    PLAIN,
    SHIFT,
    LayoutName,
)

EVENT = struct.Struct("@llHHi")  # seconds, microseconds, type, code, value
EV_SYN, EV_KEY = 0, 1
SYN_REPORT, SYN_DROPPED = 0, 3
UP, DOWN, REPEAT = range(3)
SHIFTS, CTRLS, LEFT_ALT, RIGHT_ALT, METAS = frozenset((42, 54)), frozenset((29, 97)), 56, 100, frozenset((125, 126))
MODIFIERS = SHIFTS | CTRLS | METAS | {LEFT_ALT, RIGHT_ALT}
CAPS_LOCK = 58
LOCKS = frozenset((CAPS_LOCK, 69, 70))  # num and scroll lock say nothing here: a scanner's keypad means digits
ENTERS = frozenset((28, 96))
FUNCTION_KEYS = {f"f{i}": code for i, code in enumerate((*range(59, 69), 87, 88), 1)}
ENDS = {"enter": "\r\n", "tab": "\t", "none": ""}
GAP_MS_DEFAULT = 100  # twice what a busy bus or a radio link makes of one character's reports
PERSON_MS_DEFAULT = 35  # a scanner needs 2 to 16 ms a character, a person 50 to 80 and more
SURE_GAPS = 5  # with fewer of them the median says little: each must be short
RESCAN_MS = 300  # nobody scans twice within less
CUT_OFF_MS = 2000  # no scanner pauses this long inside a scan, not even over radio
GS = "\x1d"


class KeyFramer(Framer):
    """A `Framer` for one keyboard device; its counts of bytes are counts of keys.

    `gs_key`: a function key that the scanner sends for GS, "" for none. Read `wants_keys` after each `feed`.
    """

    def __init__(
        self,
        layout: LayoutName = "us",
        suffix: str = "enter",
        gap_ms: int = GAP_MS_DEFAULT,
        person_ms: int = PERSON_MS_DEFAULT,
        gs_key: str = "",
    ) -> None:
        self._layout = LAYOUTS[layout]
        self._has_altgr = any(level == ALTGR for _, level in self._layout.chars)
        self._ends = ENDS[suffix]
        self._silence_ms = CUT_OFF_MS if self._ends else gap_ms
        self._person_ms = person_ms
        self._gs_code = FUNCTION_KEYS.get(gs_key)
        self._held: set[int] = set()
        self._caps = False
        self._buffer = b""  # part of an event
        self._last_ms = 0
        self._dropping = False  # between SYN_DROPPED and the report that ends it
        self._dropped_bytes = 0
        self._typed_keys = 0  # of a person, told together
        self.wants_keys = False  # events were dropped: ask the kernel which keys are down now, and say `keys_are`
        self._forget()

    def _forget(self) -> None:
        self._text: list[str] = []
        self._gaps_ms: list[int] = []
        self._keys = 0
        self._accent = ""
        self._spoiled: FaultReason | None = None

    @property
    def dropped_bytes(self) -> int:
        return self._dropped_bytes

    def keys_are(self, pressed: Iterable[int]) -> None:
        """The keys that are down at this moment: at the start, and after events were dropped. Caps lock is off then."""
        self._held = set(pressed) & MODIFIERS
        self._caps = self.wants_keys = False

    def feed(self, octets: bytes, now_ms: int) -> list[Frame | FrameFault]:
        """`octets` as read from the device node, with times of the monotonic clock."""
        found: list[Frame | FrameFault] = []
        events = self._buffer + octets
        whole = len(events) - len(events) % EVENT.size
        self._buffer = events[whole:]
        for s, us, kind, code, value in EVENT.iter_unpack(events[:whole]):
            if kind == EV_KEY and not self._dropping:
                at_ms = max(self._last_ms, min(s * 1000 + us // 1000, now_ms))
                self._take_key(code, value, at_ms, found)
            elif kind == EV_SYN:
                self._take_sync(code, now_ms)
        return found

    def due_ms(self) -> int | None:
        return self._last_ms + self._silence_ms if self._keys or self._typed_keys else None

    def idle(self, now_ms: int) -> list[Frame | FrameFault]:
        due_ms = self.due_ms()
        if due_ms is None or now_ms < due_ms:
            return []
        if self._ends and self._keys and not self._spoiled:
            self._spoiled = FaultReason.CUT_OFF
        return self._end()

    def cut(self) -> list[FrameFault]:
        if self._keys and not self._spoiled:
            self._spoiled = FaultReason.CUT_OFF
        self._held.clear()
        self._buffer, self._caps, self._dropping = b"", False, False
        return [one for one in self._end() if isinstance(one, FrameFault)]

    # --- keys ---------------------------------------------------------------------------------------------------------

    def _take_sync(self, code: int, now_ms: int) -> None:
        if code == SYN_DROPPED:
            self._dropping = True
        elif code == SYN_REPORT and self._dropping:
            self._dropping, self.wants_keys = False, True
            self._held.clear()
            self._last_ms = max(self._last_ms, now_ms)
            self._keys += 1  # at least
            self._spoiled = FaultReason.OVERRUN

    def _take_key(self, code: int, value: int, at_ms: int, found: list[Frame | FrameFault]) -> None:
        if value == UP:
            self._held.discard(code)
        elif value != DOWN:
            return
        elif code in MODIFIERS:
            self._held.add(code)
        elif code in LOCKS:
            self._caps ^= code == CAPS_LOCK
        else:
            found.extend(self._pause(at_ms))
            self._take_char(code, found)

    def _pause(self, at_ms: int) -> list[Frame | FrameFault]:
        """What the time since the last key means for the keys before it."""
        found = self.idle(at_ms)
        gap_ms, self._last_ms = at_ms - self._last_ms, at_ms
        if self._keys and gap_ms >= RESCAN_MS:
            if self._spoiled is FaultReason.OVERRUN:
                found += self._end()
            elif self._is_typed():
                self._typed_keys += self._keys
                self._forget()
        if self._keys and len(self._gaps_ms) < FRAME_BYTES_MAX:
            self._gaps_ms.append(gap_ms)
        return found

    def _take_char(self, code: int, found: list[Frame | FrameFault]) -> None:
        char = self._char_of(code)
        if len(char) == 1 and char in self._ends:
            found.extend(self._end())
            return
        self._keys += 1
        if isinstance(char, FaultReason):
            self._spoiled = self._spoiled or char
        elif len(self._text) > FRAME_BYTES_MAX:
            self._spoiled = self._spoiled or FaultReason.TOO_LONG
        else:
            self._text.append(char)

    def _char_of(self, code: int) -> str | FaultReason:
        """What the key adds to the text: nothing, for an accent that waits for its letter."""
        ctrl, right_alt = bool(CTRLS & self._held), RIGHT_ALT in self._held
        alt = LEFT_ALT in self._held or (right_alt and not self._has_altgr)
        altgr = self._has_altgr and (right_alt or (alt and ctrl))  # Ctrl+Alt is the same on Windows
        if METAS & self._held:
            return FaultReason.UNKNOWN_KEY
        if code in KEYPAD_DIGITS and (alt or right_alt):
            return FaultReason.ALT_CODES
        if alt and not altgr:
            return FaultReason.UNKNOWN_KEY
        if code == self._gs_code:
            return self._accented(GS)
        if code in ENTERS:
            return self._accented("\r")
        if code in KEYPAD:
            return self._accented(KEYPAD[code])
        return self._of_layout(code, ALTGR if altgr else PLAIN, control=ctrl and not altgr)

    def _of_layout(self, code: int, level: int, *, control: bool) -> str | FaultReason:
        chars, shift = self._layout.chars, bool(SHIFTS & self._held)
        plain = chars.get((code, PLAIN), "")
        if control:
            by_place = LAYOUTS["us"].chars.get((code, PLAIN), "")  # what many scanners send, whatever the country
            return _control(plain) or _control(by_place) or FaultReason.UNKNOWN_KEY
        is_letter = plain.isalpha() and plain.upper() == chars.get((code, SHIFT))
        if level == PLAIN and shift != (self._caps and is_letter):
            level = SHIFT
        char = chars.get((code, level))
        if char is None:
            return FaultReason.UNKNOWN_KEY
        if (code, level) in self._layout.dead and not self._accent:
            self._accent = char
            return ""
        return self._accented(char)

    def _accented(self, char: str) -> str:
        if not self._accent or char in self._ends:
            return char
        accent, self._accent = self._accent, ""
        if char == " ":
            return accent
        both = unicodedata.normalize("NFC", char + ACCENTS[accent])
        return both if len(both) == 1 else accent + char

    # --- ends ---------------------------------------------------------------------------------------------------------

    def _is_typed(self) -> bool:
        gaps_ms = self._gaps_ms
        if self._spoiled is FaultReason.OVERRUN:
            return False
        if len(gaps_ms) < SURE_GAPS:
            return not gaps_ms or max(gaps_ms) >= self._person_ms
        return statistics.median(gaps_ms) >= self._person_ms

    def _end(self) -> list[Frame | FrameFault]:
        mine: list[Frame | FrameFault] = []
        if self._keys and self._is_typed():
            self._typed_keys += self._keys
        elif self._keys:
            mine = [self._frame()]
        typed, self._typed_keys = self._typed_keys, 0
        self._dropped_bytes += typed
        self._forget()
        return [FrameFault(FaultReason.TYPED, typed), *mine] if typed else mine

    def _frame(self) -> Frame | FrameFault:
        octets = ("".join(self._text) + self._accent).encode()
        reason = self._spoiled or (FaultReason.TOO_LONG if len(octets) > FRAME_BYTES_MAX else None)
        if not reason:
            return Frame(octets)
        self._dropped_bytes += self._keys
        return FrameFault(reason, self._keys)


def _control(char: str) -> str:
    """The control character that Ctrl makes of a key, "" for a key that makes none."""
    char = {"2": "@", "6": "^", "-": "_"}.get(char, char.upper())  # where US boards have these signs
    return chr(ord(char) & 0x1F) if len(char) == 1 and "@" <= char <= "_" else ""
