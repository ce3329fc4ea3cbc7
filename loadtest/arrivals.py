"""When shoppers come: the intended starts of a run, from its shape and its seed alone.

Theory of operation. A shape is a list of Pieces, straight lines of a rate over time. A Poisson process with that rate,
given how many arrivals it has, is that many independent draws along the integral of the rate; in order, they are the
partial sums of exponentials over the sum of one more of them. So the number of arrivals is exact and known before the
run, they fall as independent shoppers do, and no list of them is kept: the exponentials are drawn twice from one seed.

Several generators draw the same arrivals and each keeps every n-th: together they offer what one would have offered.
"""

import math
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate, pairwise
from random import Random

import msgspec

from loadtest.scenario import (
    REDEEMED_SHARE,
    SENDS,
    Constant,
    Origin,
    Points,
    Race,
    Ramp,
    Scenario,
    Search,
    Steps,
    search_rates,
)

DAY_MINUTES = 1440
OPEN_MINUTE, CLOSE_MINUTE = 10 * 60, 22 * 60
HUMPS = ((12 * 60 + 15, 45, 0.85), (18 * 60 + 30, 60, 1.25))  # minute of the day, width, height: lunch and dinner
EVENLY = 0.22  # all day long, beside them
PEAK_HOUR, PEAK_HOUR_SHARE = 18, 0.15  # of a day's redemptions
PEAK_MINUTE, PEAK_MINUTE_FACTOR = 18 * 60 + 30, 3  # times the mean minute of the peak hour


class Piece(msgspec.Struct, frozen=True):
    """A straight line of the rate, arrivals a second."""

    start_s: float
    seconds: float
    first: float
    last: float

    @property
    def arrivals(self) -> float:
        return (self.first + self.last) / 2 * self.seconds


def schedule(scenario: Scenario, generator: int = 0, generators: int = 1) -> Iterator[int]:
    """Intended starts in microseconds, rising, of one of several generators. Not for a search, which has no plan."""
    shape = scenario.arrivals
    if isinstance(shape, Race):
        return _race_us(shape, scenario.terminals.count, scenario.seed, generator, generators)
    pieces = pieces_of(scenario)
    return poisson_us(pieces, count_of(pieces), scenario.seed, generator, generators)


def expected(scenario: Scenario) -> int:
    """How many arrivals there will be; of a search, how many at most."""
    if isinstance(scenario.arrivals, Race):
        return scenario.arrivals.rounds * scenario.terminals.count
    return count_of(pieces_of(scenario))


def rate_most(scenario: Scenario) -> float:
    """The highest rate of arrivals in it, a second."""
    if isinstance(scenario.arrivals, Race):
        return scenario.terminals.count / max(scenario.arrivals.every_s, 1.0)
    return max((max(piece.first, piece.last) for piece in pieces_of(scenario)), default=0.0)


def busiest_second(scenario: Scenario) -> float:
    """Arrivals in the fullest second: what a generator must be able to send."""
    if isinstance(scenario.arrivals, Race):
        return rate_most(scenario)
    pieces = pieces_of(scenario)
    starts = [piece.start_s for piece in pieces]
    reached = [0.0, *accumulate(piece.arrivals for piece in pieces)]

    def until(at_s: float) -> float:
        place = max(bisect_right(starts, at_s) - 1, 0)
        piece, share = pieces[place], min(max(at_s - starts[place], 0) / pieces[place].seconds, 1.0)
        rate = piece.first + (piece.last - piece.first) * share
        return reached[place] + (piece.first + rate) / 2 * piece.seconds * share

    edges = [*starts, pieces[-1].start_s + pieces[-1].seconds]
    return max(max(until(at_s + 1) - until(at_s), until(at_s) - until(at_s - 1)) for at_s in edges)


def count_of(pieces: Sequence[Piece]) -> int:
    """Arrivals in these pieces, rounded."""
    return round(math.fsum(piece.arrivals for piece in pieces))


def pieces_of(scenario: Scenario) -> list[Piece]:
    """The rate over time."""
    seconds = scenario.length_s
    match scenario.arrivals:
        case Constant(rate=rate):
            return [Piece(0, seconds, rate, rate)]
        case Ramp() as ramp:
            return _cut([Piece(0, ramp.over_s, ramp.start, ramp.end)], seconds, ramp.end)
        case Points() as shape:
            return _through(shape, seconds)
        case Steps(rates=rates):
            each_s = seconds / len(rates)
            return [Piece(number * each_s, each_s, rate, rate) for number, rate in enumerate(rates)]
        case Origin() as origin:
            return _origin(origin)
        case Search() as search:
            rising = search_rates(search)
            rising += [rising[-1]] * search.refine
            step_s = search.step_seconds
            return [Piece(number * step_s, step_s, rate, rate) for number, rate in enumerate(rising)]
    raise AssertionError("a race has no pieces")


