"""A frame becomes a scan: AIM identifier split off, text decoded, the raw bytes kept."""

import re

import msgspec

from devices.framing import FaultReason, Frame, FrameFault
from gateway.messages import CODE_CHARS_MAX

AIM_FLAG = 0x5D  # "]", then a letter for the symbology and a modifier (ISO/IEC 15424)
# What wedges and port settings leave around a code. GS (0x1D) is not in it: it separates GS1 fields.
NOISE = "".join(map(chr, range(0x1D))) + "\x1e\x1f\x7f \ufeff\u3000"

# Symbols whose scanner sends the escapes of ECI, "extended channel interpretation" (AIM ECI protocol, ISO/IEC 15424):
# a backslash and six digits name the characters' encoding from there on, a backslash of the text comes twice.
ECI_AIMS = {"]Q2", "]Q4", "]Q6", "]d4", "]d5", "]d6", "]z3"}
ECI_ESCAPE = re.compile(rb"\\(?:\\|([0-9]{6}))")
ECI_ENCODINGS = {3: "latin-1", 20: "shift_jis", 25: "utf-16-be", 26: "utf-8", 27: "ascii", 28: "big5", 29: "gb18030"}

LEADING_NOISE = NOISE[:0x1D].encode() + b" "


class Scan(msgspec.Struct, frozen=True):
    """One completed read of a barcode. `aim` is like `]Q1`, or empty when the scanner does not send it."""

    source: str  # the scanner's name in the configuration
    code: str
    aim: str
    octets: bytes

    def __repr__(self) -> str:
        return f"Scan({self.source}, {self.aim or 'no identifier'}, {len(self.code)} characters)"  # never the code


def scan_of(frame: Frame, source: str) -> Scan | FrameFault:
    """Read a frame as text: as its ECI says, else strict UTF-8, else Latin-1 (a QR that names none)."""
    aim, octets = _split_aim(frame)
    code = (_text_by_eci(octets) if aim in ECI_AIMS else _text_of(octets)).strip(NOISE)
    if not code:
        return FrameFault(FaultReason.EMPTY, len(frame.octets))
    if len(code) > CODE_CHARS_MAX:
        return FrameFault(FaultReason.TOO_LONG, len(frame.octets))
    return Scan(source, code, aim, frame.octets)


def _split_aim(frame: Frame) -> tuple[str, bytes]:
    """An identifier in front of the text is more exact than the protocol's. Text that only looks like one stays."""
    octets = frame.octets.lstrip(LEADING_NOISE)
    mark = octets[:3]
    if len(mark) == 3 and mark[0] == AIM_FLAG and mark[1:2].isalpha() and mark[2:3].isalnum():
        aim = mark.decode("ascii")
        if frame.aim[:2] in ("", aim[:2]):
            return aim, octets[3:]
    return frame.aim, octets


def _text_by_eci(octets: bytes) -> str:
    """Stretches between escapes, each in its own encoding; one that does not fit, or is not known, is guessed."""
    stretches, at = [("utf-8", bytearray())], 0
    for escape in ECI_ESCAPE.finditer(octets):
        stretches[-1][1].extend(octets[at : escape.start()])
        at = escape.end()
        if escape[1]:
            stretches.append((ECI_ENCODINGS.get(int(escape[1]), "utf-8"), bytearray()))
        else:
            stretches[-1][1].extend(b"\\")
    stretches[-1][1].extend(octets[at:])
    return "".join(_text_in(encoding, bytes(stretch)) for encoding, stretch in stretches)


def _text_in(encoding: str, octets: bytes) -> str:
    try:
        return octets.decode(encoding)
    except UnicodeDecodeError:
        return _text_of(octets)


def _text_of(octets: bytes) -> str:
    try:
        return octets.decode("utf-8")
    except UnicodeDecodeError:
        return octets.decode("latin-1")
