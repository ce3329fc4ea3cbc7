"""What the watched processes spent, as series over time and as CPU a verdict; and how long faults were felt."""

import itertools
import statistics
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from loadtest.run_files import Fault, Sample

BEFORE_S = 30  # a fault is judged by so much of the time before it
CALM = 3  # stretches in a row: one alone may be luck
RECOVERED = 2.0  # p99 within twice of what it was before


class ServerPoint(msgspec.Struct, frozen=True):
    """One process in one stretch; what nobody could tell is None."""

    at_s: float
    cores: float | None  # CPU seconds a second since the last point
    rss_mib: float
    open_fds: int | None
    loop_lag_ms: float | None
    fsync_p99_ms: float | None


class ServerSeries(msgspec.Struct, frozen=True):
    process: str
    points: list[ServerPoint]


class CpuShare(msgspec.Struct, frozen=True):
    """One process over the whole time it was watched."""

    process: str
    seconds: float
    us_per_verdict: float | None  # None: no verdict
    cores: float  # busy on average
    rss_most_mib: float


class Recovery(msgspec.Struct, frozen=True):
    """After which time a fault was no longer felt."""

    fault: str
    seconds: float | None  # None: not before the run ended, or there was nothing before to compare with


def by_process(samples: Iterable[Sample]) -> dict[str, list[Sample]]:
    found: dict[str, list[Sample]] = {}
    for sample in samples:
        found.setdefault(sample.process, []).append(sample)
    return {name: sorted(part, key=lambda one: one.at_s) for name, part in sorted(found.items(), key=_order)}


def _order(named: tuple[str, object]) -> tuple[int, str]:
    """The server first, who asks it last."""
    kinds = ("gateway", "worker", "valkey", "", "generator")
    return next((at for at, kind in enumerate(kinds) if kind and named[0].startswith(kind)), 3), named[0]


def server_series(samples: Iterable[Sample], length_s: int) -> list[ServerSeries]:
    """A series a process, a point a stretch of `length_s`."""
    return [ServerSeries(name, _points(part, length_s)) for name, part in by_process(samples).items()]


def _points(samples: Sequence[Sample], length_s: int) -> list[ServerPoint]:
    parts: dict[int, list[Sample]] = {}
    for one in samples:
        parts.setdefault(int(one.at_s // length_s), []).append(one)
    points, last = [], None
    for part in parts.values():
        points.append(_point(part, last))
        last = part[-1]
    return points


def _point(part: Sequence[Sample], last: Sample | None) -> ServerPoint:
    end = part[-1]
    since = last if last is not None else part[0]
    spent, length = end.cpu_s - since.cpu_s, end.at_s - since.at_s
    return ServerPoint(
        at_s=end.at_s,
        cores=spent / length if length > 0 and spent >= 0 else None,  # it began anew: its account, too
        rss_mib=max(one.rss_bytes for one in part) / 2**20,
        open_fds=max((one.open_fds for one in part if one.open_fds is not None), default=None),
        loop_lag_ms=max((one.loop_lag_ms for one in part if one.loop_lag_ms is not None), default=None),
        fsync_p99_ms=max((one.fsync_p99_ms for one in part if one.fsync_p99_ms is not None), default=None),
    )


def cpu_shares(samples: Iterable[Sample], verdicts: int) -> list[CpuShare]:
    """What each process spent while it was watched, in all and for each verdict."""
    shares = []
    for name, part in by_process(samples).items():
        spent, length = spent_s(part), part[-1].at_s - part[0].at_s
        shares.append(
            CpuShare(
                process=name,
                seconds=spent,
                us_per_verdict=spent / verdicts * 1e6 if verdicts else None,
                cores=spent / length if length > 0 else 0.0,
                rss_most_mib=max(one.rss_bytes for one in part) / 2**20,
            )
        )
    return shares


def spent_s(samples: Sequence[Sample]) -> float:
    """CPU seconds of one process; a successor's account begins at nothing."""
    steps = itertools.pairwise(samples)
    return sum(later.cpu_s - earlier.cpu_s if later.cpu_s >= earlier.cpu_s else later.cpu_s for earlier, later in steps)


def recoveries(faults: Sequence[Fault], p99: Sequence[tuple[int, float | None]], length_s: int) -> list[Recovery]:
    """`p99`: from the intended start, by second. A fault is over with the first of CALM stretches after it, and
    before the next one, whose p99 keeps within RECOVERED times the median of the time before."""
    found = []
    for fault in sorted(faults, key=lambda one: one.at_s):
        end_s = fault.at_s if fault.until_s is None else fault.until_s
        before = [ms for at_s, ms in p99 if fault.at_s - BEFORE_S <= at_s <= fault.at_s - length_s and ms is not None]
        next_s = min((one.at_s for one in faults if one.at_s > end_s), default=float("inf"))
        after = {at_s: ms for at_s, ms in p99 if end_s <= at_s + length_s and at_s < next_s}
        found.append(Recovery(fault.name, _settled_s(after, end_s, before)))
    return found


def _settled_s(after: Mapping[int, float | None], end_s: float, before: Sequence[float]) -> float | None:
    if not before or not after:
        return None
    most = RECOVERED * statistics.median(before)
    order = sorted(after)
    calm = [(ms := after[at_s]) is not None and ms <= most for at_s in order]
    first = next((at for at in range(len(calm) - CALM + 1) if all(calm[at : at + CALM])), None)
    return None if first is None else max(0.0, order[first] - end_s)
