"""The bench itself, small: a real gateway, a real generator, and answers that must all be right."""

import subprocess
import sys

import msgspec
import pytest


@pytest.mark.timeout(120)
def test_every_row_is_measured_and_every_answer_right() -> None:
    run = subprocess.run(
        [sys.executable, "-m", "gateway.cli", "bench", "--rows", "a,b,c2,c3,d,e", "--seconds", "0.2", "--json"],
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    result = msgspec.json.decode(run.stdout)
    rows = {row["name"]: row for row in result["rows"]}
    assert list(rows) == ["a", "b", "c2", "c3", "e", "d"]
    for row in rows.values():
        check = row["check"]
        assert (check["holds"], check["wrong"], check["unresolved"]) == (True, 0, 0)
        assert check["accepted"] == check["accepted_expected"] >= check["distinct"] > 0
        assert row["side"]["per_second"] > 0
        assert 0 < row["side"]["p50_ms"] <= row["side"]["p99_ms"] <= row["side"]["p999_ms"]
        assert row["beside"]["fsyncs"] > 0
    assert rows["c2"]["check"]["answered"] > rows["c2"]["check"]["accepted"] > rows["c2"]["check"]["distinct"]
    assert {"gateway", "valkey", "generator"} == set(rows["b"]["side"]["cpu_us"])
    assert rows["a"]["ratio"] > 0
    assert {"machine", "kernel", "python", "libraries", "valkey", "vouchers"} <= set(result["environment"])


def test_an_unknown_row_is_refused_by_name() -> None:
    run = subprocess.run(
        [sys.executable, "-m", "gateway.cli", "bench", "--rows", "a,x"], capture_output=True, text=True
    )
    assert run.returncode == 2
    assert "there is no row 'x'; the rows are a, b, c, c2, c3, d, e, f, g, h, i" in run.stderr
