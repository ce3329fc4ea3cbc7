"""HID POS scanners: through uhid, and as USB devices on a dummy controller; what the till sounds arrives at them."""

import asyncio
from collections.abc import Iterator

import pytest
from hid_reports import DEVICES, scan
from input_devices import PRODUCT, VENDOR, HidDevice
from probe import Probe
from usb_gadgets import FarEnd, Gadgets
from waiting import until

from devices.config import HidPosConfig
from devices.framing import FaultReason, Signal
from devices.scanner import Feedback

SCANNER = f"usb:{VENDOR:04x}:{PRODUCT:04x}"
GADGET = "usb:1209:0001:TG-POS"
GOOD, BAD = b"\x04\x40", b"\x04\x20"
LONG = bytes(range(1, 256)) * 3 + b"\r\n\x1d"
BURST = [b"BURST-%03d" % number for number in range(200)]
AT_ONCE = 30  # reports; hidraw holds 63 and drops the newest
UNDER_LOAD = 40


def lane(path: str = SCANNER) -> Probe:
    return Probe(HidPosConfig("lane1", path))


@pytest.fixture
def scanner() -> Iterator[HidDevice]:
    with HidDevice(DEVICES["honeywell"].descriptor) as plugged:
        yield plugged


@pytest.mark.parametrize("maker", DEVICES)
async def test_each_layout_is_read_by_its_own_descriptor(maker: str) -> None:
    device = DEVICES[maker]
    with HidDevice(device.descriptor) as scanner:
        async with lane() as probe:
            scanner.send(scan(device, b"VCH-1", b"]d2"))
            scanner.send(scan(device, LONG))
            scanner.send(scan(device, b"x" * 56))
            scanner.send(scan(device, b"VCH-2"))
            assert await probe.until_read(4) == [b"VCH-1", LONG.removesuffix(b"\r\n"), b"x" * 56, b"VCH-2"]
            assert [frame.aim for frame in probe.frames] == ["]d2", "]Q1", "]Q1", "]Q1"]
            assert not probe.faults


@pytest.mark.parametrize("maker", ("honeywell", "no count"))
async def test_the_verdict_is_heard_at_the_device(maker: str) -> None:
    with HidDevice(DEVICES[maker].descriptor) as scanner:
        async with lane() as probe:
            for signal, report in ((Signal.GOOD, GOOD), (Signal.BAD, BAD)):
                assert probe.scanner.feedback(signal) is Feedback.SENT
                await until(lambda report=report: scanner.has_heard(report), f"{report.hex()} at the device")  # type: ignore[misc]
            assert scanner.outputs == [GOOD, BAD]


async def test_a_scanner_without_beeps_is_not_sent_any() -> None:
    with HidDevice(DEVICES["compact"].descriptor):
        async with lane() as probe:
            assert probe.scanner.feedback(Signal.GOOD) is Feedback.UNSUPPORTED
            assert not probe.scanner.capabilities.verdict_good


async def test_a_honeywell_is_told_once_to_send_its_scans_here(scanner: HidDevice) -> None:
    async with lane().running() as probe:
        await until(lambda: scanner.listen() and scanner.features, "the feature report")
        await probe.until_ready()
        assert scanner.features == [b"\xfe\x01"]


async def test_a_burst_loses_nothing(scanner: HidDevice) -> None:
    async with lane() as probe:
        for at in range(0, len(BURST), AT_ONCE):
            for code in BURST[at : at + AT_ONCE]:
                scanner.send(scan(DEVICES["honeywell"], code))
            await probe.until_read(min(at + AT_ONCE, len(BURST)))
        assert probe.texts == BURST
        assert not probe.faults


async def test_pulled_out_between_two_pieces_of_a_scan(scanner: HidDevice) -> None:
    async with lane() as probe:
        scanner.send(scan(DEVICES["honeywell"], b"BEFORE"))
        await probe.until_read(1)
        scanner.send(scan(DEVICES["honeywell"], b"h" * 100)[:1])
        await asyncio.sleep(0)
        scanner.unplug()
        await probe.until_lost()
        assert probe.texts == [b"BEFORE"]
        assert set(probe.faults) <= {FaultReason.CUT_OFF}
        with HidDevice(DEVICES["compact"].descriptor) as other:  # the same plug, another layout
            await probe.until_ready(2)
            other.send(scan(DEVICES["compact"], b"AFTER"))
            assert await probe.until_read(2) == [b"BEFORE", b"AFTER"]


async def test_two_alike_are_told_apart_by_serial_number(scanner: HidDevice) -> None:
    with HidDevice(DEVICES["honeywell"].descriptor, "SN2", port="test-2/input0") as twin:
        async with lane(f"{SCANNER}:SN1") as first, lane(f"{SCANNER}:SN2") as second:
            twin.send(scan(DEVICES["honeywell"], b"OF TWO"))
            scanner.send(scan(DEVICES["honeywell"], b"OF ONE"))
            assert await first.until_read(1) == [b"OF ONE"]
            assert await second.until_read(1) == [b"OF TWO"]
            assert second.scanner.feedback(Signal.GOOD) is Feedback.SENT
            await until(lambda: twin.has_heard(GOOD), "the beep at the second")
            assert scanner.listen()
            assert not scanner.outputs


async def test_over_usb_with_the_plug_pulled_under_load(gadgets: Gadgets) -> None:
    gadget = gadgets.new("TG-POS")
    end = gadget.add_hid(DEVICES["honeywell"].descriptor)
    gadget.plug()
    async with lane(GADGET) as probe:
        for number in range(UNDER_LOAD):
            if number == UNDER_LOAD // 2:
                await send(end, b"y" * 100, pieces=1)
                gadget.unplug()
                await probe.until_lost()
                gadget.plug()
                await probe.until_ready(2)
            await send(end, b"USB-%03d" % number + b"x" * number * 3)
            await probe.until_read(number + 1)
        assert probe.texts == [b"USB-%03d" % number + b"x" * number * 3 for number in range(UNDER_LOAD)]
        assert set(probe.faults) <= {FaultReason.CUT_OFF}


async def test_over_usb_the_verdict_is_heard_at_the_device(gadgets: Gadgets) -> None:
    gadget = gadgets.new("TG-POS")
    end = gadget.add_hid(DEVICES["no count"].descriptor)
    gadget.plug()
    heard: list[bytes] = []

    def hears(report: bytes) -> bool:
        heard.append(end.read())
        return report in heard

    async with lane(GADGET) as probe:
        for signal, report in ((Signal.BAD, BAD), (Signal.GOOD, GOOD)):
            assert probe.scanner.feedback(signal) is Feedback.SENT
            await until(lambda report=report: hears(report), f"{report.hex()} at the device")  # type: ignore[misc]


async def send(end: FarEnd, text: bytes, pieces: int | None = None) -> None:
    """A gadget has one report in flight; the host's polls take it."""
    for report in scan(DEVICES["honeywell"], text)[:pieces]:
        end.write(report)
        await asyncio.sleep(0)
