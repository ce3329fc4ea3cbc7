"""Comparing load runs: noise is called noise, a real difference is found, and what may not be compared is refused."""

from dataclasses import replace
from pathlib import Path
from random import Random

import msgspec
import pytest
from load_runs import Story, write_run

from gateway.cli import run as tillgate
from loadtest.compare import Comparison, NotComparable, compare, comparison_sentence
from loadtest.compare_noise import Coarse, Drawings, beyond, block_length, blocks
from loadtest.histograms import added, read
from loadtest.recorder import histogram_text
from loadtest.report_files import compared, read_whole
from loadtest.report_times import Reading
from loadtest.run_files import Fault

PLAIN = Story(rate=lambda _: 40, seconds=60, capacity=900)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("runs")
    write_run(directory / "base", PLAIN)
    write_run(directory / "again", replace(PLAIN, seed=2))
    write_run(directory / "slower", replace(PLAIN, capacity=300, cpu_us=80, commit="0badc0de"))
    write_run(directory / "void", replace(PLAIN, capacity=4000, cpu_us=10, void=["lag p99 80 ms; at most 10 ms"]))
    return directory


def against_base(runs: Path, other: str) -> Comparison:
    return compared(runs / "base", runs / other)[2]


def judged(one: Comparison) -> dict[str, str]:
    return {row.name: row.judgement for row in one.rows}


def test_the_same_again_is_noise(runs: Path) -> None:
    told = judged(against_base(runs, "again"))
    assert not {"better", "worse"} & set(told.values()), told


def test_the_very_same_run_differs_in_nothing(runs: Path) -> None:
    assert set(judged(against_base(runs, "base")).values()) == {"same"}


def test_a_slower_server_is_found_by_waiting_and_by_cpu(runs: Path) -> None:
    one = against_base(runs, "slower")
    told = judged(one)
    for name in ("waited p50", "waited p99", "service p50", "CPU a verdict, gateway"):
        assert told[name] == "worse", name
    assert told["answered: accepted"] == "same"
    assert told["answers a second"] == "same"
    assert one.changed == ["commit: f3a91c07, then 0badc0de"]
    back = compare(read_whole(runs / "slower"), read_whole(runs / "base"), ("s", "b"), Random(1).randrange)
    assert judged(back)["waited p99"] == "better"


def test_percentiles_are_those_of_added_histograms(runs: Path) -> None:
    base = read_whole(runs / "base")
    row = next(row for row in against_base(runs, "slower").rows if row.name == "waited p99")
    assert row.base == (added(one.intended for one in base.times).percentile_us(0.99) or 0) / 1000
    assert row.interval is not None
    assert row.ratio is not None
    assert row.interval[0] <= row.ratio * 1.02
    assert row.interval[1] >= row.ratio * 0.98


def test_a_void_run_is_never_better(runs: Path) -> None:
    one = against_base(runs, "void")
    assert set(judged(one).values()) == {"void"}
    assert "neither better nor worse" in comparison_sentence(one)


def test_runs_of_another_load_are_refused_by_the_fields_name(runs: Path, tmp_path: Path) -> None:
    other = write_run(tmp_path / "other", replace(PLAIN, seconds=5, scenario={"mix": {"used": 0.3}}))
    with pytest.raises(NotComparable, match=r"seconds is 60, here 5; mix\.used is not set, here 0\.3"):
        compared(runs / "base", other)


def test_names_marks_and_seeds_do_not_make_another_load(runs: Path, tmp_path: Path) -> None:
    story = replace(PLAIN, seed=9, scenario={"title": "Other", "marks": {"p99_ms": 5}, "tags": ["x"]})
    one = compared(runs / "base", write_run(tmp_path / "other", story))[2]
    assert any("seed" in warning for warning in one.warnings)


def test_another_machine_is_a_warning(runs: Path, tmp_path: Path) -> None:
    story = replace(PLAIN, cpu="Another CPU", same_machine=False)
    one = compared(runs / "base", write_run(tmp_path / "other", story))[2]
    assert {warning.split(":")[0] for warning in one.warnings} >= {"cpu", "same machine"}


