"""The real till with scanners that wait for it: the ACK is there once the journal has the scan, the verdict follows."""

import resource
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from scripted_gateway import SILENT, ScriptedGateway
from scripted_scanners import ACK, NAK, HostAckScanner, SsiScanner
from till_bench import TillBench

from devices.journal import JOURNAL_NAME
from gateway.messages import Verdict

BEEP, LED_ON, LED_OFF, PARAM_SEND = 0xE6, 0xE7, 0xE8, 0xC6
GOOD, BAD = b"\x01", b"\x12"
HOST_GOOD, HOST_BAD, HOST_WAIT = b"\x1b7,", b"\x1b8,", b"\x1b4,"
ACK_DUE_S = 2.0  # the scanner's own time-out


@pytest.fixture
def till(tmp_path: Path) -> Iterator[TillBench]:
    with TillBench(tmp_path) as bench:
        yield bench


@pytest.fixture
async def gateway(till: TillBench) -> AsyncIterator[ScriptedGateway]:
    async with ScriptedGateway(till.public_key) as scripted:
        yield scripted


async def ssi_till(till: TillBench, gateway: ScriptedGateway) -> SsiScanner:
    till.configure(gateway.url, framing="ssi")
    till.start()
    await till.until_shown("connected to the gateway")
    scanner = SsiScanner(till.scanner)
    await scanner.until_heard(PARAM_SEND, 2)
    return scanner


async def honeywell_till(till: TillBench, gateway: ScriptedGateway) -> HostAckScanner:
    till.configure(gateway.url, framing="honeywell")
    till.start()
    await till.until_shown("connected to the gateway")
    scanner = HostAckScanner(till.scanner)
    await scanner.until_heard(b"\x16M\rDECHDR1!")
    till.scanner.write(b"DECHDR1\x06!")
    return scanner


