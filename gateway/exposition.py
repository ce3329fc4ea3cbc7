"""What a scrape gets: the gateway's counts and one look at it, as Prometheus families.

Every family is told on every scrape, with every label value that an alert may ask for, so that nothing is born at 1.
The text is written here and not by prometheus_client, which takes eight times as long (measured: 86 ms of CPU against
10 for 1,000 stores); its collectors still tell of the process.
Label values are closed sets, except stores and campaigns, which are bounded; nothing is ever labelled by voucher, code
or terminal.
"""

import platform
from collections.abc import Iterator, Mapping, Sequence
from typing import TypeVar

import msgspec
from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector, generate_latest

from gateway.messages import Verdict
from gateway.metrics import OTHER_STORES, OUTCOME_OF, OUTCOMES, STORE_OUTCOMES, STORES_MAX, Histogram, Metrics
from gateway.sampler import Sampled

CAMPAIGNS_MAX = 50  # four lines each; the newest are told by name, the others together
OTHER_CAMPAIGNS = "(other)"
VOUCHER_STATES = ("open", "redeemed", "voided", "expired")  # every issued voucher is in exactly one
LANE_STATES = ("admitting", "recovering", "halted")
_ALWAYS = (Verdict.ACCEPTED, Verdict.ALREADY_REDEEMED, Verdict.UNRESOLVED)  # reasons told even while they are 0

Labels = TypeVar("Labels", bound=tuple[str, ...])


class Projected(msgspec.Struct, frozen=True):
    """How far a projection has come. `progress`: of its first catching up, 0 to 1."""

    last_sequences: Mapping[str, int]  # by partition
    lag_seconds: float
    progress: float


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """What is read off the gateway at the moment of a scrape."""

    ready: bool = False
    draining: bool = False
    connected: Mapping[str, int] = {}  # terminals by store, also of stores where none is
    lanes: Mapping[str, int] = {}  # partitions by state
    last_sequences: Mapping[str, int] = {}  # of the log, by partition
    valkey_restarts: int = 0
    projections: Mapping[str, Projected] = {}
    vouchers: Mapping[str, Sequence[int]] | None = None  # by campaign, as VOUCHER_STATES; None: not counted yet
    conflicts: Mapping[str, Sequence[int]] = {}  # of campaigns that allow offline acceptance: one number each
    ends: Mapping[str, int] = {}  # by cause, over restarts
    capacity: float = 0.0  # redemptions a second; 0: not set
    sampled: Sampled = Sampled()


