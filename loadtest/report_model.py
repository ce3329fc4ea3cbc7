"""All that a report of a load run shows, as plain values: read once from the files of a run, drawn by others.

A long run is shown in stretches of several seconds. A stretch's percentiles are those of its seconds' histograms added
up, never a mean of percentiles; its rates are attempts by the length of the stretch. What can only be had as a
percentile (fsync, loop lag, told by the server) is shown as the largest of its stretch, which it never understates.
Times are seconds after the first intended start; latencies are milliseconds.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from loadtest.evidence import Judgement
from loadtest.histograms import Histogram, added, read
from loadtest.report_load import LoadCurve, load_curve
from loadtest.report_server import CpuShare, Recovery, ServerSeries, cpu_shares, recoveries, server_series
from loadtest.run_files import Counts, Environment, Fault, Mark, Run, RunUnreadable, Sample, Second

STRETCHES_MAX = 240  # as many as can be told apart in a picture
LENGTHS_S = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1800, 3600)
NINES = 5.0  # of the spectrum: to 99.999 %
SHARES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p999": 0.999, "p9999": 0.9999}
KINDS = ("intended", "service", "lag")


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


class Times(msgspec.Struct, frozen=True):
    """A second and its three histograms, each read once."""

    second: Second
    intended: Histogram
    service: Histogram
    lag: Histogram

    @property
    def unanswered(self) -> int:
        return self.second.counts.unresolved + self.second.counts.dropped

    def missing(self, kind: str) -> int:
        """Attempts that have no such latency, and would have had a long one; what was never sent has no lag."""
        return {"intended": self.unanswered, "service": self.second.counts.unresolved, "lag": 0}[kind]


class Reading(msgspec.Struct, frozen=True):
    """All files of a run but its journals."""

    run: Run
    times: list[Times]
    samples: list[Sample]
    invariants: list[Judgement] | None


def read_times(seconds: Iterable[Second]) -> list[Times]:
    """Raises RunUnreadable where a histogram is none."""
    return [
        Times(second, *(_histogram(getattr(second.latencies, kind), second.at_s) for kind in KINDS))
        for second in seconds
    ]


def _histogram(text: str, at_s: int) -> Histogram:
    try:
        return read(text)
    except ValueError as error:
        raise RunUnreadable(f"latencies of second {at_s}: {error}") from error


def report(reading: Reading) -> Report:
    """Everything shown of one run."""
    run, seconds = reading.run, reading.times
    length_s = stretch_length_s(max((one.second.at_s for one in seconds), default=0) + 1)
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
    loads = [(one.second.at_s, one.second.counts.offered, one.unanswered, one.intended) for one in reading.times]
    marks = reading.run.scenario.get("marks")
    mark_ms = marks.get("p99_ms") if isinstance(marks, Mapping) else None
    return load_curve(loads, reading.run.faults, mark_ms if isinstance(mark_ms, int | float) else None)


def sustained_of(reading: Reading) -> float | None:
    """The largest load a run sustained (loadtest/report_load.py), attempts a second."""
    return load_of(reading).sustained


def stretch_length_s(seconds: int) -> int:
    """The shortest length of which a run of so many seconds has no more than STRETCHES_MAX."""
    return next((length for length in LENGTHS_S if seconds <= length * STRETCHES_MAX), LENGTHS_S[-1])


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
    last = max(one.second.at_s for one in seconds)
    parts: dict[int, list[Times]] = {at: [] for at in range(0, last + 1, length_s)}
    for one in seconds:
        parts[one.second.at_s // length_s * length_s].append(one)
    return [_stretch(at_s, min(length_s, last + 1 - at_s), part) for at_s, part in parts.items()]


def _stretch(at_s: int, seconds: int, part: Sequence[Times]) -> Stretch:
    counts = [one.second.counts for one in part]
    unresolved, dropped = sum(one.unresolved for one in counts), sum(one.dropped for one in counts)
    whole = _whole(part)
    return Stretch(
        at_s=at_s,
        seconds=seconds,
        offered=sum(one.offered for one in counts) / seconds,
        started=sum(one.started for one in counts) / seconds,
        completed=sum(one.second.completed_in for one in part) / seconds,
        dropped=dropped / seconds,
        unresolved=unresolved / seconds,
        outcomes={name: count / seconds for name, count in _summed(one.second.outcomes for one in part).items()},
        intended=percentiles(whole["intended"], unresolved + dropped),
        service=percentiles(whole["service"], unresolved),
        lag=percentiles(whole["lag"], 0),
    )


def _summed(counted: Iterable[Mapping[str, int]]) -> dict[str, int]:
    found: dict[str, int] = {}
    for one in counted:
        for name, count in one.items():
            found[name] = found.get(name, 0) + count
    return found
