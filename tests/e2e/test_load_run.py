"""`tillgate load run`, for real and small: a gateway, tills, a generator process, and the files they leave."""

import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gateway.messages import Verdict
from loadtest.run_files import read_attempts, read_run, read_samples, read_seconds

ACCEPTED, USED = "accepted", "already_redeemed"
NAMES = {verdict.name.lower() for verdict in Verdict} | {"not_found"}
VOID = 3  # on a machine that does other things as well the generator is late: what came of the run holds all the same
MIX = """
title = "A little of everything"
shows = "Every kind of request."
seconds = 3
[arrivals]
shape = "constant"
rate = 60
[terminals]
count = 12
stores = 3
http = 0.4
[mix]
used = 0.1
reverse = 0.1
lookup = 0.1
bad = 0.1
[repeats]
share = 0.3
within_s = 1
[outage]
stores = 1
at_s = 0.5
for_s = 1
[imports]
count = 300
at_s = 1
"""


def load(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "gateway.cli", "load", *words], capture_output=True, text=True)


def run(directory: Path, *words: str) -> dict[str, Any]:
    told = load("run", *words, "--directory", str(directory), "--json")
    assert told.returncode in (0, VOID), told.stderr
    assert "load verify" in told.stderr
    result: dict[str, Any] = msgspec.json.decode(told.stdout)
    assert result["exit_code"] == told.returncode
    return result


@pytest.mark.timeout(120)
def test_a_run_of_everything_leaves_files_that_agree(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(MIX)
    directory = tmp_path / "run"
    result = run(directory, str(tmp_path / "mine.toml"), "--generators", "2")
    told, attempts = read_run(directory), list(read_attempts(directory))
    assert told.counts.offered == len(attempts) == 180
    assert (told.counts.unresolved, told.counts.dropped) == (0, 0)
    assert told.counts.sends == sum(attempt.sends for attempt in attempts) > 180  # repeats among them
    assert {attempt.kind for attempt in attempts} == {"redeem", "reverse", "lookup"}
    assert {attempt.verdict for attempt in attempts} <= NAMES
    assert not any(attempt.answers_differ for attempt in attempts)
    assert told.outcomes[ACCEPTED] > 90
    assert told.outcomes[USED] > 0
    assert told.outcomes["reversed"] > 0
    assert all(attempt.position for attempt in attempts if attempt.verdict == ACCEPTED)
    assert sum(second.counts.completed for second in read_seconds(directory)) == 180
    assert {sample.process for sample in read_samples(directory)} >= {"gateway", "valkey", "generator-0"}
    assert [fault["name"] for fault in result["faults"]] == ["import of 300 codes"]
    for path in directory.glob("*.ndjson"):
        assert not re.search(r"\bT1[0-9A-V]{20}", path.read_text()), "the beginning of a code"
    again = load("run", "smoke", "--directory", str(directory))
    assert again.returncode == 2
    assert "something in it already" in again.stderr


@pytest.mark.timeout(120)
def test_one_of_many_tills_gets_the_voucher(tmp_path: Path) -> None:
    told = run(tmp_path / "run", "hot-voucher", "--terminals", "60", "--seconds", "2")
    assert told["outcomes"] == {ACCEPTED: 10, USED: 590}
    assert next(mark["met"] for mark in told["marks"] if "accepted" in mark["name"])


def test_an_impossible_scenario_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    told = load("run", "smoke", "--rate", "900000", "--directory", str(tmp_path / "run"))
    assert told.returncode == 2
    assert "arrivals.rate: " in told.stderr
    assert not (tmp_path / "run").exists()


def test_scenarios_are_listed_and_shown() -> None:
    rows = msgspec.json.decode(load("list", "--json").stdout)
    assert {"smoke", "origin-replay", "soak"} <= {row["scenario"] for row in rows}
    told = load("show", "origin-replay")
    assert "arrivals.day_seconds = 60" in told.stdout


@pytest.mark.timeout(60)
def test_a_run_that_is_broken_off_is_written(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "gateway.cli", "load", "run", "smoke", "--directory", str(tmp_path / "run")]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as running:
        assert running.stderr is not None
        while " sent, " not in running.stderr.readline():
            assert running.poll() is None
        running.send_signal(signal.SIGINT)
        said, _ = running.communicate()
    assert running.returncode == 130
    told = read_run(tmp_path / "run")
    assert told.void[0] == "broken off"
    assert told.counts.offered == len(list(read_attempts(tmp_path / "run"))) > 0
    assert "BROKEN OFF" in said
