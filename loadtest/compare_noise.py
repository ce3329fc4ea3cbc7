"""Whether two runs differ by more than noise: a ratio, and how far chance alone could have moved it.

Rule. Both runs are cut into blocks of consecutive seconds. Blocks are drawn again and again, with repetition, the same
ones from both runs, because both offer the same load in the same second; each drawing gives a ratio (moving-block
bootstrap: H. R. Künsch, "The jackknife and the bootstrap for general stationary observations", Annals of Statistics 17,
1989; a block of about the cube root of the seconds is long enough for neighbours that depend on each other: P. Hall,
J. Horowitz, B.-Y. Jing, Biometrika 82, 1995). A difference is more than noise where the middle CONFIDENCE of these
ratios lies wholly beyond 1 +- `least`, the difference that is worth speaking of.

Assumptions. The noise within one run is like the noise of the other, and blocks far from each other do not depend on
one another. What changes from run to run (another neighbour on the machine, another layout of memory) is not seen:
T. Kalibera and R. Jones, "Rigorous benchmarking in reasonable time", ISMM 2013, show how often it is the larger part.
So a small difference is to be believed after both runs were repeated.

Percentiles of a drawing come from added histograms with STEPS counters an octave, 2 % wide: an interval needs no more.
"""

import math
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import accumulate
from typing import TypeVar

from loadtest.histograms import Histogram, highest_us

DRAWINGS = 400  # the ends of a 95 % interval rest on ten values each
CONFIDENCE = 0.95
BLOCKS_MIN = 8  # of fewer, drawings repeat each other
STEPS = 32

P = TypeVar("P")


class Coarse:
    """Blocks' histograms on one common row of counters, so that adding them needs no step in Python for each."""

    def __init__(self, blocks: Sequence[tuple[Histogram, int]]) -> None:
        """`blocks`: of each its histogram, and how many attempts are missing from it."""
        counted = [_coarse(one.counts) for one, _ in blocks]
        self._first = min((min(counts) for counts in counted if counts), default=0)
        last = max((max(counts) for counts in counted if counts), default=self._first)
        self._rows = [[counts.get(at, 0) for at in range(self._first, last + 1)] for counts in counted]
        self._missing = [missing for _, missing in blocks]

    def percentiles(self, shares: Sequence[float], chosen: Sequence[int]) -> tuple[float, ...]:
        """In microseconds; infinite among attempts without an answer, 0 of none."""
        below = list(accumulate(map(sum, zip(*(self._rows[at] for at in chosen), strict=True))))
        everything = below[-1] + sum(self._missing[at] for at in chosen)
        return tuple(self._at_rank(below, max(1.0, share * everything)) if everything else 0.0 for share in shares)

    def _at_rank(self, below: Sequence[int], rank: float) -> float:
        at = bisect_left(below, rank)
        return float(2 ** ((self._first + at) / STEPS)) if at < len(below) else math.inf


def _coarse(counts: Mapping[int, int]) -> dict[int, int]:
    found: dict[int, int] = {}
    for index, count in counts.items():
        at = round(math.log2(highest_us(index) + 1) * STEPS)
        found[at] = found.get(at, 0) + count
    return found


def block_length(seconds: int) -> int:
    """In seconds."""
    return max(2, round(math.cbrt(seconds)))


def blocks(parts: Sequence[P], length: int) -> list[Sequence[P]]:
    """Side by side; a shorter rest is left out."""
    return [parts[at : at + length] for at in range(0, len(parts) - length + 1, length)]


class Drawings:
    """The same drawings for every quantity of a comparison."""

    def __init__(self, count: int, draw: Callable[[int], int]) -> None:
        """Of `count` blocks; `draw(n)` gives a number below n."""
        self._chosen = [[draw(count) for _ in range(count)] for _ in range(DRAWINGS)] if count >= BLOCKS_MIN else []

    def intervals(
        self, base: Callable[[Sequence[int]], Sequence[float]], other: Callable[[Sequence[int]], Sequence[float]]
    ) -> list[tuple[float, float] | None]:
        """Of the ratios other / base of each value they give; None where there are too few blocks, or nothing to
        divide by. An empty list without any blocks."""
        drawn = [zip(base(chosen), other(chosen), strict=True) for chosen in self._chosen]
        return [_middle(pairs) for pairs in zip(*drawn, strict=True)]

    def interval(
        self, base: Callable[[Sequence[int]], float], other: Callable[[Sequence[int]], float]
    ) -> tuple[float, float] | None:
        """The same of one value."""
        found = self.intervals(lambda chosen: (base(chosen),), lambda chosen: (other(chosen),))
        return found[0] if found else None


def _middle(pairs: Iterable[tuple[float, float]]) -> tuple[float, float] | None:
    ratios = sorted(_ratios(pairs))
    if len(ratios) < DRAWINGS * CONFIDENCE:
        return None
    outside = int(len(ratios) * (1 - CONFIDENCE) / 2)
    return ratios[outside], ratios[-1 - outside]


def _ratios(pairs: Iterable[tuple[float, float]]) -> Iterable[float]:
    for base, other in pairs:
        if base > 0 and not (math.isinf(base) and math.isinf(other)):
            yield 0.0 if math.isinf(base) else other / base


def beyond(interval: tuple[float, float], least: float) -> int:
    """1: surely larger by `least` (a share), -1: surely smaller, 0: perhaps noise."""
    low, high = interval
    if low > 1 + least:
        return 1
    return -1 if high < 1 - least else 0
