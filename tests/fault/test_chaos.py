"""Short chaos runs: the shipped gateway stands them, gateways broken on purpose do not; and the disk that fails."""

import os
import random
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from chaos import Options, chapter, run
from chaos_disk import Disk, build
from chaos_faults import BY_NAME, WEIGHTS, schedule
from chaos_report import Report, in_words
from chaos_servers import copied_source

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler for the disk that fails"),
]

ANSWER_FIRST = """\
            self._answer(forming, batch, claimed)
            forming.runs = []
            await self._append(batch)
        except ("""
# What each planted bug is, as (file, shipped text, broken text), the faults that bring it out, and what is found.
PLANTED: dict[str, tuple[str, str, str, list[str], set[str]]] = {
    "answers before the log has it": (
        "gateway/lane.py",
        "            await self._append(batch)\n        except (",
        ANSWER_FIRST,
        ["power_both", "slow_disk"],
        {"place"},
    ),
    "does not sync its log": (
        "eventstore/sqlite_log.py",
        '"PRAGMA synchronous=FULL"',
        '"PRAGMA synchronous=OFF"',
        ["power_gateway"],
        {"place", "start", "power_gateway"},
    ),
    "forgets what was reversed": (
        "gateway/claim.lua",
        "return sub(value, 33) .. 'r' .. sub(value, 2, 21) .. suffix",
        "return sub(value, 33)",
        ["cut_network"],
        {"state"},
    ),
    "accepts what somebody has": (
        "gateway/claim.lua",
        "sub(payload, o + 33, o + 52) .. suffix) == 1 then",
        "sub(payload, o + 33, o + 52) .. suffix) then",
        ["cut_network"],
        {"state"},
    ),
    "believes old input after a stall": (
        "gateway/core.py",
        "            self.on_stall(gap_s)\n",
        "            pass\n",
        ["stall_gateway"],
        {"stall_gateway"},
    ),
}


@pytest.mark.timeout(180)
def test_no_fault_costs_an_answer() -> None:
    names = [fault.__name__ for fault in WEIGHTS]
    report = run(Options(seed=1, faults=len(names), rate=1500.0, vouchers=40_000))
    assert report.is_good, in_words(report)
    assert set(report.faults) == set(names)
    assert report.taken_back, "no power failure took anything back"
    assert report.found.answers == report.counts.answers > 1000


@pytest.mark.skipif("CHAOS_PLANTED" not in os.environ, reason="a matter of luck within minutes: make chaos-planted")
@pytest.mark.timeout(240)
@pytest.mark.parametrize("bug", PLANTED)
def test_a_gateway_broken_on_purpose_is_found_out(bug: str, tmp_path: Path) -> None:
    name, shipped, broken, faults, expected = PLANTED[bug]
    source = copied_source(tmp_path)
    text = (source / name).read_text()
    assert text.count(shipped) == 1, f"{name} has changed: plant this bug anew"
    (source / name).write_text(text.replace(shipped, broken))
    for seed in range(1, 9):  # where a fault strikes is a matter of milliseconds; most are found by the first
        count = 1 if faults == ["stall_gateway"] else 2 * len(faults)
        options = Options(seed, faults=count, only=faults, rate=1500.0, vouchers=20_000, source=source)
        report = run(options)
        if expected & {*report.found.by_rule(), *(fault for fault, _ in report.violations_of_servers)}:
            return
    pytest.fail("eight runs did not find it")


@pytest.mark.timeout(120)
def test_a_disk_that_is_really_full_costs_no_answer(tmp_path: Path) -> None:
    if subprocess.run(["mount", "-t", "tmpfs", "chaos", tmp_path], capture_output=True).returncode:
        pytest.skip("needs the right to mount a tmpfs; a limit on file sizes is tested in any case")
    subprocess.run(["umount", tmp_path], check=True)
    report = run(Options(seed=1, faults=2, only=["fill_disk"], rate=1000.0, vouchers=5_000, small_disk=True))
    assert report.is_good, in_words(report)


