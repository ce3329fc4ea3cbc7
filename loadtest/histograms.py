"""Histograms of a run, read from their text: adding them up, and percentiles that know of attempts without an answer.

Percentiles are never averaged. What is wanted of many seconds is added up first, which is exact (HdrHistogram, "add"),
and asked for its percentile afterwards. An attempt that got no answer is in no histogram; left out silently it would
make every percentile too small. So a percentile is asked with the number of such attempts, which count as longer
than everything that was measured; where the percentile falls among them there is no number, and None says so.
"""

import math
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from hdrh.codec import HdrCookieException, HdrLengthException
from hdrh.histogram import HdrHistogram

from loadtest.run_files import DIGITS, HIGHEST_US, LOWEST_US

HALF_BITS = (
    10  # three digits: 2,048 sub-buckets, of which the lower half of every bucket but the first is in the one below
)
UNREADABLE = (HdrCookieException, HdrLengthException, ValueError, IndexError, OverflowError, zlib.error)
TICKS_PER_DECADE = 24  # points of a spectrum: closer than they can be told apart in a picture


@dataclass(frozen=True)
class Histogram:
    """Index of an HdrHistogram's counter to its count; only what is not zero."""

    counts: dict[int, int]

    @cached_property
    def total(self) -> int:
        return sum(self.counts.values())

    @cached_property
    def _rising(self) -> list[tuple[int, int]]:
        """Counters in order, each with how many values lie in it or below."""
        below, found = 0, []
        for index in sorted(self.counts):
            below += self.counts[index]
            found.append((below, index))
        return found

    def percentile_us(self, share: float, missing: int = 0) -> int | None:
        """The smallest value that at least `share` of all do not exceed (nearest rank), `missing` ones being larger
        than any. None where it falls among those, or where there is nothing."""
        rank = max(1, math.ceil(share * (self.total + missing) - 1e-9))
        return self._at_rank(rank) if rank <= self.total else None

    def _at_rank(self, rank: int) -> int:
        low, high = 0, len(self._rising) - 1
        while low < high:
            middle = (low + high) // 2
            if self._rising[middle][0] < rank:
                low = middle + 1
            else:
                high = middle
        return highest_us(self._rising[low][1])

    @property
    def largest_us(self) -> int | None:
        return highest_us(max(self.counts)) if self.counts else None

    def spectrum(self, missing: int, nines: float) -> list[tuple[float, int]]:
        """Share and value, evenly over the logarithm of 1 / (1 - share) up to `nines` decades; only as far as there
        are values to tell one share from the next."""
        everything = self.total + missing
        shares = (1 - 10 ** (-tick / TICKS_PER_DECADE) for tick in range(round(nines * TICKS_PER_DECADE) + 1))
        told = ((share, self.percentile_us(share, missing)) for share in shares if (1 - share) * everything >= 1)
        return [(share, value) for share, value in told if value is not None]


def read(text: str) -> Histogram:
    """A histogram from base64, "V2 compressed". Raises ValueError where it is not one of ours."""
    return _sparse(_decoded(text))


def read_added(texts: Iterable[str]) -> Histogram:
    """The sum of several. Raises ValueError as read does."""
    total: HdrHistogram | None = None
    for text in texts:
        one = _decoded(text)
        if total is None:
            total = one
        else:
            total.add(one)
    return Histogram({}) if total is None else _sparse(total)


def _decoded(text: str) -> HdrHistogram:
    try:
        one = HdrHistogram.decode(text)
    except UNREADABLE as error:
        raise ValueError(f"not a histogram: {error}") from error
    made_with = (one.lowest_trackable_value, one.highest_trackable_value, one.significant_figures)
    if made_with != (LOWEST_US, HIGHEST_US, DIGITS):
        raise ValueError(f"a histogram of {made_with}, where a run has {(LOWEST_US, HIGHEST_US, DIGITS)}")
    return one


def _sparse(one: HdrHistogram) -> Histogram:
    if not one.total_count:
        return Histogram({})
    used = one.get_counts_array_index(one.max_value) + 1
    counts = memoryview(one.counts).cast("B").cast("Q")[:used].tolist()
    return Histogram({index: count for index, count in enumerate(counts) if count})


def added(histograms: Iterable[Histogram]) -> Histogram:
    """All of them as one."""
    counts: dict[int, int] = {}
    for one in histograms:
        for index, count in one.counts.items():
            counts[index] = counts.get(index, 0) + count
    return Histogram(counts)


def highest_us(index: int) -> int:
    """The largest value that is counted at an index (HdrHistogram: "highest equivalent value")."""
    bucket = max(0, (index >> HALF_BITS) - 1)
    return ((index - (bucket << HALF_BITS)) + 1 << bucket) - 1
