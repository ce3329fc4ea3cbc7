"""The one writer of a run's directory (loadtest/run_files.py).

Every generator process has a Recorder: it is told each attempt once, when nothing more will come of it, writes the
journal line at once and keeps the three waiting times by second. `work` makes histograms of old seconds a little at a
time, so that no pause of the recorder's own looks like one of the server's; `take` hands over what is made, as Parts.
Parts of all processes, whenever they were taken, are added up by a Gathering, which writes the run's other files.
Nothing here needs an event loop or a thread.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping
from functools import reduce
from itertools import repeat
from operator import add, rshift
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec
from hdrh.histogram import HdrHistogram

from loadtest.run_files import (
    DIGITS,
    HIGHEST_US,
    LOWEST_US,
    RUN_FILE,
    SECONDS_FILE,
    SERVER_FILE,
    Attempt,
    Counts,
    Latencies,
    Run,
    Sample,
    Second,
)

SETTLED_SECONDS = 3  # a second this old gets few more answers; those that come make a second, small part
JOURNAL_LINES = 1000  # kept back before a write of 120 KiB
HALF_BITS = 10  # HdrHistogram with three digits: 2,048 counters for the first bucket, 1,024 for each further one
NOTHING = Counts(0, 0, 0, 0, 0, 0)
SERIES = ("service", "intended", "lag")
_encode = msgspec.json.Encoder().encode


class Part(msgspec.Struct, frozen=True, array_like=True):
    """What one process saw of one second; parts of the same second may be added up in any order."""

    at_s: int
    counts: Counts
    completed_in: int
    outcomes: dict[str, int]
    latencies: Latencies  # "" where nothing was measured


class _Open:
    """One second while it is told of."""

    def __init__(self) -> None:
        self.offered = self.started = self.completed = self.dropped = self.unresolved = self.sends = 0
        self.completed_in = 0
        self.outcomes: dict[str, int] = {}
        self.service_us: list[int] = []
        self.intended_us: list[int] = []
        self.lag_us: list[int] = []
        self.texts: list[str] = []  # made so far, in the order of SERIES

    def work(self) -> bool:
        """Make one histogram; whether all are made."""
        measured_us = (self.service_us, self.intended_us, self.lag_us)[len(self.texts)]
        self.texts.append(histogram_text(measured_us))
        measured_us.clear()
        return len(self.texts) == len(SERIES)

    def part(self, at_s: int) -> Part:
        counts = Counts(self.offered, self.started, self.completed, self.dropped, self.unresolved, self.sends)
        return Part(at_s, counts, self.completed_in, self.outcomes, Latencies(*self.texts))


class Recorder:
    """One generator process's journal and measurements. A context manager: leaving it writes what is kept back."""

    def __init__(self, directory: Path, generator: int) -> None:
        """Raises OSError. An older journal of the same name is overwritten."""
        self._journal = (directory / f"journal-{generator}.ndjson").open("wb", buffering=0)
        self._kept: list[bytes] = []
        self._seconds: dict[int, _Open] = {}
        self._settling: tuple[int, _Open] | None = None
        self._made: list[Part] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Write the rest of the journal. Raises OSError."""
        try:
            self.flush()
        finally:
            self._journal.close()

    def note(self, attempt: Attempt) -> None:
        """Take down an attempt that has ended or been given up. Raises OSError when the disk is full."""
        kept = self._kept
        kept.append(_encode(attempt))
        if len(kept) >= JOURNAL_LINES:
            self.flush()
        second = self._second(attempt.intended_us // 1_000_000)
        second.offered += 1
        sent_us, ended_us = attempt.sent_us, attempt.ended_us
        if sent_us is None:
            second.dropped += 1
            return
        second.started += 1
        second.sends += attempt.sends
        second.lag_us.append(sent_us - attempt.intended_us)
        if ended_us is None:
            second.unresolved += 1
            return
        second.completed += 1
        second.service_us.append(ended_us - sent_us)
        second.intended_us.append(ended_us - attempt.intended_us)
        self._second(ended_us // 1_000_000).completed_in += 1
        if (verdict := attempt.verdict) is not None:
            outcomes = second.outcomes
            outcomes[verdict] = outcomes.get(verdict, 0) + 1

    def work(self, now_s: float) -> bool:
        """Make one histogram of a second that is over, about 1 ms; whether there was one to make."""
        if self._settling is None:
            at_s = next((at_s for at_s in self._seconds if at_s + SETTLED_SECONDS < now_s), None)
            if at_s is None:
                return False
            self._settling = at_s, self._seconds.pop(at_s)
        at_s, second = self._settling
        if second.work():
            self._settling = None
            self._made.append(second.part(at_s))
        return True

    def take(self, *, last: bool = False) -> list[Part]:
        """Parts made since the last call; with `last`, of everything there is."""
        while last and self.work(float("inf")):
            pass
        made, self._made = self._made, []
        return made

    def _second(self, at_s: int) -> _Open:
        second = self._seconds.get(at_s)
        if second is None:
            second = self._seconds[at_s] = _Open()
        return second

    def flush(self) -> None:
        """Write the journal lines that were kept back. Raises OSError."""
        self._kept.append(b"")  # for the last line's end
        left = memoryview(b"\n".join(self._kept))
        self._kept = []
        while left:
            left = left[self._journal.write(left) :]


class SampleFile:
    """server.ndjson, a line at a time."""

    def __init__(self, directory: Path) -> None:
        self._file = (directory / SERVER_FILE).open("wb", buffering=0)

    def note(self, samples: Iterable[Sample]) -> None:
        """Write these. Raises OSError."""
        self._file.write(b"".join(_encode(sample) + b"\n" for sample in samples))

    def close(self) -> None:
        self._file.close()


class Gathering:
    """All parts of a run, added up."""

    def __init__(self) -> None:
        self._seconds: dict[int, Part] = {}
        self.counts = NOTHING
        self.outcomes: dict[str, int] = {}
        self._totals = {name: _empty() for name in SERIES}

    def add(self, part: Part) -> None:
        """Take in what one process saw of one second. Raises ValueError where a histogram is none of ours."""
        self.counts = _summed(self.counts, part.counts)
        self.outcomes = _counted(self.outcomes, part.outcomes)
        for name, total in self._totals.items():
            _add_text(total, getattr(part.latencies, name))
        earlier = self._seconds.get(part.at_s)
        self._seconds[part.at_s] = part if earlier is None else _joined(earlier, part)

    def latencies(self) -> Latencies:
        """Of the whole run so far."""
        return Latencies(**{name: _text(total) for name, total in self._totals.items()})

    def percentile_us(self, series: str, share: float) -> int:
        """Of the whole run so far, among the attempts that were answered; 0 where none was."""
        return int(self._totals[series].get_value_at_percentile(share * 100))

    def seconds(self) -> list[Second]:
        """Every second from the first to the last, those without an attempt too."""
        blank = Latencies(*(histogram_text([]),) * len(SERIES))
        last = max(self._seconds, default=-1)
        return [_second_of(at_s, self._seconds.get(at_s), blank) for at_s in range(last + 1)]

    def write(self, directory: Path, run: Run) -> None:
        """The run's files beside journals and samples; run.json last, so that where it stands the others are whole.

        Raises OSError.
        """
        lines = (_encode(second) + b"\n" for second in self.seconds())
        _replace(directory / SECONDS_FILE, b"".join(lines))
        _replace(directory / RUN_FILE, msgspec.json.format(_encode(run), indent=2) + b"\n")


def _replace(path: Path, content: bytes) -> None:
    draft = path.with_name(path.name + ".draft")
    draft.write_bytes(content)
    draft.replace(path)


def _second_of(at_s: int, part: Part | None, blank: Latencies) -> Second:
    if part is None:
        return Second(at_s, NOTHING, 0, {}, blank)
    texts = (getattr(part.latencies, name) or getattr(blank, name) for name in SERIES)
    return Second(at_s, part.counts, part.completed_in, part.outcomes, Latencies(*texts))


def _joined(one: Part, other: Part) -> Part:
    texts = (_joined_text(getattr(one.latencies, name), getattr(other.latencies, name)) for name in SERIES)
    return Part(
        at_s=one.at_s,
        counts=_summed(one.counts, other.counts),
        completed_in=one.completed_in + other.completed_in,
        outcomes=_counted(one.outcomes, other.outcomes),
        latencies=Latencies(*texts),
    )


def _summed(one: Counts, other: Counts) -> Counts:
    return Counts(*map(add, msgspec.structs.astuple(one), msgspec.structs.astuple(other)))


def _counted(one: Mapping[str, int], other: Mapping[str, int]) -> dict[str, int]:
    return {name: one.get(name, 0) + other.get(name, 0) for name in sorted({*one, *other})}


def _joined_text(*texts: str) -> str:
    filled = [text for text in texts if text]
    if len(filled) < 2:
        return "".join(filled)
    return _text(reduce(_add_text, filled, _empty()))


def _empty() -> HdrHistogram:
    return HdrHistogram(LOWEST_US, HIGHEST_US, DIGITS)


def _add_text(total: HdrHistogram, text: str) -> HdrHistogram:
    if text:
        total.add(HdrHistogram.decode(text))
    return total


def histogram_text(measured_us: list[int]) -> str:
    """Measurements as a run's files hold them. Values outside the range are counted at its ends. Sorts the list.

    The place of a counter is HdrHistogram's ("countsArrayIndex"). Its own `record_value` takes ten times as long; here
    the values of each bucket, which lie side by side once they are sorted, are shifted and counted without a Python
    step for each.
    """
    one = _empty()
    if measured_us:
        _fill(one, measured_us)
    return _text(one)


def _fill(one: HdrHistogram, measured_us: list[int]) -> None:
    measured_us.sort()
    counts = one.counts
    if measured_us[0] < 0 or measured_us[-1] > HIGHEST_US:
        measured_us = [min(max(value, 0), HIGHEST_US) for value in measured_us]
    start, total = 0, len(measured_us)
    while start < total:
        shift = max(measured_us[start].bit_length() - HALF_BITS - 1, 0)
        end = bisect_left(measured_us, 2 << HALF_BITS + shift, start)
        place = shift << HALF_BITS
        for within, count in Counter(map(rshift, measured_us[start:end], repeat(shift))).items():
            counts[place + within] = count
        start = end
    one.total_count, one.min_value, one.max_value = total, measured_us[0], measured_us[-1]


def _text(one: HdrHistogram) -> str:
    return bytes(one.encode()).decode()
