"""What a running till says of itself: on its socket, by command, and to a scrape; counted from real bytes on a line."""

import shutil
import socket
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import aiohttp
import msgspec
import pytest
from cli_world import tillgate
from scripted_gateway import SILENT, ScriptedGateway
from scripted_scanners import ACK, NAK, SsiScanner
from till_bench import TillBench, until

from devices.console import HEALTH_COMMAND, SOCKET_NAME, NotRunning, ask_terminal
from devices.framing import FaultReason
from devices.health import Health
from devices.scanner import State

PARAM_SEND = 0xC6


@pytest.fixture
def till(tmp_path: Path) -> Iterator[TillBench]:
    with TillBench(tmp_path) as bench:
        yield bench


@pytest.fixture
async def gateway(till: TillBench) -> AsyncIterator[ScriptedGateway]:
    async with ScriptedGateway(till.public_key) as scripted:
        till.configure(scripted.url, framing="ssi")
        yield scripted


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def health_of(till: TillBench) -> Health:
    return msgspec.json.decode(ask_terminal(till.state / SOCKET_NAME, HEALTH_COMMAND), type=Health)


def promtool_says(promtool: str, text: str) -> tuple[int, str]:
    checked = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True, text=True)
    return checked.returncode, checked.stdout + checked.stderr


async def test_reads_damage_copies_and_losses_are_counted(till: TillBench, gateway: ScriptedGateway) -> None:
    till.start()
    await till.until_shown("connected to the gateway")
    scanner = SsiScanner(till.scanner)
    await scanner.until_heard(PARAM_SEND, 2)
    till.scanner.write(b"\x08\xf3\x00\x00\x1cCODX\x00\x00")
    await scanner.until_heard(NAK)
    scanner.send(b"CODE", again=True)
    await scanner.until_heard(ACK)
    scanner.send(b"CODE", again=True)
    await scanner.until_heard(ACK, 2)
    await till.until_shown("ACCEPTED")
    told = health_of(till)
    assert told.connected
    assert (told.waiting, told.oldest_ms) == (0, 0)
    [lane] = told.scanners
    assert (lane.name, lane.kind, lane.state, lane.can.ack) == ("lane1", "serial", State.READY, True)
    assert (lane.counts.reads, lane.counts.damaged, lane.counts.resent, lane.counts.opened) == (1, 1, 2, 1)
    assert told.started_ms <= lane.counts.last_read_ms <= told.at_ms
    till.scanner.unplug()
    await till.until_shown("scanner not connected")
    [lane] = health_of(till).scanners
    assert (lane.state, lane.counts.lost) == (State.LOST, 1)


async def test_a_scrape_is_sound_and_tells_nothing_secret(till: TillBench, gateway: ScriptedGateway) -> None:
    port = free_port()
    till.config.write_text(f'metrics_listen = "127.0.0.1:{port}"\n' + till.config.read_text())
    gateway.plan.extend([SILENT] * 9)
    till.start()
    await till.until_shown("connected to the gateway")
    scanner = SsiScanner(till.scanner)
    await scanner.until_heard(PARAM_SEND, 2)
    scanner.send(b"TOPSECRET")
    await scanner.until_heard(ACK)
    async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}/metrics") as answer:
        text = await answer.text()
    assert "TOPSECRET" not in text
    assert "terminal=" not in text
    lines = text.splitlines()
    assert "tillgate_terminal_uplink_up 1" in lines
    assert "tillgate_terminal_journal_open 1" in lines
    assert 'tillgate_terminal_scanner_reads_total{scanner="lane1"} 1' in lines
    assert 'tillgate_terminal_scanner_up{scanner="lane1",kind="serial"} 1' in lines
    for reason in FaultReason:
        assert f'tillgate_terminal_scanner_faults_total{{scanner="lane1",reason="{reason}"}} 0' in lines
    [oldest] = [line for line in lines if line.startswith("tillgate_terminal_journal_oldest_seconds")]
    assert 0 < float(oldest.split()[1]) < 60
    if promtool := shutil.which("promtool"):
        assert promtool_says(promtool, text) == (0, "")


async def test_the_command_tells_it_to_people_and_programs(till: TillBench, gateway: ScriptedGateway) -> None:
    absent = tillgate("terminal", "health", "--config", till.config)
    assert absent.code == 4
    assert "no terminal answers" in absent.err
    till.start()
    await till.until_shown("scanner ready")
    await till.until_shown("connected to the gateway")
    told = tillgate("terminal", "health", "--config", till.config)
    assert told.code == 0, told.err
    assert "lane1" in told.out
    assert "connected" in told.out
    as_json = tillgate("terminal", "health", "--config", till.config, "--json").json
    assert msgspec.convert(as_json, Health).scanners[0].state is State.READY
    assert till.stop() == 0
    with pytest.raises(NotRunning):
        ask_terminal(till.state / SOCKET_NAME, HEALTH_COMMAND)


async def test_an_address_that_is_taken_is_told(till: TillBench, gateway: ScriptedGateway) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        till.config.write_text(f'metrics_listen = "127.0.0.1:{port}"\n' + till.config.read_text())
        till.start()
        assert till.daemon
        daemon = till.daemon
        await until(lambda: daemon.poll() is not None)
    assert daemon.returncode == 1
    assert f"{port}" in till.screen()
    assert "Traceback" not in till.screen()
