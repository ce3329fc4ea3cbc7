"""Serial ports: open, read, frame, answer, and come back after an unplug, for as long as the daemon runs.

A port is named by a path that outlives the plug (`/dev/serial/by-id/...`), so that a scanner that comes back under
another number is found again. What pyserial raises for a port that is absent, taken, unplugged or of the wrong kind is
one and the same to us: wait and try again. The reader only frames and hands over; it never waits for the disk or the
network, because a port that is not read loses bytes in the kernel. A frame is handed over with a way to say what became
of it, which leads to the port it came from: after a replug that says nothing any more, and the scanner sends again.
"""

import asyncio
import functools
import random
import termios
import time
from collections.abc import Callable, Sequence
from typing import NoReturn, cast

import msgspec
import serial
import serial_asyncio

from devices.attached import Absent, NotAttached, node_of
from devices.config import SerialConfig
from devices.framing import Found, Frame, FrameFault, Framer, Reply, Signal
from devices.framing.datalogic import DatalogicFramer
from devices.framing.honeywell import HoneywellFramer
from devices.framing.newland import NewlandFramer
from devices.framing.raw import SUFFIXES, RawFramer
from devices.framing.ssi import SsiFramer
from devices.hotplug import Uevents
from devices.outbox import backoff_ms
from devices.scanner import (
    Capabilities,
    Feedback,
    OnPort,
    OnRead,
    Settle,
    State,
    Statistics,
    Tap,
    counted,
    nobody_listens,
    nobody_waits,
)

REOPEN_MS_FIRST = 100  # a scanner that was only re-enumerated is back within this
REOPEN_MS_MAX = 2000  # a person who plugs it in again should not have to wait longer
WRITES_WAITING_BYTES_MAX = 1024  # some ten answers; a scanner that takes none of them is not listening at all
# serial.SerialException is an OSError; termios.error is none. ValueError: a speed that the port does not have.
PORT_ERRORS = (OSError, ValueError, termios.error, NotAttached)
PARITIES = {"none": serial.PARITY_NONE, "even": serial.PARITY_EVEN, "odd": serial.PARITY_ODD}


def framer_for(scanner: SerialConfig) -> Framer:
    suffix, prefix = SUFFIXES[scanner.suffix], scanner.prefix.encode("latin-1")
    match scanner.framing:
        case "ssi":
            return SsiFramer(cordless=scanner.cordless)
        case "honeywell":
            return HoneywellFramer()
        case "newland":
            return NewlandFramer(scanner.lrc)
        case "datalogic":
            ack, not_on_file = scanner.label_ack, scanner.not_on_file
            return DatalogicFramer(suffix, prefix, scanner.gap_ms, label_ack=ack, not_on_file=not_on_file)
        case "raw":
            return RawFramer(suffix, prefix, scanner.gap_ms)


def capabilities_of(scanner: SerialConfig, framer: Framer) -> Capabilities:
    """Of a framing as it is configured: what its protocol gives the till, used or not by this model."""
    packets = scanner.framing in ("ssi", "honeywell", "newland")
    return Capabilities(
        ack=scanner.framing == "ssi" or scanner.label_ack,
        verdict_good=Signal.GOOD in framer.sounds,
        verdict_bad=Signal.BAD in framer.sounds,
        led=scanner.framing == "ssi",
        length_framed=packets,
        symbology=scanner.framing in ("ssi", "honeywell"),
    )


