"""One interface for all scanners, whatever they hang on: serial port, keyboard, HID POS, camera, the cashier's page.

Semantics follow UnifiedPOS and Windows PointOfService: a device is claimed for this program alone, delivers reads while
it is enabled, says what it is able to do, and counts what it did. A scanner hands over frames and faults and never
waits for the disk or the network; what became of a read reaches it twice, by `Settle` (in the journal, or not) and by
`feedback` (the verdict).
"""

import enum
import time
from collections.abc import Callable
from typing import NoReturn, Protocol

import msgspec

from devices.framing import FaultReason, Frame, FrameFault, Signal
from devices.scan import scan_of

Settle = Callable[[bool], None]  # to be called once for each frame and fault: whether the journal has it
OnRead = Callable[[str, Frame | FrameFault, Settle], None]  # the scanner's name, what it read, how to settle it
Tap = Callable[[bytes, bool], None]  # all bytes of the line as they pass; whether they are ours
OnPort = Callable[[str, str | None], None]  # scanner name; why it is lost, None: it is ready


class Capabilities(msgspec.Struct, frozen=True):
    """What a kind of scanner can do. Nothing is assumed of one that says nothing."""

    ack: bool = False  # it waits for "in the journal", and sends again what it heard nothing about
    verdict_good: bool = False  # it can sound or show a yes
    verdict_bad: bool = False  # ... and a no
    led: bool = False
    length_framed: bool = False  # a code with CR, LF or GS in it arrives whole
    symbology: bool = False  # it names the symbology (AIM identifier) outside of the text


class State(enum.StrEnum):
    CLOSED = "closed"  # not running
    LOST = "lost"  # absent, unplugged or taken by another program: it is looked for
    READY = "ready"  # claimed for us alone, and enabled


class Feedback(enum.StrEnum):
    """What became of a signal for the scanner. None of them is an error: the screen tells the verdict anyhow."""

    SENT = "sent"
    UNSUPPORTED = "unsupported"
    LOST = "lost"  # nobody is on the line


class Statistics(msgspec.Struct):
    """Counts since the daemon started."""

    reads: int = 0  # frames handed over
    faults: dict[FaultReason, int] = msgspec.field(default_factory=dict)
    damaged: int = 0  # packets with a wrong checksum, also where a sound copy came afterwards
    resent: int = 0  # frames and packets that the scanner said it had sent before
    refused: int = 0  # frames the journal did not take: no ACK was given
    dropped_bytes: int = 0  # belonged to no frame
    opened: int = 0
    lost: int = 0
    last_read_ms: int = 0  # UTC epoch, 0: none yet


class Scanner(Protocol):
    """One scanner of the configuration, over all its replugs."""

    @property
    def name(self) -> str: ...

    @property
    def capabilities(self) -> Capabilities: ...

    @property
    def statistics(self) -> Statistics: ...

    @property
    def state(self) -> State: ...

    def feedback(self, signal: Signal) -> Feedback:
        """Have it sound or show a verdict, if it is there and can."""

    async def run(self) -> NoReturn:
        """Claim it, enable it, read for ever, and come back after each loss. `on_port` hears each change once."""


def nobody_listens(octets: bytes, ours: bool) -> None:
    """What a line is tapped with while nobody looks at its bytes."""


def nobody_waits(kept: bool) -> None:
    """What a fault is settled with, and a frame of a scanner that does not listen."""


def counted(statistics: Statistics, on_read: OnRead) -> OnRead:
    """The same, and everything handed over is counted in `statistics`, with what the journal said of it."""

    def count(name: str, found: Frame | FrameFault, settle: Settle) -> None:
        read = scan_of(found, name) if isinstance(found, Frame) else found  # a whole frame may hold no code
        if isinstance(read, FrameFault):
            statistics.faults[read.reason] = statistics.faults.get(read.reason, 0) + 1
        if isinstance(found, FrameFault):
            on_read(name, found, settle)
            return
        statistics.reads += 1
        statistics.resent += found.resent
        statistics.last_read_ms = time.time_ns() // 1_000_000

        def settled(kept: bool) -> None:
            statistics.refused += not kept and not isinstance(read, FrameFault)
            settle(kept)

        on_read(name, found, settled)

    return count
