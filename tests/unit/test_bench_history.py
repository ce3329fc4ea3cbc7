"""Runs of the bench remembered by machine class, and drift told apart from a machine that is slow today."""

from pathlib import Path

import msgspec
import pytest

from loadtest.bench_history import (
    RUNS,
    WORK_MS,
    Run,
    compared,
    drift_lines,
    history_file,
    machine_class,
    recalled,
    remember,
    run_of,
)
from loadtest.bench_report import Beside, Check, Mark, Row, Side, Work

GATEWAY, BARE = "gateway CPU a verdict, us", "bare server's CPU, us"


def a_run(gateway_us: float = 10.0, bare_us: float = 2.0, per_second: float = 100_000.0, **more: float) -> Run:
    figures = {GATEWAY: gateway_us, "verdicts a second": per_second} | more
    return Run(1, "abc", {"c": figures}, {"c": {BARE: bare_us, WORK_MS: 20.0}})


def told(now: Run, *before: Run) -> dict[str, tuple[float, bool]]:
    return {drift.name: (round(drift.change, 3), drift.counts) for drift in compared(now, before)}


def test_a_slow_machine_is_no_drift() -> None:
    slow = a_run(gateway_us=20.0, bare_us=4.0, per_second=50_000.0)
    assert told(slow, a_run()) == {GATEWAY: (0.0, False), "verdicts a second": (0.0, False)}
    assert (
        "the machine itself, by the controls, took times as long: (c) 2.00"
        in drift_lines(compared(slow, [a_run()]), 1)[1]
    )


def test_what_costs_more_on_the_same_machine_is_told_with_how_much() -> None:
    found = compared(a_run(gateway_us=12.0), [a_run()])
    assert [(drift.name, round(drift.change, 3)) for drift in found if drift.counts] == [(GATEWAY, 0.2)]
    lines = drift_lines(found, 1)
    assert "  (c) gateway CPU a verdict, us: 12, was 10: 20% worse" in lines
    assert lines[-1] == "  1 figures as before"
    assert any("better" in line for line in drift_lines(compared(a_run(gateway_us=5.0), [a_run()]), 1))


def test_throughput_that_falls_is_worse() -> None:
    assert told(a_run(per_second=50_000.0), a_run())["verdicts a second"] == (1.0, True)


def test_bytes_know_no_slow_machine() -> None:
    now, before = a_run(bare_us=4.0, **{"bytes of log": 90.0}), a_run(**{"bytes of log": 72.0})
    assert told(now, before)["bytes of log"] == (0.25, True)


def test_the_median_of_the_last_runs_counts() -> None:
    old = [a_run(gateway_us=1.0)] * 9
    last = [a_run(gateway_us=us) for us in (10.0, 11.0, 90.0, 10.0, 9.0)]
    assert len(last) == RUNS
    assert told(a_run(gateway_us=10.5), *old, *last)[GATEWAY] == (0.05, False)


def test_without_a_control_the_fixed_work_tells_of_the_machine() -> None:
    before = Run(1, "", {"i": {"seconds": 2.0}}, {"i": {WORK_MS: 20.0}})
    now = Run(2, "", {"i": {"seconds": 4.0}}, {"i": {WORK_MS: 40.0}})
    assert told(now, before) == {"seconds": (0.0, False)}


def test_a_row_that_is_new_is_not_compared() -> None:
    assert compared(a_run(), []) == []
    assert drift_lines([], 0) == ["no earlier run on a machine like this one: nothing to compare with"]


def test_a_run_is_made_of_rows_and_works() -> None:
    side = Side("gateway", 1000.0, {"gateway": 9.0, "valkey": 5.0, "generator": 1.0}, {}, 1, 2, 3, 0, 1, 9, 64, 0.0)
    bare = msgspec.structs.replace(side, name="bare", cpu_us={"bare": 2.0, "generator": 1.0})
    check, beside = Check(1, 1, 1, 1, 0, 0), Beside(0.1, 0.2, 400, 20.0)
    rows = [Row("c", "", side, bare, 1.0, check, beside, []), *[Row("d", "", side, None, None, check, beside, [])] * 2]
    works = [Work("i", "", {"bytes": 40.0}, True, beside, [Mark("", 1, 1, at_most=True)])]
    run = run_of(7, "abc", rows, works)
    assert set(run.figures) == {"c", "d", "d large", "i"}
    assert run.figures["c"][GATEWAY] == 9.0
    assert not any("generator" in name for name in run.figures["c"])
    assert run.controls["c"] == {BARE: 2.0, WORK_MS: 20.0}
    assert run.controls["d"] == run.controls["i"] == {WORK_MS: 20.0}


def test_runs_are_kept_by_machine_class_and_a_damaged_line_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    path = history_file(machine_class("AMD EPYC (tm) 7B13", 2))
    assert path == tmp_path / "tillgate" / "bench-amd-epyc-tm-7b13-2.ndjson"
    assert recalled(path) == []
    remember(path, a_run())
    with path.open("ab") as file:
        file.write(b'{"at_ms": 1}\nnot json\n')
    remember(path, a_run(gateway_us=11.0))
    assert [run.figures["c"][GATEWAY] for run in recalled(path)] == [10.0, 11.0]
