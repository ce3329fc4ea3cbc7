"""Newland scanners with data packing on: length-framed reads with one check byte, and setting commands.

    format 1   02 00 LEN LEN 36 text LRC              LEN: bytes of text, high byte first
    format 2   02 00 LEN LEN 3B symbology text LRC
    FM200      02 n n n n text 03 BCC                 n: ASCII digits, bytes of text; BCC: XOR of all before it

Newland's manuals disagree on what the LRC covers. It is the XOR of FF, LEN and what follows the type byte in all of
them; some also count the type byte, some also STX and the zero after it. A scanner keeps to one of them, so with "any"
the first sound packet settles which (`lrc_matched` tells), and a packet that fits only another one is a fault and
opens the question again. One byte of check lets one in 256 of random damage through; a single changed byte of the text
never, once it is settled what the LRC covers. The voucher's own check stands behind it.

No sound for a verdict is known: the scanner's own beep only says that it read something.

Sources: user guides of FM420, HR1580, QR-R-302, EM3000, HR200 (data packing), FM200 (its own format).
"""

from functools import reduce
from operator import xor
from typing import Literal

from devices.framing import FRAME_BYTES_MAX, FaultReason, Found, Frame
from devices.framing.packets import PacketFramer

LrcOver = Literal["any", "len", "len_type", "stx_len", "stx_len_type"]

SILENCE_MS = 500  # a long code may span many reads; no scanner pauses this long inside one
ANSWER_BYTES_MAX = 256  # to a command; the longest settings are some ten tags
STX, ETX = 0x02, 0x03
PLAIN, WITH_SYMBOLOGY = 0x36, 0x3B
PACKED_HEAD, FM200_HEAD = 5, 5
COMMAND, ANSWER, COMMAND_END = b"\x7e\x010000", b"\x02\x010000", b";\x03"


def command(tags: str, *, keep: bool = False) -> bytes:
    """One or more settings, like `SCNMOD0`. `keep`: written to flash, which wears; else until power goes."""
    return COMMAND + (b"@" if keep else b"#") + tags.encode("ascii") + COMMAND_END


def lrc_extra(over: LrcOver, kind: int) -> int:
    """What this reading of the manuals adds to the XOR of FF, LEN and the rest."""
    return (kind if over in ("len_type", "stx_len_type") else 0) ^ (STX if over in ("stx_len", "stx_len_type") else 0)


LRC_READINGS: tuple[LrcOver, ...] = ("len", "len_type", "stx_len", "stx_len_type")


class NewlandFramer(PacketFramer):
    def __init__(self, lrc: LrcOver = "any") -> None:
        super().__init__(SILENCE_MS)
        self._lrc = lrc
        self.lrc_matched: LrcOver = lrc

    def _take(self, found: list[Found]) -> int:
        start = self._buffer.find(STX)
        if start:
            return -start if start > 0 else -len(self._buffer)
        if len(self._buffer) < 2:
            return 0
        second = self._buffer[1]
        if second == 0:
            return self._take_packed(found)
        if second == ANSWER[1]:
            return self._take_answer()
        return self._take_fm200(found) if 0x30 <= second <= 0x39 else -1

    def _take_packed(self, found: list[Found]) -> int:
        if len(self._buffer) < PACKED_HEAD:
            return 0
        kind, length = self._buffer[4], int.from_bytes(self._buffer[2:4], "big")
        if kind not in (PLAIN, WITH_SYMBOLOGY):
            return -1
        begin = PACKED_HEAD + (kind == WITH_SYMBOLOGY)
        size = begin + length + 1
        if not self._room(length, size, found):
            return 0 if length <= FRAME_BYTES_MAX else -1
        check = reduce(xor, self._buffer[2:4], 0xFF) ^ reduce(xor, self._buffer[PACKED_HEAD:size], 0)
        matching = [over for over in LRC_READINGS if lrc_extra(over, kind) == check]
        if self.lrc_matched == "any" and matching:
            self.lrc_matched = matching[0]
        elif self.lrc_matched not in matching:
            self.lrc_matched = self._lrc
            self._fault(FaultReason.CHECKSUM, size, found)
            return -1
        found.append(Frame(bytes(self._buffer[begin : size - 1])))
        return size

    def _take_fm200(self, found: list[Found]) -> int:
        digits = self._buffer[1:FM200_HEAD]
        if not digits.isdigit():
            return -1
        if len(digits) < FM200_HEAD - 1:
            return 0
        length = int(digits)
        size = FM200_HEAD + length + 2
        if not self._room(length, size, found):
            return 0 if length <= FRAME_BYTES_MAX else -1
        if self._buffer[size - 2] != ETX or reduce(xor, self._buffer[:size]):
            self._fault(FaultReason.CHECKSUM, size, found)
            return -1
        found.append(Frame(bytes(self._buffer[FM200_HEAD : size - 2])))
        return size

    def _take_answer(self) -> int:
        if not ANSWER.startswith(self._buffer[: len(ANSWER)]):
            return -1
        end = self._buffer.find(COMMAND_END, 0, ANSWER_BYTES_MAX)
        if end >= 0:
            return end + len(COMMAND_END)
        return 0 if len(self._buffer) < ANSWER_BYTES_MAX else -1

    def _room(self, length: int, size: int, found: list[Found]) -> bool:
        """The packet is all there; tells when it never will be taken."""
        if length > FRAME_BYTES_MAX:
            self._fault(FaultReason.TOO_LONG, length, found)
            return False
        return len(self._buffer) >= size
