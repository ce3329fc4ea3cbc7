"""Datalogic serial scanners: bare text as in raw framing, single characters from the host as commands.

With label ACK on (`$CR2AE0001` in the manuals' notation) the scanner waits for 06 after each read: written when the
journal has it. A read the journal refused is left without an answer, because a NAK asks for the same label again. `F`,
"not on file", sounds long beeps and disables the scanner until `E` comes, so the two always go together, and `E` is
sent at connect as well: a till that died between them must not leave the scanner dead.

Sources: PowerScan programming manual appendix E, Magellan host commands.
"""

from collections.abc import Sequence

from devices.framing import Frame, FrameFault, Signal
from devices.framing.raw import RawFramer

ACK = b"\x06"
ENABLE, NOT_ON_FILE = b"E", b"F"
GOOD_READ_FORCED, LOW_TONE = b"\x01", b"34\r"  # forced: also where the beeper is set to off


class DatalogicFramer(RawFramer):
    """`not_on_file`: refusals as `F` then `E`, for models without the low tone."""

    sounds = frozenset((Signal.GOOD, Signal.BAD))

    def __init__(self, suffix: bytes, prefix: bytes, gap_ms: int, *, label_ack: bool, not_on_file: bool) -> None:
        super().__init__(suffix, prefix, gap_ms)
        self._label_ack = label_ack
        self._bad = NOT_ON_FILE + ENABLE if not_on_file else LOW_TONE
        self._latest: Frame | None = None

    def greeting(self, now_ms: int) -> bytes:
        return ENABLE

    def feed(self, octets: bytes, now_ms: int) -> list[Frame | FrameFault]:
        return self._remember(super().feed(octets, now_ms))

    def idle(self, now_ms: int) -> list[Frame | FrameFault]:
        return self._remember(super().idle(now_ms))

    def settle(self, frame: Frame, kept: bool, now_ms: int) -> bytes:
        # A late ACK would be taken for the one of the label that came since.
        return ACK if kept and self._label_ack and frame is self._latest else b""

    def verdict_signal(self, signal: Signal, now_ms: int) -> bytes:
        return {Signal.GOOD: GOOD_READ_FORCED, Signal.BAD: self._bad}.get(signal, b"")

    def _remember(self, found: Sequence[Frame | FrameFault]) -> list[Frame | FrameFault]:
        self._latest = next((one for one in reversed(found) if isinstance(one, Frame)), self._latest)
        return list(found)
