"""Three scenarios that come with Tillgate, for real but shorter, and all ten invariants of each: what CI runs."""

import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from loadtest.run_files import Run, read_run

SLOW = (3, 4)  # void, or a mark missed: a machine that does other things too is late, and may be correct all the same


def load(*words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "gateway.cli", "load", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def correct(directory: Path, *words: object) -> tuple[Run, dict[str, dict[str, int]]]:
    """Run it and verify it; what was compared, by invariant."""
    ran = load("run", *words, "--directory", directory)
    assert ran.returncode in (0, *SLOW), ran.stderr
    told = load("verify", directory, "--json")
    assert told.returncode == 0, told.stdout + told.stderr
    verified = msgspec.json.decode(told.stdout)
    assert verified["holds"]
    assert [one["name"] for one in verified["invariants"]] == [f"L{number}" for number in range(1, 11)]
    return read_run(directory), {one["name"]: one["compared"] for one in verified["invariants"]}


@pytest.mark.timeout(120)
def test_smoke(tmp_path: Path) -> None:
    run, compared = correct(tmp_path / "run", "smoke", "--seconds", 1)
    assert run.outcomes == {"accepted": run.counts.offered}
    assert compared["L2"]["accepted"] == compared["L4"]["held in Valkey"] == run.counts.offered


@pytest.mark.timeout(120)
def test_a_hot_voucher_is_accepted_once(tmp_path: Path) -> None:
    run, compared = correct(tmp_path / "run", "hot-voucher", "--terminals", 100, "--seconds", 1)
    assert run.outcomes["accepted"] == compared["L1"]["accepted"] == compared["L1"]["vouchers"] == 10
    assert compared["L3"]["records"] >= 1000


@pytest.mark.timeout(120)
def test_a_storm_of_duplicates_redeems_nothing_twice(tmp_path: Path) -> None:
    run, compared = correct(tmp_path / "run", "duplicate-storm", "--seconds", 2, "--rate", 200)
    assert run.counts.sends > run.counts.offered
    assert compared["L7"]["sent again"] > 0.2 * run.counts.offered
    assert compared["L1"]["accepted"] == run.outcomes["accepted"] < run.counts.offered
