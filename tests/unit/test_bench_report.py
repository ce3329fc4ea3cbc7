"""Percentiles, marks, and the two forms of a bench's result."""

import io

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from loadtest.bench_plan import Load
from loadtest.bench_report import (
    Beside,
    Check,
    Mark,
    Row,
    as_object,
    check_of,
    percentile,
    print_report,
    side_of,
)


def load(**changes: object) -> Load:
    fields: dict[str, object] = {
        "target": "gateway",
        "seconds": 2.0,
        "messages": 100,
        "scans": 6400,
        "p50_ms": 1.5,
        "p99_ms": 9.0,
        "p999_ms": 12.0,
        "lag_p99_ms": 0.0,
        "batches": 20,
        "cpu_seconds": {"gateway": 0.064, "valkey": 0.032, "generator": 0.0064},
        "trailing_seconds": {"gateway": 0.01, "valkey": 0.0},
        "elsewhere_seconds": 0.5,
        "answered": 10_000,
        "accepted": 10_000,
        "accepted_expected": 10_000,
        "unresolved": 0,
        "wrong": 0,
        "distinct": 10_000,
    }
    return Load(**(fields | changes))  # type: ignore[arg-type]


def row(**changes: object) -> Row:
    side = side_of(load())
    marks = [Mark("gateway CPU", 10.0, 12.0, at_most=True), Mark("verdicts", 3200.0, 70_000, at_most=False, goal=True)]
    made = Row("c", "a stream", side, side, 2.5, check_of(load()), Beside(0.1, 0.2, 400, 20.0), marks)
    return msgspec.structs.replace(made, **changes)


@pytest.mark.parametrize(
    ("values", "share", "expected"),
    (
        ([], 0.5, 0.0),
        ([7.0], 0.0, 7.0),
        ([7.0], 0.99, 7.0),
        ([1.0, 2.0], 0.5, 1.0),
        ([1.0, 2.0, 3.0], 0.5, 2.0),
        ([float(n) for n in range(1, 101)], 0.99, 99.0),
        ([float(n) for n in range(1, 101)], 1.0, 100.0),
    ),
)
def test_percentile_is_the_nearest_rank(values: list[float], share: float, expected: float) -> None:
    assert percentile(values, share) == expected


@given(st.lists(st.floats(0, 1e6), min_size=1).map(sorted), st.floats(0.01, 1))
def test_percentile_splits_the_values(values: list[float], share: float) -> None:
    found = percentile(values, share)
    assert sum(value <= found for value in values) >= share * len(values) - 1e-6
    assert sum(value < found for value in values) <= share * len(values)


def test_a_side_is_counted_by_the_verdict() -> None:
    side = side_of(load())
    assert side.per_second == 3200
    assert side.cpu_us == pytest.approx({"gateway": 10.0, "valkey": 5.0, "generator": 1.0})
    assert side.trailing_us == pytest.approx({"gateway": 1.0, "valkey": 0.0})
    assert (side.per_batch, side.elsewhere_cores) == (320, 0.25)


def test_a_load_without_answers_divides_nothing_by_nothing() -> None:
    side = side_of(load(seconds=0.0, scans=0, batches=0, answered=0))
    assert (side.per_second, side.per_batch) == (0.0, 0.0)


@pytest.mark.parametrize(
    ("changes", "holds"),
    (
        ({}, True),
        ({"accepted": 9_990, "unresolved": 10}, True),
        ({"wrong": 1}, False),
        ({"accepted": 9_999}, False),
        ({"accepted": 10_001}, False),
    ),
)
def test_a_check_holds_only_if_every_voucher_was_accepted(changes: dict[str, int], holds: bool) -> None:
    assert check_of(load(**changes)).holds is holds


@pytest.mark.parametrize(("at_most", "measured", "met"), ((True, 12, True), (True, 12.1, False), (False, 12, True)))
def test_a_mark_is_met_on_its_limit(at_most: bool, measured: float, met: bool) -> None:
    assert Mark("", measured, 12, at_most=at_most).met is met


def test_the_object_says_what_was_met() -> None:
    made = msgspec.json.decode(msgspec.json.encode(as_object({"kernel": "k"}, [row(), row(control=None, ratio=None)])))
    assert made["environment"] == {"kernel": "k"}
    first, second = made["rows"]
    assert [mark["met"] for mark in first["marks"]] == [True, False]
    assert first["check"]["holds"] is True
    assert first["side"]["cpu_us"]["valkey"] == pytest.approx(5.0)
    assert (second["control"], second["ratio"]) == (None, None)


def printed(*rows: Row) -> str:
    console = Console(file=io.StringIO(), width=80)
    print_report(console, {"kernel": "Linux"}, rows)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_the_table_fits_80_columns_and_names_marks_and_faults() -> None:
    text = printed(row(), row(check=Check(5, 4, 5, 5, 0, 1)), row(check=Check(5, 4, 5, 5, 1, 0)))
    assert "…" not in text
    assert "c 3,200 10.0 5.0 1.0 1.5/9/12 320 0.1/0.2 0.2" in " ".join(text.split())
    assert "mark met: gateway CPU: 10, at most 12" in text
    assert "goal missed: verdicts: 3,200, at least 70,000" in text
    assert text.count("wrong answers") == 1
    assert "slower" not in text
    assert "unresolved, to be asked again: 1" in text


def test_a_row_on_slow_cores_is_told_apart() -> None:
    text = printed(row(), row(beside=Beside(0.1, 0.2, 400, 31.0)))
    assert text.count("cores were 1.6 times slower than at best: measure again") == 1
