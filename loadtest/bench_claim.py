"""The bench's row of Valkey alone: the claim function with calls made beforehand (gateway.claim_bench)."""

import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from loadtest.bench_machine import beside
from loadtest.bench_report import Check, Row, Side
from loadtest.bench_work import last_line
from loadtest.own_server import GatewayFailed

CLAIM_SECONDS_MAX = 3.0  # a size of batch
CLAIM_RECORDS = 64  # a call, beside the size that (c) had
WORK_SECONDS_MAX = 120.0  # packing the calls, beside the measured time


class _Figures(msgspec.Struct, frozen=True):
    """What `python -m gateway.claim_bench` prints."""

    seconds: float
    calls: int
    verdicts: int
    p50_ms: float
    p99_ms: float
    p999_ms: float
    valkey_cpu_s: float
    client_cpu_s: float
    elsewhere_cpu_s: float
    records: int
    accepted: int


def claim_rows(rows: Sequence[Row], seconds: float, directory: Path, tell: Callable[[str], None]) -> list[Row]:
    """Valkey alone, with calls of 64 and with calls as large as (c) had on the average."""
    mixed = next((row for row in rows if row.name == "c"), None)
    sizes = [CLAIM_RECORDS]
    if mixed is not None and round(mixed.side.per_batch) > CLAIM_RECORDS:
        sizes.append(round(mixed.side.per_batch))
    found = []
    for records in sizes:
        tell(f"(d) Valkey alone, {records} records a call")
        command = [sys.executable, "-m", "gateway.claim_bench", "--records", str(records), "--seconds", str(seconds)]
        made = subprocess.run(command, capture_output=True, timeout=WORK_SECONDS_MAX + seconds, check=False)
        if made.returncode:
            raise GatewayFailed(f"the claim bench: {last_line(made.stderr)}")
        figures = msgspec.json.decode(made.stdout, type=_Figures)
        share = None if mixed is None else mixed.side.per_second * figures.seconds / figures.verdicts
        found.append(_claim_row(figures, records, share, directory))
    return found


def _claim_row(figures: _Figures, records: int, share: float | None, directory: Path) -> Row:
    spent = {"valkey": figures.valkey_cpu_s, "generator": figures.client_cpu_s}
    side = Side(
        name="valkey",
        per_second=figures.verdicts / figures.seconds,
        cpu_us={name: cpu_s * 1e6 / figures.verdicts for name, cpu_s in spent.items()},
        trailing_us={},
        p50_ms=figures.p50_ms,
        p99_ms=figures.p99_ms,
        p999_ms=figures.p999_ms,
        lag_p99_ms=0.0,
        seconds=figures.seconds,
        verdicts=figures.verdicts,
        per_batch=records,
        elsewhere_cores=figures.elsewhere_cpu_s / figures.seconds,
    )
    check = Check(
        answered=figures.records,
        accepted=figures.accepted,
        accepted_expected=figures.records,
        distinct=figures.records,
        unresolved=0,
        wrong=figures.records - figures.accepted,
    )
    what = f"Valkey alone, {records} records a call"
    return Row("d", what, side, None, share, check, beside(directory), [])
