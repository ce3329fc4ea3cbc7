"""What scanners on a device node have in common: find it, claim it, read it, and come back after an unplug.

A subclass knows its kind of node. The node is read from the event loop, everything that waits at once, so that the
kernel never has to drop (evdev holds some 20 keys, hidraw 63 reports) and so that silence, which ends some scans, is
only believed when nothing waits.
"""

import abc
import asyncio
import errno
import os
import random
import time
from collections.abc import Sequence
from typing import ClassVar, NoReturn

from devices.attached import Absent, Attached, NotAttached, node_of
from devices.framing import Found, Framer, Reply, Signal
from devices.framing.hid_descriptor import DescriptorFault
from devices.hotplug import Uevents
from devices.outbox import backoff_ms
from devices.scanner import Capabilities, Feedback, OnPort, OnRead, State, Statistics, counted, nobody_waits

REOPEN_MS_FIRST = 50  # udevd needs about this long to give a new node its group
REOPEN_MS_MAX = 2000  # where no uevents are heard, a person should not have to wait longer
READ_BYTES = 16_384  # the longest report; 680 key events
READS_MAX = 64  # what hidraw holds; a device that never pauses must not hold up the loop
ABSENT = (Absent, FileNotFoundError)
OPEN_ERRORS = (OSError, NotAttached, DescriptorFault)
RULES = "install ops/udev/70-tillgate-scanners.rules and give the user of this program the group `tillgate-scanners`"
ADVICE = {
    errno.EACCES: f"no permission: {RULES}",
    errno.EPERM: f"no permission: {RULES}",
    errno.EBUSY: "taken by another program",
    errno.EAGAIN: "taken by another program",
    errno.ENODEV: "unplugged",
    errno.EIO: "unplugged",
    errno.ENOTTY: "not a device of this kind",
}


class NodeScanner(abc.ABC):
    """A `Scanner` on an evdev or hidraw node."""

    SUBSYSTEM: ClassVar[str]

    def __init__(self, name: str, path: str, framer: Framer, on_read: OnRead, on_port: OnPort) -> None:
        self.name = name
        self.state = State.CLOSED
        self._path = path
        self._framer = framer
        self._statistics = Statistics()
        self._on_read = counted(self._statistics, on_read)
        self._on_port = on_port
        self._fd = -1
        self._lost: asyncio.Future[str] | None = None
        self._timer: asyncio.TimerHandle | None = None

    @property
    @abc.abstractmethod
    def capabilities(self) -> Capabilities: ...

    @abc.abstractmethod
    def _fits(self, device: Attached) -> bool:
        """Whether a node of the device is of this kind."""

    @abc.abstractmethod
    def _claim(self, fd: int) -> None:
        """Take a node that was just opened for us alone. Raises one of OPEN_ERRORS."""

    def feedback(self, signal: Signal) -> Feedback:
        return Feedback.UNSUPPORTED

    @property
    def statistics(self) -> Statistics:
        self._statistics.dropped_bytes = self._framer.dropped_bytes
        return self._statistics

    async def run(self) -> NoReturn:
        attempts, told = 0, ""
        with Uevents(self.SUBSYSTEM) as uevents:
            while True:
                try:
                    lost = await self._read_until_lost()
                    self._statistics.lost += 1
                    attempts, told = 0, ""
                except OPEN_ERRORS as error:
                    # What was unplugged is absent: that is no news.
                    lost = told if told and isinstance(error, ABSENT) else _reason(error)
                self.state = State.LOST
                if lost != told:
                    self._on_port(self.name, lost)
                    told = lost
                attempts += 1
                spread = random.random()  # noqa: S311 - jitter, no secret
                if await uevents.within(backoff_ms(attempts, REOPEN_MS_FIRST, REOPEN_MS_MAX, spread) / 1000):
                    attempts = 0

    async def _read_until_lost(self) -> str:
        loop = asyncio.get_running_loop()
        self._lost = loop.create_future()
        self._fd = os.open(
            node_of(self._path, self.SUBSYSTEM, self._fits), os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
        )
        try:
            self._claim(self._fd)
            self.state = State.READY
            self._statistics.opened += 1
            self._on_port(self.name, None)
            loop.add_reader(self._fd, self._read)
            return await self._lost
        finally:
            loop.remove_reader(self._fd)
            os.close(self._fd)  # which gives back what was claimed
            self._fd = -1
            self._give(self._framer.cut())
            if self._timer:
                self._timer.cancel()
                self._timer = None

    def _read(self) -> None:
        for _ in range(READS_MAX):
            try:
                octets = os.read(self._fd, READ_BYTES)
            except BlockingIOError:
                break
            except OSError as error:
                self._lose(_reason(error))
                return
            if not octets:
                self._lose("closed")
                return
            self._give(self._feed(octets))
        self._watch_silence()

    def _feed(self, octets: bytes) -> Sequence[Found]:
        return self._framer.feed(octets, _monotonic_ms())

    def _lose(self, reason: str) -> None:
        asyncio.get_running_loop().remove_reader(self._fd)
        if self._lost and not self._lost.done():
            self._lost.set_result(reason)

    def _give(self, found: Sequence[Found]) -> None:
        for one in found:
            assert not isinstance(one, Reply)
            self._on_read(self.name, one, nobody_waits)

    def _watch_silence(self) -> None:
        due_ms = self._framer.due_ms()
        if due_ms is not None and self._timer is None:  # one timer at a time: it looks again when it fires
            due_in_s = max(0, due_ms - _monotonic_ms()) / 1000
            self._timer = asyncio.get_running_loop().call_later(due_in_s, self._look)

    def _look(self) -> None:
        self._timer = None
        self._give(self._framer.idle(_monotonic_ms()))
        self._watch_silence()


def _reason(error: Exception) -> str:
    if isinstance(error, OSError):
        told = ADVICE.get(error.errno or 0) or error.strerror or type(error).__name__
        return f"{told} ({error.filename})" if error.filename else told
    return str(error)


def _monotonic_ms() -> int:
    return time.monotonic_ns() // 1_000_000
