"""The loop around a device node, and word of plugs from the kernel; real evdev and hidraw nodes are in tests/hardware.

Key events come through a pty, which can be pulled like a plug; it has no keys to be grabbed or asked for.
"""

import asyncio
import contextlib
import os
import socket
import time
import tty
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from keys import scan

from devices.config import HidPosConfig, KeyboardConfig
from devices.framing import FaultReason, Frame, FrameFault, Signal
from devices.hid_pos import HidPosScanner
from devices.hotplug import NETLINK_KOBJECT_UEVENT, Uevents, parse_uevent
from devices.keyboard import KeyboardScanner
from devices.scanner import Feedback, Settle, State

DEADLINE_S = 10.0
CODE = "VCH-7F00Q2"


class OverAPty(KeyboardScanner):
    def _claim(self, fd: int) -> None:
        tty.setraw(fd)


class Wedge:
    """The scanner's end: a pty that a link leads to, as udev's links do."""

    def __init__(self, link: Path) -> None:
        self._link = link
        self._port = -1

    def plug(self) -> None:
        self._port, far_end = os.openpty()
        os.set_blocking(self._port, False)
        tty.setraw(far_end)
        self._link.symlink_to(os.ttyname(far_end))
        self._far_end = far_end

    def unplug(self) -> None:
        self._link.unlink()
        os.close(self._port)
        os.close(self._far_end)

    def write(self, octets: bytes) -> None:
        while octets:
            octets = octets[os.write(self._port, octets[:1000]) :]

    def scan(self, text: str) -> None:
        self.write(scan(text, time.monotonic() * 1000))


class Till:
    def __init__(self, scanner: KeyboardScanner | HidPosScanner | None = None) -> None:
        self.scanner = scanner
        self.found: list[Frame | FrameFault] = []
        self.ports: list[str | None] = []

    def on_read(self, name: str, found: Frame | FrameFault, settle: Settle) -> None:
        self.found.append(found)
        settle(True)

    def on_port(self, name: str, lost: str | None) -> None:
        self.ports.append(lost)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        assert self.scanner
        task = asyncio.create_task(self.scanner.run())
        try:
            yield
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def until(self, count: int, of: list[object]) -> None:
        deadline = time.monotonic() + DEADLINE_S
        while len(of) < count:
            assert time.monotonic() < deadline, f"{self.ports} {self.found}"
            await asyncio.sleep(0.002)


@pytest.fixture
def wedge(tmp_path: Path) -> Wedge:
    return Wedge(tmp_path / "wedge")


def keyboard(path: Path | str, **settings: object) -> Till:
    till = Till()
    till.scanner = OverAPty(KeyboardConfig("lane1", str(path), **settings), till.on_read, till.on_port)  # type: ignore[arg-type]
    return till


