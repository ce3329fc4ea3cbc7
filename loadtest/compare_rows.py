"""The quantities of two runs beside each other: waiting times, answers, CPU a verdict, outcomes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import msgspec

from loadtest.compare_noise import Coarse, Drawings, beyond, block_length, blocks
from loadtest.histograms import Histogram, added
from loadtest.report_model import sustained_of
from loadtest.report_server import by_process, spent_s
from loadtest.report_times import Reading, Times
from loadtest.run_files import Sample

LEAST = {"latency": 0.10, "cpu": 0.05, "count": 0.05}  # smaller differences come back the other way in the next run
SERIES = (("intended", "waited"), ("service", "service"), ("lag", "generator's lag"))
PERCENTILES = ((0.5, "p50"), (0.99, "p99"), (0.999, "p99.9"))

Unit = Literal["ms", "us", "/s", "MiB", ""]
Judgement = Literal["better", "worse", "differs", "same", "short", "single", "void"]
JUDGED = {
    "better": "better",
    "worse": "worse",
    "differs": "differs",
    "same": "within noise",
    "short": "too short to tell",
    "single": "one number a run",
    "void": "void",
}
Interval = tuple[float, float] | None


class Row(msgspec.Struct, frozen=True):
    """One quantity of two runs."""

    name: str
    unit: Unit
    base: float | None  # None: no answer, or not measured
    other: float | None
    ratio: float | None  # other / base
    interval: Interval  # of the ratio; None: the runs are too short to tell
    judgement: Judgement


@dataclass(frozen=True)
class Side:
    """One run, whole and in blocks."""

    times: Sequence[Times]
    parts: list[Sequence[Times]]
    samples: dict[str, list[Sample]]

    @property
    def seconds(self) -> int:
        return max(1, sum(one.length_s for one in self.times))

    def sums(self, count: Callable[[Times], int]) -> list[int]:
        return [sum(map(count, part)) for part in self.parts]


def rows_of(base: Reading, other: Reading, seconds: int, draw: Callable[[int], int]) -> list[Row]:
    """Over the first `seconds` of both."""
    sides = _side(base, seconds), _side(other, seconds)
    drawings = Drawings(min(len(side.parts) for side in sides), draw)
    outcomes = {**base.run.outcomes, **other.run.outcomes}
    named = sorted(outcomes, key=lambda name: (name != "accepted", name))
    processes = [name for name in sides[0].samples if name in sides[1].samples]
    found = [
        *_latency_rows(sides, drawings),
        _count_row("answers a second", "/s", sides, drawings, lambda one: one.completed, good=1),
        _count_row("never sent or unresolved", "", sides, drawings, lambda one: one.unanswered, good=-1),
        _alone("sustained load", "/s", [sustained_of(one) for one in (base, other)]),
        *(_cpu_row(process, sides, drawings) for process in processes),
        *(_memory_row(process, sides) for process in processes),
        *(_outcome_row(name, sides, drawings) for name in named),
    ]
    return [row for row in found if row.unit != "/s" or (row.base, row.other) != (None, None)]


def _side(one: Reading, seconds: int) -> Side:
    times = [times for times in one.times if times.at_s < seconds]
    watched = {name: part for name, part in by_process(one.samples).items() if len(part) > 1}
    return Side(times, blocks(times, block_length(len(times))), watched)


def _latency_rows(sides: tuple[Side, Side], drawings: Drawings) -> list[Row]:
    rows = []
    for kind, said in SERIES:
        coarse = [Coarse([_whole(part, kind) for part in side.parts]) for side in sides]
        whole = [_whole(side.times, kind) for side in sides]
        intervals = drawings.intervals(*map(_percentiles, coarse)) or [None] * len(PERCENTILES)
        for (share, word), interval in zip(PERCENTILES, intervals, strict=True):
            values = [_ms(histogram.percentile_us(share, missing)) for histogram, missing in whole]
            rows.append(_row(f"{said} {word}", "ms", values, interval, "latency", 0 if kind == "lag" else -1))
    return rows


def _whole(part: Sequence[Times], kind: str) -> tuple[Histogram, int]:
    return added(getattr(one, kind) for one in part), sum(one.missing(kind) for one in part)


def _ms(value_us: int | None) -> float | None:
    return None if value_us is None else value_us / 1000


def _percentiles(coarse: Coarse) -> Callable[[Sequence[int]], Sequence[float]]:
    shares = [share for share, _ in PERCENTILES]
    return lambda chosen: coarse.percentiles(shares, chosen)


def _count_row(
    name: str,
    unit: Unit,
    sides: tuple[Side, Side],
    drawings: Drawings,
    count: Callable[[Times], int],
    good: int,
) -> Row:
    """Something counted by second: its sum, or the mean rate where the unit is one."""
    interval = drawings.interval(*(_sum_of(side.sums(count)) for side in sides))
    values: list[float | None] = [sum(map(count, side.times)) / (side.seconds if unit else 1) for side in sides]
    return _row(name, unit, values, interval, "count", good)


def _outcome_row(name: str, sides: tuple[Side, Side], drawings: Drawings) -> Row:
    said = f"answered: {name.replace('_', ' ')}"
    return _count_row(said, "", sides, drawings, lambda one: one.outcomes.get(name, 0), good=0)


def _sum_of(sums: Sequence[float]) -> Callable[[Sequence[int]], float]:
    return lambda chosen: float(sum(sums[at] for at in chosen))


def _cpu_row(process: str, sides: tuple[Side, Side], drawings: Drawings) -> Row:
    """CPU time a verdict: of the whole run, and by block for its interval."""
    spent = [[_spent_in(side.samples[process], part) for part in side.parts] for side in sides]
    verdicts = [side.sums(lambda one: one.completed) for side in sides]
    interval = drawings.interval(*(_quotient(cpu, count) for cpu, count in zip(spent, verdicts, strict=True)))
    values = [_cpu_us(side, process) for side in sides]
    return _row(
        f"CPU a verdict, {process}", "us", values, interval, "cpu", 0 if process.startswith("generator") else -1
    )


def _cpu_us(side: Side, process: str) -> float | None:
    answers = sum(one.completed for one in side.times)
    return spent_s(side.samples[process]) * 1e6 / answers if answers else None


def _spent_in(samples: Sequence[Sample], part: Sequence[Times]) -> float:
    """CPU seconds in a block, between the samples next to its ends."""
    start, end = part[0].at_s, part[-1].at_s + part[-1].length_s
    inside = [one for one in samples if start <= one.at_s <= end]
    length = inside[-1].at_s - inside[0].at_s if inside else 0.0
    return spent_s(inside) / length * (end - start) if length else 0.0


def _quotient(spent: Sequence[float], verdicts: Sequence[int]) -> Callable[[Sequence[int]], float]:
    return lambda chosen: sum(spent[at] for at in chosen) / max(1, sum(verdicts[at] for at in chosen))


def _memory_row(process: str, sides: tuple[Side, Side]) -> Row:
    """The most there was; one number a run, so chance cannot be told from it."""
    values: list[float | None] = [max(one.rss_bytes for one in side.samples[process]) / 2**20 for side in sides]
    return _alone(f"memory at most, {process}", "MiB", values)


def _alone(name: str, unit: Unit, values: Sequence[float | None]) -> Row:
    """A quantity of which each run gives one number, so that nothing tells chance from it."""
    row = _row(name, unit, values, None, "count", 0)
    return row if row.judgement == "same" else msgspec.structs.replace(row, judgement="single")


def _row(name: str, unit: Unit, values: Sequence[float | None], interval: Interval, kind: str, good: int) -> Row:
    """`good`: 1 where more is better, -1 where less is, 0 where neither."""
    base, other = values
    ratio = other / base if base and other is not None else None
    return Row(name, unit, base, other, ratio, interval, _judged(base, other, interval, LEAST[kind], good))


def _judged(base: float | None, other: float | None, interval: Interval, least: float, good: int) -> Judgement:
    if base == other:
        return "same"
    if interval is None:
        return "short"
    direction = beyond(interval, least)
    if not direction:
        return "same"
    return "differs" if not good else "better" if direction == good else "worse"
