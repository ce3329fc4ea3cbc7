"""Scenarios: those that come with Tillgate can be run, and what cannot is refused by the field's name."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from loadtest.arrivals import expected, rate_most
from loadtest.faults import FAULTS
from loadtest.scenario import Scenario, ScenarioRefused, Search, read
from loadtest.scenario_rules import adjusted, check, named, names, vouchers_needed

PLAIN = """
title = "t"
shows = "s"
seconds = 10
[arrivals]
shape = "constant"
rate = 5
[terminals]
count = 4
stores = 2
"""
REQUIRED = {
    *("smoke", "origin-replay", "origin-x100", "origin-x1000", "doors-open", "saturation-search", "hot-voucher"),
    *("duplicate-storm", "mixed", "issue-burst", "store-outage", "kill-worker", "kill-redis", "freeze-5s"),
    *("disk-full", "slow-fsync", "rolling-restart", "soak", "replay"),
}


def refused(text: str) -> ScenarioRefused:
    with pytest.raises(ScenarioRefused) as caught:
        check(read(text, "one"), tuple(FAULTS))
    return caught.value


def test_every_scenario_there_must_be_comes_along() -> None:
    assert set(names()) >= REQUIRED


@pytest.mark.parametrize("name", names())
def test_a_shipped_scenario_can_be_run_and_says_what_it_is_for(name: str) -> None:
    scenario = named(name)
    check(scenario, tuple(FAULTS))
    assert scenario.name == name
    assert scenario.title
    assert scenario.shows.endswith(".")
    again = msgspec.convert(msgspec.to_builtins(scenario), Scenario)
    assert again == scenario


@pytest.mark.parametrize("name", names())
def test_a_shipped_scenario_can_be_run_within_a_minute(name: str) -> None:
    short = adjusted(named(name), seconds=54, generators=4)
    check(short, tuple(FAULTS))
    assert isinstance(short.arrivals, Search) or short.length_s == pytest.approx(54)


def test_the_origin_is_the_origin() -> None:
    origin = named("origin-replay")
    assert expected(origin) == 200_000
    assert origin.length_s == 540
    assert rate_most(named("origin-x1000")) == pytest.approx(7083, abs=1)
    assert rate_most(named("origin-x100")) == pytest.approx(708.3, abs=0.1)


@pytest.mark.parametrize(
    ("old", "new", "field", "hint"),
    (
        ("title", "tilte", "tilte", "title"),
        ("count = 4", "count = 4\nhtpp = 1", "terminals.htpp", "http"),
        ("rate = 5", "rte = 5", "arrivals.rte", "rate"),
        ('"constant"', '"konstant"', "arrivals.shape", "constant"),
        ("rate = 5", "rate = -5", "arrivals.rate", "> 0"),
        ("rate = 5", 'rate = "5"', "arrivals.rate", "float"),
        ("rate = 5", "", "arrivals.rate", "missing"),
        ("seconds = 10", "", "seconds", "missing"),
        ("rate = 5", "rate = 500_000", "arrivals.rate", "generators = "),
        ("rate = 5", "rate = 0.01", "arrivals", "nobody comes"),
        ("stores = 2", "stores = 5", "terminals.stores", "terminals"),
        ("stores = 2", "[vouchers]\nissued = 49", "vouchers.issued", "50"),
        ("stores = 2", "[mix]\nused = 0.9\nbad = 0.2", "mix", "1.1"),
        ("stores = 2", "[mix]\nused = 0.9\nbad = 0.1", "mix", "nothing is left"),
        ("stores = 2", "[[faults]]\nname = 'freze-5s'\nat_s = 1", "faults[0].name", "freeze-5s"),
        ("stores = 2", "[[faults]]\nname = 'freeze-5s'\nat_s = 11", "faults[0].at_s", "after the last"),
        ("stores = 2", "stores = 2\n[outage]\nstores = 3\nat_s = 1\nfor_s = 1", "outage.stores", "of 2"),
        ("stores = 2", "stores = 2\n[outage]\nstores = 1\nat_s = 1\nfor_s = 10", "outage.for_s", "after the last"),
        ("stores = 2", "[imports]\ncount = 5\nat_s = 20", "imports.at_s", "after the last"),
        ("count = 4", "count = 20_000", "terminals.count", "generator"),
        ("stores = 2", "scans = 8\nhttp = 0.5", "terminals.scans", "stream"),
    ),
)
def test_what_cannot_be_run_is_refused_by_its_field(old: str, new: str, field: str, hint: str) -> None:
    assert old in PLAIN
    why = refused(PLAIN.replace(old, new))
    assert why.field == field
    assert hint in why.why


def test_the_shapes_that_say_how_long_they_take_are_not_told_so_again() -> None:
    assert refused(PLAIN.replace('"constant"\nrate = 5', '"race"')).field == "seconds"


def test_a_search_must_know_what_it_searches_for() -> None:
    shape = 'shape = "search"\nfirst = 5\nlast = 9\nstep_seconds = 1'
    text = PLAIN.replace("seconds = 10\n", "").replace('shape = "constant"\nrate = 5', shape)
    assert refused(text).field == "marks.p99_ms"


@pytest.mark.parametrize(
    ("name", "asked", "field"),
    (
        ("smoke", {"scale": 2.0}, "scale"),
        ("smoke", {"seconds": -1.0}, "seconds"),
        ("smoke", {"rate": -1.0}, "arrivals.rate"),
        ("hot-voucher", {"rate": 5.0}, "rate"),
        ("smoke", {"terminals": 0}, "terminals.count"),
    ),
)
def test_the_command_line_cannot_ask_for_more_than_a_file(name: str, asked: dict[str, Any], field: str) -> None:
    with pytest.raises(ScenarioRefused) as caught:
        adjusted(named(name), **asked)
    assert caught.value.field.startswith(field)


def test_time_and_rate_can_be_bent() -> None:
    outage = adjusted(named("store-outage"), seconds=90, rate=100)
    assert outage.outage is not None
    assert (outage.outage.at_s, outage.outage.for_s) == (12, 60)
    assert rate_most(outage) == 100
    assert expected(adjusted(named("origin-x1000"), seconds=18)) == pytest.approx(70_855, abs=5)


def test_vouchers_suffice_for_what_is_drawn() -> None:
    storm = named("duplicate-storm")
    assert expected(storm) * 0.95 < vouchers_needed(storm) < expected(storm)
    assert vouchers_needed(named("hot-voucher")) == 10


def test_a_file_that_is_none_is_told_with_what_was_meant(tmp_path: Path) -> None:
    with pytest.raises(ScenarioRefused, match="did you mean 'smoke'"):
        named("smok")
    (tmp_path / "mine.toml").write_text(PLAIN)
    assert named(str(tmp_path / "mine.toml")).name == "mine"


def test_a_round_of_a_race_ends_before_the_next() -> None:
    text = (
        'title = "r"\nshows = "r"\n[arrivals]\nshape = "race"\nevery_s = 0.1\nwithin_ms = 150\n[terminals]\ncount = 4\n'
    )
    why = refused(text)
    assert (why.field, "next round" in why.why) == ("arrivals.within_ms", True)
    shorter = adjusted(named("hot-voucher"), seconds=1)
    check(shorter, tuple(FAULTS))
