"""Scanners with a USB port of their own (CDC-ACM), made of gadget functions: both ends are the kernel's own drivers."""

import random
from pathlib import Path

from probe import Probe
from scanner_wire import ssi_scan
from scripted_scanners import ACK, NAK, SsiScanner
from usb_gadgets import Gadget, Gadgets, link_of
from waiting import until

from devices.config import SerialConfig
from devices.framing import FaultReason, Signal
from devices.scanner import Feedback

PARAM_SEND, BEEP = 0xC6, 0xE6
RESEND, DENIED = b"\x01", b"\x06"
UNDER_LOAD = 60  # scans
UNPLUGS = (15, 30, 45)  # before which of them
REPLUG_LOSSES = {FaultReason.CUT_OFF, FaultReason.CHECKSUM, FaultReason.STRAY}


def lane(path: Path, framing: str = "raw", name: str = "lane1") -> Probe:
    return Probe(SerialConfig(name, str(path), framing=framing))  # type: ignore[arg-type]


async def test_ssi_is_set_up_acked_and_beeps(gadget: Gadget) -> None:
    scanner = SsiScanner(gadget.add_acm())
    gadget.plug()
    async with lane(link_of("TG-0001"), "ssi") as probe:
        await scanner.until_heard(PARAM_SEND, 2)
        probe.keep = False
        scanner.send(b"NO ROOM")
        assert await scanner.until_heard(NAK) == DENIED
        probe.keep = True
        scanner.send(b"VCH-1")
        await scanner.until_heard(ACK)
        assert probe.texts == [b"VCH-1"], "ACKed once it was kept, and not before"
        assert probe.scanner.feedback(Signal.BAD) is Feedback.SENT
        assert await scanner.until_heard(BEEP) == b"\x12"


async def test_a_damaged_packet_is_asked_for_again(gadget: Gadget) -> None:
    end = gadget.add_acm()
    scanner = SsiScanner(end)
    gadget.plug()
    async with lane(link_of("TG-0001"), "ssi") as probe:
        await scanner.until_heard(PARAM_SEND, 2)
        packet = bytearray(ssi_scan(b"VCH-1")[0])
        packet[6] ^= 0x20
        end.write(packet)
        assert await scanner.until_heard(NAK) == RESEND
        scanner.send(b"VCH-1", again=True)
        await scanner.until_heard(ACK, 1)
        assert probe.texts == [b"VCH-1"]


async def test_pulled_and_plugged_under_load_nothing_acked_is_lost_and_nothing_is_glued(gadget: Gadget) -> None:
    end = gadget.add_acm()
    scanner = SsiScanner(end)
    gadget.plug()
    scans = [b"LOAD-%03d-" % number + b"x" * random.Random(number).randrange(120) for number in range(UNDER_LOAD)]
    acked: list[bytes] = []
    async with lane(link_of("TG-0001"), "ssi") as probe:
        await scanner.until_heard(PARAM_SEND, 2)
        for number, scan in enumerate(scans):
            if number in UNPLUGS:
                end.write(ssi_scan(scan)[0][: 3 + number])  # the plug goes in the middle of it
                gadget.unplug()
                await probe.until_lost(1 + UNPLUGS.index(number))
                gadget.plug()
                await probe.until_ready(2 + UNPLUGS.index(number))
                scanner.forget()
            before = len(scanner.bodies(ACK))
            scanner.send(scan, again=number in UNPLUGS)
            await scanner.until_heard(ACK, before + 1)
            acked.append(scan)
        assert probe.texts == acked == scans
        assert set(probe.faults) <= REPLUG_LOSSES


async def test_found_again_under_another_number(gadgets: Gadgets) -> None:
    ours, others = gadgets.new("TG-OURS"), [gadgets.new(f"TG-{number}") for number in range(3)]
    our_end, other_ends = ours.add_acm(), [other.add_acm() for other in others]
    ours.plug()
    link = link_of("TG-OURS")
    async with lane(link) as probe:
        first = link.resolve()
        our_end.write(b"ONE\r")
        await probe.until_read(1)
        ours.unplug()
        await probe.until_lost()
        await until(lambda: not first.exists(), f"{first} to go")
        for number, other in enumerate(others):
            other.plug()
            await until(link_of(f"TG-{number}").exists, f"scanner {number}")
        assert first in [link_of(f"TG-{number}").resolve() for number in range(3)], "whoever comes first gets it"
        ours.plug()
        await probe.until_ready(2)
        assert link.resolve() != first
        for end in other_ends:
            end.write(b"NOT FOR US\r")
        our_end.write(b"TWO\r")
        assert await probe.until_read(2) == [b"ONE", b"TWO"]


async def test_two_alike_without_serial_numbers_are_told_apart_by_their_sockets(gadgets: Gadgets) -> None:
    lanes = [gadgets.new("") for _ in range(2)]
    ends = [one.add_acm() for one in lanes]
    paths = []
    for one in lanes:
        known = ports_by_path()
        one.plug()
        await until(lambda known=known: ports_by_path() - known, "its link")  # type: ignore[misc]
        (path,) = ports_by_path() - known
        paths.append(path)
    async with lane(paths[0]) as first, lane(paths[1], name="lane2") as second:
        ends[1].write(b"AT TWO\r")
        ends[0].write(b"AT ONE\r")
        assert await first.until_read(1) == [b"AT ONE"]
        assert await second.until_read(1) == [b"AT TWO"]
        lanes[0].unplug()
        await first.until_lost()
        ends[1].write(b"STILL AT TWO\r")
        assert await second.until_read(2) == [b"AT TWO", b"STILL AT TWO"]
        lanes[0].plug()
        await first.until_ready(2)
        ends[0].write(b"BACK AT ONE\r")
        assert await first.until_read(2) == [b"AT ONE", b"BACK AT ONE"]


def ports_by_path() -> set[Path]:
    return {path for path in Path("/dev/serial/by-path").glob("*") if "dummy_hcd" in path.name}
