"""Reports of load runs: percentiles of added histograms, stretches, the knee, verdicts, and pages that obey nobody."""

import math
import re
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import pytest
from hdrh.histogram import HdrHistogram
from load_runs import Story, write_run

from loadtest.evidence import Judgement
from loadtest.histograms import Histogram, added, highest_us, read
from loadtest.recorder import histogram_text
from loadtest.report_files import html, read_whole
from loadtest.report_load import LoadPoint, knee_load, load_curve, sustained_load
from loadtest.report_model import report
from loadtest.report_server import recoveries, spent_s
from loadtest.report_times import JOINED_ABOVE_S, STRETCHES_MAX, Reading, read_times, stretch_length_s
from loadtest.report_words import verdict_of
from loadtest.run_files import DIGITS, HIGHEST_US, LOWEST_US, Fault, Mark, RunUnreadable, Sample, read_seconds


@pytest.fixture(scope="module")
def frozen(tmp_path_factory: pytest.TempPathFactory) -> Reading:
    """A minute at 40 a second, with three seconds in which nothing is answered."""
    story = Story(rate=lambda _: 40, capacity=400, freezes=[(30, 33)], faults=[Fault("freeze", 30, 33)])
    return read_whole(write_run(tmp_path_factory.mktemp("runs") / "frozen", story))


def values_us(count: int, seed: int) -> list[int]:
    chance = Random(seed)
    return [int(chance.lognormvariate(8, 2)) + 1 for _ in range(count)]


def milliseconds(one: Histogram, share: float) -> float | None:
    found = one.percentile_us(share)
    return None if found is None else found / 1000


def rank(values: list[int], share: float) -> int:
    """The plain definition: nearest rank."""
    return sorted(values)[math.ceil(share * len(values)) - 1]


class TestHistograms:
    def test_added_ones_have_the_percentiles_of_all_their_values_and_not_the_mean_of_percentiles(self) -> None:
        quick, slow = values_us(5000, 1), [value * 50 for value in values_us(300, 2)]
        both = added([read(histogram_text(list(quick))), read(histogram_text(list(slow)))])
        assert both.total == 5300
        for share in (0.01, 0.5, 0.9, 0.99, 0.999, 1.0):
            found = both.percentile_us(share)
            assert found is not None
            assert found == pytest.approx(rank(quick + slow, share), rel=1e-3)
        mean = (rank(quick, 0.99) + rank(slow, 0.99)) / 2
        assert both.percentile_us(0.99) != pytest.approx(mean, rel=0.5)

    def test_each_counter_stands_for_the_value_that_the_format_gives_it(self) -> None:
        theirs = HdrHistogram(LOWEST_US, HIGHEST_US, DIGITS)
        for index in range(0, 22_000, 7):
            assert highest_us(index) == theirs.get_highest_equivalent_value(theirs.get_value_from_index(index))

    def test_attempts_without_an_answer_are_longer_than_all_that_were_measured(self) -> None:
        one = read(histogram_text([1000] * 98 + [9000]))
        assert one.percentile_us(0.99, missing=1) == 9000 | 7
        assert one.percentile_us(0.99, missing=2) is None
        assert one.percentile_us(0.5, missing=2) == one.percentile_us(0.5)
        assert Histogram({}).percentile_us(0.5) is None

    def test_a_spectrum_rises_and_ends_where_shares_can_no_longer_be_told_apart(self) -> None:
        points = read(histogram_text(values_us(2000, 3))).spectrum(0, 5)
        assert points == sorted(points)
        assert 1 / (1 - points[-1][0]) == pytest.approx(2000, rel=0.11)
        cut = read(histogram_text(values_us(1900, 3))).spectrum(100, 5)
        assert cut[-1][0] <= 0.95

    @pytest.mark.parametrize("text", ("", "?", "HISTFAAABMZ4nD1Wy44c", histogram_text([5, 6])[:-8]))
    def test_what_is_no_histogram_is_refused(self, text: str) -> None:
        with pytest.raises(ValueError, match="not a histogram"):
            read(text)

    def test_one_of_another_range_is_refused(self) -> None:
        with pytest.raises(ValueError, match="where a run has"):
            read(HdrHistogram(1, 1000, 2).encode().decode())


