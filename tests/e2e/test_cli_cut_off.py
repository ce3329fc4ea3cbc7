"""Commands that are interrupted or killed, or whose gateway goes away: what is left is whole, a second run ends it."""

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from cli_world import Shell, open_market, serving, spawn

DEADLINE_SECONDS = 20.0
CODES = 20_000


def until(true: Callable[[], object]) -> None:
    """Wait for something that can be observed."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not true():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    made = Shell(tmp_path / "data")
    assert made("init").code == 0
    return made


def imported(shell: Shell) -> int:
    return int(shell.json("campaign", "show", "noodles")["issued"]["foreign"])


def test_an_import_killed_in_the_middle_is_finished_by_the_second_run(shell: Shell, tmp_path: Path) -> None:
    file = tmp_path / "codes.txt"
    file.write_text("".join(f"CODE-{n:06d}\n" for n in range(CODES)))
    with serving(shell.data):
        open_market(shell, tmp_path)
        process = spawn("voucher", "import", "noodles", file, "--data", shell.data)
        until(lambda: imported(shell) > 0)
        process.kill()
        process.communicate()
        assert 0 < imported(shell) < CODES, "killed in the middle"
        told = shell.json("voucher", "import", "noodles", file)
        assert told["accepted"] + told["repeated"] == CODES
        assert told["repeated"] > 0
        assert imported(shell) == CODES, "no serial was given twice"


def test_an_import_whose_gateway_is_killed_says_that_the_same_command_goes_on(shell: Shell, tmp_path: Path) -> None:
    file = tmp_path / "codes.txt"
    file.write_text("".join(f"CODE-{n:06d}\n" for n in range(CODES)))
    gateway = spawn("serve", "--data", shell.data, "--server-port", 0, "--metrics-port", 0, "--json")
    with gateway:
        assert gateway.stdout is not None
        assert gateway.stdout.readline()
        open_market(shell, tmp_path)
        process = spawn("voucher", "import", "noodles", file, "--data", shell.data)
        until(lambda: imported(shell) > 0)
        gateway.kill()
    _, err = process.communicate(timeout=30)
    assert process.returncode == 4
    assert "The same command again" in err
    assert "Traceback" not in err
    told = shell.json("voucher", "import", "noodles", file)
    assert told["accepted"] + told["repeated"] == CODES
    assert imported(shell) == CODES


def test_ctrl_c_is_exit_code_130_and_says_nothing_else(shell: Shell) -> None:
    process = spawn("log", "tail", "--follow", "--data", shell.data)
    assert process.stdout is not None
    assert "init: " in process.stdout.readline()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert err.strip() == "interrupted"


def test_ctrl_c_ends_a_gateway_well_and_its_port_is_told_when_taken(shell: Shell, tmp_path: Path) -> None:
    ports = ("--server-port", 0, "--metrics-port", 0)
    first = spawn("serve", "--data", shell.data, *ports, "--drain-seconds", 0, "--json")
    assert first.stdout is not None
    url = json.loads(first.stdout.readline())["url"]
    other = Shell(tmp_path / "other")
    assert other("init").code == 0
    port = url.rpartition(":")[2]
    second = spawn("serve", "--data", other.data, "--server-port", port, "--metrics-port", 0)
    _, err = second.communicate(timeout=20)
    assert second.returncode == 1
    assert err == f"error: server.host 127.0.0.1, server.port {port}: Address already in use\n"
    first.send_signal(signal.SIGINT)
    _, err = first.communicate(timeout=20)
    assert first.returncode == 0
    assert "Traceback" not in err


def test_an_export_that_nobody_reads_to_its_end_is_no_crash(shell: Shell) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    process = spawn("log", "export", "--data", shell.data, stdout=writing)
    os.close(writing)
    _, err = process.communicate(timeout=20)
    assert "Traceback" not in err
    assert "BrokenPipe" not in err


def test_a_full_disk_is_told_in_one_line(shell: Shell) -> None:
    with open("/dev/full", "w") as full:
        process = spawn("log", "export", "--data", shell.data, stdout=full)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 1
    assert err == "error: No space left on device\n"
