"""A scanner behind a USB serial adapter: QEMU plays it, and the kernel's ftdi_sio drives it."""

import pytest
from probe import Probe
from qemu_ports import Adapter
from scanner_wire import msgget
from waiting import until

from devices.config import SerialConfig
from devices.framing import FaultReason, Signal
from devices.scanner import Feedback, State

BURST = [b"BURST-%04d" % number for number in range(500)]


def lane(adapter: Adapter, **settings: str) -> Probe:
    return Probe(SerialConfig("lane1", str(adapter.path), **settings))  # type: ignore[arg-type]


async def test_scans_come_in_whole_and_in_order(adapter: Adapter) -> None:
    async with lane(adapter) as probe:
        adapter.write(b"VCH-1\rVCH")
        adapter.write("-2 ä漢\x1dx\r".encode())
        assert await probe.until_read(2) == [b"VCH-1", "VCH-2 ä漢\x1dx".encode()]


async def test_a_burst_that_nobody_paces_loses_nothing(adapter: Adapter) -> None:
    async with lane(adapter) as probe:
        adapter.write(b"".join(code + b"\r" for code in BURST))
        assert await probe.until_read(len(BURST)) == BURST
        assert not probe.faults


@pytest.mark.parametrize(("signal", "octets"), ((Signal.GOOD, b"\x1b7,"), (Signal.BAD, b"\x1b8,")))
async def test_a_honeywell_hears_the_verdict(adapter: Adapter, signal: Signal, octets: bytes) -> None:
    heard = bytearray()

    def hears(expected: bytes) -> bool:
        heard.extend(adapter.read())
        return expected in heard

    async with lane(adapter, framing="honeywell") as probe:
        await until(lambda: hears(b"\x16M\rDECHDR1!"), lambda: f"the command for packets in {bytes(heard)!r}")
        adapter.write(b"DECHDR1\x06!" + msgget(b"VCH\r1"))
        assert await probe.until_read(1) == [b"VCH\r1"]
        assert probe.frames[0].aim == "]Q1"
        heard.clear()
        assert probe.scanner.feedback(signal) is Feedback.SENT
        await until(lambda: hears(octets), lambda: f"{octets!r} in {bytes(heard)!r}")


async def test_pulled_out_in_the_middle_of_a_scan_and_plugged_in_again(adapter: Adapter) -> None:
    async with lane(adapter) as probe:
        adapter.write(b"BEFORE\rHAL")
        await probe.until_read(1)
        adapter.unplug()
        await probe.until_lost()
        assert probe.faults == [FaultReason.CUT_OFF]
        assert probe.scanner.feedback(Signal.GOOD) is not Feedback.SENT
        assert probe.scanner.state is State.LOST
        adapter.plug()
        await probe.until_ready(2)
        adapter.write(b"AFTER\r")
        assert await probe.until_read(2) == [b"BEFORE", b"AFTER"], "half a scan is never glued to the next"
        assert (probe.scanner.statistics.opened, probe.scanner.statistics.lost) == (2, 1)


async def test_two_programs_do_not_share_a_port(adapter: Adapter) -> None:
    async with lane(adapter) as first:
        second = lane(adapter)
        async with second.running():
            await second.until_lost()
            adapter.write(b"VCH-1\r")
            assert await first.until_read(1) == [b"VCH-1"]
        assert second.ports.count(None) == 0
