"""Scanners that type: through uinput, through uhid with recorded reports, and a USB keyboard that QEMU plays."""

import asyncio
import contextlib
import glob
import os
import select
import struct
from collections.abc import Iterator
from typing import Any

import keys
import pytest
from hid_reports import CONST, DATA, DATA_VAR, INPUT, collection, main, page, usage, usages
from input_devices import PRODUCT, VENDOR, HidDevice, Wedge
from probe import Probe
from qemu_ports import Monitor
from waiting import until

from devices.config import KeyboardConfig
from devices.framing import FaultReason

PERSON_MS = 250  # an emulated scanner may need 50 ms a key; a person of these tests needs PERSON_S
PERSON_S = 0.5
WEDGE = f"usb:{VENDOR:04x}:{PRODUCT:04x}"
QEMU_KEYBOARD = "usb:0627:0001"
QUEUE_EVENTS = 16  # of QEMU's keyboard
BOOT_KEYBOARD = (
    page(0x01)
    + usage(0x06)
    + collection(  # USB HID 1.11, appendix B.1, without its lights
        1,
        page(0x07)
        + bytes((0x15, 0x00, 0x25, 0x01))
        + usages(0xE0, 0xE7)
        + main(INPUT, DATA_VAR, 1, 8)
        + main(INPUT, CONST, 8, 1)
        + bytes((0x26, 0xFF, 0x00))
        + usages(0x00, 0xFF)
        + main(INPUT, DATA, 8, 6),
    )
)
ALT = 0x04
RELEASED = bytes(8)


def lane(path: str = WEDGE, **settings: Any) -> Probe:
    return Probe(KeyboardConfig("lane1", path, **{"person_ms": PERSON_MS, **settings}))


async def scan(wedge: Wedge, text: str) -> None:
    for stroke in (*keys.strokes(text), (keys.ENTER,)):
        wedge.strike(stroke)
        await asyncio.sleep(0.001)


@pytest.fixture
def wedge() -> Iterator[Wedge]:
    with Wedge() as plugged:
        yield plugged


async def test_shift_control_and_both_cases_are_read_as_the_scanner_meant_them(wedge: Wedge) -> None:
    async with lane() as probe:
        await scan(wedge, 'Vch-1_{"$"}')
        await scan(wedge, "]C1010950600013435\x1d10AbC")
        assert await probe.until_read(2) == [b'Vch-1_{"$"}', b"]C1010950600013435\x1d10AbC"]
        assert not probe.faults


async def test_caps_lock_is_followed(wedge: Wedge) -> None:
    async with lane() as probe:
        wedge.strike((keys.CAPS_LOCK,))
        await scan(wedge, "abC-1$")
        wedge.strike((keys.CAPS_LOCK,))
        await scan(wedge, "abC-1$")
        assert await probe.until_read(2) == [b"ABc-1$", b"abC-1$"]


async def test_nobody_else_sees_a_code(wedge: Wedge) -> None:
    async with lane() as probe:
        others = [os.open(node, os.O_RDONLY | os.O_NONBLOCK) for node in glob.glob("/dev/input/event*")]
        try:
            await scan(wedge, "SECRET-1")
            await probe.until_read(1)
            assert not [code for other in others for code in keys_read_from(other)]
        finally:
            for other in others:
                os.close(other)
        async with lane().running() as second:
            await second.until_lost()
            await scan(wedge, "SECRET-2")
            assert await probe.until_read(2) == [b"SECRET-1", b"SECRET-2"]
            assert second.ports.count(None) == 0
            assert not second.frames


def keys_read_from(node: int) -> list[int]:
    """Codes of key events that wait there; lights of other keyboards may change at any time."""
    octets = b""
    while select.select([node], [], [], 0)[0]:
        octets += os.read(node, 4096)
    events = struct.iter_unpack("@llHHi", octets)
    return [code for _, _, kind, code, _ in events if kind == keys.EV_KEY]


async def test_more_keys_than_the_kernel_holds_are_a_fault_and_never_a_code(wedge: Wedge) -> None:
    async with lane() as probe:
        for stroke in keys.strokes("A" * 60 + "\r"):  # without letting the reader run in between
            wedge.strike(stroke)
        await until(lambda: probe.faults, "a fault")
        await asyncio.sleep(PERSON_S)  # nobody scans twice within less
        await scan(wedge, "AFTER-IT")
        assert await probe.until_read(1) == [b"AFTER-IT"]
        assert probe.faults == [FaultReason.OVERRUN]


