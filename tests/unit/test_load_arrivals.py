"""When shoppers come: totals, seeds, and the shape of the curve."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadtest.arrivals import PEAK_MINUTE, Piece, busiest_second, count_of, day_curve, pieces_of, poisson_us, schedule
from loadtest.scenario import (
    Constant,
    Origin,
    Points,
    Race,
    Ramp,
    Scenario,
    Steps,
    Terminals,
)

rates = st.floats(0, 500).map(lambda rate: round(rate, 3))
lines = st.lists(st.tuples(st.floats(0.1, 5), rates, rates), min_size=1, max_size=6)


def scenario(shape: object, seconds: float | None = 10, tills: int = 4, seed: int = 1) -> Scenario:
    return Scenario(title="", shows="", arrivals=shape, seconds=seconds, terminals=Terminals(count=tills), seed=seed)  # type: ignore[arg-type]


def joined(parts: list[tuple[float, float, float]]) -> list[Piece]:
    pieces, start_s = [], 0.0
    for seconds, first, last in parts:
        pieces.append(Piece(start_s, seconds, first, last))
        start_s += seconds
    return pieces


@settings(max_examples=60, deadline=None)
@given(lines, st.integers(0, 2**32), st.integers(1, 4))
def test_arrivals_are_as_many_as_the_rate_says_in_order_and_inside(
    parts: list[tuple[float, float, float]], seed: int, generators: int
) -> None:
    pieces = joined(parts)
    count = count_of(pieces)
    whole = list(poisson_us(pieces, count, seed))
    assert len(whole) == count
    assert whole == sorted(whole)
    assert all(0 <= at_us <= (pieces[-1].start_s + pieces[-1].seconds) * 1e6 for at_us in whole)
    shared = [list(poisson_us(pieces, count, seed, number, generators)) for number in range(generators)]
    assert sorted(at_us for share in shared for at_us in share) == whole
    assert max(map(len, shared)) - min(map(len, shared)) <= 1


@settings(max_examples=30, deadline=None)
@given(lines, st.integers(0, 1000))
def test_each_piece_gets_its_share(parts: list[tuple[float, float, float]], seed: int) -> None:
    pieces = joined(parts)
    whole = list(poisson_us(pieces, count_of(pieces), seed))
    for piece in pieces:
        inside = sum(piece.start_s * 1e6 <= at_us < (piece.start_s + piece.seconds) * 1e6 for at_us in whole)
        assert abs(inside - piece.arrivals) <= 6 * piece.arrivals**0.5 + 3


def test_a_seed_is_a_run() -> None:
    one = scenario(Constant(rate=50))
    assert list(schedule(one)) == list(schedule(one))
    assert list(schedule(one)) != list(schedule(scenario(Constant(rate=50), seed=2)))


def test_gaps_are_those_of_shoppers_who_do_not_know_each_other() -> None:
    gaps = [later - earlier for earlier, later in pairwise(schedule(scenario(Constant(rate=1000), 20)))]
    mean = sum(gaps) / len(gaps)
    spread = (sum((gap - mean) ** 2 for gap in gaps) / len(gaps)) ** 0.5
    assert mean == pytest.approx(1000, rel=0.05)
    assert spread == pytest.approx(mean, rel=0.05)  # of an exponential


def test_the_days_curve_has_two_humps_and_the_peaks_that_were_measured() -> None:
    curve = day_curve()
    hours = [sum(curve[hour * 60 : hour * 60 + 60]) for hour in range(24)]
    assert sum(curve) == pytest.approx(1)
    assert max(hours) == hours[18] == pytest.approx(0.15)
    assert max(curve) == curve[PEAK_MINUTE] == pytest.approx(3 * 0.15 / 60)
    assert hours[12] > hours[10] < hours[17] > hours[15]
    assert hours[12] > hours[14]
    assert not any(hours[:10] + hours[22:])


@pytest.mark.parametrize("day_seconds", (30, 60, 86_400))
def test_the_origin_redeems_a_sixth_however_long_its_days_are(day_seconds: float) -> None:
    origin = scenario(Origin(day_seconds=day_seconds, days=(1, 2)), None)
    by_day = [0, 0]
    for at_us in schedule(origin):
        by_day[int(at_us / 1e6 // day_seconds)] += 1
    assert sum(by_day) == round(68_000 / 6)
    assert by_day[1] == pytest.approx(10_000, rel=0.05)


def test_shapes_are_what_they_are_called() -> None:
    ramp = pieces_of(scenario(Ramp(end=100, over_s=4)))
    assert [(piece.seconds, piece.first, piece.last) for piece in ramp] == [(4, 0, 100), (6, 100, 100)]
    cut = pieces_of(scenario(Ramp(end=100, over_s=20)))
    assert [(piece.seconds, piece.first, piece.last) for piece in cut] == [(10, 0, 50)]
    steps = pieces_of(scenario(Steps(rates=(10, 20))))
    assert [(piece.start_s, piece.seconds, piece.first) for piece in steps] == [(0, 5, 10), (5, 5, 20)]
    points = pieces_of(scenario(Points(points=((2, 10), (4, 30)))))
    assert [(piece.start_s, piece.seconds, piece.first, piece.last) for piece in points] == [
        (0, 2, 10, 10),
        (2, 2, 10, 30),
        (4, 6, 30, 30),
    ]


def test_in_a_race_every_till_comes_once_a_round() -> None:
    race = scenario(Race(rounds=3, every_s=2, within_ms=5), None, tills=7)
    starts = [list(schedule(race, number, 2)) for number in range(2)]
    assert [len(each) for each in starts] == [12, 9]
    assert {int(at_us // 2_000_000) for each in starts for at_us in each} == {0, 1, 2}
    assert all(at_us % 2_000_000 <= 5000 for each in starts for at_us in each)


def test_the_busiest_second_is_told_where_a_rate_lasts_less() -> None:
    short = scenario(Points(points=((0, 0), (4.999, 0), (5, 1000), (5.1, 1000), (5.101, 0))))
    assert busiest_second(short) == pytest.approx(101, abs=1)
    assert busiest_second(scenario(Constant(rate=50))) == pytest.approx(50)
