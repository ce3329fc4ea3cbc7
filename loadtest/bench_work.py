"""Rows of the bench that are pieces of work: an import beside redemptions, an issue, and what a voucher takes.

The first two go through `tillgate voucher`, as an operator would have them done; what they cost is read from the
accounts of gateway, Valkey and that command.
"""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import psutil

from loadtest.bench_gateway import CAMPAIGN, Gateway, Stage
from loadtest.bench_machine import beside
from loadtest.bench_plan import STREAM, Load, Plan, Shape, Target
from loadtest.bench_report import Mark, Work, check_of
from loadtest.own_server import GatewayFailed

IMPORT_CODES = 400_000  # four seconds of it at the rate that is wished for
IMPORT_SCANS_RATE = 1000.0  # redemptions a second meanwhile
IMPORT_CONNECTIONS = 64
IMPORT_LEAD_SECONDS = 1.0  # the command starts, reads the file once, and connects
ISSUE_CODES = 1_200_000  # the origin's
STATE_VOUCHERS = 200_000  # `make bench-bytes` takes a million: the figures differ by a twentieth
COMMAND_SECONDS_MAX = 180.0
Generate = Callable[[Plan], list[Load]]


def import_vouchers(seconds: float) -> int:
    """Vouchers that the import's redemptions use up, alone and beside it."""
    return round(IMPORT_SCANS_RATE * 2 * (seconds + 2))


def import_work(gateway: Gateway, stage: Stage, codes: Sequence[str], seconds: float, generate: Generate) -> Work:
    """Foreign codes imported while tills redeem, against the same redemptions alone."""
    half = len(codes) // 2
    alone = generate(_paced(gateway, stage, codes[:half], seconds))[0]
    path = gateway.directory / "foreign.csv"
    rng = Random(7)  # noqa: S311 - load, not secrets
    path.write_text("code\n" + "".join(f"GB-{rng.getrandbits(60):015X}\n" for _ in range(IMPORT_CODES)))
    before_s = _spent_s(gateway)
    importing = _Command(gateway, "import", CAMPAIGN, str(path))
    time.sleep(IMPORT_LEAD_SECONDS)
    beside_it = generate(_paced(gateway, stage, codes[half:], seconds))[0]
    told, command_s = importing.result()
    path.unlink()
    spent_s = {name: spent - before_s[name] for name, spent in _spent_s(gateway).items()}
    per_second, count = float(told["lines_per_second"]), IMPORT_CODES
    figures = {
        "codes a second": per_second,
        "gateway CPU a code, us, redemptions included": spent_s["gateway"] * 1e6 / count,
        "Valkey CPU a code, us, redemptions included": spent_s["valkey"] * 1e6 / count,
        "command's CPU a code, us": command_s * 1e6 / count,
        "redemptions a second meanwhile": beside_it.scans / max(beside_it.seconds, 1e-9),
        "redemption p50, ms": beside_it.p50_ms,
        "redemption p99, ms": beside_it.p99_ms,
        "redemption p99.9, ms": beside_it.p999_ms,
        "the generator's lag p99, ms": beside_it.lag_p99_ms,
        "control, without the import: p50, ms": alone.p50_ms,
        "control: p99, ms": alone.p99_ms,
        "control: p99.9, ms": alone.p999_ms,
    }
    marks = [
        Mark("codes a second", per_second, 100_000, at_most=False, goal=True),
        Mark("redemption p99 meanwhile, ms", beside_it.p99_ms, 25, at_most=True),
    ]
    holds = told["accepted"] == IMPORT_CODES and check_of(alone).holds and check_of(beside_it).holds
    what = f"import of {IMPORT_CODES:,} foreign codes beside {IMPORT_SCANS_RATE:,.0f} redemptions a second"
    return Work("g", what, figures, holds, beside(gateway.directory), marks)


def _paced(gateway: Gateway, stage: Stage, codes: Sequence[str], seconds: float) -> Plan:
    pids = {"gateway": gateway.pid, "valkey": gateway.valkey_pid}
    return Plan(
        shape=Shape(STREAM, IMPORT_CONNECTIONS, rate=IMPORT_SCANS_RATE),
        targets=[Target("gateway", gateway.host, gateway.port, pids)],
        tills=stage.tills,
        token=stage.token,
        codes=list(codes),
        seconds=seconds,
        turns=1,
        warm_seconds=0.3,
        seed=7,
    )