def poisson_us(
    pieces: Sequence[Piece], count: int, seed: int, generator: int = 0, generators: int = 1
) -> Iterator[int]:
    """`count` arrivals spread over the pieces, those of one generator, in microseconds."""
    draw, log = Random(seed).random, math.log  # noqa: S311 - load, not secrets
    whole = math.fsum(-log(1.0 - draw()) for _ in range(count + 1))
    draw = Random(seed).random  # noqa: S311 - the same numbers again
    total = math.fsum(piece.arrivals for piece in pieces)
    reached = [0.0, *accumulate(piece.arrivals for piece in pieces)]
    at, place = 0.0, 0
    for number in range(count):
        at -= log(1.0 - draw())
        if number % generators != generator:
            continue
        wanted = at / whole * total
        while place + 1 < len(pieces) and wanted > reached[place + 1]:
            place += 1
        piece = pieces[place]
        yield int((piece.start_s + _into(piece, wanted - reached[place])) * 1e6)


def _into(piece: Piece, arrivals: float) -> float:
    """Seconds into a piece at which it has had so many: the root of slope/2 t^2 + first t = arrivals."""
    slope = (piece.last - piece.first) / piece.seconds
    if not slope:
        return min(arrivals / piece.first, piece.seconds) if piece.first else 0.0
    root = math.sqrt(max(piece.first**2 + 2 * slope * arrivals, 0.0))
    return min(2 * arrivals / (piece.first + root), piece.seconds) if piece.first + root else 0.0


def _race_us(shape: Race, terminals: int, seed: int, generator: int, generators: int) -> Iterator[int]:
    rng = Random(seed)  # noqa: S311 - load, not secrets
    for round_ in range(shape.rounds):
        start_us, within_us = round_ * shape.every_s * 1e6, shape.within_ms * 1e3
        offsets = sorted(rng.random() * within_us for _ in range(terminals))
        for offset_us in offsets[generator::generators]:
            yield int(start_us + offset_us)


def _cut(pieces: Sequence[Piece], seconds: float, then: float) -> list[Piece]:
    """These pieces up to `seconds`; where they end earlier, on at the rate `then`."""
    made: list[Piece] = []
    for piece in pieces:
        left_s = seconds - piece.start_s
        if left_s <= 0:
            return made
        share = min(left_s / piece.seconds, 1.0)
        last = piece.first + (piece.last - piece.first) * share
        made.append(Piece(piece.start_s, piece.seconds * share, piece.first, last))
    end_s = made[-1].start_s + made[-1].seconds if made else 0.0
    return [*made, Piece(end_s, seconds - end_s, then, then)] if end_s < seconds else made


def _through(shape: Points, seconds: float) -> list[Piece]:
    points = list(shape.points)
    if points[0][0] > 0:
        points.insert(0, (0.0, points[0][1]))
    pairs = pairwise(points)
    lines = [Piece(at_s, until_s - at_s, first, last) for (at_s, first), (until_s, last) in pairs if until_s > at_s]
    return _cut(lines, seconds, points[-1][1])


# --- the origin's days --------------------------------------------------------------------------------------------


def day_curve() -> list[float]:
    """The share of a day's redemptions in each of its 1,440 minutes.

    Two humps while stores are open, scaled so that the peak hour holds 15 % of the day and its peak minute three
    times that hour's mean: assumptions, set so that the origin's ninth day peaks at its 7 redemptions a second.
    """
    raw = [_hump(minute) if OPEN_MINUTE <= minute < CLOSE_MINUTE else 0.0 for minute in range(DAY_MINUTES)]
    peak_share = PEAK_HOUR_SHARE * PEAK_MINUTE_FACTOR / 60
    in_hour = [minute for minute in range(PEAK_HOUR * 60, PEAK_HOUR * 60 + 60) if minute != PEAK_MINUTE]
    elsewhere = [minute for minute in range(DAY_MINUTES) if minute // 60 != PEAK_HOUR]
    curve = [0.0] * DAY_MINUTES
    curve[PEAK_MINUTE] = peak_share
    for minutes, share in ((in_hour, PEAK_HOUR_SHARE - peak_share), (elsewhere, 1 - PEAK_HOUR_SHARE)):
        sum_of = math.fsum(raw[minute] for minute in minutes)
        for minute in minutes:
            curve[minute] = raw[minute] / sum_of * share
    return curve


def _hump(minute: int) -> float:
    return EVENLY + sum(height * math.exp(-(((minute - at) / width) ** 2) / 2) for at, width, height in HUMPS)


def sends_of(origin: Origin) -> list[int]:
    """Vouchers sent on each of the days that are played."""
    return [round(SENDS[day - 1] * origin.scale) for day in origin.days]


def _origin(origin: Origin) -> list[Piece]:
    minute_s = origin.day_seconds / DAY_MINUTES
    curve = day_curve()
    first, last = 0, DAY_MINUTES
    if origin.peak_minutes is not None:
        first = round(PEAK_MINUTE + 0.5 - origin.peak_minutes / 2)
        last = first + max(round(origin.peak_minutes), 1)
    made: list[Piece] = []
    for number, day in enumerate(origin.days):
        redeemed = SENDS[day - 1] * REDEEMED_SHARE * origin.scale
        start_s = number * (last - first) * minute_s
        for minute in range(first, last):
            rate = redeemed * curve[minute] / minute_s
            made.append(Piece(start_s + (minute - first) * minute_s, minute_s, rate, rate))
    return made
