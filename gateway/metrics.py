"""What the gateway counts: plain integers on the hot path, made into Prometheus families only when somebody asks.

A message costs one `Tally.answered` (under a microsecond), a batch one `Metrics.batch`; an accepted scan by itself
costs nothing. Histograms are never labelled by store, and nothing is ever labelled by voucher, code or terminal.
"""

import platform
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate

import msgspec
from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from eventstore.log import Batch
from gateway.messages import Verdict
from gateway.recovery import PartitionHalted, Recovered

# Exact bounds at 0.05 and 0.25 s, where the latency objectives are; the lowest is below one commit.
SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
SIZES = (1, 4, 16, 64, 256, 1024)  # records of a batch, up to the lane's maximum
STORES_MAX = 1000  # of each store four lines are told: a scrape stays below 20 ms; the rest counts as "(other)"
OTHER_STORES = "(other)"
OUTCOMES = ("accepted", "refused", "unresolved")
INVARIANTS = ("accepted_twice", "id_reused", "chain_broken")  # told as 0 from the start, or no alert sees the first

_TOOK_EFFECT = (Verdict.ACCEPTED, Verdict.TOMBSTONED, Verdict.REPEATED)
_OUTCOME_OF = bytes(0 if byte in _TOOK_EFFECT else 2 if byte == Verdict.UNRESOLVED else 1 for byte in range(256))
_LABELS = ("outcome", "reason", "transport")


class Histogram:
    """Counts by upper bound, and their sum."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float, times: int = 1) -> None:
        self.counts[bisect_left(self.bounds, value)] += times
        self.total += value * times

    def buckets(self) -> list[tuple[str, float]]:
        """Cumulative, as Prometheus wants them."""
        names = [*map(str, self.bounds), "+Inf"]
        return list(zip(names, accumulate(self.counts), strict=True))


class Tally:
    """What one door answered for one operation. Keep it; do not look it up per message."""

    __slots__ = ("_stores", "in_flight", "seconds", "verdicts")

    def __init__(self, stores: dict[str, list[int]]) -> None:
        self._stores = stores
        self.in_flight = 0  # messages; whoever takes one adds 1, `answered` takes it back
        self.verdicts = [0] * 256
        self.seconds = tuple(Histogram(SECONDS) for _ in OUTCOMES)

    def answered(self, store: str, codes: bytes | bytearray, seconds: float) -> None:
        """One message of a till of `store` got these verdict bytes (as logged), `seconds` after it came."""
        self.in_flight -= 1
        row = self._stores.get(store) or self._row(store)
        count = len(codes)
        accepted = codes.count(0)
        self.verdicts[0] += accepted
        if accepted == count:
            row[0] += count
            self.seconds[0].observe(seconds, count)
            return
        for code in codes.translate(None, b"\0"):
            self.verdicts[code] += 1
        outcomes = codes.translate(_OUTCOME_OF)
        for outcome, histogram in enumerate(self.seconds):
            times = outcomes.count(outcome)
            if times:
                row[outcome] += times
                histogram.observe(seconds, times)

    def _row(self, store: str) -> list[int]:
        name = store if len(self._stores) < STORES_MAX else OTHER_STORES
        return self._stores.setdefault(name, [0, 0, 0])


class Snapshot(msgspec.Struct, frozen=True):
    """What is read off the gateway at the moment of a scrape."""

    ready: bool
    draining: bool
    connected: Mapping[str, int]  # terminals by store
    lanes: Mapping[str, int]  # partitions by state
    last_sequences: Mapping[str, int]  # by partition
    valkey_restarts: int


class Metrics:
    """One per process; also the core's observer."""

    def __init__(self, version: str) -> None:
        self._version = version
        self._process = CollectorRegistry()
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=self._process)
        self._stores: dict[str, list[int]] = {}
        self._tallies: dict[tuple[str, str], Tally] = {}
        self._shed: dict[str, int] = {}
        self._recoveries: dict[str, int] = {}
        self._violations = dict.fromkeys(INVARIANTS, 0)
        self._appended = 0
        self._batch_size, self._batch_seconds = Histogram(SIZES), Histogram(SECONDS)
        self._commit_seconds, self._commit_batches = Histogram(SECONDS), Histogram(SIZES)
        self.loop_lag = Histogram(SECONDS)

    def tally(self, op: str, transport: str) -> Tally:
        """`op`: redeem or reverse; `transport`: stream or http."""
        stores = self._stores if op == "redeem" else {}
        return self._tallies.setdefault((op, transport), Tally(stores))

    def shed(self, cause: str) -> None:
        """A request was turned away because of load; `cause` is one of a handful."""
        self._shed[cause] = self._shed.get(cause, 0) + 1

    def violated(self, invariant: str) -> None:
        self._violations[invariant] += 1

    # --- the core's observer ---

    def batch(self, batch: Batch, seconds: float) -> None:
        count = len(batch.verdicts)
        self._appended += count
        self._batch_size.observe(count)
        self._batch_seconds.observe(seconds)

    def commit(self, seconds: float, batches: int) -> None:
        self._commit_seconds.observe(seconds)
        self._commit_batches.observe(batches)

    def recovered(self, partition: int, outcome: Recovered | PartitionHalted) -> None:
        names = ["halted"] if isinstance(outcome, PartitionHalted) else [str(name) for name in outcome.branches]
        for name in names:
            self._recoveries[name] = self._recoveries.get(name, 0) + 1

    # --- exposition ---

    def exposition(self, snapshot: Snapshot) -> bytes:
        """The text of a scrape (Prometheus text format 0.0.4)."""
        return generate_latest(self._process) + generate_latest(_Fixed([*self._families(snapshot)]))

    def _families(self, snapshot: Snapshot) -> Iterator[Metric]:
        yield from self._requests()
        yield _counter(
            "tillgate_redeem_store_requests",
            "Redemptions asked for, by store",
            ("store", "outcome"),
            {(store, outcome): row[at] for store, row in self._stores.items() for at, outcome in enumerate(OUTCOMES)},
        )
        yield _counter("tillgate_shed_requests", "Turned away because of load", ("cause",), _keyed(self._shed))
        yield _counter("tillgate_events_appended", "Records made durable", ("kind",), {("voucher",): self._appended})
        yield _histogram("tillgate_event_batch_size", "Records of a batch", {(): self._batch_size})
        yield _histogram("tillgate_batch_duration_seconds", "A batch, from claim to durable", {(): self._batch_seconds})
        yield _histogram(
            "tillgate_event_log_fsync_duration_seconds", "A group commit, fsync included", {(): self._commit_seconds}
        )
        yield _histogram("tillgate_event_log_commit_batches", "Batches of a commit", {(): self._commit_batches})
        yield _histogram("tillgate_event_loop_lag_seconds", "How late the event loop was", {(): self.loop_lag})
        yield _counter("tillgate_partition_recoveries", "What recoveries found", ("branch",), _keyed(self._recoveries))
        yield _counter("tillgate_invariant_violations", "Must stay 0", ("invariant",), _keyed(self._violations))
        yield from self._gauges(snapshot)

    def _requests(self) -> Iterator[Metric]:
        for op in dict.fromkeys(op for op, _ in self._tallies):
            tallies = {transport: tally for (its_op, transport), tally in self._tallies.items() if its_op == op}
            yield _counter(
                f"tillgate_{op}_requests",
                "Asked for, by what came of it",
                _LABELS,
                {
                    (OUTCOMES[_OUTCOME_OF[byte]], Verdict(byte).name.lower(), transport): count
                    for transport, tally in tallies.items()
                    for byte, count in enumerate(tally.verdicts)
                    if count or byte == Verdict.ACCEPTED
                },
            )
            yield _histogram(
                f"tillgate_{op}_duration_seconds",
                "From receipt to a durable answer",
                {
                    (outcome, transport): histogram
                    for transport, tally in tallies.items()
                    for outcome, histogram in zip(OUTCOMES, tally.seconds, strict=True)
                },
                ("outcome", "transport"),
            )
        by_op: dict[str, int] = {}
        replays: dict[str, int] = {}
        for (op, _), tally in self._tallies.items():
            by_op[op] = by_op.get(op, 0) + tally.in_flight
            replays[op] = replays.get(op, 0) + tally.verdicts[Verdict.REPEATED]
        yield _gauge("tillgate_requests_in_flight", "Messages not answered yet", ("op",), _keyed(by_op))
        yield _counter("tillgate_idempotent_replays", "Retries that got their first answer", ("op",), _keyed(replays))

    def _gauges(self, snapshot: Snapshot) -> Iterator[Metric]:
        build: _Values = {(self._version, platform.python_version()): 1}
        yield _gauge("tillgate_build_info", "Always 1", ("version", "python"), build)
        yield _gauge("tillgate_ready", "1 when /readyz says so", (), {(): int(snapshot.ready)})
        yield _gauge("tillgate_draining", "1 while leaving", (), {(): int(snapshot.draining)})
        yield _gauge("tillgate_terminals_connected", "By store", ("store",), _keyed(_bounded(snapshot.connected)))
        yield _gauge("tillgate_partitions", "By state", ("state",), _keyed(snapshot.lanes))
        yield _gauge(
            "tillgate_event_log_last_sequence", "Newest batch", ("partition",), _keyed(snapshot.last_sequences)
        )
        restarts: _Values = {(): snapshot.valkey_restarts}
        yield _counter("tillgate_valkey_restarts", "Of the private Valkey, since start", (), restarts)


