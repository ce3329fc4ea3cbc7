"""HID POS scanners (usage page 0x8C, USB-IF "HID Point of Sale Usage Tables" 1.02): reports become frames.

Theory of operation. Where a report has its byte count, AIM identifier, text and continuation bit differs from maker to
maker, so everything is found in the device's own report descriptor, what it can be made to sound as well. A code longer
than one report comes in pieces; all but the last have the continuation bit set. Two things of the field: some scanners
set it on the last piece too when that is full, so a full piece that nothing follows ends the scan; and some put the
identifier one byte late, in front of the text. A piece that is not full and that nothing follows is half a scan.

Reports have no times, so silence is only what the caller sees: it reads all that waits before it calls `idle`.
"""

import msgspec

from devices.framing import FRAME_BYTES_MAX, FaultReason, Frame, FrameFault, Framer, Signal
from devices.framing.hid_descriptor import Descriptor, DescriptorFault, Field, Kind, parse_descriptor

PAGE = 0x8C << 16
SYMBOLOGY_BYTES = (PAGE | 0xFB, PAGE | 0xFC, PAGE | 0xFD)
DECODED, CONTINUED = PAGE | 0xFE, PAGE | 0xFF
BYTE_COUNT = 0x01 << 16 | 0x3B
ERROR_BEEP, GOOD_BEEP, NOT_ON_FILE_BEEP, GOOD_LED = PAGE | 0x85, PAGE | 0x86, PAGE | 0x87, PAGE | 0x7D
USAGES_OF = {Signal.GOOD: (GOOD_BEEP, GOOD_LED), Signal.BAD: (ERROR_BEEP, NOT_ON_FILE_BEEP)}  # the first it has
JOIN_MS = 300  # pieces follow within a few polls of the bus; nobody scans twice within less
AIM_FLAG = 0x5D
# Honeywell and Youjie hand scans to this interface only once they were told to, by this feature report.
REDIRECTING_VENDORS, REDIRECT_ID, REDIRECT_ON = (0x0C2E, 0x23D0), 0xFE, 1


class _Place(msgspec.Struct, frozen=True):
    bit_at: int  # in the report as hidraw hands it over, with its id
    bits: int

    def of(self, report: bytes) -> int:
        return int.from_bytes(report, "little") >> self.bit_at & ((1 << self.bits) - 1)


class _Piece(msgspec.Struct, frozen=True):
    octets: bytes
    aim: bytes
    continued: bool
    full: bool


class _ScanReport(msgspec.Struct, frozen=True):
    """Where one kind of report has what belongs to a scan."""

    text_at: int  # bytes
    text_bytes: int
    count: _Place | None
    aim: tuple[_Place, ...]
    continued: _Place | None
    length: int  # bytes, with the id

    def read(self, report: bytes) -> _Piece | FaultReason:
        if len(report) < self.length:
            return FaultReason.CUT_OFF
        text = report[self.text_at : self.text_at + self.text_bytes]
        count = self.count.of(report) if self.count else len(text.rstrip(b"\0"))
        aim = bytes(place.of(report) & 0xFF for place in self.aim)
        if len(aim) == 3 and aim[0] != AIM_FLAG and aim[1] == AIM_FLAG and count < self.text_bytes:
            aim, text = aim[1:] + text[:1], text[1:]
        if count > len(text):
            return FaultReason.CHECKSUM
        continued = bool(self.continued and self.continued.of(report))
        return _Piece(text[:count], aim if aim[:1] == b"]" else b"", continued, count == self.text_bytes)


