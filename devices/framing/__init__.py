"""What every framer gives and takes: bytes of one scanner in, whole frames or named faults out; no port, no clock."""

import enum
from typing import Protocol

import msgspec

from gateway.messages import CODE_CHARS_MAX

FRAME_BYTES_MAX = CODE_CHARS_MAX + 16  # the longest code plus AIM identifier, prefix and stray blanks


class FaultReason(enum.StrEnum):
    TOO_LONG = "too_long"  # no end within FRAME_BYTES_MAX: noise, or a wrong suffix in the configuration
    NO_PREFIX = "no_prefix"  # an end came, but what stood before it did not begin with the configured prefix
    CUT_OFF = "cut_off"  # the line fell silent or went away in the middle of a frame
    EMPTY = "empty"  # a frame with nothing but blanks and an identifier in it


class Frame(msgspec.Struct, frozen=True):
    """The delimited bytes of one scan, suffix and prefix removed, nothing else changed."""

    octets: bytes

    def __repr__(self) -> str:
        return f"Frame({len(self.octets)} bytes)"  # a frame holds a code: a bearer secret


class FrameFault(msgspec.Struct, frozen=True):
    """A scan that was lost on its way; `dropped_bytes` is what was thrown away up to the moment it was noticed."""

    reason: FaultReason
    dropped_bytes: int


class Framer(Protocol):
    """One per port. Times are monotonic milliseconds; the same bytes give the same frames however they are split."""

    @property
    def dropped_bytes(self) -> int:
        """All bytes that ever belonged to no frame, prefixes and suffixes not counted."""

    def feed(self, octets: bytes, now_ms: int) -> list[Frame | FrameFault]:
        """Take what one read gave."""

    def due_ms(self) -> int | None:
        """When silence alone will mean something: call `idle` then. None: never."""

    def idle(self, now_ms: int) -> list[Frame | FrameFault]:
        """Take note that nothing has come until now."""

    def cut(self) -> list[FrameFault]:
        """The line went away: forget half a frame, so that it is never glued to the next one."""