class TestModel:
    def test_a_long_run_is_shown_in_stretches_whose_rates_and_percentiles_are_those_of_their_seconds(
        self, tmp_path: Path
    ) -> None:
        reading = read_whole(write_run(tmp_path / "r", Story(rate=lambda _: 3, seconds=STRETCHES_MAX + 10)))
        made = report(reading)
        assert made.stretch_s == 2
        assert len(made.stretches) <= STRETCHES_MAX
        assert sum(one.offered * one.seconds for one in made.stretches) == pytest.approx(reading.run.counts.offered)
        for at in made.stretches[:100]:
            pair = reading.times[at.at_s : at.at_s + 2]
            whole = added(one.intended for one in pair)
            assert at.seconds == 2
            assert at.offered == sum(one.counts.offered for one in pair) / 2
            assert (at.intended.p50, at.intended.p99) == (milliseconds(whole, 0.5), milliseconds(whole, 0.99))
            assert at.outcomes.get("accepted", 0) == sum(one.outcomes.get("accepted", 0) for one in pair) / 2

    def test_the_seconds_of_hours_are_joined_while_they_are_read(self, frozen: Reading, tmp_path: Path) -> None:
        seconds = read_seconds(write_run(tmp_path / "r", Story(rate=lambda _: 30, seconds=20)))[:20]
        late = JOINED_ABOVE_S - JOINED_ABOVE_S % 30
        far = [msgspec.structs.replace(one, at_s=one.at_s + late) for one in seconds]
        times = read_times([*seconds, *far])
        assert [(one.at_s, one.length_s) for one in times] == [(0, 30), (late, 20)]
        each = read_times(seconds)
        assert [one.length_s for one in each] == [1] * 20
        assert times[0].intended == added(one.intended for one in each)
        assert times[0].counts.offered == sum(one.counts.offered for one in each)
        made = report(Reading(frozen.run, times, [], None))
        assert made.stretches[0].offered == times[0].counts.offered / 30
        assert made.stretches[-1].offered == times[0].counts.offered / 20

    def test_the_length_of_a_stretch_is_one_a_clock_has(self) -> None:
        assert [stretch_length_s(seconds) for seconds in (1, 240, 241, 3600, 86_400)] == [1, 1, 2, 15, 600]

    def test_the_whole_runs_percentiles_are_those_of_the_runs_own_histograms(self, frozen: Reading) -> None:
        made = report(frozen)
        for kind in ("service", "intended", "lag"):
            own = read(getattr(frozen.run.latencies, kind))
            assert made.latencies[kind].percentiles.p999 == (own.percentile_us(0.999) or 0) / 1000
        assert (made.latencies["intended"].percentiles.p99 or 0) > 2000

    def test_faults_are_left_out_of_the_load_curve_and_their_end_is_found(self, frozen: Reading) -> None:
        made = report(frozen)
        assert made.load.left_out == 9
        assert made.recoveries[0].seconds == pytest.approx(1, abs=1)

    def test_a_run_of_nothing_is_a_report_of_nothing(self, tmp_path: Path) -> None:
        made = report(read_whole(write_run(tmp_path / "r", Story(rate=lambda _: 0, seconds=2))))
        assert made.stretches == []
        assert "Open" in html(made)

    def test_a_damaged_histogram_is_named_with_its_second(self, tmp_path: Path) -> None:
        directory = write_run(tmp_path / "r", Story(rate=lambda _: 20, seconds=3))
        lines = (directory / "seconds.ndjson").read_text().splitlines()
        lines[1] = re.sub(r'"service":"[^"]*"', '"service":"AAAA"', lines[1])
        (directory / "seconds.ndjson").write_text("\n".join(lines))
        with pytest.raises(RunUnreadable, match="second 1"):
            read_whole(directory)

    def test_cpu_goes_on_where_a_process_began_anew(self) -> None:
        seen = [Sample(at, "gateway", cpu, 1) for at, cpu in ((0, 5.0), (1, 6.0), (2, 0.5), (3, 1.0))]
        assert spent_s(seen) == pytest.approx(2.0)

    def test_a_fault_felt_to_the_end_of_the_run_has_no_recovery(self) -> None:
        p99 = [(at, 10.0 if at < 20 else 500.0) for at in range(40)]
        assert recoveries([Fault("x", 20, 22)], p99, 1)[0].seconds is None
        assert recoveries([Fault("x", 0, 1)], p99, 1)[0].seconds is None, "nothing before to compare with"


