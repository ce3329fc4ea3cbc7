"""Runs the simulator: many seeds, or one with its trace.

python tests/sim/run.py --seeds 2000            2,000 seeds on all cores; fails on a violation or an unhit branch
python tests/sim/run.py --seeds 200000 --minutes 60 --done build/sim.json    for an hour; the same again goes on there
python tests/sim/run.py --seed 17 --trace       one seed, every event of it
python tests/sim/run.py --planted               every planted bug, with the seed and the CPU time that found it
python tests/sim/run.py --every-step            short runs, cut after each callback, there each fault in turn
"""

import argparse
import math
import os
import signal
import sys
import time
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]  # as a script it has neither; an editable install has the first

from sim.every_step import SEEDS, STRIKES, run_cuts, steps_of  # noqa: E402
from sim.many import Report, read_done, run_many, write_done  # noqa: E402
from sim.planted import Hunt, bugs, hunt  # noqa: E402
from sim.world import run_seed  # noqa: E402

from gateway.recovery import Branch  # noqa: E402

EVENTS = 1500  # effective events of a run before it calms down
PLANTED_SEEDS, PLANTED_EVENTS, PLANTED_S = range(1, 1000), 1000, 30.0
SHOWN_MAX = 10
TOLD_EVERY_S = 10.0  # how far it is, and the file of what was done


def hunt_all() -> list[Hunt]:
    """Every planted bug, one after the other."""
    return [hunt(bug, seeds=PLANTED_SEEDS, events=PLANTED_EVENTS, seconds=PLANTED_S) for bug in bugs()]


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def _one(seed: int, events: int, traced: bool) -> int:
    outcome = run_seed(seed, events, traced=traced)
    for line in outcome.trace:
        _say(line)
    for violation in outcome.violations:
        _say(f"VIOLATION {violation}")
    _say(f"seed {seed}: {outcome.events} events, {outcome.virtual_s:.1f} s of virtual time, {_hits(outcome.branches)}")
    return 1 if outcome.violations else 0


def _hits(branches: Mapping[str, int]) -> str:
    return ", ".join(f"{branch.value} {branches.get(branch.value, 0)}" for branch in Branch)


class _Progress:
    """Says now and then how far it is, and writes down what was done."""

    def __init__(self, seeds: int, events: int, done: Path | None, before: Report) -> None:
        self._seeds, self._events, self._done = seeds, events, done
        self._began_s = self._told_s = time.monotonic()
        self._runs_before = before.runs

    def __call__(self, report: Report) -> None:
        now_s = time.monotonic()
        if now_s - self._told_s < TOLD_EVERY_S:
            return
        self._told_s = now_s
        a_second = (report.runs - self._runs_before) / (now_s - self._began_s)
        left_min = (self._seeds - report.runs) / a_second / 60
        sys.stderr.write(
            f"{report.runs} of {self._seeds} seeds, {a_second:.1f} a second, {len(report.failures)} failed, "
            f"{left_min:.0f} min left\n"
        )
        self.keep(report)

    def keep(self, report: Report) -> None:
        if self._done is not None:
            write_done(self._done, report, self._events)


def _many(first: int, seeds: int, events: int, workers: int, minutes: float, done: Path | None) -> int:
    report = Report(first) if done is None else read_done(done, first, events)
    if isinstance(report, str):
        _say(report)
        return 2
    progress = _Progress(seeds, events, done, report)
    for stop in (signal.SIGINT, signal.SIGTERM):  # in the background a shell lets the first be ignored
        signal.signal(stop, signal.default_int_handler)
    try:
        run_many(report, seeds, events, workers, minutes * 60, progress)
    except KeyboardInterrupt:
        _say("stopped")
    progress.keep(report)
    return _sum_up(report, seeds)


def _sum_up(report: Report, seeds: int) -> int:
    for seed, violation in report.failures[:SHOWN_MAX]:
        _say(f"seed {seed}: {violation}\n  again, with its trace: python tests/sim/run.py --seed {seed} --trace")
    _say(
        f"{report.runs} of {seeds} seeds, {report.events} events, {report.virtual_s:.0f} s of virtual time in "
        f"{report.seconds:.1f} s: {report.events / max(report.seconds, 0.001):.0f} events/s; "
        f"{len(report.failures)} seeds failed"
    )
    _say(f"recovery branches: {_hits(report.branches)}")
    for branch in report.unhit():
        _say(f"no run went through {branch}: the mix of faults has lost its way there")
    return 1 if report.failures or report.unhit() else 0


def _planted() -> int:
    found = hunt_all()
    for one in found:
        _say(f"{one.bug:70} {'NOT FOUND' if one.seed is None else f'seed {one.seed}':>10} {one.seconds:6.2f} s")
    return 1 if any(one.seed is None for one in found) else 0


def _every_step(workers: int) -> int:
    began_s, work = time.monotonic(), [(seed, strike.name) for seed in SEEDS for strike in STRIKES]
    with ProcessPoolExecutor(workers) as pool:
        broken = [one for some in pool.map(run_cuts, *zip(*work, strict=True)) for one in some]
    for one in broken[:SHOWN_MAX]:
        _say(f"seed {one.seed}, {one.strike}, after step {one.at_step}: {one.violation}")
    runs = len(STRIKES) * sum(steps_of(seed) for seed in SEEDS)
    _say(f"{len(STRIKES)} faults at every step of {len(SEEDS)} runs: {runs} runs in {time.monotonic() - began_s:.1f} s")
    _say(f"{len(broken)} runs failed")
    return 1 if broken else 0


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=2000, help="how many seeds to run")
    parser.add_argument("--first", type=int, default=0, help="the first of them")
    parser.add_argument("--events", type=int, default=EVENTS, help="effective events a run, before it calms down")
    parser.add_argument("--minutes", type=float, default=math.inf, help="begin no more seeds after this long")
    parser.add_argument("--done", type=Path, help="a file of what was done: the next run with it goes on there")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--seed", type=int, help="run this one only")
    parser.add_argument("--trace", action="store_true", help="print its events")
    parser.add_argument("--planted", action="store_true", help="look for the planted bugs")
    parser.add_argument("--every-step", action="store_true", help="each fault at every step of short runs")
    chosen = parser.parse_args()
    if chosen.every_step:
        return _every_step(chosen.workers)
    if chosen.planted:
        return _planted()
    if chosen.seed is not None:
        return _one(chosen.seed, chosen.events, chosen.trace)
    return _many(chosen.first, chosen.seeds, chosen.events, chosen.workers, chosen.minutes, chosen.done)


if __name__ == "__main__":
    sys.exit(main())
