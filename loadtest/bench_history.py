"""Earlier runs of the bench on machines like this one, and how far this run has drifted from them.

A machine class is CPU model and cores. Its runs are lines of a file in the user's state directory, which no repository
holds. A figure is compared with the median of the last RUNS runs that have it. Cores shared with others are slower on
one day than on another: by how much, the control says that ran in the same minute (the bare server's CPU for the same
messages; where there is none, a fixed piece of work). What a figure drifted is told without that share.
"""

import os
import re
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from loadtest.bench_report import Row, Work

RUNS = 5  # the median of fewer is one run's luck; more reach back to another program
SECONDS_MIN = 2.0  # a row measured for less says too little to be remembered
DRIFT_CPU, DRIFT_OTHER = 0.10, 0.25  # what CPU a verdict, and what throughput and latency, vary by themselves
WORK_MS = "fixed work, ms"


class Run(msgspec.Struct, frozen=True):
    """One run: figures by row and name, and the control beside each row (lower is a quicker machine)."""

    at_ms: int
    commit: str
    figures: dict[str, dict[str, float]]
    controls: dict[str, dict[str, float]]


class Drift(msgspec.Struct, frozen=True):
    """One figure against the runs before."""

    row: str
    name: str
    now: float
    median: float
    machine: float  # how many times slower the machine itself was than at their median
    change: float  # of the figure, the machine's share taken out: 0.1 is a tenth worse, -0.1 a tenth better
    counts: bool  # whether that is more than it varies by itself


def run_of(at_ms: int, commit: str, rows: Sequence[Row], works: Sequence[Work]) -> Run:
    """What is remembered of a run."""
    figures: dict[str, dict[str, float]] = {}
    controls: dict[str, dict[str, float]] = {}
    for row in rows:
        name, side = row.name, row.side
        if name in figures:  # (d) comes twice: with calls of 64, and with calls as large as (c) had
            name = f"{name} large"
        costs = {f"{which} CPU a verdict, us": spent for which, spent in side.cpu_us.items() if which != "generator"}
        figures[name] = costs | {"verdicts a second": side.per_second, "p50, ms": side.p50_ms, "p99, ms": side.p99_ms}
        bare = {"bare server's CPU, us": row.control.cpu_us["bare"]} if row.control is not None else {}
        controls[name] = {**bare, WORK_MS: row.beside.work_ms}
    for work in works:
        figures[work.name], controls[work.name] = work.figures, {WORK_MS: work.beside.work_ms}
    return Run(at_ms, commit, figures, controls)


def compared(now: Run, before: Sequence[Run]) -> list[Drift]:
    """Every figure that earlier runs have too, against the median of the last RUNS of them."""
    found = []
    for row, figures in now.figures.items():
        past = [run for run in before if row in run.figures][-RUNS:]
        if not past:
            continue
        machine = _machine(now.controls[row], [run.controls[row] for run in past])
        for name, value in figures.items():
            earlier = [run.figures[row][name] for run in past if name in run.figures[row]]
            if earlier and statistics.median(earlier) > 0 and value > 0 and not name.startswith("control"):
                found.append(_drift(row, name, value, statistics.median(earlier), machine))
    return found


def _machine(now: Mapping[str, float], past: Sequence[Mapping[str, float]]) -> float:
    for name, value in now.items():  # the bare server first
        earlier = [controls[name] for controls in past if controls.get(name)]
        if value and earlier:
            return value / statistics.median(earlier)
    return 1.0


def _drift(row: str, name: str, now: float, median: float, machine: float) -> Drift:
    if "bytes" in name:
        machine = 1.0  # no machine is too slow for those
    worse = median / now if "a second" in name else now / median
    change = worse / machine - 1
    limit = DRIFT_CPU if "CPU" in name or "bytes" in name else DRIFT_OTHER
    return Drift(row, name, now, median, machine, change, abs(change) > limit)


def drift_lines(drifts: Sequence[Drift], runs: int) -> list[str]:
    """The comparison in words: first how the machine was, then what changed, then how much did not."""
    if not drifts:
        return ["no earlier run on a machine like this one: nothing to compare with"]
    lines = [f"against the median of up to {RUNS} of {runs} earlier runs on a machine like this one:"]
    machines = {drift.row: drift.machine for drift in drifts if "bytes" not in drift.name}
    slower = [f"({row}) {ratio:.2f}" for row, ratio in machines.items() if abs(ratio - 1) > DRIFT_CPU]
    if slower:
        lines.append(f"  the machine itself, by the controls, took times as long: {', '.join(slower)}; taken out below")
    counted = [drift for drift in drifts if drift.counts]
    for drift in counted:
        word = "worse" if drift.change > 0 else "better"
        lines.append(
            f"  ({drift.row}) {drift.name}: {drift.now:,.4g}, was {drift.median:,.4g}: {abs(drift.change):.0%} {word}"
        )
    lines.append(f"  {len(drifts) - len(counted)} figures as before")
    return lines


# --- the file -------------------------------------------------------------------------------------------------------


def machine_class(model: str, cores: int) -> str:
    """A name for machines like this one, fit for a file's name."""
    return f"{re.sub(r'[^a-z0-9]+', '-', model.casefold()).strip('-')}-{cores}"


def history_file(machine: str) -> Path:
    """Where the runs of a machine class are kept: XDG_STATE_HOME, else ~/.local/state."""
    home = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
    return home / "tillgate" / f"bench-{machine}.ndjson"


def recalled(path: Path) -> list[Run]:
    """The runs in a file, oldest first; lines of another version are passed over. Raises OSError."""
    if not path.exists():
        return []
    found = []
    for line in path.read_bytes().splitlines():
        try:
            found.append(msgspec.json.decode(line, type=Run))
        except msgspec.DecodeError:
            continue
    return found


def remember(path: Path, run: Run) -> None:
    """Add a run. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        file.write(msgspec.json.encode(run) + b"\n")