def test_a_long_run_is_many_short_ones_counted_as_one() -> None:
    whole = Options(seed=5, faults=125, answers=500_000)
    parts = [chapter(whole, number, 0.0) for number in range(4)]
    assert [(part.seed, part.faults, part.answers) for part in parts] == [
        (5, 50, 200_000),
        (6, 50, 200_000),
        (7, 25, 100_000),
        (8, 50, 200_000),  # with --seconds, for as long as they last
    ]
    told = Report(5)
    for part in parts[:3]:
        report = Report(part.seed, Counter(kill_both=part.faults), unresolved=part.seed == 6)
        report.counts.answers, report.counts.by_code = part.answers, {0: part.answers}
        report.found.violations = [("state", "twice", 7)] if part.seed == 7 else []
        assert report.is_good == (part.seed == 5)
        told.add(report)
    assert (told.faults["kill_both"], told.counts.answers, told.unresolved) == (125, 500_000, 1)
    assert (told.found.by_rule(), told.counts.by_code, told.is_good) == ({"state": 1}, {0: 500_000}, False)
    assert "500000 answers" in in_words(told)


def test_a_seed_is_a_schedule() -> None:
    assert schedule(5, 60) == schedule(5, 60) != schedule(6, 60)
    assert {planned.name for planned in schedule(5, len(WEIGHTS))} == {fault.__name__ for fault in WEIGHTS}
    assert {planned.name for planned in schedule(5, 9, ["kill_both", "cut_network"])} == {"kill_both", "cut_network"}
    assert set(BY_NAME) >= {planned.name for planned in schedule(7, 100)}


# --- the disk that fails ---

WRITES = """
import os, signal, sys, time
fd = os.open(sys.argv[1], os.O_CREAT | os.O_RDWR | os.O_APPEND)
os.write(fd, b"s" * 1000)
os.fsync(fd)
for _ in range(3):
    os.write(fd, b"u" * 1000)
print(time.time(), flush=True)
if sys.argv[2:]:
    os.fsync(fd)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    (tmp_path / "files" / "appendonlydir").mkdir(parents=True)
    made = Disk(build(tmp_path), tmp_path / "files", tmp_path / "side")
    yield made
    made.close()


def _write(disk: Disk, path: Path, *more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", WRITES, str(path), *more]
    environment = os.environ | disk.environment()
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=20)


@pytest.mark.parametrize("name", ("log.db", "appendonlydir/incr.aof"))
def test_a_power_failure_takes_back_only_what_was_not_synced(disk: Disk, tmp_path: Path, name: str) -> None:
    path, sizes = tmp_path / "files" / name, set()
    for seed in range(12):
        path.unlink(missing_ok=True)
        assert _write(disk, path).returncode == -signal.SIGKILL
        assert path.stat().st_size == 4000, "a process that is only killed loses nothing"
        disk.lose_power(random.Random(seed))
        content = path.read_bytes()
        assert content[:1000] == b"s" * 1000
        assert set(content[1000:]) <= set(b"u\0")
        assert name == "log.db" or b"\0" not in content, "an append-only file loses its end"
        sizes.add(len(content))
    assert min(sizes) == 1000
    assert len(sizes) > 2


def test_a_disk_fails_syncs_and_is_full_and_clocks_are_wrong_on_request(disk: Disk, tmp_path: Path) -> None:
    path = tmp_path / "files" / "log.db"
    disk.fail_sync(2)
    disk.step_clock(-3_600_000)
    came = _write(disk, path, "sync")
    assert "Input/output error" in came.stderr
    assert abs(float(came.stdout) + 3600 - path.stat().st_mtime) < 60
    assert (disk.failures, disk.syncs) == (1, 1)
    disk.lose_power(random.Random(3))
    assert path.read_bytes()[:1000] == b"s" * 1000, "what a failed sync did not write may be lost, no more"
    disk.full(True)
    assert "No space left" in _write(disk, path).stderr
