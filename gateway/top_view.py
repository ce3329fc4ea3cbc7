"""What `tillgate top` shows, computed from two scrapes of the same gateways. Pure.

Rates are differences of counters over the time between; a counter that fell began anew, and counts from 0. Quantiles
are those of what happened between the scrapes, interpolated inside a bucket as Prometheus' histogram_quantile does.
"""

from bisect import bisect_left
from collections.abc import Iterable, Mapping
from itertools import pairwise

import msgspec

Labels = frozenset[tuple[str, str]]
Samples = Mapping[tuple[str, Labels], float]
REASONS_MAX = 5  # what fits beside the curve of outcomes; the rest is in Grafana
STORES_MAX = 8


class View(msgspec.Struct, frozen=True):
    """Everything on the screen. Rates are a second; lengths of time in seconds, None where nothing happened."""

    gateways: int
    ready: int
    draining: int
    verdicts: dict[str, float]  # by outcome
    reasons: dict[str, float]  # of refusals, most frequent first
    stores: dict[str, float]  # redemptions by store, busiest first
    p50_s: float | None
    p99_s: float | None
    in_flight: int
    terminals: int
    partitions: dict[str, int]  # by state
    records: float
    fsync_p99_s: float | None
    loop_lag_p99_s: float | None
    cpu: float  # of one core, all gateways together
    memory_bytes: int
    valkey_up: bool | None
    valkey_p99_s: float | None
    valkey_bytes: int
    log_bytes: int
    disk_free_bytes: int
    projection_lag_s: float
    violations: int


def merged(scrapes: Iterable[Samples]) -> dict[tuple[str, Labels], float]:
    """Several workers' samples as one: summed, which is right for counters, histograms and most gauges."""
    sums: dict[tuple[str, Labels], float] = {}
    for samples in scrapes:
        for key, value in samples.items():
            sums[key] = sums.get(key, 0.0) + value
    return sums


def view(before: Samples, after: Samples, seconds: float, gateways: int) -> View:
    """`before` and `after` are merged scrapes, `seconds` apart."""
    change = _Change(before, after, seconds)
    latency = "tillgate_redeem_duration_seconds"
    reasons = change.rates("tillgate_redeem_requests_total", "reason", outcome="refused")
    per_gateway = max(1, gateways)
    return View(
        gateways=gateways,
        ready=round(change.latest("tillgate_ready")),
        draining=round(change.latest("tillgate_draining")),
        verdicts=change.rates("tillgate_redeem_requests_total", "outcome"),
        reasons=_most(reasons, REASONS_MAX),
        stores=_most(change.rates("tillgate_redeem_store_requests_total", "store"), STORES_MAX),
        p50_s=change.quantile(latency, 0.5),
        p99_s=change.quantile(latency, 0.99),
        in_flight=round(change.latest("tillgate_requests_in_flight")),
        terminals=round(change.latest("tillgate_terminals_connected")),
        partitions={name: round(count) for name, count in change.by("tillgate_partitions", "state").items() if count},
        records=change.rate("tillgate_events_appended_total"),
        fsync_p99_s=change.quantile("tillgate_event_log_fsync_duration_seconds", 0.99),
        loop_lag_p99_s=change.quantile("tillgate_event_loop_lag_seconds", 0.99),
        cpu=change.rate("process_cpu_seconds_total"),
        memory_bytes=round(change.latest("process_resident_memory_bytes")),
        valkey_up=bool(change.latest("tillgate_valkey_up")) if change.has("tillgate_valkey_up") else None,
        valkey_p99_s=change.quantile("tillgate_valkey_op_duration_seconds", 0.99),
        valkey_bytes=round(change.latest("tillgate_valkey_used_memory_bytes") / per_gateway),
        log_bytes=round(change.latest("tillgate_event_log_bytes") / per_gateway),
        disk_free_bytes=round(change.latest("tillgate_disk_free_bytes") / per_gateway),
        projection_lag_s=max(change.by("tillgate_projection_lag_seconds", "projection").values(), default=0.0),
        violations=round(change.latest("tillgate_invariant_violations_total")),
    )


class _Change:
    """What happened between two scrapes."""

    def __init__(self, before: Samples, after: Samples, seconds: float) -> None:
        assert seconds > 0, "two scrapes are apart"
        self._before, self._after, self._seconds = before, after, seconds
        self._names: dict[str, list[Labels]] = {}
        for name, labels in after:
            self._names.setdefault(name, []).append(labels)

    def has(self, name: str) -> bool:
        return name in self._names

    def latest(self, name: str) -> float:
        """The sum over all labels."""
        return sum(self._after[name, labels] for labels in self._names.get(name, ()))

    def by(self, name: str, label: str) -> dict[str, float]:
        """The values now, by one label."""
        sums: dict[str, float] = {}
        for labels in self._names.get(name, ()):
            value = dict(labels).get(label, "")
            sums[value] = sums.get(value, 0.0) + self._after[name, labels]
        return sums

    def rate(self, name: str) -> float:
        return sum(self._grown(name, labels) for labels in self._names.get(name, ())) / self._seconds

    def rates(self, name: str, label: str, **where: str) -> dict[str, float]:
        """Per second by one label, of the samples that have the labels `where`."""
        sums: dict[str, float] = {}
        for labels in self._names.get(name, ()):
            told = dict(labels)
            if where.items() <= told.items():
                value = told.get(label, "")
                sums[value] = sums.get(value, 0.0) + self._grown(name, labels) / self._seconds
        return sums

    def quantile(self, name: str, share: float) -> float | None:
        """Of what a histogram counted in between; None if that is nothing."""
        counts: dict[float, float] = {}
        for labels in self._names.get(f"{name}_bucket", ()):
            bound = float(dict(labels)["le"])
            counts[bound] = counts.get(bound, 0.0) + self._grown(f"{name}_bucket", labels)
        return _quantile(sorted(counts.items()), share)

    def _grown(self, name: str, labels: Labels) -> float:
        grown = self._after[name, labels] - self._before.get((name, labels), 0.0)
        return grown if grown >= 0 else self._after[name, labels]


def _quantile(cumulative: list[tuple[float, float]], share: float) -> float | None:
    """From cumulative counts by upper bound, ascending; in the open last bucket, its lower bound."""
    total = cumulative[-1][1] if cumulative else 0.0
    if total <= 0:
        return None
    wanted = share * total
    at = bisect_left([count for _, count in cumulative], wanted)
    low, below = cumulative[at - 1] if at else (0.0, 0.0)
    high, here = cumulative[at]
    if high == float("inf"):
        return low
    assert all(one[1] <= other[1] for one, other in pairwise(cumulative)), "counts of a histogram only rise"
    return low + (high - low) * (wanted - below) / (here - below)


def _most(rates: Mapping[str, float], count: int) -> dict[str, float]:
    busiest = sorted(rates.items(), key=lambda row: (-row[1], row[0]))
    return {name: rate for name, rate in busiest[:count] if rate > 0}