def test_a_short_run_cannot_tell(tmp_path: Path) -> None:
    story = Story(rate=lambda _: 20, seconds=6)
    one, two = (write_run(tmp_path / str(seed), replace(story, seed=seed, capacity=900 / seed)) for seed in (1, 3))
    told = judged(compared(one, two)[2])
    assert told["waited p99"] == "short"
    assert "worse" not in told.values()


def test_attempts_without_an_answer_make_it_worse_and_never_better(runs: Path, tmp_path: Path) -> None:
    story = replace(PLAIN, freezes=[(20, 32)], faults=[Fault("frozen", 20, 32)])
    told = compared(runs / "base", write_run(tmp_path / "other", story))[2]
    row = next(row for row in told.rows if row.name == "waited p99")
    assert row.other is None
    assert row.judgement in ("worse", "same"), "one stall hits few blocks, so chance may have missed them"
    assert row.judgement != "better"


def test_blocks_are_drawn_together_from_both_runs() -> None:
    """A load that swings hides nothing: the ratio of two runs that swing alike is steady."""
    swing = [10.0 + 9 * (at % 7) for at in range(60)]
    drawings = Drawings(60, Random(4).randrange)
    found = drawings.interval(
        lambda chosen: sum(swing[at] for at in chosen), lambda chosen: sum(1.2 * swing[at] for at in chosen)
    )
    assert found == (pytest.approx(1.2), pytest.approx(1.2))


@pytest.mark.parametrize(("interval", "said"), (((1.06, 1.2), 1), ((0.8, 0.94), -1), ((1.02, 1.2), 0), ((0.9, 1.1), 0)))
def test_an_interval_must_lie_wholly_beyond_what_is_worth_speaking_of(interval: tuple[float, float], said: int) -> None:
    assert beyond(interval, 0.05) == said


def test_coarse_histograms_are_true_to_some_percent() -> None:
    chance = Random(7)
    parts = [[int(chance.lognormvariate(8, 1)) + 1 for _ in range(500)] for _ in range(10)]
    coarse = Coarse([(read(histogram_text(list(part))), 0) for part in parts])
    everything = sorted(value for part in parts for value in part)
    shares = (0.5, 0.99, 0.999)
    for share, found in zip(shares, coarse.percentiles(shares, range(10)), strict=True):
        assert found == pytest.approx(everything[int(share * len(everything)) - 1], rel=0.04)
    assert Coarse([(read(histogram_text([5])), 99)]).percentiles((0.5,), [0]) == (float("inf"),)
    assert Coarse([(read(histogram_text([])), 0)]).percentiles((0.5,), [0]) == (0.0,)


def test_blocks_lie_side_by_side() -> None:
    assert block_length(60) == 4
    assert blocks([*range(10)], 4) == [[0, 1, 2, 3], [4, 5, 6, 7]]


def test_a_run_that_nobody_watched_has_no_cpu_rows(runs: Path) -> None:
    one = read_whole(runs / "base")
    bare = Reading(one.run, one.times, [], None)
    assert not [row for row in compare(bare, one, ("a", "b"), Random(1).randrange).rows if "CPU" in row.name]


class TestCommand:
    def test_exit_codes_and_outputs(self, runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
        base, again, slower = (str(runs / name) for name in ("base", "again", "slower"))
        assert tillgate(["load", "compare", base, again]) == 0
        assert "within noise" in capsys.readouterr().out
        assert tillgate(["load", "compare", base, again, slower, "--json"]) == 3
        told = msgspec.json.decode(capsys.readouterr().out)
        assert [one["other"] for one in told] == ["again", "slower"]
        assert tillgate(["load", "compare", base, slower, "--markdown"]) == 3
        assert "**worse**" in capsys.readouterr().out
        assert tillgate(["load", "compare", base]) == 2

    def test_another_load_is_refused(self, runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        other = write_run(tmp_path / "other", replace(PLAIN, seconds=5))
        assert tillgate(["load", "compare", str(runs / "base"), str(other)]) == 1
        assert "seconds is 60" in capsys.readouterr().err

    def test_a_report_shows_the_baseline(self, runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert tillgate(["load", "report", str(runs / "slower"), "--baseline", str(runs / "base")]) == 0
        page = Path(capsys.readouterr().out.strip()).read_text()
        assert "Against the baseline" in page
        assert 'class="line baseline"' in page