async def test_what_a_person_types_is_no_scan(wedge: Wedge) -> None:
    async with lane() as probe:
        for stroke in keys.strokes("12345678\r"):
            wedge.strike(stroke)
            await asyncio.sleep(PERSON_S)
        await until(lambda: probe.faults, "word of the typing")
        await scan(wedge, "SCANNED-1")
        assert await probe.until_read(1) == [b"SCANNED-1"]
        assert set(probe.faults) == {FaultReason.TYPED}


async def test_pulled_out_in_the_middle_of_a_scan_and_plugged_in_again(wedge: Wedge) -> None:
    async with lane() as probe:
        await scan(wedge, "BEFORE")
        await probe.until_read(1)
        for stroke in keys.strokes("HALF-SC"):
            wedge.strike(stroke)
            await asyncio.sleep(0.001)
        wedge.unplug()
        await probe.until_lost()
        assert probe.faults == [FaultReason.CUT_OFF]
        with Wedge() as again:
            await probe.until_ready(2)
            await scan(again, "AFTER")
            assert await probe.until_read(2) == [b"BEFORE", b"AFTER"]


async def test_two_alike_are_told_apart_by_serial_number() -> None:
    with HidDevice(BOOT_KEYBOARD, "SN1") as one, HidDevice(BOOT_KEYBOARD, "SN2", port="test-2/input0") as two:
        async with lane(f"{WEDGE}:SN1") as first, lane(f"{WEDGE}:SN2") as second:
            one.send(typed("1"))
            two.send(typed("22"))
            assert await first.until_read(1) == [b"1"]
            assert await second.until_read(1) == [b"22"]
        async with lane(WEDGE).running() as either:
            await either.until_lost()
            assert "SN1" in str(either.ports)
            assert "SN2" in str(either.ports)


async def test_alt_mode_is_told_and_never_read() -> None:
    """Recorded: Alt with keypad 0, 8, 0 in one report; the kernel itself loses the second 0."""
    with HidDevice(BOOT_KEYBOARD) as scanner:
        async with lane() as probe:
            for pressed in (b"\x62\x60\x5b", b"\x62\x60\x62"):
                scanner.send((bytes((ALT, 0)) + pressed.ljust(6, b"\0"), RELEASED))
            scanner.send((bytes((0, 0, 0x28)).ljust(8, b"\0"), RELEASED))
            await until(lambda: probe.faults, "a fault")
            assert probe.faults == [FaultReason.ALT_CODES]
            assert not probe.frames


async def test_a_usb_keyboard_that_qemu_plays(monitor: Monitor) -> None:
    with plugged_into_qemu(monitor):
        async with lane(QEMU_KEYBOARD, person_ms=1000) as probe:
            await asyncio.sleep(0.5)  # QEMU gives a keyboard its keys once the driver has set it up
            press(monitor, "shift-v", "c", "minus", "1", "ret")
            assert await probe.until_read(1) == [b"Vc-1"]
            monitor.execute("device_del", id="kbd")
            await probe.until_lost()
            monitor.execute("device_add", driver="usb-kbd", id="kbd")
            await probe.until_ready(2)
            await asyncio.sleep(0.5)
            press(monitor, "shift-4", "9", "ret")
            assert await probe.until_read(2) == [b"Vc-1", b"$9"]


@contextlib.contextmanager
def plugged_into_qemu(monitor: Monitor) -> Iterator[None]:
    monitor.execute("device_add", driver="usb-kbd", id="kbd")
    try:
        yield
    finally:
        monitor.execute("device_del", id="kbd")


def press(monitor: Monitor, *strokes: str) -> None:
    """By QEMU's names, `shift-` before those with shift."""
    events = []
    for stroke in strokes:
        names = ("shift", stroke.removeprefix("shift-")) if stroke.startswith("shift-") else (stroke,)
        events += [_key(name, True) for name in names] + [_key(name, False) for name in reversed(names)]
    assert len(events) <= QUEUE_EVENTS
    monitor.execute("input-send-event", events=events)


def _key(name: str, down: bool) -> dict[str, object]:
    return {"type": "key", "data": {"down": down, "key": {"type": "qcode", "data": name}}}


def typed(digits: str) -> list[bytes]:
    reports = []
    for usage_number in (*(0x1D + int(digit) for digit in digits), 0x28):
        reports += [bytes((0, 0, usage_number)).ljust(8, b"\0"), RELEASED]
    return reports
