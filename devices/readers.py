"""Serial ports: open, read, frame, and come back after an unplug, for as long as the daemon runs.

A port is named by a path that outlives the plug (`/dev/serial/by-id/...`), so that a scanner that comes back under
another number is found again. What pyserial raises for a port that is absent, taken, unplugged or of the wrong kind is
one and the same to us: wait and try again. The reader only frames and hands over; it never waits for the disk or the
network, because a port that is not read loses bytes in the kernel.
"""

import asyncio
import random
import termios
import time
from collections.abc import Callable
from typing import NoReturn

import serial
import serial_asyncio

from devices.config import ScannerConfig
from devices.framing import Frame, FrameFault, Framer
from devices.framing.raw import SUFFIXES, RawFramer
from devices.outbox import backoff_ms

REOPEN_MS_FIRST = 100  # a scanner that was only re-enumerated is back within this
REOPEN_MS_MAX = 2000  # a person who plugs it in again should not have to wait longer
PORT_ERRORS = (OSError, termios.error)  # serial.SerialException is an OSError; termios.error is none
PARITIES = {"none": serial.PARITY_NONE, "even": serial.PARITY_EVEN, "odd": serial.PARITY_ODD}

OnRead = Callable[[str, Frame | FrameFault], None]
OnPort = Callable[[str, str | None], None]  # scanner name; why it is lost, None: it is ready


def framer_for(scanner: ScannerConfig) -> Framer:
    assert scanner.framing == "raw"
    return RawFramer(SUFFIXES[scanner.suffix], scanner.prefix.encode("latin-1"), scanner.gap_ms)


async def read_scanner(scanner: ScannerConfig, on_read: OnRead, on_port: OnPort) -> NoReturn:
    """Read one scanner for ever. `on_port` hears each change once, not each attempt."""
    attempts, told = 0, ""
    while True:
        try:
            lost = await _read_until_lost(scanner, on_read, on_port)
            attempts, told = 0, ""
        except PORT_ERRORS as error:
            lost = _reason(error)
        if lost != told:
            on_port(scanner.name, lost)
            told = lost
        attempts += 1
        spread = random.random()  # noqa: S311 - jitter, no secret
        await asyncio.sleep(backoff_ms(attempts, REOPEN_MS_FIRST, REOPEN_MS_MAX, spread) / 1000)


async def _read_until_lost(scanner: ScannerConfig, on_read: OnRead, on_port: OnPort) -> str:
    loop = asyncio.get_running_loop()
    port = _Port(framer_for(scanner), lambda found: on_read(scanner.name, found))
    transport, _ = await serial_asyncio.create_serial_connection(
        loop,
        lambda: port,
        scanner.path,
        baudrate=scanner.baud,
        parity=PARITIES[scanner.parity],
        exclusive=True,  # two readers on one port would each get half of every scan
    )
    on_port(scanner.name, None)
    try:
        return await port.lost
    finally:
        if not transport.is_closing():  # it forgets its loop when it is lost, and aborting it again would fail
            transport.abort()


class _Port(asyncio.Protocol):
    """Feeds the framer, and lets it know when silence has lasted long enough to mean something."""

    def __init__(self, framer: Framer, emit: Callable[[Frame | FrameFault], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self.lost: asyncio.Future[str] = self._loop.create_future()
        self._framer = framer
        self._emit = emit
        self._timer: asyncio.TimerHandle | None = None

    def data_received(self, octets: bytes) -> None:
        self._give(self._framer.feed(octets, _monotonic_ms()))

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer:
            self._timer.cancel()
        for fault in self._framer.cut():
            self._emit(fault)
        if not self.lost.done():
            self.lost.set_result(_reason(exc))

    def _give(self, found: list[Frame | FrameFault]) -> None:
        for one in found:
            self._emit(one)
        due_ms = self._framer.due_ms()
        # One timer at a time: it looks again when it fires, so that a byte costs no timer of its own.
        if due_ms is not None and self._timer is None:
            self._timer = self._loop.call_later(max(0, due_ms - _monotonic_ms()) / 1000, self._look)

    def _look(self) -> None:
        self._timer = None
        self._give(self._framer.idle(_monotonic_ms()))


def _reason(error: Exception | None) -> str:
    if error is None:
        return "closed"
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def _monotonic_ms() -> int:
    return time.monotonic_ns() // 1_000_000
