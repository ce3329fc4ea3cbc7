"""What scanners put on the line, written from the manuals and not from our framers, for tests, fuzz and bench."""

from collections.abc import Callable
from functools import reduce
from operator import xor

import hid_reports
import keys

from devices.framing import Frame, FrameFault, Framer
from devices.framing.datalogic import DatalogicFramer
from devices.framing.hid_pos import HidPosFramer
from devices.framing.honeywell import HoneywellFramer
from devices.framing.keyboard import KeyFramer
from devices.framing.newland import NewlandFramer
from devices.framing.raw import RawFramer
from devices.framing.ssi import SsiFramer

QR = 0x1C


def ssi(opcode: int, body: bytes, flags: int = 0) -> bytes:
    octets = bytes([4 + len(body), opcode, 0, flags]) + body
    return octets + ((0x10000 - sum(octets)) & 0xFFFF).to_bytes(2, "big")


def ssi_scan(text: bytes, flags: int = 0) -> list[bytes]:
    """DECODE_DATA; over 250 bytes several, all but the last with the continuation bit."""
    pieces = [text[at : at + 250] for at in range(0, len(text), 250)] or [b""]
    more = [2] * (len(pieces) - 1) + [0]
    return [ssi(0xF3, bytes([QR]) + piece, flags | bit) for piece, bit in zip(pieces, more, strict=True)]


def ssi_segments(text: bytes) -> list[bytes]:
    """0x73: the first says that a DECODE_DATA is inside, and how long its text is."""
    whole = b"\xf3\0\0" + (len(text) + 3).to_bytes(2, "big") + bytes([QR, 1]) + len(text).to_bytes(2, "big") + text
    packets = []
    for index, at in enumerate(range(0, len(whole), 250)):
        octets = bytes([5 + len(whole[at : at + 250]), 0x73, 0 if index else 2, 0, index]) + whole[at : at + 250]
        packets.append(octets + ((0x10000 - sum(octets)) & 0xFFFF).to_bytes(2, "big"))
    return packets


def msgget(text: bytes, aim: bytes = b"Q1") -> bytes:
    rest = b"MSGGET" + b"%04d" % (len(text) + 1) + b"s" + aim + b"\x1d" + text + b"\r"
    return b"\x16\xfe" + len(rest).to_bytes(4, "little") + b"\r" + rest


def newland(text: bytes, *, symbology: bytes = b"", start: bytes = b"", typed: bool = False) -> bytes:
    """`start`: 02 00 when STX and attribute count; `typed`: the type byte counts."""
    length, kind = len(text).to_bytes(2, "big"), b"\x3b" if symbology else b"\x36"
    check = reduce(xor, start + length + (kind if typed else b"") + symbology + text, 0xFF)
    return b"\x02\0" + length + kind + symbology + text + bytes([check])


def fm200(text: bytes) -> bytes:
    octets = b"\x02%04d" % len(text) + text + b"\x03"
    return octets + bytes([reduce(xor, octets)])


def datalogic(suffix: bytes = b"\r", *, not_on_file: bool = False) -> DatalogicFramer:
    return DatalogicFramer(suffix, b"", 50, label_ack=True, not_on_file=not_on_file)


MAKERS: dict[str, tuple[Callable[[], Framer], Callable[[bytes], bytes]]] = {
    "raw": (lambda: RawFramer(b"\r"), lambda text: text + b"\r"),
    "datalogic": (datalogic, lambda text: text + b"\r"),
    "ssi": (SsiFramer, lambda text: b"".join(ssi_scan(text))),
    "ssi segments": (SsiFramer, lambda text: b"".join(ssi_segments(text) if len(text) > 240 else ssi_scan(text))),
    "honeywell": (HoneywellFramer, msgget),
    "newland": (NewlandFramer, newland),
    "newland 2": (NewlandFramer, lambda text: newland(text, symbology=b"\x21")),
    "fm200": (NewlandFramer, fm200),
}
"""By name: a new framer, and one scan as its scanner sends it."""
LENGTH_FRAMED = [name for name in MAKERS if name not in ("raw", "datalogic")]
REPORT_BYTES = 64
HID_POS = hid_reports.DEVICES["honeywell"]


class Reports(HidPosFramer):
    """Reports in a row: hidraw keeps them apart, a stream does not."""

    def __init__(self) -> None:
        super().__init__()
        self.describe(HID_POS.descriptor)
        self._row = b""

    def feed(self, octets: bytes, now_ms: int) -> list[Frame | FrameFault]:
        self._row += octets
        whole = len(self._row) - len(self._row) % REPORT_BYTES
        reports, self._row = self._row[:whole], self._row[whole:]
        rows = [reports[at : at + REPORT_BYTES] for at in range(0, whole, REPORT_BYTES)]
        return [one for row in rows for one in super(Reports, self).feed(row, now_ms)]

    def cut(self) -> list[FrameFault]:
        self._row = b""
        return super().cut()


def typed(text: bytes) -> bytes:
    """At most 64 characters: an event has 24 bytes, a character six events."""
    printable = bytes(octet if 0x20 <= octet < 0x7F else 0x41 + octet % 26 for octet in text[:64])
    return keys.scan(printable.decode())


BY_EVENTS: dict[str, tuple[Callable[[], Framer], Callable[[bytes], bytes]]] = {
    "keyboard": (KeyFramer, typed),
    "hid-pos": (Reports, lambda text: b"".join(hid_reports.scan(HID_POS, text))),
}
"""What the kernel hands over in pieces of its own, key events and reports, as one stream of them."""
