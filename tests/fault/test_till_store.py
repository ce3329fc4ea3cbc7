"""What happens to a till in a store: a disk that is really full, scanners that come back as each other, fast hands."""

import asyncio
import errno
import io
import os
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import msgspec
import pytest
from scripted_gateway import SILENT, ScriptedGateway
from scripted_scanners import ACK, NAK, SsiScanner
from till_bench import PtyScanner, TillBench, until

from devices.config import load_config
from devices.console import HEALTH_COMMAND, SOCKET_NAME, NotRunning, ask_terminal
from devices.framing import FaultReason
from devices.health import Health, ScannerHealth
from devices.journal import JournalBroken
from devices.terminal import run_terminal
from gateway.messages import Verdict

PARAM_SEND, BEEP, DENIED = 0xC6, 0xE6, b"\x06"
DISK_BYTES = 256 * 1024
BURST, PER_SECOND = 200, 100


@pytest.fixture
def till(tmp_path: Path) -> Iterator[TillBench]:
    with TillBench(tmp_path) as bench:
        yield bench


@pytest.fixture
async def gateway(till: TillBench) -> AsyncIterator[ScriptedGateway]:
    async with ScriptedGateway(till.public_key) as scripted:
        till.configure(scripted.url)
        yield scripted


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[TillBench]:
    """A till whose state is on a file system of its own, of a quarter of a mebibyte."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", disk], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"a small disk cannot be mounted here (it takes root): {mounted.stderr.strip()}")
    try:
        with TillBench(disk) as bench:
            bench.screen_path = tmp_path / "screen.txt"
            yield bench
    finally:
        subprocess.run(["umount", "--lazy", disk], check=True)


def fill(till: TillBench) -> Path:
    """Takes what room is left; returns the file that has it."""
    filler = till.state / "filler"
    with filler.open("wb", buffering=0) as file:
        while os.statvfs(till.state).f_bavail:
            file.write(bytes(4096))
    return filler


def nodes_of(*scanners: PtyScanner) -> list[str]:
    return [os.path.realpath(one.path) for one in scanners]


def told_health(till: TillBench) -> Health:
    return msgspec.json.decode(ask_terminal(till.state / SOCKET_NAME, HEALTH_COMMAND), type=Health)


def lanes_of(till: TillBench) -> dict[str, ScannerHealth]:
    return {one.name: one for one in told_health(till).scanners}


async def test_on_a_disk_without_room_nothing_is_acked_sent_or_pretended(small_disk: TillBench) -> None:
    till = small_disk
    async with ScriptedGateway(till.public_key) as gateway:
        till.configure(gateway.url, framing="ssi")
        till.start()
        await till.until_shown("connected to the gateway")
        scanner = SsiScanner(till.scanner)
        await scanner.until_heard(PARAM_SEND, 2)
        filler = fill(till)
        sent, beep = 0, b""
        while not scanner.bodies(NAK):  # what is left of the journal's last block still takes a scan or two
            sent += 1
            assert sent < 50, "the disk is never full"
            scanner.send(b"CODE %d" % sent)
            beep = await scanner.until_heard(BEEP, sent)
        assert scanner.bodies(NAK) == [DENIED]
        await till.until_shown("NOT TAKEN: this till's disk or journal is full")
        assert beep == b"\x12", "four long low"
        assert f"CODE {sent}" not in [scan.code for scan in gateway.scans]
        assert len(till.journal()) == sent - 1
        counts = lanes_of(till)["lane1"].counts
        assert (counts.reads, counts.refused) == (sent, 1)
        assert told_health(till).disk_free_bytes < 4096
        filler.unlink()
        scanner.send(b"CODE %d" % sent)
        await scanner.until_heard(ACK, sent)
        await gateway.until(lambda: gateway.scans[-1].code == f"CODE {sent}")
        assert till.stop() == 0
        assert [record.verdict for record in till.journal()] == [Verdict.ACCEPTED] * sent


async def test_a_disk_that_fails_under_a_command_ends_the_till(
    till: TillBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(fd: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    till.configure("http://127.0.0.1:9")
    running = asyncio.ensure_future(run_terminal(load_config(till.config), out=io.StringIO()))
    await until((till.state / SOCKET_NAME).exists)
    monkeypatch.setattr(os, "fdatasync", fails)
    with pytest.raises(NotRunning):
        await asyncio.to_thread(ask_terminal, till.state / SOCKET_NAME, "code SOME-CODE")
    with pytest.raises(ExceptionGroup) as ended:
        await asyncio.wait_for(running, 10)
    assert ended.value.subgroup(JournalBroken), "not believed any more, whoever was told"


async def test_a_till_that_starts_on_a_full_disk_still_asks_what_is_open(small_disk: TillBench) -> None:
    till = small_disk
    async with ScriptedGateway(till.public_key) as gateway:
        till.configure(gateway.url)
        gateway.plan.extend([SILENT] * 20)
        till.start()
        await till.until_shown("connected to the gateway")
        till.scanner.write(b"OPEN\r")
        await gateway.until(lambda: bool(gateway.scans))
        till.kill()
        fill(till)
        gateway.plan.clear()
        till.start()
        await till.until_shown("ACCEPTED")
        assert len(set(gateway.scans)) == 1, "the same id and body as before"


async def test_scanners_that_come_back_under_each_others_numbers_keep_their_names(
    till: TillBench, gateway: ScriptedGateway, tmp_path: Path
) -> None:
    other = PtyScanner(tmp_path / "lane2")
    till.config.write_text(till.config.read_text() + f'[[scanners]]\nname = "lane2"\npath = "{other.path}"\n')
    gateway.verdict_of = {"FROM 1": Verdict.EXPIRED}
    till.start()
    await till.until_shown("scanner ready", 2)
    nodes = nodes_of(till.scanner, other)
    till.scanner.write(b"WHOLE\rHALF A CO")
    await till.until_shown("ACCEPTED")
    till.scanner.unplug()
    other.unplug()
    await till.until_shown("scanner not connected", 2)
    other.plug()  # first: it gets the number the other one had
    till.scanner.plug()
    await till.until_shown("scanner ready", 4)
    assert nodes_of(other, till.scanner) == nodes
    till.scanner.write(b"FROM 1\r")
    await till.until_shown("EXPIRED")
    other.write(b"FROM 2\r")
    await till.until_shown("ACCEPTED", 2)
    lanes = lanes_of(till)
    assert lanes["lane1"].counts.faults == {FaultReason.CUT_OFF: 1}, "half a code is told and glued to nothing"
    assert [(lanes[name].counts.reads, lanes[name].counts.lost) for name in ("lane1", "lane2")] == [(2, 1), (1, 1)]
    assert [scan.code for scan in gateway.scans] == ["WHOLE", "FROM 1", "FROM 2"]
    other.close()


async def test_a_hundred_scans_a_second_from_one_scanner_lose_none(till: TillBench, gateway: ScriptedGateway) -> None:
    till.start()
    await till.until_shown("connected to the gateway")
    began_s = time.monotonic()
    for number in range(BURST):
        till.scanner.write(b"BURST %04d\r" % number)
        await asyncio.sleep(max(0.0, began_s + (number + 1) / PER_SECOND - time.monotonic()))
    await gateway.until(lambda: len(gateway.scans) >= BURST)
    assert [scan.code for scan in gateway.scans] == [f"BURST {number:04d}" for number in range(BURST)]
    await till.until_shown("ACCEPTED", BURST)
    assert till.stop() == 0
    assert [record.verdict for record in till.journal()] == [Verdict.ACCEPTED] * BURST
    assert "NOT TAKEN" not in till.screen()