class SerialScanner:
    """One scanner of the configuration, and the port it is on while there is one."""

    def __init__(self, config: SerialConfig, on_read: OnRead, on_port: OnPort) -> None:
        self._config = config
        self._statistics = Statistics()
        self._on_read = counted(self._statistics, on_read)
        self._on_port = on_port
        self._framer = framer_for(config)  # outlives the port: a scan sent again after a replug is still the same
        self._port: _Port | None = None
        self.name = config.name
        self.capabilities = capabilities_of(config, self._framer)
        self.state = State.CLOSED
        self.tap: Tap = nobody_listens

    @property
    def statistics(self) -> Statistics:
        counts, framer = self._statistics, self._framer
        return msgspec.structs.replace(
            counts, dropped_bytes=framer.dropped_bytes, damaged=framer.damaged, resent=counts.resent + framer.copies
        )

    def feedback(self, signal: Signal) -> Feedback:
        if signal not in self._framer.sounds:
            return Feedback.UNSUPPORTED
        if self._port and self._port.write(self._framer.verdict_signal(signal, _monotonic_ms())):
            return Feedback.SENT
        return Feedback.LOST

    async def run(self) -> NoReturn:
        attempts, told = 0, ""
        with Uevents("tty") as uevents:
            while True:
                try:
                    lost = await self._read_until_lost()
                    self._statistics.lost += 1
                    attempts, told = 0, ""
                except PORT_ERRORS as error:
                    # What was unplugged is absent: that is no news.
                    lost = told if told and isinstance(error, Absent) else _reason(error)
                self.state = State.LOST
                if lost != told:
                    self._on_port(self._config.name, lost)
                    told = lost
                attempts += 1
                spread = random.random()  # noqa: S311 - jitter, no secret
                if await uevents.within(backoff_ms(attempts, REOPEN_MS_FIRST, REOPEN_MS_MAX, spread) / 1000):
                    attempts = 0

    async def _read_until_lost(self) -> str:
        loop = asyncio.get_running_loop()
        port = _Port(self._framer, self._emit, self.tap)
        transport, _ = await serial_asyncio.create_serial_connection(
            loop,
            lambda: port,
            node_of(self._config.path, "tty", lambda device: True),
            baudrate=self._config.baud,
            parity=PARITIES[self._config.parity],
            exclusive=True,  # two readers on one port would each get half of every scan
        )
        self._port = port
        self.state = State.READY
        self._statistics.opened += 1
        self._on_port(self._config.name, None)
        try:
            return await port.lost
        finally:
            self._port = None
            if not transport.is_closing():  # it forgets its loop when it is lost, and aborting it again would fail
                transport.abort()

    def _emit(self, found: Frame | FrameFault, settle: Settle) -> None:
        self._on_read(self._config.name, found, settle)


class _Port(asyncio.Protocol):
    """Feeds the framer, writes what it answers, and lets it know when silence has lasted long enough to matter."""

    def __init__(self, framer: Framer, emit: Callable[[Frame | FrameFault, Settle], None], tap: Tap) -> None:
        self._loop = asyncio.get_running_loop()
        self.lost: asyncio.Future[str] = self._loop.create_future()
        self._framer = framer
        self._emit = emit
        self._tap = tap
        self._transport: asyncio.WriteTransport | None = None
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.WriteTransport, transport)  # pyserial's claims the base only
        self.write(self._framer.greeting(_monotonic_ms()))

    def data_received(self, octets: bytes) -> None:
        self._tap(octets, False)
        self._give(self._framer.feed(octets, _monotonic_ms()))

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if self._timer:
            self._timer.cancel()
        for fault in self._framer.cut():
            self._emit(fault, nobody_waits)
        if not self.lost.done():
            self.lost.set_result(_reason(exc))

    def write(self, octets: bytes) -> bool:
        """False: the line is gone. A scanner that takes nothing of what it is sent is not sent more, and is as gone."""
        transport = self._transport
        if transport is None or transport.is_closing():
            return False
        room = transport.get_write_buffer_size() + len(octets) <= WRITES_WAITING_BYTES_MAX
        if octets and room:
            self._tap(octets, True)
            transport.write(octets)
        self._watch_silence()
        return room

    def _give(self, found: Sequence[Found]) -> None:
        for one in found:
            if isinstance(one, Reply):
                self.write(one.octets)
            elif isinstance(one, Frame):
                self._emit(one, functools.partial(self._settle, one))
            else:
                self._emit(one, nobody_waits)
        self._watch_silence()

    def _settle(self, frame: Frame, kept: bool) -> None:
        self.write(self._framer.settle(frame, kept, _monotonic_ms()))

    def _watch_silence(self) -> None:
        due_ms = self._framer.due_ms()
        if due_ms is None:
            return
        # One timer at a time: it looks again when it fires, so that a byte costs no timer of its own.
        due_in_s = max(0, due_ms - _monotonic_ms()) / 1000
        if self._timer and self._timer.when() <= self._loop.time() + due_in_s:
            return
        if self._timer:
            self._timer.cancel()
        self._timer = self._loop.call_later(due_in_s, self._look)

    def _look(self) -> None:
        self._timer = None
        self._give(self._framer.idle(_monotonic_ms()))


def _reason(error: Exception | None) -> str:
    if error is None:
        return "closed"
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def _monotonic_ms() -> int:
    return time.monotonic_ns() // 1_000_000
