"""The last minutes of a gateway, second by second, for the console. Pure: every moment comes in as an argument.

What the log says arrives in cells, already summed by batch: a thousand scans of one store cost what one does. What the
tills were told, and how fast, is read off the metrics' counters once a second, as differences.
"""

from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence

import msgspec

from eventstore.outcomes import OUTCOMES, Cell
from gateway.console_bodies import Second
from gateway.messages import PUBLIC, Verdict

SECONDS_KEPT = 300  # five minutes fit a chart on a phone
MINUTE_S = 60
LATE_S_MAX = 5  # a batch older than this is history (a rebuild, another gateway that was away), not the present
CELLS_MAX = 4096  # of one second: 1,000 stores x 4 campaigns; more are counted, but not told apart by store

Sees = Callable[[str, int], bool]  # whether an asker may see this store and this campaign


class Latencies(msgspec.Struct, frozen=True):
    """The metrics' counters at one moment."""

    bounds: Sequence[float]  # seconds
    counts: Sequence[int]  # answers by bound, not cumulative; one more than bounds
    verdicts: Sequence[int]  # answers by verdict byte


class Told(msgspec.Struct, frozen=True):
    """What the tills were told in one second."""

    p50_ms: float = 0.0
    p99_ms: float = 0.0
    answers: int = 0
    unresolved: int = 0


class Live:
    """Seconds, newest last."""

    def __init__(self, now_ms: int) -> None:
        self.since_ms = now_ms
        self._seconds: deque[tuple[int, Counter[Cell]]] = deque(maxlen=SECONDS_KEPT)
        self._told: dict[int, Told] = {}
        self._before: Latencies | None = None

    def counted(self, at_s: int, cells: Mapping[Cell, int], now_s: int) -> None:
        """What batches made in the second `at_s` add to it."""
        if at_s < now_s - LATE_S_MAX:
            return
        second = self._second(at_s)
        if len(second) < CELLS_MAX:
            second.update(cells)
            return
        for (_, campaign, kind), n in cells.items():
            second["", campaign, kind] += n

    def _second(self, at_s: int) -> Counter[Cell]:
        for kept_s, counts in reversed(self._seconds):
            if kept_s == at_s:
                return counts
            if kept_s < at_s:
                break
        if self._seconds and self._seconds[-1][0] > at_s:  # a batch that came late opens no second between others
            return self._seconds[-1][1]
        self._seconds.append((at_s, counts := Counter()))
        return counts

    def answered(self, now_s: int, latencies: Latencies) -> None:
        """Once a second: the metrics' counters, of which the difference is this second's."""
        before, self._before = self._before, latencies
        if before is None or len(before.counts) != len(latencies.counts):
            return
        counts = [now - then for now, then in zip(latencies.counts, before.counts, strict=True)]
        verdicts = [now - then for now, then in zip(latencies.verdicts, before.verdicts, strict=True)]
        p50, p99 = (1000 * quantile(latencies.bounds, counts, share) for share in (0.50, 0.99))
        self._told[now_s] = Told(p50, p99, sum(verdicts), verdicts[Verdict.UNRESOLVED])
        for old_s in [at_s for at_s in self._told if at_s <= now_s - SECONDS_KEPT]:
            del self._told[old_s]

    def told_at(self, at_s: int) -> Told:
        """What the tills were told in that second; nothing is known of it yet, or any more: zeros."""
        return self._told.get(at_s, Told())

    # --- reading ---

    def seconds(self, sees: Sees, now_s: int, count: int = SECONDS_KEPT, *, latencies: bool = True) -> list[Second]:
        """The last `count` seconds without gaps, the current one last, of what `sees` lets through."""
        kept = {at_s: cells for at_s, cells in self._seconds if at_s > now_s - count}
        first_s = max(now_s - count + 1, self.since_ms // 1000)
        return [
            _second_of(at_s, kept.get(at_s, {}), sees, self.told_at(at_s) if latencies else Told())
            for at_s in range(first_s, now_s + 1)
        ]

    def mix(self, sees: Sees, now_s: int) -> dict[str, int]:
        """Outcomes of the last minute, most first; a refusal under its public reason."""
        mixed: Counter[str] = Counter()
        for cells in self._minute(now_s):
            for (store, campaign, kind), n in cells.items():
                if sees(store, campaign):
                    mixed[reason_of(kind)] += n
        return dict(mixed.most_common())

    def per_minute(self, now_s: int) -> Counter[str]:
        """Scans of the last minute by store."""
        stores: Counter[str] = Counter()
        for cells in self._minute(now_s):
            for (store, _, kind), n in cells.items():
                if OUTCOMES[kind] in SCANS:
                    stores[store] += n
        return stores

    def unresolved(self, now_s: int) -> int:
        """Answers of the last minute that said: ask again."""
        return sum(self.told_at(at_s).unresolved for at_s in range(now_s - MINUTE_S + 1, now_s + 1))

    def _minute(self, now_s: int) -> Iterator[Counter[Cell]]:
        for at_s, cells in reversed(self._seconds):
            if at_s <= now_s - MINUTE_S:
                return
            yield cells


SCANS = ("redeemed", "repeated", "refused")


def reason_of(kind: int) -> str:
    """An outcome, or for a refusal its public reason: who sees counts learns no more of a code than its till did."""
    outcome = OUTCOMES[kind]
    if outcome not in ("refused", "denied"):
        return outcome
    verdict = PUBLIC[kind & 255]
    return verdict.name.lower() if verdict is not None else "unknown"


def quantile(bounds: Sequence[float], counts: Sequence[int], share: float) -> float:
    """The value below which `share` of the observations lie, by straight lines inside a bucket, 0 without any.

    As Prometheus' histogram_quantile does; what lies beyond the last bound is told as that bound.
    """
    total = sum(counts)
    rank, passed = share * total, 0
    for at, n in enumerate(counts):
        if total and passed + n >= rank and n:
            if at == len(bounds):
                return bounds[-1]
            low = bounds[at - 1] if at else 0.0
            return low + (bounds[at] - low) * (rank - passed) / n
        passed += n
    return 0.0


def bad_beyond(bounds: Sequence[float], counts: Sequence[int], limit: float) -> int:
    """How many observations lie above `limit`, which is one of the bounds."""
    return sum(counts[bisect_left(bounds, limit) + 1 :])


def _second_of(at_s: int, cells: Mapping[Cell, int], sees: Sees, told: Told) -> Second:
    redeemed = refused = undone = 0
    for (store, campaign, kind), n in cells.items():
        if sees(store, campaign):
            match OUTCOMES[kind]:
                case "redeemed" | "repeated":
                    redeemed += n
                case "refused":
                    refused += n
                case "reversed":
                    undone += n
    return Second(at_s, redeemed, refused, undone, round(told.p50_ms, 2), round(told.p99_ms, 2))
