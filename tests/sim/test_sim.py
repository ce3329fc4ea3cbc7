"""A short run of the simulator, and every planted bug: the long run is `make sim`."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from sim.every_step import SEEDS as CUT_SEEDS
from sim.every_step import STRIKES, run_cuts
from sim.loop import Owner, SimLoop
from sim.many import Report, read_done, run_many, write_done
from sim.planted import Bug, bugs, hunt
from sim.run import EVENTS, PLANTED_EVENTS, PLANTED_SEEDS
from sim.world import run_chunk, run_seed

SEEDS = range(160)  # 15 to 30 s on one core
STRIDE = 32  # of the steps: some 15 s; all of them is `make sim SIM=--every-step`
PARTS = 8  # so that no test comes near its time-out
HUNT_S = 20.0  # of CPU time; most are found within one second, all within five

_report = Report()


@pytest.mark.parametrize("part", range(PARTS))
def test_no_seed_breaks_an_invariant(part: int) -> None:
    outcomes = run_chunk(SEEDS[part::PARTS], EVENTS)
    for outcome in outcomes:
        _report.add(outcome)
    broken = {outcome.seed: outcome.violations for outcome in outcomes if outcome.violations}
    assert not broken, "replay with: python tests/sim/run.py --seed N --trace"
    assert all(outcome.events >= EVENTS or outcome.branches["halt"] for outcome in outcomes)


def test_a_run_of_many_goes_on_where_it_was_stopped(tmp_path: Path) -> None:
    done, events = tmp_path / "done.json", 100
    whole, half = Report(3), Report(3)
    run_many(whole, 24, events, 2, 600.0)
    run_many(half, 20, events, 1, 600.0)
    write_done(done, half, events)
    rest = read_done(done, 3, events)
    assert isinstance(rest, Report)
    run_many(rest, 24, events, 2, 600.0)
    assert (rest.runs, rest.events, rest.branches) == (whole.runs, whole.events, whole.branches)
    assert "other --events" in str(read_done(done, 3, events + 1))


def test_a_run_of_many_begins_nothing_when_its_time_is_over() -> None:
    report = Report()
    run_many(report, 10, 100, 1, 0.0)
    assert report.runs == 0


def test_every_branch_of_recovery_was_gone_through() -> None:
    if _report.runs < len(SEEDS):
        pytest.skip("needs the runs of the tests before it")
    assert not _report.unhit(), _report.branches


@pytest.mark.parametrize("seed", CUT_SEEDS)
@pytest.mark.parametrize("name", [strike.name for strike in STRIKES])
def test_a_fault_at_any_step_breaks_no_invariant(seed: int, name: str) -> None:
    assert not run_cuts(seed, name, STRIDE)


@pytest.mark.parametrize("bug", bugs(), ids=lambda bug: bug.name.replace(" ", "-"))
def test_a_planted_bug_is_found(bug: Bug) -> None:
    found = hunt(bug, seeds=PLANTED_SEEDS, events=PLANTED_EVENTS, seconds=HUNT_S)
    assert found.seed is not None, f"not found in {found.seconds:.0f} s"


def test_who_was_stopped_may_cancel_a_sleep_that_was_over_meanwhile() -> None:
    errors: list[BaseException] = []
    loop = SimLoop(lambda owner, error: errors.append(error))
    loop.owner = process = Owner("process")
    sleeper = loop.create_task(loop.sleep(2.0))
    loop.call_later(1.0, sleeper.cancel)
    loop.owner = loop.world
    loop.call_later(0.5, process.stop)
    loop.call_later(3.0, loop.resume, process)
    loop.run_while(lambda: True)
    assert sleeper.cancelled()
    assert not errors
    loop.dispose()


def test_the_same_seed_is_the_same_run_whatever_the_hash_seed() -> None:
    """A run in another interpreter, with other hashes of strings, has the same trace to the last line."""
    script = Path(__file__).with_name("run.py")
    command = [sys.executable, str(script), "--seed", "5", "--events", "400", "--trace"]
    traces = {
        subprocess.run(
            command, env=os.environ | {"PYTHONHASHSEED": number}, capture_output=True, text=True, check=True
        ).stdout
        for number in ("1", "2")
    }
    assert len(traces) == 1


def test_a_run_leaves_nothing_for_the_next() -> None:
    first = run_seed(7, 300, traced=True).trace
    run_seed(8, 300)
    assert run_seed(7, 300, traced=True).trace == first
