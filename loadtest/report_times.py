"""The seconds of a run as reports and comparisons use them: their histograms read, and joined where there are too many.

A run of hours has more counters than fit in memory (about a thousand a histogram, three histograms a second). Beyond
JOINED_ABOVE_S, neighbouring seconds are added up while they are read, into stretches of a length a clock has.
"""

from collections.abc import Iterable, Sequence
from itertools import groupby

import msgspec

from loadtest.evidence import Judgement
from loadtest.histograms import Histogram, read_added
from loadtest.run_files import Counts, Run, RunUnreadable, Sample, Second

STRETCHES_MAX = 240  # as many as can be told apart in a picture
LENGTHS_S = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1800, 3600)
JOINED_ABOVE_S = 3600  # a gigabyte of counters
KINDS = ("intended", "service", "lag")


class Times(msgspec.Struct, frozen=True):
    """A second, or some neighbours as one, and their three histograms."""

    at_s: int
    length_s: int
    counts: Counts
    completed: int  # answers that arrived meanwhile
    outcomes: dict[str, int]
    intended: Histogram
    service: Histogram
    lag: Histogram

    @property
    def unanswered(self) -> int:
        return self.counts.unresolved + self.counts.dropped

    def missing(self, kind: str) -> int:
        """Attempts that have no such latency, and would have had a long one; what was never sent has no lag."""
        return {"intended": self.unanswered, "service": self.counts.unresolved, "lag": 0}[kind]


class Reading(msgspec.Struct, frozen=True):
    """All files of a run but its journals."""

    run: Run
    times: list[Times]
    samples: list[Sample]
    invariants: list[Judgement] | None  # None: nobody verified it


def stretch_length_s(seconds: int) -> int:
    """The shortest length of which a run of so many seconds has no more than STRETCHES_MAX."""
    return next((length for length in LENGTHS_S if seconds <= length * STRETCHES_MAX), LENGTHS_S[-1])


def read_times(seconds: Sequence[Second]) -> list[Times]:
    """Raises RunUnreadable where a histogram is none."""
    end_s = seconds[-1].at_s + 1 if seconds else 0
    length_s = stretch_length_s(end_s) if end_s > JOINED_ABOVE_S else 1
    parts = groupby(seconds, key=lambda one: one.at_s // length_s)
    return [_joined(at * length_s, min(length_s, end_s - at * length_s), list(part)) for at, part in parts]


def _joined(at_s: int, length_s: int, part: Sequence[Second]) -> Times:
    return Times(
        at_s,
        length_s,
        Counts(*map(sum, zip(*(msgspec.structs.astuple(one.counts) for one in part), strict=True))),
        sum(one.completed_in for one in part),
        summed(one.outcomes for one in part),
        *(_histogram(part, kind) for kind in KINDS),
    )


def _histogram(part: Sequence[Second], kind: str) -> Histogram:
    try:
        return read_added(getattr(one.latencies, kind) for one in part)
    except ValueError as error:
        raise RunUnreadable(f"latencies of second {part[0].at_s}: {error}") from error


def summed(counted: Iterable[dict[str, int]]) -> dict[str, int]:
    """Counts by name, added up."""
    found: dict[str, int] = {}
    for one in counted:
        for name, count in one.items():
            found[name] = found.get(name, 0) + count
    return found