class TestLoadCurve:
    def points(self, *p99: float | None, unanswered: int = 0) -> list[LoadPoint]:
        return [
            LoadPoint(100.0 * (at + 1), 60, 1, one, one, unanswered if one is None else 0) for at, one in enumerate(p99)
        ]

    def test_the_knee_lies_before_the_steep_part(self) -> None:
        queue = [2 / (1 - load / 1000) for load in range(100, 1000, 100)]  # M/M/1, 2 ms, 1,000/s
        knee = knee_load(self.points(*queue))
        assert knee is not None
        assert 600 <= knee <= 800
        assert knee_load(self.points(5, 5, 5.1, 5.2, 5, 200, 2000)) == 500

    def test_there_is_none_where_waiting_does_not_rise_or_rises_evenly(self) -> None:
        assert knee_load(self.points(5, 5, 6, 5, 6)) is None
        assert knee_load(self.points(1, 10, 100, 1000)) is None
        assert knee_load(self.points(1, 1000)) is None

    def test_sustained_is_the_last_load_before_the_first_that_failed(self) -> None:
        assert sustained_load(self.points(5, 6, 60, 7), 50) == 200
        assert sustained_load(self.points(5, 6, None, unanswered=3), 50) == 200
        assert sustained_load(self.points(60, 5), 50) is None

    def test_a_ramp_into_saturation_is_recognised(self, tmp_path: Path) -> None:
        story = Story(
            rate=lambda at: 20 * (1 + at // 6), seconds=66, capacity=150, scenario={"marks": {"p99_ms": 200.0}}
        )
        curve = report(read_whole(write_run(tmp_path / "r", story))).load
        assert curve.varied
        assert curve.limit_ms == 200
        assert curve.sustained is not None
        assert 60 <= curve.sustained <= 160
        assert curve.knee is not None
        assert 60 <= curve.knee <= 175

    def test_each_step_of_a_schedule_is_one_point(self, tmp_path: Path) -> None:
        story = Story(rate=lambda at: (25, 60, 140)[min(2, int(at / 15))], seconds=45, capacity=2000)
        made = report(read_whole(write_run(tmp_path / "r", story))).load
        assert [one.seconds for one in made.points] == [15, 15, 15]
        assert [one.offered for one in made.points] == pytest.approx([25, 60, 140], rel=0.15)

    def test_chance_alone_is_no_variation(self, frozen: Reading) -> None:
        curve = report(frozen).load
        assert not curve.varied
        assert curve.sustained is None

    def test_no_load_at_all(self) -> None:
        assert load_curve([], [], 50.0).points == []


class TestVerdict:
    HOLDS = Judgement("L1", "each voucher once", True, {})

    def mood(self, reading: Reading, **changed: Any) -> str:
        invariants = changed.pop("invariants", [self.HOLDS])
        run = msgspec.structs.replace(
            reading.run, **{"marks": [Mark("p99, ms from the intended start", 1, 2, True)], **changed}
        )
        return verdict_of(report(Reading(run, reading.times, reading.samples, invariants))).mood

    def test_it_passes_only_when_everything_was_judged_and_nothing_failed(self, frozen: Reading) -> None:
        assert self.mood(frozen) == "good"
        assert self.mood(frozen, invariants=None) == "open"
        assert self.mood(frozen, marks=[]) == "open"
        assert self.mood(frozen, marks=[Mark("p99, ms from the intended start", 3, 2, False)]) == "bad"
        assert self.mood(frozen, void=["the generator was late"]) == "void"
        assert self.mood(frozen, tool="closed") == "open"

    def test_wrong_answers_are_a_failure_even_of_a_void_run(self, frozen: Reading) -> None:
        broken = Judgement("L1", "each voucher once", False, {}, 2, "1-7 twice")
        assert self.mood(frozen, void=["late"], invariants=[broken]) == "bad"
