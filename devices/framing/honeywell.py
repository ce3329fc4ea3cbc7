"""Honeywell serial scanners: reads in MSGGET packets, verdicts by Host ACK, settings by menu commands.

A packet is `SYN FE`, four bytes of length, CR, `MSGGET`, four digits, Honeywell's letter for the symbology, two AIM
characters, GS, the text, CR; the digits count text and final CR, so a CR inside a code is no end. There is no checksum:
what a damaged byte changes is found by the voucher's own check. The four bytes of length are not used, because firmware
disagrees on what they count. The packets are asked for at connect, in RAM only.

With Host ACK on (a programming barcode of the scanner's manual; RS-232 or USB-COM), the scanner stays silent and reads
nothing more until a string of escape commands closed by a comma comes, for up to 10 s, and then sounds an error of its
own. There is no transport ACK beside it, so exactly one signal must follow every read, which the till sees to.

Sources: Honeywell 2020, Xenon 1900 and Granit 8680i user guides (escape and menu commands), the published tests of
enioka_scan (MSGGET).
"""

import re

from devices.framing import FRAME_BYTES_MAX, FaultReason, Found, Frame, Signal
from devices.framing.packets import PacketFramer

SILENCE_MS = 500  # a long code may span many reads; no scanner pauses this long inside one
MENU = b"\x16M\r"
SIGNALS = {Signal.GOOD: b"\x1b7,", Signal.BAD: b"\x1b8,", Signal.WAIT: b"\x1b4,"}  # as read, as failed, one low beep

START, MIDDLE, GS, CR = b"\x16\xfe", b"\rMSGGET", b"\x1d", 0x0D
MIDDLE_AT, DIGITS_AT, AIM_AT, GS_AT, TEXT_AT = 6, 13, 18, 20, 21
FIXED = ((0, START), (MIDDLE_AT, MIDDLE), (GS_AT, GS))
MENU_ANSWERS = re.compile(rb"(?:[0-9A-Z]{6}[^\x05\x06\x15]{0,16}[\x05\x06\x15][!.])+")  # done, unknown, or bad value


def menu_command(tag: str, *, keep: bool = False) -> bytes:
    """`tag` with its value, like `DECHDR1`. `keep`: written to flash, which wears; else until power goes."""
    return MENU + tag.encode("ascii") + (b"." if keep else b"!")


class HoneywellFramer(PacketFramer):
    sounds = frozenset(SIGNALS)

    def __init__(self) -> None:
        super().__init__(SILENCE_MS)

    def greeting(self, now_ms: int) -> bytes:
        return menu_command("DECHDR1")

    def verdict_signal(self, signal: Signal, now_ms: int) -> bytes:
        return SIGNALS[signal]

    def _is_answer(self, stray: bytes) -> bool:
        return MENU_ANSWERS.fullmatch(stray.removeprefix(MENU)) is not None

    def _take(self, found: list[Found]) -> int:
        start = self._buffer.find(START[:1])
        if start:
            return -start if start > 0 else -len(self._buffer)
        if not self._fits():
            return -1
        if len(self._buffer) < TEXT_AT:
            return 0
        length = int(self._buffer[DIGITS_AT : DIGITS_AT + 4])
        if not 1 <= length <= FRAME_BYTES_MAX + 1:
            self._fault(FaultReason.TOO_LONG if length else FaultReason.CUT_OFF, length, found)
            return -1
        if len(self._buffer) < TEXT_AT + length:
            return 0
        if self._buffer[TEXT_AT + length - 1] != CR:
            self._fault(FaultReason.CUT_OFF, TEXT_AT + length, found)
            return -1
        aim, text = self._buffer[AIM_AT:GS_AT], self._buffer[TEXT_AT : TEXT_AT + length - 1]
        found.append(Frame(bytes(text), "]" + aim.decode("ascii") if aim.isalnum() and aim[:1].isalpha() else ""))
        return TEXT_AT + length

    def _fits(self) -> bool:
        """As far as it has come, this can be the head of a packet."""
        for at, wanted in FIXED:
            if not wanted.startswith(self._buffer[at : at + len(wanted)]):
                return False
        digits = self._buffer[DIGITS_AT : DIGITS_AT + 4]
        return not digits or digits.isdigit()
