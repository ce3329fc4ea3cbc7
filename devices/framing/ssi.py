"""Zebra and Symbol scanners: Simple Serial Interface, packets of LEN OP SRC STATUS ... and a 16-bit checksum.

Theory of operation. The scanner waits up to 2 s for an ACK, sends the same packet twice more with the retransmit bit,
and then sounds an error and drops the scan. So the ACK of a scan is written when the journal has it, and never before;
a copy that comes while the journal is still writing is answered by that one ACK, a copy that comes later gets the same
answer again at once, and is no second scan. The same bytes without the bit are a new scan. A journal that refuses is
told as NAK "denied": do not send this again. A damaged packet is told as NAK "resend"; only when no sound copy comes
is it a fault. The sum does not notice two changes that add up to nothing, nor bytes that changed places; a damaged
length is noticed as any other damage, save that one in 65,536 of the bytes it then spans has the sum it needs. The
voucher's own check stands behind it.

Codes over 251 bytes come in several packets, each ACKed so that the next one follows: DECODE_DATA with the continuation
bit on all but the last, or segments 0x73 whose first names the whole length. Only the last one's ACK waits for the
journal. Commands of ours go out one at a time, the next when the scanner has answered.

Sources: Zebra DS9908 product reference (opcodes), Symbol SE955 integration guide chapter 10 (packets, DECODE_DATA,
PARAM_SEND), the published tests of enioka_scan (segments, cordless header).
"""

from collections import deque
from collections.abc import Sequence

import msgspec

from devices.framing import FRAME_BYTES_MAX, RESENT_MS, FaultReason, Found, Frame, FrameFault, Reply, Signal
from devices.framing.packets import PacketFramer

SILENCE_MS = 300  # 200 ms between two bytes is the most the protocol allows; Bluetooth and USB add some
RESEND_MS = 2500  # a scanner that was asked to send again, or heard nothing for 2 s, has done so by now
COMMAND_MS = 400  # a scanner answers a command within some tens of milliseconds, or not at all
COMMANDS_WAITING_MAX = 8  # greeting and two verdicts; an older one would sound for the wrong scan anyway

HEADER_BYTES, CHECKSUM_BYTES = 4, 2
DECODER, HOST = 0x00, 0x04
RETRANSMIT, CONTINUATION, PERMANENT = 0x01, 0x02, 0x08  # status bits; scanners set others too, of no meaning here
WAKE_UP = b"\0"  # a lone byte, no packet

SEGMENT, SEGMENT_ACK = 0x73, 0x74
MANAGEMENT, INIT, INIT_REPLY, HOST_ACK = 0x80, 0x90, 0x91, 0x96
REPLY_REVISION, PARAM_SEND, CMD_ACK, CMD_NAK, CAPABILITIES_REPLY = 0xA4, 0xC6, 0xD0, 0xD1, 0xD4
BEEP, LED_ON, LED_OFF, DECODE, EVENT = 0xE6, 0xE7, 0xE8, 0xF3, 0xF6
FROM_DECODER = {
    *(SEGMENT, MANAGEMENT, INIT_REPLY, REPLY_REVISION, PARAM_SEND),
    *(CMD_ACK, CMD_NAK, CAPABILITIES_REPLY, DECODE, EVENT),
}
NAK_RESEND, NAK_CONTEXT, NAK_DENIED = 1, 2, 6

PARAM_PACKETED, PARAM_DECODE_BEEP = 0xEE, 0x38
NO_BEEP = 0xFF
BEEP_OF = {Signal.GOOD: 0x01, Signal.BAD: 0x12, Signal.WAIT: 0x05}  # two short high, four long low, one short low
GREEN, ALL_LEDS = 0x01, 0xFF

