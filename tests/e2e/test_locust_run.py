"""Locust as a team would start it: a gateway of its own, two workers, and a run that others can read."""

import importlib.util
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from source_tree import ROOT

from loadtest.histograms import read
from loadtest.run_files import Attempt, Counts, Run, read_attempts, read_run, read_samples, read_seconds

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("locust") is None, reason="needs Locust: pip install 'tillgate[load,locust]'"
)
REFUSED, VOID, MISSED = 2, 3, 4


def _locust(*options: str) -> subprocess.CompletedProcess[str]:
    """In a process of its own: Locust patches the standard library when it is imported."""
    command = [sys.executable, "-m", "locust", "-f", "loadtest/locustfile.py", "--headless", "--only-summary"]
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("TILLGATE_", "LOCUST_"))}
    return subprocess.run([*command, *options], cwd=ROOT, env=kept, capture_output=True, text=True, timeout=100)


def _agrees(run: Run, directory: Path) -> list[Attempt]:
    """Whether run.json, seconds and journals tell the same; the attempts."""
    attempts, seconds = list(read_attempts(directory)), list(read_seconds(directory))
    summed = [sum(getattr(second.counts, name) for second in seconds) for name in Counts.__struct_fields__]
    assert Counts(*summed) == run.counts
    assert run.counts.offered == len(attempts)
    assert run.counts.started == sum(attempt.sent_us is not None for attempt in attempts)
    assert run.counts.completed == sum(attempt.ended_us is not None for attempt in attempts)
    assert run.counts.sends == sum(attempt.sends for attempt in attempts)
    assert run.outcomes == Counter(attempt.verdict for attempt in attempts if attempt.ended_us is not None)
    for series in ("service", "intended", "lag"):
        total = read(getattr(run.latencies, series)).total
        assert total == (run.counts.started if series == "lag" else run.counts.completed)
        assert total == sum(read(getattr(second.latencies, series)).total for second in seconds)
    return attempts


@pytest.mark.timeout(150)
def test_two_workers_make_one_run_whose_files_agree(tmp_path: Path) -> None:
    directory = tmp_path / "run"
    asked = ("--scenario", "smoke", "--seconds", "6", "--rate", "20")
    made = _locust("--processes", "2", "--verify", *asked, "--run-directory", str(directory))
    # On a machine that is busy elsewhere the generator is late, and says so: that is no fault of the run's files.
    assert made.returncode in (0, VOID, MISSED), made.stderr
    for number in range(1, 11):
        assert f"L{number} " in made.stderr
    run = read_run(directory)
    assert (run.tool, run.generators, run.scenario["seed"]) == ("locust", 2, 1)
    assert (run.counts.offered, run.counts.dropped, run.counts.unresolved) == (120, 0, 0)
    assert bool(run.void) == (made.returncode == VOID), made.stderr
    attempts = _agrees(run, directory)
    assert run.outcomes == {"accepted": 120}
    assert len({attempt.voucher for attempt in attempts}) == 120
    assert len({attempt.redemption_id for attempt in attempts}) == 120
    doors = Counter(attempt.terminal > 15 for attempt in attempts)  # of 20 tills the last five ask over HTTP
    assert min(doors.values()) > 5
    for journal in ("journal-0.ndjson", "journal-1.ndjson"):
        assert len((directory / journal).read_bytes().splitlines()) == 60
    assert {"gateway", "valkey", "generator-0", "generator-1"} <= {each.process for each in read_samples(directory)}
    summary = made.stdout + made.stderr
    for row in ("redeem from-intended", "redeem service", "redeem scheduler-lag"):
        assert row in summary


@pytest.mark.timeout(150)
def test_a_closed_model_is_told_as_one(tmp_path: Path) -> None:
    directory = tmp_path / "run"
    asked = ("--scenario", "smoke", "--seconds", "2", "--rate", "20", "--terminals", "4")
    made = _locust("--model", "closed", "--closed-users", "4", *asked, "--run-directory", str(directory))
    assert made.returncode in (0, VOID, MISSED), made.stderr
    run = read_run(directory)
    assert (run.tool, run.generators) == ("closed", 1)
    assert 4 <= run.counts.offered <= 40
    attempts = _agrees(run, directory)
    # It asks when it is ready to ask: by its own account it is never late.
    assert all(attempt.sent_us - attempt.intended_us < 10_000 for attempt in attempts if attempt.sent_us is not None)


@pytest.mark.parametrize(
    ("asked", "told"),
    (
        (("--scenario", "smok"), "there is no scenario 'smok', and no such file; did you mean 'smoke'?"),
        (("--scenario", "saturation-search"), "arrivals.shape: only `tillgate load run` does this"),
    ),
)
def test_an_impossible_run_is_refused_before_it_begins(tmp_path: Path, asked: tuple[str, ...], told: str) -> None:
    made = _locust(*asked, "--run-directory", str(tmp_path / "run"))
    assert (made.returncode, told in made.stderr) == (REFUSED, True), made.stderr
    assert not (tmp_path / "run").exists()
