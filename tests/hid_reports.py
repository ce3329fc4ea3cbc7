"""Report descriptors and reports of HID POS scanners, for tests and fuzz.

The layouts are those that were seen in the field, written down anew from the USB-IF usage tables: which byte holds what
is a fact of the makers' manuals, and the descriptors that say so are ours.
"""

from collections.abc import Callable
from typing import NamedTuple

INPUT, OUTPUT, FEATURE = 0x81, 0x91, 0xB1
DATA, CONST, DATA_VAR, BUFFERED = (0x00,), (0x01,), (0x02,), (0x02, 0x01)


def _item(prefix: int, *octets: int) -> bytes:
    return bytes([prefix | {0: 0, 1: 1, 2: 2, 4: 3}[len(octets)], *octets])


def page(number: int) -> bytes:
    return _item(0x04, number)


def usage(number: int) -> bytes:
    return _item(0x08, number)


def usages(first: int, last: int) -> bytes:
    return _item(0x18, first) + _item(0x28, last)


def collection(kind: int, body: bytes) -> bytes:
    return _item(0xA0, kind) + body + _item(0xC0)


def main(kind: int, flags: tuple[int, ...], size: int, count: int, report_id: int = 0) -> bytes:
    prefix = {INPUT: 0x80, OUTPUT: 0x90, FEATURE: 0xB0}[kind]
    ids = _item(0x84, report_id) if report_id else b""
    return ids + _item(0x74, size) + _item(0x94, count) + _item(prefix, *flags)


def _scanner(scanned: bytes, more: bytes = b"") -> bytes:
    limits = _item(0x14, 0) + _item(0x24, 0xFF, 0)
    return page(0x8C) + usage(0x02) + collection(1, limits + usage(0x12) + collection(2, scanned) + more)


TRIGGER = usage(0x14) + collection(  # report 4, one byte: 0x40 good beep, 0x20 error beep, 0x04 and 0x02 not used here
    2,
    usage(0x00)
    + main(OUTPUT, CONST, 1, 1, 4)
    + usage(0x5F)
    + main(OUTPUT, DATA_VAR, 1, 1)
    + usage(0x60)
    + main(OUTPUT, DATA_VAR, 1, 1)
    + main(OUTPUT, CONST, 1, 2)
    + usage(0x85)
    + usage(0x86)
    + main(OUTPUT, DATA_VAR, 1, 2)
    + main(OUTPUT, CONST, 1, 1),
)
_COUNT = page(0x01) + usage(0x3B) + main(INPUT, DATA_VAR, 8, 1, 2) + page(0x8C)
_AIM_AND_TEXT = usages(0xFB, 0xFD) + main(INPUT, DATA_VAR, 8, 3, 2) + usage(0xFE) + main(INPUT, BUFFERED, 8, 56)
_CONTINUED = usage(0xFF) + main(INPUT, DATA_VAR, 1, 1) + main(INPUT, CONST, 1, 7)
REDIRECT = page(0xFF) + usage(0x01) + main(FEATURE, DATA_VAR, 8, 1, 0xFE) + page(0x8C)


class Device(NamedTuple):
    descriptor: bytes
    report: Callable[[bytes, bytes, bool], bytes]  # text of at most 56 bytes, AIM identifier, continued


def _honeywell(text: bytes, aim: bytes, continued: bool) -> bytes:
    """64 bytes: id, count, identifier, text, vendor's code id, zero, continued."""
    return bytes([2, len(text)]) + aim.ljust(3, b"\0") + text.ljust(56, b"\0") + bytes([0x73, 0, continued])


def _compact(text: bytes, aim: bytes, continued: bool) -> bytes:
    return bytes([2, len(text)]) + aim.ljust(3, b"\0") + text.ljust(56, b"\0") + bytes([continued])


def _no_count(text: bytes, aim: bytes, continued: bool) -> bytes:
    return bytes([2]) + aim.ljust(3, b"\0") + text.ljust(56, b"\0") + bytes([continued])


def _odd(text: bytes, aim: bytes, continued: bool) -> bytes:
    """Nobody's: no report ids, the bit in front, a count of two bytes, the identifier behind the text."""
    return bytes([continued]) + len(text).to_bytes(2, "little") + text.ljust(56, b"\0") + aim.ljust(3, b"\0")


DEVICES = {
    "honeywell": Device(
        _scanner(_COUNT + _AIM_AND_TEXT + main(INPUT, CONST, 8, 2) + _CONTINUED, TRIGGER + REDIRECT), _honeywell
    ),
    "compact": Device(_scanner(_COUNT + _AIM_AND_TEXT + _CONTINUED), _compact),
    "no count": Device(_scanner(_AIM_AND_TEXT + _CONTINUED, TRIGGER), _no_count),
    "odd": Device(
        _scanner(
            _CONTINUED
            + page(0x01)
            + usage(0x3B)
            + main(INPUT, DATA_VAR, 16, 1)
            + page(0x8C)
            + usage(0xFE)
            + main(INPUT, DATA, 8, 56)
            + usage(0xFB)
            + usage(0xFC)
            + usage(0xFD)
            + main(INPUT, DATA_VAR, 8, 3)
        ),
        _odd,
    ),
}
KEYBOARD = page(0x01) + usage(0x06) + collection(1, page(0x07) + usages(0xE0, 0xE7) + main(INPUT, DATA_VAR, 1, 8))


def scan(device: Device, text: bytes, aim: bytes = b"]Q1") -> list[bytes]:
    """The reports of one scan; all but the last say that it goes on."""
    pieces = [text[at : at + 56] for at in range(0, len(text), 56)] or [b""]
    return [device.report(piece, aim, number < len(pieces)) for number, piece in enumerate(pieces, 1)]