# Type byte -> AIM identifier (ISO/IEC 15424). The byte tells no modifier: it is the one of a plain symbol.
AIM_OF_TYPE = {
    0x01: "]A0",  # Code 39
    0x02: "]F0",  # Codabar
    0x03: "]C0",  # Code 128
    0x06: "]I0",  # Interleaved 2 of 5
    0x07: "]G0",  # Code 93
    0x08: "]E0",  # UPC-A
    0x09: "]E0",  # UPC-E
    0x0A: "]E4",  # EAN-8
    0x0B: "]E0",  # EAN-13
    0x0F: "]C1",  # GS1-128
    0x11: "]L2",  # PDF417
    0x1B: "]d1",  # Data Matrix
    0x1C: "]Q1",  # QR
    0x2D: "]z0",  # Aztec
    0x30: "]e0",  # GS1 DataBar, and its limited and expanded kinds
    0x31: "]e0",
    0x32: "]e0",
}


def packet(opcode: int, body: bytes = b"", *, source: int = HOST, flags: int = 0) -> bytes:
    """LEN counts all but the checksum, which is the two's complement of the 16-bit sum of what stands before it."""
    octets = bytes((HEADER_BYTES + len(body), opcode, source, flags)) + body
    return octets + (-sum(octets) & 0xFFFF).to_bytes(CHECKSUM_BYTES, "big")


def param_send(values: Sequence[tuple[int, int]], *, permanent: bool = False) -> bytes:
    """Set parameters to byte values, without a beep. Temporary: permanent ones wear the scanner's memory."""
    body = b"".join(param_number(number) + bytes((value,)) for number, value in values)
    return packet(PARAM_SEND, bytes((NO_BEEP,)) + body, flags=PERMANENT if permanent else 0)


def param_number(number: int) -> bytes:
    """0-239 in one byte, 256-1023 as F0/F1/F2 and a byte, from 1024 on as F8 and two bytes."""
    assert 0 <= number <= 0xFFFF
    assert not 0xF0 <= number <= 0xFF, "these bytes are prefixes"
    if number < 0x100:
        return bytes((number,))
    if number < 0x400:
        return bytes((0xF0 + (number >> 8) - 1, number & 0xFF))
    return b"\xf8" + number.to_bytes(2, "big")


ACK = packet(CMD_ACK)
DENIED = packet(CMD_NAK, bytes((NAK_DENIED,)))


class _Heard(msgspec.Struct):
    """The last packet that belonged to a scan. `answer` empty: the journal has not spoken yet."""

    key: bytes  # all but the status and what follows from it
    at_ms: int
    answer: bytes = b""
    frame: Frame | None = None


class _Parts(msgspec.Struct):
    """A code that comes in several packets. `total_bytes` 0: told by the continuation bit alone."""

    kind: int
    total_bytes: int
    due_ms: int
    next_index: int = 0
    length: int = 0  # of everything that came, kept or not
    octets: bytes = b""  # empty once it is too long