async def test_scans_over_an_unplug_in_the_middle_of_one(wedge: Wedge, tmp_path: Path) -> None:
    till = keyboard(tmp_path / "wedge")
    assert till.scanner
    assert till.scanner.state is State.CLOSED
    async with till.running():
        await till.until(1, till.ports)
        assert till.scanner.state is State.LOST
        wedge.plug()
        await till.until(2, till.ports)
        assert till.scanner.state is State.READY
        for number in range(20):
            wedge.scan(f"{CODE}{number}")
            await till.until(number + 1, till.found)
        half = scan(CODE, time.monotonic() * 1000)
        wedge.write(half[: len(half) // 2 + 7])
        await asyncio.sleep(0.05)  # nothing can be seen of half a scan
        wedge.unplug()
        await till.until(3, till.ports)
        await asyncio.sleep(0.3)  # some attempts, which tell nothing new
        wedge.plug()
        await till.until(4, till.ports)
        wedge.scan("AFTER-IT")
        await till.until(22, till.found)
    told = [one.octets.decode() if isinstance(one, Frame) else one.reason for one in till.found]
    assert told == [*(f"{CODE}{number}" for number in range(20)), FaultReason.CUT_OFF, "AFTER-IT"]
    assert till.ports[1::2] == [None, None]
    assert till.ports[0] == f"No such file or directory ({tmp_path}/wedge)"
    assert till.ports[2] == "closed"
    counts = till.scanner.statistics
    assert (counts.reads, counts.opened, counts.lost, counts.faults) == (21, 2, 1, {FaultReason.CUT_OFF: 1})
    wedge.unplug()


async def test_silence_ends_what_has_no_suffix(wedge: Wedge, tmp_path: Path) -> None:
    till = keyboard(tmp_path / "wedge", suffix="none", gap_ms=50)
    wedge.plug()
    async with till.running():
        await till.until(1, till.ports)
        for number in (1, 2):
            wedge.write(scan(CODE, time.monotonic() * 1000, end=()))
            await till.until(number, till.found)
    assert till.found == [Frame(CODE.encode())] * 2
    wedge.unplug()


async def test_a_burst_that_was_not_read_for_a_while_is_read_whole(wedge: Wedge, tmp_path: Path) -> None:
    """The loop stands still longer than the silence that ends a scan; the times are those of the keys."""
    till = keyboard(tmp_path / "wedge", suffix="none", gap_ms=200)
    wedge.plug()
    async with till.running():
        await till.until(1, till.ports)
        events = scan(CODE, time.monotonic() * 1000, end=())
        wedge.write(events[:480])
        await asyncio.sleep(0.05)
        wedge.write(events[480:])
        time.sleep(0.4)  # noqa: ASYNC251 - this is the point
        await till.until(1, till.found)
    assert till.found == [Frame(CODE.encode())]
    wedge.unplug()


# --- what it says when it cannot --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", (KeyboardScanner, HidPosScanner), ids=("keyboard", "hid-pos"))
@pytest.mark.parametrize(
    ("path", "told"),
    (
        ("/dev/null", "not a device of this kind"),
        ("/dev/input/none", "No such file or directory (/dev/input/none)"),
        ("usb:ffff:fffe", "nothing attached is usb:ffff:fffe"),
        ("/", "Is a directory (/)"),
    ),
)
async def test_it_says_once_why_it_is_lost(kind: type[KeyboardScanner | HidPosScanner], path: str, told: str) -> None:
    config = KeyboardConfig("lane1", path) if kind is KeyboardScanner else HidPosConfig("lane1", path)
    till = Till()
    till.scanner = kind(config, till.on_read, till.on_port)  # type: ignore[arg-type]
    async with till.running():
        await till.until(1, till.ports)
        await asyncio.sleep(0.2)  # some attempts
    assert till.ports == [told]
    assert till.scanner.feedback(Signal.GOOD) is Feedback.UNSUPPORTED
    assert till.scanner.statistics.opened == 0


# --- uevents ----------------------------------------------------------------------------------------------------------


def test_a_message_of_the_kernel() -> None:
    octets = (
        b"add@/devices/x/hidraw/hidraw0\0ACTION=add\0DEVPATH=/devices/x\0SUBSYSTEM=hidraw\0DEVNAME=hidraw0\0SEQNUM=7\0"
    )
    assert parse_uevent(octets)["SUBSYSTEM"] == "hidraw"
    assert parse_uevent(b"libudev\0\xfe\xed\xca\xfe" + octets) == {}, "udevd's own format"


@given(octets=st.binary(max_size=200))
def test_any_message_is_parsed(octets: bytes) -> None:
    parse_uevent(octets)
    parse_uevent(b"add@/" + octets)


def told_again(action: str) -> None:
    try:
        Path("/sys/class/net/lo/uevent").write_text(action)
    except OSError as error:
        pytest.skip(f"uevents of the loopback device cannot be asked for here: {error.strerror}")


async def test_the_kernel_tells_what_comes_and_nobody_else() -> None:
    with Uevents("net") as net, Uevents("hidraw") as hidraw:
        if not net.listening:
            pytest.skip("no netlink socket for uevents here")
        told_again("remove")
        assert not await net.within(0.1), "what goes is told by its node"
        told_again("add")
        assert await net.within(DEADLINE_S)
        assert not await net.within(0), "once"
        assert not await hidraw.within(0.05)
        with socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, NETLINK_KOBJECT_UEVENT) as other:
            other.bind((0, 0))
            with contextlib.suppress(PermissionError):
                other.sendto(b"add@/x\0ACTION=add\0SUBSYSTEM=net\0", (os.getpid(), 1))
        assert not await net.within(0.1), "only the kernel is believed"


async def test_a_scanner_waits_no_longer_than_the_word_of_it() -> None:
    with Uevents("net") as net:
        if not net.listening:
            pytest.skip("no netlink socket for uevents here")
        waiting = asyncio.create_task(net.within(DEADLINE_S))
        await asyncio.sleep(0)
        begun_s = time.monotonic()
        told_again("change")
        assert await waiting
        assert time.monotonic() - begun_s < DEADLINE_S / 2