def issue_work(gateway: Gateway) -> Work:
    """The origin's vouchers issued, and their codes in the operator's file."""
    path, before_s = gateway.directory / "issued.csv", _spent_s(gateway)
    valkey_bytes = psutil.Process(gateway.valkey_pid).memory_info().rss
    log_bytes, started_s = _log_bytes(gateway), time.perf_counter()
    _, command_s = _Command(gateway, "issue", CAMPAIGN, "--count", str(ISSUE_CODES), "--out", str(path)).result()
    seconds = time.perf_counter() - started_s
    gateway_s = _spent_s(gateway)["gateway"] - before_s["gateway"]
    valkey_bytes = psutil.Process(gateway.valkey_pid).memory_info().rss - valkey_bytes
    with path.open("rb") as file:
        holds = sum(1 for _ in file) == ISSUE_CODES + 1
    path.unlink()
    figures = {
        "seconds": seconds,
        "codes a second": ISSUE_CODES / seconds,
        "gateway CPU a code, us": gateway_s * 1e6 / ISSUE_CODES,
        "command's CPU a code, us": command_s * 1e6 / ISSUE_CODES,
        "bytes of Valkey a code": max(0.0, valkey_bytes / ISSUE_CODES),
        "bytes of log a code": (_log_bytes(gateway) - log_bytes) / ISSUE_CODES,
    }
    marks = [Mark("seconds", seconds, 10, at_most=True)]
    what = f"{ISSUE_CODES:,} signed vouchers issued, codes in a file"
    return Work("h", what, figures, holds, beside(gateway.directory), marks)


class _State(msgspec.Struct, frozen=True):
    """What `python -m gateway.state_bench` prints."""

    vouchers: int
    valkey: dict[str, float]
    log: dict[str, float]
    index: float


def state_work(directory: Path) -> Work:
    """Bytes of Valkey, log and index that a redeemed voucher takes."""
    command = [sys.executable, "-m", "gateway.state_bench", "--vouchers", str(STATE_VOUCHERS)]
    made = subprocess.run(command, capture_output=True, timeout=COMMAND_SECONDS_MAX, check=False)
    if made.returncode:
        raise GatewayFailed(f"the state bench: {last_line(made.stderr)}")
    state = msgspec.json.decode(made.stdout, type=_State)
    figures = {f"bytes of Valkey a redeemed voucher, {share} issued": size for share, size in state.valkey.items()}
    figures |= {f"bytes of log a scan, {size} a batch": cost for size, cost in state.log.items()}
    figures["bytes of index a scan"] = state.index
    marks = [
        Mark("bytes of Valkey a redeemed voucher, dense", state.valkey["dense"], 40, at_most=True),
        Mark("bytes of Valkey a redeemed voucher, one in 6", state.valkey["one in 6"], 40, at_most=True, goal=True),
        Mark("bytes of log a scan, 64 a batch", state.log["64"], 100, at_most=True),
    ]
    return Work("i", f"what {state.vouchers:,} redeemed vouchers take", figures, True, beside(directory), marks)


# --- the command, and what it and the servers cost -----------------------------------------------------------------


class _Command:
    """`tillgate voucher ...` against a gateway, running."""

    def __init__(self, gateway: Gateway, *arguments: str) -> None:
        command = [
            sys.executable,
            "-m",
            "gateway.cli",
            "voucher",
            *arguments,
            "--data",
            str(gateway.directory),
            "--json",
        ]
        self._said = gateway.directory / "command.err"
        with self._said.open("wb") as errors:
            self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors)
        self._limit = threading.Timer(COMMAND_SECONDS_MAX, self._process.kill)
        self._limit.start()

    def result(self) -> tuple[dict[str, Any], float]:
        """What it printed, and the CPU seconds it took. Raises GatewayFailed."""
        assert self._process.stdout is not None
        with self._process.stdout as output:
            printed = output.read()
        _, code, usage = os.wait4(self._process.pid, 0)  # not `wait`, which does not tell what it cost
        self._process.returncode = os.waitstatus_to_exitcode(code)
        self._limit.cancel()
        if self._process.returncode:
            raise GatewayFailed(f"tillgate voucher: {last_line(self._said.read_bytes())}")
        return msgspec.json.decode(printed), usage.ru_utime + usage.ru_stime


def _spent_s(gateway: Gateway) -> dict[str, float]:
    servers = {"gateway": gateway.pid, "valkey": gateway.valkey_pid}
    return {name: sum(psutil.Process(pid).cpu_times()[:2]) for name, pid in servers.items()}


def _log_bytes(gateway: Gateway) -> int:
    return sum(path.stat().st_size for path in gateway.directory.glob("log.db*"))


def last_line(output: bytes) -> str:
    """What a program said last."""
    return output.decode(errors="replace").strip().rpartition("\n")[2]