def limit_file_size(till: TillBench, limit: int) -> None:
    """A disk that is full for the daemon: no file of its own may grow over this."""
    assert till.daemon
    _, hard = resource.prlimit(till.daemon.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(till.daemon.pid, resource.RLIMIT_FSIZE, (limit, hard))


async def test_an_ssi_scanner_is_set_up_acked_and_sounds_the_verdict(till: TillBench, gateway: ScriptedGateway) -> None:
    gateway.verdict_of = {"LATE": Verdict.EXPIRED}
    scanner = await ssi_till(till, gateway)
    assert scanner.bodies(PARAM_SEND) == [b"\xff\xee\x01", b"\xff\x38\x00"], "temporary: packets on, own beep off"
    for number, (code, beep) in enumerate(((b"GOOD", GOOD), (b"LATE", BAD), (b"GOOD 2", GOOD)), 1):
        scanner.send(code)
        await scanner.until_heard(ACK, number)
        assert len(till.journal()) == number, "the ACK says that the journal has it"
        assert await scanner.until_heard(BEEP, number) == beep
    await scanner.until_heard(LED_ON, 2)
    order = [op for op, _ in scanner.heard if op in (ACK, BEEP, LED_OFF)]
    assert order == [ACK, BEEP, ACK, LED_OFF, BEEP, ACK, BEEP]
    assert not scanner.bodies(NAK)
    assert [scan.code for scan in gateway.scans] == ["GOOD", "LATE", "GOOD 2"]
    assert till.stop() == 0


async def test_the_ack_does_not_wait_for_the_gateway(till: TillBench, gateway: ScriptedGateway) -> None:
    gateway.plan.append(SILENT)
    scanner = await ssi_till(till, gateway)
    sent_s = time.monotonic()
    scanner.send(b"CODE")
    await scanner.until_heard(ACK)
    assert time.monotonic() - sent_s < ACK_DUE_S
    assert not scanner.bodies(BEEP), "ACK is no verdict"
    assert await scanner.until_heard(BEEP) == GOOD
    assert till.stop() == 0


async def test_damage_and_copies_are_one_redemption(till: TillBench, gateway: ScriptedGateway) -> None:
    scanner = await ssi_till(till, gateway)
    till.scanner.write(b"\x08\xf3\x00\x00\x1cCODX\x00\x00")  # a wrong sum
    assert await scanner.until_heard(NAK) == b"\x01"
    scanner.send(b"CODE", again=True)
    await scanner.until_heard(ACK, 1)
    scanner.send(b"CODE", again=True)  # as if the ACK had not arrived
    await scanner.until_heard(ACK, 2)
    assert await scanner.until_heard(BEEP) == GOOD
    assert till.stop() == 0
    assert len(till.journal()) == len(gateway.scans) == 1
    assert "NOT READ" not in till.screen(), "a sound copy came"


async def test_a_till_killed_before_the_ack_takes_the_copy_as_the_same_scan(
    till: TillBench, gateway: ScriptedGateway
) -> None:
    gateway.plan.extend([SILENT] * 2)
    scanner = await ssi_till(till, gateway)
    scanner.send(b"CODE")
    await scanner.until_heard(ACK)
    till.kill()  # the scanner never saw the ACK, let us say
    till.start()
    await scanner.until_heard(PARAM_SEND, 4)
    scanner.send(b"CODE", again=True)
    await scanner.until_heard(ACK, 2)
    await till.until_shown("ACCEPTED")
    assert till.stop() == 0
    assert len({scan.redemption_id for scan in gateway.scans}) == len(till.journal()) == 1


async def test_a_full_disk_is_a_nak_and_an_error_sound_and_nothing_is_sent(
    till: TillBench, gateway: ScriptedGateway
) -> None:
    scanner = await ssi_till(till, gateway)
    scanner.send(b"LONG" * 600)  # the journal is the longest file of this daemon, the screen's is shorter
    assert await scanner.until_heard(BEEP) == GOOD
    acks = len(scanner.bodies(ACK))
    limit_file_size(till, (till.state / JOURNAL_NAME).stat().st_size)
    scanner.send(b"CODE")
    assert await scanner.until_heard(NAK) == b"\x06"
    assert await scanner.until_heard(BEEP, 2) == BAD
    await till.until_shown("NOT TAKEN")
    assert len(scanner.bodies(ACK)) == acks
    assert len(gateway.scans) == 1
    limit_file_size(till, 1 << 30)
    scanner.send(b"CODE")
    await scanner.until_heard(ACK, acks + 1)
    assert await scanner.until_heard(BEEP, 3) == GOOD
    assert till.stop() == 0


async def test_an_unplug_in_the_middle_of_a_packet_costs_nothing(till: TillBench, gateway: ScriptedGateway) -> None:
    scanner = await ssi_till(till, gateway)
    till.scanner.write(b"\x09\xf3\x00\x00\x1cCO")
    till.scanner.unplug()
    await till.until_shown("scanner not connected")
    till.scanner.plug()
    await scanner.until_heard(PARAM_SEND, 4)
    scanner.send(b"CODE", again=True)
    await scanner.until_heard(ACK)
    assert await scanner.until_heard(BEEP) == GOOD
    assert till.stop() == 0
    assert [scan.code for scan in gateway.scans] == ["CODE"]


async def test_a_long_code_in_many_packets(till: TillBench, gateway: ScriptedGateway) -> None:
    code = "V" + "0123456789" * 70
    scanner = await ssi_till(till, gateway)
    scanner.send(code.encode())
    await scanner.until_heard(BEEP)
    assert len(scanner.bodies(ACK)) == 3
    assert [scan.code for scan in gateway.scans] == [code]
    assert till.stop() == 0


async def test_host_ack_releases_the_scanner_with_the_verdict(till: TillBench, gateway: ScriptedGateway) -> None:
    gateway.verdict_of = {"LATE": Verdict.EXPIRED}
    scanner = await honeywell_till(till, gateway)
    for number, (code, escapes) in enumerate(((b"GOOD\rCODE", HOST_GOOD), (b"LATE", HOST_BAD), (b" ", HOST_BAD)), 1):
        scanner.send(code)
        assert await scanner.until_released() == escapes, "and nothing before it"
        assert len(till.journal()) == min(number, 2)
    assert [scan.code for scan in gateway.scans] == ["GOOD\rCODE", "LATE"]
    assert till.stop() == 0


async def test_host_ack_without_a_gateway_frees_the_scanner_and_is_no_yes(
    till: TillBench, gateway: ScriptedGateway
) -> None:
    scanner = await honeywell_till(till, gateway)
    await gateway.stop()
    await till.until_shown("no connection")
    scanner.send(b"CODE")
    assert await scanner.until_released() == HOST_WAIT
    assert len(till.journal()) == 1
    await gateway.start()
    assert await scanner.until_heard(HOST_GOOD) == HOST_WAIT + HOST_GOOD
    assert till.stop() == 0
