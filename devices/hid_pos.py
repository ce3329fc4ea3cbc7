"""HID POS scanners, through hidraw (linux/hidraw.h): the only ones of USB's own classes that can be answered.

hidraw has no exclusive use; a lock on the node keeps a second till from it, and no other kind of program is known to
read scanners there. What is written may take the seconds that USB gives a device that does not answer, so it is done
in a thread, one at a time.
"""

import asyncio
import contextlib
import fcntl
import os
import struct
from collections.abc import Callable, Sequence
from typing import NoReturn, TypeVar

from devices.attached import Attached
from devices.config import HidPosConfig
from devices.framing import Found, Signal
from devices.framing.hid_descriptor import DESCRIPTOR_BYTES_MAX, DescriptorFault
from devices.framing.hid_pos import HidPosFramer
from devices.node_scanner import NodeScanner
from devices.scanner import Capabilities, Feedback, OnPort, OnRead, State, Tap, nobody_listens

HIDIOCGRDESCSIZE, HIDIOCGRDESC, HIDIOCGRAWINFO = 0x80044801, 0x90044802, 0x80084803
HIDIOCSFEATURE = 0xC0004806  # the length of the report goes into bits 16 to 29
SIGNALS_WAITING_MAX = 4  # a cashier is told of no more scans at once; a scanner that takes none is not listening
T = TypeVar("T")
LIGHT_S = 0.5  # long enough to be seen, over before the next scan


class HidPosScanner(NodeScanner):
    SUBSYSTEM = "hidraw"

    def __init__(self, config: HidPosConfig, on_read: OnRead, on_port: OnPort) -> None:
        framer = HidPosFramer()
        super().__init__(config.name, config.path, framer, on_read, on_port)
        self._reports = framer
        self.tap: Tap = nobody_listens
        self._signals: asyncio.Queue[Signal | None] = asyncio.Queue(SIGNALS_WAITING_MAX)  # None: it was just opened

    @property
    def capabilities(self) -> Capabilities:
        """Of the device as it described itself when it was last attached."""
        sounds = self._reports.sounds
        return Capabilities(
            verdict_good=Signal.GOOD in sounds,
            verdict_bad=Signal.BAD in sounds,
            led=bool(self._reports.led_off),
            length_framed=True,
            symbology=True,
        )

    def _feed(self, octets: bytes) -> Sequence[Found]:
        self.tap(octets, False)
        return super()._feed(octets)

    def feedback(self, signal: Signal) -> Feedback:
        if signal not in self._reports.sounds:
            return Feedback.UNSUPPORTED
        if self.state is not State.READY or self._signals.full():
            return Feedback.LOST
        self._signals.put_nowait(signal)
        return Feedback.SENT

    async def run(self) -> NoReturn:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._sound())
            await super().run()
        raise AssertionError("both run for ever")

    def _fits(self, device: Attached) -> bool:
        return is_hid_pos(device)

    def _claim(self, fd: int) -> None:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self._reports.describe(descriptor_of(fd))
        while not self._signals.empty():
            self._signals.get_nowait()  # for the one that was here before
        self._signals.put_nowait(None)

    async def _sound(self) -> NoReturn:
        while True:
            signal = await self._signals.get()
            if signal is None:
                await self._write(redirect, self._reports)
                continue
            await self._send(self._reports.verdict_signal(signal, 0))
            if signal is Signal.GOOD and self._reports.led_off:
                await asyncio.sleep(LIGHT_S)
                await self._send(self._reports.led_off)

    async def _send(self, report: bytes) -> None:
        self.tap(report, True)
        await self._write(os.write, report)

    async def _write(self, write: Callable[[int, T], object], what: T) -> None:
        if self._fd < 0:
            return
        fd = os.dup(self._fd)  # the node may be closed, and its number be used again, before the thread writes

        def write_and_close() -> None:
            # Gone, or deaf: the reader notices the one, and the screen tells the verdict anyhow.
            with contextlib.suppress(OSError):
                write(fd, what)
            os.close(fd)

        await asyncio.to_thread(write_and_close)


def redirect(fd: int, reports: HidPosFramer) -> None:
    """Have the scanner send its scans here, if it is one that must be told. May take seconds; raises `OSError`."""
    _, vendor, _ = struct.unpack("@IHH", fcntl.ioctl(fd, HIDIOCGRAWINFO, bytes(8)))
    if report := reports.redirection(vendor):
        fcntl.ioctl(fd, HIDIOCSFEATURE | len(report) << 16, report)


def is_hid_pos(device: Attached) -> bool:
    """Whether a hidraw node is the interface that a HID POS scanner sends its scans on."""
    try:
        HidPosFramer().describe(device.descriptor)
    except DescriptorFault:
        return False
    return True


def descriptor_of(fd: int) -> bytes:
    """The report descriptor of a hidraw node. Raises `OSError`, also for what is no hidraw node."""
    (size,) = struct.unpack("i", fcntl.ioctl(fd, HIDIOCGRDESCSIZE, bytes(4)))
    answer = bytearray(struct.pack("I", size) + bytes(DESCRIPTOR_BYTES_MAX))
    fcntl.ioctl(fd, HIDIOCGRDESC, answer)
    return bytes(answer[4 : 4 + size])