class SsiFramer(PacketFramer):
    """`cordless`: four bytes stand before the text (type, 1, length) and not one (type)."""

    sounds = frozenset(BEEP_OF)

    def __init__(self, *, cordless: bool = False) -> None:
        super().__init__(SILENCE_MS)
        self._cordless = cordless
        self._ack = ACK
        self._now_ms = 0
        self._heard = _Heard(b"", 0)
        self._parts: _Parts | None = None
        self._lost_bytes = 0  # of damaged packets, until a sound copy comes
        self._resend_due_ms: int | None = None
        self._commands: deque[bytes] = deque(maxlen=COMMANDS_WAITING_MAX)
        self._command_due_ms: int | None = None
        self._lit = False

    # --- the line -----------------------------------------------------------------------------------------------------

    def greeting(self, now_ms: int) -> bytes:
        # One parameter a packet: a scanner that does not know one refuses the whole packet.
        self._commands.clear()
        self._command_due_ms = None
        hello = (packet(INIT, b"\x00\x02\x00\x05"),) if self._cordless else ()
        packeted, quiet = param_send([(PARAM_PACKETED, 1)]), param_send([(PARAM_DECODE_BEEP, 0)])
        return self._command(now_ms, *hello, packeted, quiet)

    def feed(self, octets: bytes, now_ms: int) -> list[Found]:
        self._now_ms = now_ms
        return super().feed(octets, now_ms)

    def due_ms(self) -> int | None:
        parts_due_ms = self._parts.due_ms if self._parts else None
        dues = (super().due_ms(), parts_due_ms, self._resend_due_ms, self._command_due_ms)
        return min((due for due in dues if due is not None), default=None)

    def idle(self, now_ms: int) -> list[Found]:
        self._now_ms = now_ms
        found = super().idle(now_ms)
        if self._parts and now_ms >= self._parts.due_ms:
            self._drop_parts(found)
        if self._resend_due_ms is not None and now_ms >= self._resend_due_ms:
            found.append(FrameFault(FaultReason.CHECKSUM, self._lost_bytes))
            self._sound_copy_came()
        if self._command_due_ms is not None and now_ms >= self._command_due_ms:
            self._answered(found)
        return found

    def cut(self) -> list[FrameFault]:
        faults = super().cut()
        lost = self._lost_bytes + (self._parts.length if self._parts else 0)
        self._parts = None
        self._sound_copy_came()
        self._commands.clear()
        self._command_due_ms = None
        return faults or ([FrameFault(FaultReason.CUT_OFF, lost)] if lost else [])

    def settle(self, frame: Frame, kept: bool, now_ms: int) -> bytes:
        if self._heard.frame is not frame:
            return b""  # the scanner has given it up and sent another: this ACK would be taken for that one's
        self._heard.answer = self._ack if kept else DENIED
        lit, self._lit = self._lit, False
        return self._heard.answer + (self._command(now_ms, packet(LED_OFF, bytes((ALL_LEDS,)))) if lit else b"")

    def verdict_signal(self, signal: Signal, now_ms: int) -> bytes:
        self._lit = signal is Signal.GOOD
        lights = (packet(LED_ON, bytes((GREEN,))),) if self._lit else ()
        return self._command(now_ms, packet(BEEP, bytes((BEEP_OF[signal],))), *lights)

    def _command(self, now_ms: int, *packets: bytes) -> bytes:
        self._commands.extend(packets)
        return self._next_command(now_ms) if self._command_due_ms is None else b""

    def _next_command(self, now_ms: int) -> bytes:
        self._command_due_ms = now_ms + COMMAND_MS if self._commands else None
        return self._commands.popleft() if self._commands else b""

    def _answered(self, found: list[Found]) -> None:
        if command := self._next_command(self._now_ms):
            found.append(Reply(command))

    # --- packets ------------------------------------------------------------------------------------------------------

    def _take(self, found: list[Found]) -> int:
        if not self._plausible():
            return -1
        size = self._buffer[0] + CHECKSUM_BYTES
        if len(self._buffer) < size:
            return 0
        octets = bytes(self._buffer[:size])
        if (sum(octets[:-2]) + int.from_bytes(octets[-2:], "big")) & 0xFFFF:
            self._ask_again(size, found)
            return -1
        self._hear(octets, found)
        return size

    def _plausible(self) -> bool:
        """As far as it has come, this can be the head of a packet from a scanner."""
        head = self._buffer[:3]
        if head[0] < HEADER_BYTES or (len(head) > 1 and head[1] not in FROM_DECODER):
            return False
        # Seen in first segments: 2 where the source should stand.
        return len(head) < 3 or head[2] == DECODER or (head[2] == CONTINUATION and head[1] == SEGMENT)

    def _is_answer(self, stray: bytes) -> bool:
        return not stray.strip(WAKE_UP)

    def _broke_off(self, found: list[Found]) -> None:
        if len(self._buffer) > 1:  # one byte alone can begin anything
            self._ask_again(len(self._buffer), found)

    def _ask_again(self, lost_bytes: int, found: list[Found]) -> None:
        if not self._told:  # debris behind a damaged packet is not asked for
            found.append(Reply(packet(CMD_NAK, bytes((NAK_RESEND,)))))
            self.damaged += 1
            self._lost_bytes += lost_bytes
            self._resend_due_ms = self._now_ms + RESEND_MS
        self._told = True

    def _sound_copy_came(self) -> None:
        if self._resend_due_ms is not None:
            self._forget_stray()  # it was the damaged one's
        self._resend_due_ms = None
        self._lost_bytes = 0

    def _hear(self, octets: bytes, found: list[Found]) -> None:
        opcode, flags, body = octets[1], octets[3], octets[HEADER_BYTES:-CHECKSUM_BYTES]
        if opcode in (DECODE, SEGMENT):
            self._sound_copy_came()
            self._hear_scan(opcode, flags, body, found)
        elif opcode in (CMD_ACK, CMD_NAK):
            self._answered(found)
        elif opcode == INIT_REPLY:
            self._ack = packet(HOST_ACK)
            self._answered(found)
        elif opcode in (PARAM_SEND, EVENT, MANAGEMENT):
            found.append(Reply(self._ack))

    def _hear_scan(self, opcode: int, flags: int, body: bytes, found: list[Found]) -> None:
        key, resent = bytes((opcode,)) + body, bool(flags & RETRANSMIT)
        if resent and key == self._heard.key and self._now_ms - self._heard.at_ms < RESENT_MS:
            self._heard.at_ms = self._now_ms
            self.copies += 1
            if self._heard.answer:
                found.append(Reply(self._heard.answer))
            return
        self._heard = _Heard(key, self._now_ms)
        if opcode == SEGMENT:
            self._take_segment(body, resent, found)
        else:
            self._take_decode(bool(flags & CONTINUATION), body, resent, found)

    # --- scans --------------------------------------------------------------------------------------------------------

    def _take_decode(self, more: bool, body: bytes, resent: bool, found: list[Found]) -> None:
        kind, text = body[0] if body else 0, body[4 if self._cordless else 1 :]
        if self._parts and (self._parts.total_bytes or self._parts.kind != kind):
            self._drop_parts(found)
        if self._parts is None and not more:
            self._emit(kind, text, resent, found)
            return
        parts = self._parts or _Parts(kind, 0, 0)
        self._add(parts, text)
        self._go_on(parts, more, self._ack, resent, found)

    def _take_segment(self, body: bytes, resent: bool, found: list[Found]) -> None:
        if len(body) > 10 and body[0] == 0 and body[1] == DECODE:  # index, F3 00 00, length, type, 01, length of text
            if self._parts:
                self._drop_parts(found)
            self._parts, text = _Parts(body[6], int.from_bytes(body[8:10], "big"), 0), body[10:]
        else:
            text = body[1:]
        parts = self._parts
        if parts is None or not parts.total_bytes or not body or body[0] != parts.next_index & 0xFF:
            self._refuse_segment(found)
            return
        self._add(parts, text[: parts.total_bytes - parts.length])
        self._go_on(parts, parts.length < parts.total_bytes, packet(SEGMENT_ACK), resent, found)

    def _refuse_segment(self, found: list[Found]) -> None:
        self._heard.answer = packet(CMD_NAK, bytes((NAK_CONTEXT,)))
        found.append(Reply(self._heard.answer))
        self._drop_parts(found)

    def _add(self, parts: _Parts, text: bytes) -> None:
        parts.length += len(text)
        parts.next_index += 1
        parts.octets = parts.octets + text if parts.length <= FRAME_BYTES_MAX else b""
        parts.due_ms = self._now_ms + RESENT_MS

    def _go_on(self, parts: _Parts, more: bool, ack: bytes, resent: bool, found: list[Found]) -> None:
        self._parts = parts if more else None
        if more:
            self._heard.answer = ack
            found.append(Reply(ack))
        elif parts.length > FRAME_BYTES_MAX:
            self._heard.answer = DENIED
            found += [Reply(DENIED), FrameFault(FaultReason.TOO_LONG, parts.length)]
            self._dropped_bytes += parts.length
        else:
            self._emit(parts.kind, parts.octets, resent, found)

    def _emit(self, kind: int, text: bytes, resent: bool, found: list[Found]) -> None:
        self._heard.frame = Frame(text, AIM_OF_TYPE.get(kind, ""), resent)
        found.append(self._heard.frame)

    def _drop_parts(self, found: list[Found]) -> None:
        lost = self._parts.length if self._parts else 0
        self._parts = None
        self._dropped_bytes += lost
        found.append(FrameFault(FaultReason.CUT_OFF, lost))
