"""Raw serial: a frame is what stands between two ends, with no length and no checksum.

The end is a suffix of one or two bytes, or, with no suffix, a silence of `gap_ms`. Bytes are kept until an end is
found; a frame that grows over FRAME_BYTES_MAX is a fault, told once, and everything up to the next end is skipped, so
that a stuck scanner cannot grow memory and noise costs at most the scan it touches. A line feed right after a carriage
return is the same end even when it comes in a later read (many scanners are set to CR LF where CR is configured). With
a suffix, a silence of CUT_OFF_MS in the middle of a frame is a fault too: half a scan must not be glued to the next
one, and a scanner that sends no suffix shows up at once instead of never. A CR inside a two-dimensional code cannot be
told from the suffix in this mode; only length-framed modes can carry one.
"""

from devices.framing import FRAME_BYTES_MAX, FaultReason, Frame, FrameFault, Framer

SUFFIXES = {"cr": b"\r", "lf": b"\n", "crlf": b"\r\n", "tab": b"\t", "etx": b"\x03", "none": b""}
GAP_MS_DEFAULT = 50  # USB serial may pause some milliseconds between 64-byte packets; a person needs 300 ms to rescan
CUT_OFF_MS = 2000  # no scanner pauses this long inside a frame, not even over Bluetooth
LINE_FEED = 0x0A


class RawFramer(Framer):
    """A `Framer` for scanners that send bare text. `prefix` (such as STX) is required when given, and removed."""

    def __init__(self, suffix: bytes, prefix: bytes = b"", gap_ms: int = GAP_MS_DEFAULT) -> None:
        assert suffix in SUFFIXES.values()
        self._suffix = suffix
        self._prefix = prefix
        self._silence_ms = CUT_OFF_MS if suffix else gap_ms
        self._buffer = bytearray()
        self._last_ms = 0
        self._skipping = False  # inside a frame that was too long
        self._after_cr = False  # the next byte, if a line feed, belongs to the end before it
        self._dropped_bytes = 0

    @property
    def dropped_bytes(self) -> int:
        return self._dropped_bytes

    def feed(self, octets: bytes, now_ms: int) -> list[Frame | FrameFault]:
        found = self.idle(now_ms)
        self._last_ms = now_ms
        self._buffer += octets
        if self._suffix:
            self._take_ended(found)
        self._bound(found)
        return found

    def due_ms(self) -> int | None:
        return self._last_ms + self._silence_ms if self._buffer or self._skipping else None

    def idle(self, now_ms: int) -> list[Frame | FrameFault]:
        found: list[Frame | FrameFault] = []
        due_ms = self.due_ms()
        if due_ms is None or now_ms < due_ms:
            return found
        self._drop_late_line_feed()
        if self._suffix:
            found.extend(self.cut())
        else:
            self._finish(len(self._buffer), found)
            self._buffer.clear()
        return found

    def cut(self) -> list[FrameFault]:
        lost, told = len(self._buffer), self._skipping
        self._buffer.clear()
        self._skipping = self._after_cr = False
        self._dropped_bytes += lost
        return [FrameFault(FaultReason.CUT_OFF, lost)] if lost and not told else []

    def _take_ended(self, found: list[Frame | FrameFault]) -> None:
        while True:
            self._drop_late_line_feed()
            end = self._buffer.find(self._suffix)
            if end < 0:
                return
            self._finish(end, found)
            del self._buffer[: end + len(self._suffix)]
            self._after_cr = self._suffix == b"\r"

    def _drop_late_line_feed(self) -> None:
        if self._after_cr and self._buffer:
            self._after_cr = False
            if self._buffer[0] == LINE_FEED:
                del self._buffer[0]

    def _finish(self, end: int, found: list[Frame | FrameFault]) -> None:
        if self._skipping:
            self._skipping = False
            self._dropped_bytes += end
        elif end > FRAME_BYTES_MAX:
            found.append(self._fault(FaultReason.TOO_LONG, end))
        elif end:
            found.extend(self._without_prefix(bytes(self._buffer[:end])))

    def _without_prefix(self, octets: bytes) -> list[Frame | FrameFault]:
        if not self._prefix:
            return [Frame(octets)]
        at = self._prefix_at(octets)
        if at < 0:
            return [self._fault(FaultReason.NO_PREFIX, len(octets))]
        self._dropped_bytes += at
        body = octets[at + len(self._prefix) :]
        return [Frame(body)] if body else []

    def _prefix_at(self, octets: bytes) -> int:
        # A control character never stands in a code, so the last one starts the frame and what precedes it is a scan
        # that was cut. A printable prefix may stand in a code as well: only the first place counts.
        if self._prefix[0] < 0x20:
            return octets.rfind(self._prefix)
        return 0 if octets.startswith(self._prefix) else -1

    def _bound(self, found: list[Frame | FrameFault]) -> None:
        """Too long is decided by content alone: an end could begin at the earliest after FRAME_BYTES_MAX bytes."""
        if not self._skipping and len(self._buffer) < FRAME_BYTES_MAX + max(1, len(self._suffix)):
            return
        surplus = len(self._buffer) - max(0, len(self._suffix) - 1)  # half a suffix may be waiting at the end
        if surplus > 0:
            del self._buffer[:surplus]
            self._dropped_bytes += surplus
        if not self._skipping:
            found.append(FrameFault(FaultReason.TOO_LONG, surplus))
        self._skipping = True

    def _fault(self, reason: FaultReason, dropped_bytes: int) -> FrameFault:
        self._dropped_bytes += dropped_bytes
        return FrameFault(reason, dropped_bytes)
