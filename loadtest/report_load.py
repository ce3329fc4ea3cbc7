"""Latency against offered load: one curve from all seconds of a run, its knee, and the load it sustained.

Seconds of about equal offered load are put together and their histograms added. Seconds of a fault, and SETTLE_S after
it, are left out: their waiting has another cause.

A curve of waiting time over load has no knee of its own: where it seems to bend depends on how the axes are drawn
(N. J. Gunther, "Mind your knees and queues", MeasureIT 7.08, CMG 2009). So two definitions are used, and told:

  sustained  the largest load up to which p99 from the intended start keeps to the scenario's mark (or, where it has
             none, to TIMES the p99 at the smallest load) and every attempt got its answer, there and at all smaller
             loads. This is the figure to plan with.
  knee       the point of the largest difference between the curve and its chord, both scaled to a unit square: V.
             Satopää, J. Albrecht, D. Irwin, B. Raghavan, "Finding a 'Kneedle' in a haystack", ICDCS workshops 2011,
             without smoothing or sensitivity; p99 on a logarithmic axis, as the picture shows it; p50 as its lower
             bound where p99 is beyond all answers. Where the curve does not rise TIMES over, there is none.
"""

import math
import statistics
from collections.abc import Iterable, Sequence

import msgspec

from loadtest.histograms import added
from loadtest.report_times import Times
from loadtest.run_files import Fault

SETTLE_S = 5
WIDTH = 0.12  # of a group: enough groups for a bend, few enough for seconds to come together in each
CHANCE = 5.0  # standard deviations from the lowest to the highest second of one rate, where shoppers come at random
VARIES = 1.5  # the largest load by the smallest; below that a run says nothing of how waiting depends on load
DISPERSED = 3.0  # what chance alone does not reach in a dozen seconds or more
TIMES = 5.0
ATTEMPTS_MIN = 100  # a p99 of fewer is their maximum


class LoadPoint(msgspec.Struct, frozen=True):
    """Seconds of about the same offered load: attempts a second, milliseconds from the intended start."""

    offered: float
    seconds: int
    p50: float | None
    p99: float | None  # None: among attempts that got no answer
    p999: float | None
    unanswered: int


class LoadCurve(msgspec.Struct, frozen=True):
    """By rising load; knee and sustained are loads that stand among the points."""

    points: list[LoadPoint]
    limit_ms: float | None  # by which sustained is judged
    limit_is_mark: bool
    sustained: float | None
    knee: float | None
    left_out: int  # seconds, for a fault
    varied: bool  # otherwise all this says nothing about load


def load_curve(times: Sequence[Times], faults: Sequence[Fault], mark_ms: float | None) -> LoadCurve:
    """Of all seconds of a run in which anything was offered."""
    loaded = [one for one in times if one.counts.offered]
    calm = [one for one in loaded if not _disturbed(one, faults)]
    left_out = sum(one.length_s for one in loaded) - sum(one.length_s for one in calm)
    points = _points(calm)
    told = [one.p99 for one in points if one.p99 is not None]
    limit_ms = mark_ms if mark_ms is not None else TIMES * told[0] if told else None
    varied = len(points) >= 3 and points[-1].offered >= VARIES * points[0].offered
    varied = varied and _dispersion([one.counts.offered for one in calm]) >= DISPERSED
    return LoadCurve(
        points=points,
        limit_ms=limit_ms,
        limit_is_mark=mark_ms is not None,
        sustained=sustained_load(points, limit_ms) if varied and limit_ms is not None else None,
        knee=knee_load(points) if varied else None,
        left_out=left_out,
        varied=varied,
    )


def _dispersion(counts: Sequence[int]) -> float:
    """Variance by mean: 1 where shoppers come at random at one and the same rate (Poisson), more where it changes."""
    mean = statistics.fmean(counts)
    return statistics.pvariance(counts, mean) / mean


def _disturbed(one: Times, faults: Iterable[Fault]) -> bool:
    """What was under way when a fault began counts too."""
    ends = [(fault.at_s, fault.at_s if fault.until_s is None else fault.until_s) for fault in faults]
    return any(start - 1 < one.at_s + one.length_s and one.at_s < end + SETTLE_S for start, end in ends)


def _points(times: Sequence[Times]) -> list[LoadPoint]:
    """From the smallest load on, whatever lies within a group's width of its first belongs to it: so a step of the
    schedule, whose seconds differ by chance, is not cut in two."""
    groups: list[list[Times]] = []
    for one in sorted(times, key=_load):
        if not groups or _load(one) > _widest(groups[-1][0]):
            groups.append([])
        groups[-1].append(one)
    return [_point(part) for part in groups if sum(one.counts.offered for one in part) >= ATTEMPTS_MIN]


def _widest(first: Times) -> float:
    chance = CHANCE * math.sqrt(first.counts.offered) / first.length_s
    return _load(first) + max(chance, _load(first) * WIDTH)


def _load(one: Times) -> float:
    return one.counts.offered / one.length_s


def _point(part: Sequence[Times]) -> LoadPoint:
    whole, unanswered = added(one.intended for one in part), sum(one.unanswered for one in part)
    seconds = sum(one.length_s for one in part)
    p50, p99, p999 = (whole.percentile_us(share, unanswered) for share in (0.5, 0.99, 0.999))
    return LoadPoint(
        offered=sum(one.counts.offered for one in part) / seconds,
        seconds=seconds,
        p50=None if p50 is None else p50 / 1000,
        p99=None if p99 is None else p99 / 1000,
        p999=None if p999 is None else p999 / 1000,
        unanswered=unanswered,
    )


def sustained_load(points: Sequence[LoadPoint], limit_ms: float) -> float | None:
    """The last load before the first that breaks the limit or leaves an attempt without an answer."""
    sustained = None
    for point in points:
        if point.p99 is None or point.p99 > limit_ms or point.unanswered:
            break
        sustained = point.offered
    return sustained


def knee_load(points: Sequence[LoadPoint]) -> float | None:
    """Where a rising curve lies farthest below its chord; None where it does not rise enough to speak of."""
    told = ((one.offered, one.p99 or one.p50) for one in points)
    curve = [(offered, math.log(waited)) for offered, waited in told if waited]
    if len(curve) < 3:
        return None
    (low, first), (high, last) = curve[0], curve[-1]
    if last - first < math.log(TIMES):
        return None
    below = [(x - low) / (high - low) - (y - first) / (last - first) for x, y in curve]
    farthest = max(range(len(curve)), key=lambda number: below[number])
    return curve[farthest][0] if below[farthest] > 0 else None
