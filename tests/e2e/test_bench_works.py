"""The bench's rows of work, small: an import beside redemptions, an issue, and what a voucher takes."""

import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from loadtest import bench_idle, bench_work
from loadtest.bench import generated
from loadtest.bench_gateway import running_gateway, set_up
from loadtest.bench_work import IMPORT_CONNECTIONS, import_vouchers, import_work, issue_work


@pytest.mark.timeout(120)
def test_an_import_and_an_issue_are_measured_and_done_right(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_work, "IMPORT_CODES", 3000)
    monkeypatch.setattr(bench_work, "ISSUE_CODES", 3000)
    monkeypatch.setattr(bench_work, "IMPORT_LEAD_SECONDS", 0.0)
    with running_gateway(tmp_path / "d") as gateway:
        stage = set_up(gateway, IMPORT_CONNECTIONS, import_vouchers(0.4))
        imported = import_work(gateway, stage, stage.codes, 0.4, generated)
        issued = issue_work(gateway)
    assert imported.holds
    assert imported.figures["redemptions a second meanwhile"] > 100
    assert imported.figures["redemption p50, ms"] <= imported.figures["redemption p99.9, ms"]
    assert issued.holds
    assert issued.figures["bytes of log a code"] < 10
    assert not list(tmp_path.glob("d/*.csv")), "codes are left behind"


@pytest.mark.timeout(120)
def test_many_tills_are_connected_and_what_each_takes_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench_idle, "IDLE_TILLS", 40)
    monkeypatch.setattr(bench_idle, "SCAN_EVERY_SECONDS", 0.2)
    work = bench_idle.idle_work(tmp_path / "d", 0.4, generated)
    assert work.holds
    assert work.figures["tills connected"] == 40
    assert work.figures["scans a second"] > 50


def test_what_a_voucher_takes_is_counted() -> None:
    command = [sys.executable, "-m", "gateway.state_bench", "--vouchers", "20480"]
    made = subprocess.run(command, capture_output=True, check=True, timeout=60)
    found = msgspec.json.decode(made.stdout)
    assert 32 < found["valkey"]["dense"] < found["valkey"]["one in 64"] < 150  # 5 bytes are Valkey's own growth
    assert 65 < found["log"]["64"] < found["log"]["1"] < 200
    assert found["index"] > 16
