"""All that a report of a load run shows, as plain values: read once from the files of a run, drawn by others.

A long run is shown in stretches of several seconds. A stretch's percentiles are those of its seconds' histograms added
up, never a mean of percentiles; its rates are attempts by the length of the stretch. What can only be had as a
percentile (fsync, loop lag, told by the server) is shown as the largest of its stretch, which it never understates.
Times are seconds after the first intended start; latencies are milliseconds.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from loadtest.evidence import Judgement
from loadtest.histograms import Histogram, added
from loadtest.report_load import LoadCurve, load_curve
from loadtest.report_server import CpuShare, Recovery, ServerSeries, cpu_shares, recoveries, server_series
from loadtest.report_times import KINDS, Reading, Times, stretch_length_s, summed
from loadtest.run_files import Counts, Environment, Fault, Mark

NINES = 5.0  # of the spectrum: to 99.999 %
SHARES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p999": 0.999, "p9999": 0.9999}


class Percentiles(msgspec.Struct, frozen=True):
    """In milliseconds; None where the percentile falls among attempts without an answer, or there were none at all.

    `largest` is what was measured: where there are attempts without an answer, those are beyond it.
    """

    p50: float | None
    p90: float | None
    p99: float | None
    p999: float | None
    p9999: float | None
    largest: float | None


class Latency(msgspec.Struct, frozen=True):
    """One kind of latency, over a whole run or a stretch of it."""

    measured: int
    missing: int  # attempts that have no such latency: they count as longer than all others
    percentiles: Percentiles


class Stretch(msgspec.Struct, frozen=True):
    """One second of a run, or several: rates a second, latencies by the second of the intended start."""

    at_s: int
    seconds: int
    offered: float
    started: float
    completed: float  # answers that arrived meanwhile, whenever they were due
    dropped: float
    unresolved: float
    outcomes: dict[str, float]
    intended: Percentiles
    service: Percentiles
    lag: Percentiles


class Spectrum(msgspec.Struct, frozen=True):
    """Points of one kind: share of all attempts, and milliseconds."""

    points: list[tuple[float, float]]
    answered: float  # the share that has such a latency: a curve ends there


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """One run."""

    name: str
    title: str
    tool: str
    scenario: dict[str, Any]
    started_ms: int
    seconds: float
    generators: int
    stretch_s: int
    counts: Counts
    outcomes: dict[str, int]
    latencies: dict[str, Latency]  # by KINDS
    spectra: dict[str, Spectrum]
    stretches: list[Stretch]
    load: LoadCurve
    server: list[ServerSeries]
    cpu: list[CpuShare]
    faults: list[Fault]
    recoveries: list[Recovery]
    marks: list[Mark]
    void: list[str]
    invariants: list[Judgement] | None  # None: nobody verified it
    environment: Environment


def report(reading: Reading) -> Report:
    """Everything shown of one run."""
    run, seconds = reading.run, reading.times
    length_s = stretch_length_s(max((one.at_s + one.length_s for one in seconds), default=1))
    whole = _whole(seconds)
    counts = run.counts
    missing = {"intended": counts.unresolved + counts.dropped, "service": counts.unresolved, "lag": 0}
    stretches = _stretches(seconds, length_s)
    return Report(
        name=str(run.scenario.get("name", "")),
        title=str(run.scenario.get("title") or run.scenario.get("name") or "load run"),
        tool=run.tool,
        scenario=run.scenario,
        started_ms=run.started_ms,
        seconds=run.seconds,
        generators=run.generators,
        stretch_s=length_s,
        counts=counts,
        outcomes=run.outcomes,
        latencies={kind: _latency(whole[kind], missing[kind]) for kind in KINDS},
        spectra={kind: _spectrum(whole[kind], missing[kind]) for kind in KINDS},
        stretches=stretches,
        load=load_of(reading),
        server=server_series(reading.samples, length_s),
        cpu=cpu_shares(reading.samples, counts.completed),
        faults=run.faults,
        recoveries=recoveries(run.faults, [(one.at_s, one.intended.p99) for one in stretches if one.offered], length_s),
        marks=run.marks,
        void=run.void,
        invariants=reading.invariants,
        environment=run.environment,
    )


def load_of(reading: Reading) -> LoadCurve:
    """Waiting against load, judged by the run's mark for p99."""
    marks = reading.run.scenario.get("marks")
    mark_ms = marks.get("p99_ms") if isinstance(marks, Mapping) else None
    return load_curve(reading.times, reading.run.faults, mark_ms if isinstance(mark_ms, int | float) else None)


def sustained_of(reading: Reading) -> float | None:
    """The largest load a run sustained (loadtest/report_load.py), attempts a second."""
    return load_of(reading).sustained


def _whole(seconds: Sequence[Times]) -> dict[str, Histogram]:
    return {kind: added(getattr(one, kind) for one in seconds) for kind in KINDS}


def _latency(histogram: Histogram, missing: int) -> Latency:
    return Latency(histogram.total, missing, percentiles(histogram, missing))


def percentiles(histogram: Histogram, missing: int) -> Percentiles:
    """Of one histogram and so many attempts that are not in it."""
    told = {name: _ms(histogram.percentile_us(share, missing)) for name, share in SHARES.items()}
    return Percentiles(**told, largest=_ms(histogram.largest_us))


def _ms(microseconds: int | None) -> float | None:
    return None if microseconds is None else microseconds / 1000


def _spectrum(histogram: Histogram, missing: int) -> Spectrum:
    points = [(share, value / 1000) for share, value in histogram.spectrum(missing, NINES)]
    return Spectrum(points, histogram.total / max(1, histogram.total + missing))


def _stretches(seconds: Sequence[Times], length_s: int) -> list[Stretch]:
    """Without gaps: a stretch in which nothing was offered is there too."""
    if not seconds:
        return []
    end_s = max(one.at_s + one.length_s for one in seconds)
    parts: dict[int, list[Times]] = {at: [] for at in range(0, end_s, length_s)}
    for one in seconds:
        parts[one.at_s // length_s * length_s].append(one)
    return [_stretch(at_s, min(length_s, end_s - at_s), part) for at_s, part in parts.items()]


def _stretch(at_s: int, seconds: int, part: Sequence[Times]) -> Stretch:
    counts = [one.counts for one in part]
    unresolved, dropped = sum(one.unresolved for one in counts), sum(one.dropped for one in counts)
    whole = _whole(part)
    return Stretch(
        at_s=at_s,
        seconds=seconds,
        offered=sum(one.offered for one in counts) / seconds,
        started=sum(one.started for one in counts) / seconds,
        completed=sum(one.completed for one in part) / seconds,
        dropped=dropped / seconds,
        unresolved=unresolved / seconds,
        outcomes={name: count / seconds for name, count in summed(one.outcomes for one in part).items()},
        intended=percentiles(whole["intended"], unresolved + dropped),
        service=percentiles(whole["service"], unresolved),
        lag=percentiles(whole["lag"], 0),
    )