class _Fixed(Collector):
    def __init__(self, families: Sequence[Metric]) -> None:
        self._families = families

    def collect(self) -> Sequence[Metric]:
        return self._families


_Values = Mapping[tuple[str, ...], int]


def _keyed(values: Mapping[str, int]) -> _Values:
    return {(name,): value for name, value in values.items()}


def _bounded(values: Mapping[str, int]) -> Mapping[str, int]:
    if len(values) <= STORES_MAX:
        return values
    names = sorted(values)
    rest = sum(values[name] for name in names[STORES_MAX:])
    return {name: values[name] for name in names[:STORES_MAX]} | {OTHER_STORES: rest}


def _counter(name: str, text: str, labels: Sequence[str], values: _Values) -> Metric:
    family = CounterMetricFamily(name, text, labels=labels)
    for key, value in values.items():
        family.add_metric(key, value)
    return family


def _gauge(name: str, text: str, labels: Sequence[str], values: _Values) -> Metric:
    family = GaugeMetricFamily(name, text, labels=labels)
    for key, value in values.items():
        family.add_metric(key, value)
    return family


def _histogram(name: str, text: str, values: Mapping[tuple[str, ...], Histogram], labels: Sequence[str] = ()) -> Metric:
    family = HistogramMetricFamily(name, text, labels=labels)
    for key, histogram in values.items():
        family.add_metric(key, histogram.buckets(), histogram.total)
    return family
