"""Runs the simulator: many seeds, or one with its trace.

python tests/sim/run.py --seeds 2000            2,000 seeds on all cores; fails on a violation or an unhit branch
python tests/sim/run.py --seed 17 --trace       one seed, every event of it
python tests/sim/run.py --planted               every planted bug, with the seed and the CPU time that found it
"""

import argparse
import os
import sys
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import msgspec

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]  # as a script it has neither; an editable install has the first

from sim.planted import Hunt, bugs, hunt  # noqa: E402
from sim.world import Outcome, run_chunk, run_seed  # noqa: E402

from gateway.recovery import Branch  # noqa: E402

EVENTS = 1500  # effective events of a run before it calms down
CHUNK = 20  # seeds a worker takes at a time
SEEDS_FOR_ALL_BRANCHES = 100  # with fewer a branch may be missed by chance
PLANTED_SEEDS, PLANTED_EVENTS, PLANTED_S = range(1, 1000), 1000, 30.0
SHOWN_MAX = 10


class Report(msgspec.Struct):
    """What many runs showed together."""

    runs: int = 0
    events: int = 0
    virtual_s: float = 0.0
    branches: Counter[str] = msgspec.field(default_factory=Counter)
    failures: list[tuple[int, str]] = []

    def add(self, outcome: Outcome) -> None:
        self.runs += 1
        self.events += outcome.events
        self.virtual_s += outcome.virtual_s
        self.branches.update(outcome.branches)
        if outcome.violations:
            self.failures.append((outcome.seed, outcome.violations[0]))

    def unhit(self) -> list[str]:
        """Branches of recovery that so many runs should have gone through, and did not."""
        expected = Branch if self.runs >= SEEDS_FOR_ALL_BRANCHES else ()
        return [branch.value for branch in expected if not self.branches[branch.value]]


def run_many(seeds: Sequence[int], events: int, workers: int) -> Report:
    """All seeds, over `workers` processes."""
    report = Report()
    chunks = [seeds[start : start + CHUNK] for start in range(0, len(seeds), CHUNK)]
    with ProcessPoolExecutor(workers) as pool:
        results: Iterable[list[Outcome]] = pool.map(run_chunk, chunks, [events] * len(chunks))
        for outcomes in results:
            for outcome in outcomes:
                report.add(outcome)
    return report


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


def _hits(branches: Counter[str]) -> str:
    return ", ".join(f"{branch.value} {branches[branch.value]}" for branch in Branch)


def _many(first: int, seeds: int, events: int, workers: int) -> int:
    began = time.monotonic()
    report = run_many(range(first, first + seeds), events, workers)
    took_s = time.monotonic() - began
    for seed, violation in report.failures[:SHOWN_MAX]:
        _say(f"seed {seed}: {violation}\n  again, with its trace: python tests/sim/run.py --seed {seed} --trace")
    _say(
        f"{report.runs} seeds, {report.events} events, {report.virtual_s:.0f} s of virtual time in {took_s:.1f} s: "
        f"{report.events / took_s:.0f} events/s; {len(report.failures)} seeds failed"
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


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=2000, help="how many seeds to run")
    parser.add_argument("--first", type=int, default=0, help="the first of them")
    parser.add_argument("--events", type=int, default=EVENTS, help="effective events a run, before it calms down")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--seed", type=int, help="run this one only")
    parser.add_argument("--trace", action="store_true", help="print its events")
    parser.add_argument("--planted", action="store_true", help="look for the planted bugs")
    chosen = parser.parse_args()
    if chosen.planted:
        return _planted()
    if chosen.seed is not None:
        return _one(chosen.seed, chosen.events, chosen.trace)
    return _many(chosen.first, chosen.seeds, chosen.events, chosen.workers)


if __name__ == "__main__":
    sys.exit(main())