class HidPosFramer(Framer):
    """A `Framer` whose `feed` takes one report as hidraw hands it over. Knows nothing before `describe`."""

    def __init__(self) -> None:
        self._descriptor = Descriptor((), {}, False)
        self._scans: dict[int, _ScanReport] = {}
        self._signals: dict[Signal, bytes] = {}
        self._buffer = bytearray()
        self._open: _Piece | None = None  # the latest piece of a scan that has not ended
        self._aim = b""
        self._skipping = False  # inside a scan that was too long
        self._last_ms = 0
        self._dropped_bytes = 0

    @property
    def dropped_bytes(self) -> int:
        return self._dropped_bytes

    def describe(self, octets: bytes) -> None:
        """Take a device's report descriptor. Raises `DescriptorFault` when it is damaged or of no HID POS scanner."""
        self._descriptor = parse_descriptor(octets)
        self._scans = _scan_reports(self._descriptor)
        if not self._scans:
            raise DescriptorFault("no HID POS scanner: its report descriptor has no decoded data (usage 8C:FE)")
        self._signals = {
            signal: report
            for signal, usages in USAGES_OF.items()
            if (report := next(filter(None, (self._with_bit(usage) for usage in usages)), b""))
        }
        self.sounds = frozenset(self._signals)

    @property
    def led_off(self) -> bytes:
        """What ends the light of a yes, where a light is all the scanner has for it."""
        report = self._signals.get(Signal.GOOD, b"")
        by_light = report and not self._with_bit(GOOD_BEEP)
        return report[:1] + bytes(len(report) - 1) if by_light else b""

    def redirection(self, vendor: int) -> bytes:
        """The feature report that makes a scanner of this vendor send its scans here; empty for most."""
        bits = self._descriptor.bits.get((Kind.FEATURE, REDIRECT_ID), 0)
        if vendor not in REDIRECTING_VENDORS or not bits:
            return b""
        return bytes((REDIRECT_ID, REDIRECT_ON)).ljust(1 + (bits + 7) // 8, b"\0")

    def feed(self, octets: bytes, now_ms: int) -> list[Frame | FrameFault]:
        report_id = octets[0] if self._descriptor.has_ids and octets else 0
        layout = self._scans.get(report_id)
        if layout is None:
            return [] if (Kind.INPUT, report_id) in self._descriptor.bits else [self._fault(FaultReason.STRAY, octets)]
        piece = layout.read(octets)
        if isinstance(piece, FaultReason):
            return [*self._break_off(), self._fault(piece, octets)]
        found = self._end() if self._open and piece.aim and self._aim and piece.aim != self._aim else []
        self._take(piece, now_ms, found)
        return found

    def due_ms(self) -> int | None:
        return self._last_ms + JOIN_MS if self._open else None

    def idle(self, now_ms: int) -> list[Frame | FrameFault]:
        due_ms = self.due_ms()
        return self._end() if due_ms is not None and now_ms >= due_ms else []

    def cut(self) -> list[FrameFault]:
        return self._break_off()

    def verdict_signal(self, signal: Signal, now_ms: int) -> bytes:
        return self._signals.get(signal, b"")

    # --- pieces -------------------------------------------------------------------------------------------------------

    def _take(self, piece: _Piece, now_ms: int, found: list[Frame | FrameFault]) -> None:
        self._open, self._last_ms = piece, now_ms
        self._aim = self._aim or piece.aim
        self._buffer += piece.octets
        if self._skipping or len(self._buffer) > FRAME_BYTES_MAX:
            fault = self._fault(FaultReason.TOO_LONG, bytes(self._buffer))
            found.extend([] if self._skipping else [fault])
            self._buffer.clear()
            self._skipping = True
        if not piece.continued:
            found.extend(self._end())

    def _end(self) -> list[Frame | FrameFault]:
        piece = self._open
        if piece and piece.continued and not piece.full:
            return [*self._break_off()]
        octets = bytes(self._buffer).removesuffix(b"\n").removesuffix(b"\r")
        frame = Frame(octets, self._aim.decode("ascii", "replace")) if octets and not self._skipping else None
        self._forget()
        return [frame] if frame else []

    def _break_off(self) -> list[FrameFault]:
        lost, told = bytes(self._buffer), self._skipping
        self._forget()
        return [self._fault(FaultReason.CUT_OFF, lost)] if lost and not told else []

    def _forget(self) -> None:
        self._buffer.clear()
        self._open, self._aim, self._skipping = None, b"", False

    def _fault(self, reason: FaultReason, lost: bytes) -> FrameFault:
        self._dropped_bytes += len(lost)
        return FrameFault(reason, len(lost))

    def _with_bit(self, usage: int) -> bytes:
        """The output report that sets this one field to 1, and all others of the report to 0."""
        for field in self._descriptor.fields:
            index, count = field.run_of(usage)
            if field.kind is Kind.OUTPUT and count and field.bits and not field.constant:
                length = (self._descriptor.bits[Kind.OUTPUT, field.report_id] + 7) // 8
                body = (1 << field.bit_at + index * field.bits).to_bytes(length, "little")
                return bytes((field.report_id,)) + body
        return b""


def _scan_reports(descriptor: Descriptor) -> dict[int, _ScanReport]:
    texts = [field for field in descriptor.fields if field.kind is Kind.INPUT and _is_text(field)]
    return {field.report_id: _scan_report(descriptor, field) for field in reversed(texts)}


def _is_text(field: Field) -> bool:
    return field.run_of(DECODED)[1] > 0 and field.bits == 8 and field.bit_at % 8 == 0 and not field.constant


def _scan_report(descriptor: Descriptor, text: Field) -> _ScanReport:
    id_bits = 8 if descriptor.has_ids else 0
    index, count = text.run_of(DECODED)

    def place(usage: int) -> _Place | None:
        for field in descriptor.fields:
            if field.kind is not Kind.INPUT or field.report_id != text.report_id or field.constant:
                continue
            at, found = field.run_of(usage)
            if found and field.bits:
                return _Place(id_bits + field.bit_at + at * field.bits, field.bits)
        return None

    aim = tuple(found for usage in SYMBOLOGY_BYTES if (found := place(usage)))
    length = (id_bits + descriptor.bits[Kind.INPUT, text.report_id] + 7) // 8
    text_at = (id_bits + text.bit_at) // 8 + index
    return _ScanReport(text_at, count, place(BYTE_COUNT), aim, place(CONTINUED), length)
