"""What every framer gives and takes: bytes of one scanner in, whole frames or named faults out; no port, no clock.

A protocol that answers its scanner has two signals, and they never mean the same. The transport's ACK means "in the
journal": a framer hands out a frame, and writes the ACK only when `settle` says that the journal has it. The verdict is
a second signal, and comes when the gateway has answered. `Reply` is for what needs no journal: a request to send a
damaged packet again, an answer to something that is no scan, or the ACK of a frame that was settled before.
"""

import enum
from collections.abc import Sequence
from typing import Protocol

import msgspec

from gateway.messages import CODE_CHARS_MAX

FRAME_BYTES_MAX = CODE_CHARS_MAX + 16  # the longest code plus AIM identifier, prefix and stray blanks
RESENT_MS = 6000  # three times the 2 s a scanner waits for its ACK before it sends again: later it is a new scan


class FaultReason(enum.StrEnum):
    TOO_LONG = "too_long"  # no end within FRAME_BYTES_MAX: noise, or a wrong suffix in the configuration
    NO_PREFIX = "no_prefix"  # an end came, but what stood before it did not begin with the configured prefix
    CUT_OFF = "cut_off"  # the line fell silent or went away in the middle of a frame, or a part of it is missing
    EMPTY = "empty"  # a frame with nothing but blanks and an identifier in it
    CHECKSUM = "checksum"  # the bytes do not match their checksum, and no sound copy came
    TYPED = "typed"  # keys of a person, on a keyboard that is a scanner: they follow each other too slowly for one
    ALT_CODES = "alt_codes"  # a scanner that types Alt and digits, which the kernel does not hand on whole
    UNKNOWN_KEY = "unknown_key"  # a key without a character in the configured layout
    OVERRUN = "overrun"  # the kernel dropped a part, because this program did not read for too long
    STRAY = "stray"  # bytes outside of any packet: noise, or a scanner that is not set to this protocol
    SEVERAL = "several"  # more than one code before the camera: which one is meant is not for us to guess
    NO_CODE = "no_code"  # a picture file in which there is none, or none that can be read
    NOT_A_PICTURE = "not_a_picture"  # a file that no picture comes of: damaged, too large, or something else


class Frame(msgspec.Struct, frozen=True):
    """The delimited bytes of one scan, suffix and prefix removed, nothing else changed."""

    octets: bytes
    aim: str = ""  # AIM identifier, like `]Q1`, where the protocol names the symbology outside of `octets`
    resent: bool = False  # the scanner says that it sent these bytes before and heard no ACK

    def __repr__(self) -> str:
        return f"Frame({len(self.octets)} bytes)"  # a frame holds a code: a bearer secret


class FrameFault(msgspec.Struct, frozen=True):
    """A scan that was lost on its way; `dropped_bytes` (of a keyboard: keys) were thrown away until it was noticed."""

    reason: FaultReason
    dropped_bytes: int


class Reply(msgspec.Struct, frozen=True):
    """Bytes to write back at once."""

    octets: bytes


class Signal(enum.Enum):
    """What a scanner can be made to sound or show of a scan it was ACKed for."""

    GOOD = "good"  # accepted
    BAD = "bad"  # refused, or not taken
    WAIT = "wait"  # kept, but nothing is decided yet: must not sound like a yes


Found = Frame | FrameFault | Reply


class Framer(Protocol):
    """One per scanner, kept over replugs. Times are monotonic milliseconds.

    The same bytes give the same frames however they are split. What is not overridden here is right for a scanner that
    does not listen.
    """

    sounds: frozenset[Signal] = frozenset()  # what it can be made to sound
    damaged: int = 0  # packets that did not match their checksum or broke off, sound copies after them or not
    copies: int = 0  # packets that were sent again though they had been taken: their ACK did not arrive

    @property
    def dropped_bytes(self) -> int:
        """All bytes that ever belonged to no frame, prefixes and suffixes not counted."""

    def greeting(self, now_ms: int) -> bytes:
        """What to write when the port has opened."""
        return b""

    def feed(self, octets: bytes, now_ms: int) -> Sequence[Found]:
        """Take what one read gave."""

    def due_ms(self) -> int | None:
        """When silence alone will mean something: call `idle` then. None: never."""

    def idle(self, now_ms: int) -> Sequence[Found]:
        """Take note that nothing has come until now."""

    def cut(self) -> Sequence[FrameFault]:
        """The line went away: forget half a frame, so that it is never glued to the next one."""

    def settle(self, frame: Frame, kept: bool, now_ms: int) -> bytes:
        """What to write now that the journal has this frame (`kept`), or has refused it."""
        return b""

    def verdict_signal(self, signal: Signal, now_ms: int) -> bytes:
        """What to write to have the scanner sound it; empty too where it is sent later, behind another command."""
        return b""
