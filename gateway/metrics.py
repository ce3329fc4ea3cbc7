"""What the gateway counts: plain integers on the hot path, made into Prometheus families only when somebody asks
(exposition.py).

A message costs one `Tally.answered` (under a microsecond), a batch one `Metrics.batch`; an accepted scan by itself
costs nothing. Histograms are never labelled by store, and nothing is ever labelled by voucher, code or terminal.
"""

from bisect import bisect_left
from collections.abc import Callable, Sequence
from itertools import accumulate

from eventstore.log import Batch
from gateway.messages import Verdict
from gateway.recovery import Branch, PartitionHalted, Recovered

# Exact bounds at 0.05 and 0.25 s, where the latency objectives are; the lowest is below one commit.
SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
SIZES = (1, 4, 16, 64, 256, 1024)  # records of a batch, up to the lane's maximum
STORES_MAX = 1000  # of each store five lines are told: a scrape stays below 20 ms; the rest counts as "(other)"
OTHER_STORES = "(other)"
OUTCOMES = ("accepted", "refused", "unresolved")
STORE_OUTCOMES = (*OUTCOMES, "already_redeemed")  # of a store's refusals these are told apart: many are a sign of fraud
# What is counted by cause is told as 0 from the start, or no alert sees the first one.
INVARIANTS = ("over_redeemed", "id_reused", "chain_broken")
SHED_CAUSES = ("connections", "draining", "slow_reader", "stalled")
CLAIM_FAULTS = ("lost", "refused")
BRANCHES = tuple("halted" if branch is Branch.HALT else str(branch) for branch in Branch)

_TOOK_EFFECT = (Verdict.ACCEPTED, Verdict.TOMBSTONED, Verdict.REPEATED)
OUTCOME_OF = bytes(0 if byte in _TOOK_EFFECT else 2 if byte == Verdict.UNRESOLVED else 1 for byte in range(256))
_ALREADY = Verdict.ALREADY_REDEEMED


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

    __slots__ = ("_stores", "heard", "in_flight", "seconds", "verdicts")

    def __init__(self, stores: dict[str, list[int]]) -> None:
        self._stores = stores
        self.heard: Callable[[str, bytes | bytearray, float], None] | None = None  # somebody else who wants to know
        self.in_flight = 0  # messages; whoever takes one adds 1, `answered` takes it back
        self.verdicts = [0] * 256
        self.seconds = tuple(Histogram(SECONDS) for _ in OUTCOMES)

    def answered(self, store: str, codes: bytes | bytearray, seconds: float) -> None:
        """One message of a till of `store` got these verdict bytes (as logged), `seconds` after it came."""
        self.in_flight -= 1
        if self.heard is not None:
            self.heard(store, codes, seconds)
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
        outcomes = codes.translate(OUTCOME_OF)
        for outcome, histogram in enumerate(self.seconds):
            times = outcomes.count(outcome)
            if times:
                row[outcome] += times
                histogram.observe(seconds, times)
        already = codes.count(_ALREADY)
        row[1] -= already
        row[3] += already

    def _row(self, store: str) -> list[int]:
        name = store if len(self._stores) < STORES_MAX else OTHER_STORES
        return self._stores.setdefault(name, [0] * len(STORE_OUTCOMES))


class Metrics:
    """One per process; also the core's observer."""

    def __init__(self, version: str) -> None:
        self.version = version
        self.stores: dict[str, list[int]] = {}
        self.tallies: dict[tuple[str, str], Tally] = {}
        self.shed_requests = dict.fromkeys(SHED_CAUSES, 0)
        self.recoveries = dict.fromkeys(BRANCHES, 0)
        self.violations = dict.fromkeys(INVARIANTS, 0)
        self.claim_faults = dict.fromkeys(CLAIM_FAULTS, 0)
        self.claim_seconds = Histogram(SECONDS)
        self.appended = 0
        self.batch_size, self.batch_seconds = Histogram(SIZES), Histogram(SECONDS)
        self.commit_seconds, self.commit_batches = Histogram(SECONDS), Histogram(SIZES)
        self.loop_lag = Histogram(SECONDS)

    def tally(self, op: str, transport: str) -> Tally:
        """`op`: redeem or reverse; `transport`: stream or http."""
        stores = self.stores if op == "redeem" else {}
        return self.tallies.setdefault((op, transport), Tally(stores))

    def shed(self, cause: str) -> None:
        """A request was turned away because of load; `cause` is one of SHED_CAUSES."""
        self.shed_requests[cause] += 1

    def violated(self, invariant: str) -> None:
        self.violations[invariant] += 1

    # --- the core's observer ---

    def batch(self, batch: Batch, seconds: float) -> None:
        count = len(batch.verdicts)
        self.appended += count
        self.batch_size.observe(count)
        self.batch_seconds.observe(seconds)

    def commit(self, seconds: float, batches: int) -> None:
        self.commit_seconds.observe(seconds)
        self.commit_batches.observe(batches)

    def recovered(self, partition: int, outcome: Recovered | PartitionHalted) -> None:
        names = ["halted"] if isinstance(outcome, PartitionHalted) else [str(name) for name in outcome.branches]
        for name in names:
            self.recoveries[name] += 1

    def claimed(self, seconds: float) -> None:
        self.claim_seconds.observe(seconds)

    def claim_failed(self, cause: str) -> None:
        self.claim_faults[cause] += 1