class Exposition:
    """Makes the text of scrapes. Runs in a thread of its own: it only reads."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._process = CollectorRegistry()
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=self._process)

    def text(self, snapshot: Snapshot) -> bytes:
        """Prometheus text format 0.0.4."""
        metrics = self._metrics
        families = [*_requests(metrics), *_log(metrics, snapshot), *_valkey(metrics, snapshot), *_state(snapshot)]
        families += [*_kept(metrics, snapshot), _build(metrics.version)]
        return generate_latest(self._process) + "".join(families).encode()


def _build(version: str) -> str:
    return _gauge("build_info", "Always 1", {(version, platform.python_version()): 1}, ("version", "python"))


def _requests(metrics: Metrics) -> Iterator[str]:
    for op in dict.fromkeys(op for op, _ in metrics.tallies):
        tallies = {transport: tally for (its_op, transport), tally in metrics.tallies.items() if its_op == op}
        counts = {
            (OUTCOMES[OUTCOME_OF[byte]], Verdict(byte).name.lower(), transport): count
            for transport, tally in tallies.items()
            for byte, count in enumerate(tally.verdicts)
            if count or byte in _ALWAYS
        }
        text = "Asked for, by what came of it"
        yield _counter(f"{op}_requests", text, counts, ("outcome", "reason", "transport"))
        seconds = {
            (outcome, transport): histogram
            for transport, tally in tallies.items()
            for outcome, histogram in zip(OUTCOMES, tally.seconds, strict=True)
        }
        text = "From receipt to a durable answer"
        yield _histogram(f"{op}_duration_seconds", text, seconds, ("outcome", "transport"))
    by_op: dict[str, int] = {}
    replays: dict[str, int] = {}
    for (op, _), tally in metrics.tallies.items():
        by_op[op] = by_op.get(op, 0) + tally.in_flight
        replays[op] = replays.get(op, 0) + tally.verdicts[Verdict.REPEATED]
    yield _gauge("requests_in_flight", "Messages not answered yet", _keyed(by_op), ("op",))
    yield _counter("idempotent_replays", "Retries that got their first answer", _keyed(replays), ("op",))
    yield _counter("shed_requests", "Turned away because of load", _keyed(metrics.shed_requests), ("cause",))
    stores = {
        (store, outcome): row[at]
        for store, row in [*metrics.stores.items()]
        for at, outcome in enumerate(STORE_OUTCOMES)
    }
    yield _counter("redeem_store_requests", "Redemptions asked for, by store", stores, ("store", "outcome"))


def _log(metrics: Metrics, snapshot: Snapshot) -> Iterator[str]:
    yield _counter("events_appended", "Records made durable", {("voucher",): metrics.appended}, ("kind",))
    yield _histogram("event_batch_size", "Records of a batch", {(): metrics.batch_size})
    yield _histogram("batch_duration_seconds", "A batch, from claim to durable", {(): metrics.batch_seconds})
    text = "A group commit, fsync included"
    yield _histogram("event_log_fsync_duration_seconds", text, {(): metrics.commit_seconds})
    yield _histogram("event_log_commit_batches", "Batches of a commit", {(): metrics.commit_batches})
    failed = {("storage",): snapshot.ends.get("log", 0)}
    text = "Appends that the log's storage failed; each ends the gateway, and is counted over restarts"
    yield _counter("event_append_failures", text, failed, ("cause",))
    yield _gauge("event_log_last_sequence", "Newest batch", _keyed(snapshot.last_sequences), ("partition",))
    disk = snapshot.sampled.disk
    yield _gauge("event_log_bytes", "The log's file and its write-ahead log", _of(disk, "log_bytes"))
    yield _gauge("disk_free_bytes", "On the data directory's file system", _of(disk, "free_bytes"))
    yield _gauge("disk_size_bytes", "Of the data directory's file system", _of(disk, "size_bytes"))


def _valkey(metrics: Metrics, snapshot: Snapshot) -> Iterator[str]:
    seen = snapshot.sampled.valkey
    yield _histogram(
        "valkey_op_duration_seconds", "One call, by operation", {("claim",): metrics.claim_seconds}, ("op",)
    )
    faults = {("claim", cause): count for cause, count in metrics.claim_faults.items()}
    text = "Calls that were lost on the way or refused; their scans stay unresolved"
    yield _counter("valkey_errors", text, faults, ("op", "cause"))
    yield _gauge("valkey_up", "1 when it answered lately", {(): int(seen is not None)})
    yield _gauge("valkey_primary", "1 when it takes writes as primary", _of(seen, "is_primary"))
    yield _gauge("valkey_used_memory_bytes", "Memory in use", _of(seen, "used_memory_bytes"))
    yield _gauge("valkey_memory_limit_bytes", "maxmemory; 0: none", _of(seen, "memory_limit_bytes"))
    yield _counter("valkey_evicted_keys", "Must stay 0", _of(seen, "evicted_keys"))
    yield _gauge("valkey_connections", "Clients of Valkey", _of(seen, "connections"))
    text = "1 while it cannot write its append-only file"
    yield _gauge("valkey_aof_failing", text, _of(seen, "aof_is_failing"))
    yield _gauge("valkey_aof_bytes", "Size of its append-only file", _of(seen, "aof_bytes"))
    yield _counter("valkey_restarts", "Of the private Valkey, since start", {(): snapshot.valkey_restarts})
    offset = {("valkey",): round(seen.clock_offset_s, 6)} if seen else {}
    yield _gauge("clock_offset_seconds", "Our clock, less the other's", offset, ("against",))
    difference = max(seen.log_difference.values(), key=abs, default=0) if seen else None
    values = {} if difference is None else {("valkey",): difference}
    text = "Batches by which this copy of the log's head is off (the partition that is off most)"
    yield _gauge("reconciliation_difference_batches", text, values, ("source",))


def _state(snapshot: Snapshot) -> Iterator[str]:
    yield _gauge("ready", "1 when /readyz says so", {(): int(snapshot.ready)})
    yield _gauge("draining", "1 while leaving", {(): int(snapshot.draining)})
    yield _gauge("terminals_connected", "By store", _keyed(_bounded(snapshot.connected)), ("store",))
    lanes = dict.fromkeys(LANE_STATES, 0) | dict(snapshot.lanes)
    yield _gauge("partitions", "By state", _keyed(lanes), ("state",))
    if snapshot.capacity:
        text = "What the last load test certified, as configured"
        yield _gauge("capacity_redeem_per_second", text, {(): snapshot.capacity})
    sequences = {
        (name, partition): seq
        for name, projected in snapshot.projections.items()
        for partition, seq in projected.last_sequences.items()
    }
    yield _gauge("projection_last_sequence", "Newest batch applied", sequences, ("projection", "partition"))
    lags = {(name,): projected.lag_seconds for name, projected in snapshot.projections.items()}
    yield _gauge("projection_lag_seconds", "Age of the oldest batch not applied", lags, ("projection",))
    progress = {(name,): projected.progress for name, projected in snapshot.projections.items()}
    text = "Of catching up after the start"
    yield _gauge("projection_rebuild_progress_ratio", text, progress, ("projection",))
    if snapshot.vouchers is not None:
        vouchers = {
            (campaign, state): count
            for campaign, counts in _bounded_campaigns(snapshot.vouchers).items()
            for state, count in zip(VOUCHER_STATES, counts, strict=True)
        }
        yield _gauge("vouchers", "Issued vouchers, by where they stand", vouchers, ("campaign", "state"))
    lost = {(campaign,): counts[0] for campaign, counts in _bounded_campaigns(snapshot.conflicts).items()}
    yield _counter("offline_conflicts", "Offline acceptances that lost to another redemption", lost, ("campaign",))


def _kept(metrics: Metrics, snapshot: Snapshot) -> Iterator[str]:
    yield _histogram("event_loop_lag_seconds", "How late the event loop was", {(): metrics.loop_lag})
    yield _counter("partition_recoveries", "What recoveries found", _keyed(metrics.recoveries), ("branch",))
    yield _counter("invariant_violations", "Must stay 0", _keyed(metrics.violations), ("invariant",))
    yield _counter("failed_ends", "Gateways that ended on a failure, over restarts", _keyed(snapshot.ends), ("cause",))


def _of(seen: msgspec.Struct | None, field: str) -> dict[tuple[()], float]:
    """A family without labels; without a sample while nothing is known."""
    value = None if seen is None else getattr(seen, field)
    return {} if value is None else {(): float(value)}


def _keyed(values: Mapping[str, int]) -> dict[tuple[str], int]:
    return {(name,): value for name, value in values.items()}


def _bounded(values: Mapping[str, int]) -> Mapping[str, int]:
    if len(values) <= STORES_MAX:
        return values
    names = sorted(values)
    rest = sum(values[name] for name in names[STORES_MAX:])
    return {name: values[name] for name in names[:STORES_MAX]} | {OTHER_STORES: rest}


def _bounded_campaigns(values: Mapping[str, Sequence[int]]) -> Mapping[str, Sequence[int]]:
    """`values` oldest first."""
    names = list(values)
    if len(names) <= CAMPAIGNS_MAX:
        return values
    older, newest = names[:-CAMPAIGNS_MAX], names[-CAMPAIGNS_MAX:]
    rest = [sum(column) for column in zip(*(values[name] for name in older), strict=True)]
    return {OTHER_CAMPAIGNS: rest} | {name: values[name] for name in newest}


def _counter(name: str, text: str, values: Mapping[Labels, float], labels: Sequence[str] = ()) -> str:
    return _family(f"{name}_total", "counter", text, values, labels)


def _gauge(name: str, text: str, values: Mapping[Labels, float], labels: Sequence[str] = ()) -> str:
    return _family(name, "gauge", text, values, labels)


def _histogram(name: str, text: str, values: Mapping[Labels, Histogram], labels: Sequence[str] = ()) -> str:
    rows: dict[tuple[str, ...], float] = {}
    lines = [_head(name, "histogram", text)]
    for key, histogram in values.items():
        rows = {(*key, bound): count for bound, count in histogram.buckets()}
        lines += _samples(f"{name}_bucket", rows, (*labels, "le"))
        lines += _samples(f"{name}_count", {key: rows[*key, "+Inf"]}, labels)
        lines += _samples(f"{name}_sum", {key: histogram.total}, labels)
    return "".join(lines)


def _family(name: str, kind: str, text: str, values: Mapping[Labels, float], labels: Sequence[str]) -> str:
    return _head(name, kind, text) + "".join(_samples(name, values, labels))


def _head(name: str, kind: str, text: str) -> str:
    return f"# HELP tillgate_{name} {text}\n# TYPE tillgate_{name} {kind}\n"


def _samples(name: str, values: Mapping[Labels, float], labels: Sequence[str]) -> Iterator[str]:
    """Lines of the text format. Nothing is escaped: label values are enums, numbers, and the ids of control_rules."""
    form = "tillgate_" + name + ("{" + ",".join(f'{label}="%s"' for label in labels) + "} " if labels else " ")
    for key, value in values.items():
        yield f"{form % key}{value!r}\n"
