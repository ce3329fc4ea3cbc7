"""The bench's row of many tills: all of them connected, each scanning every few seconds, and what each takes of memory.

Ten thousand tills would take a minute to be enrolled through the API, so they are written into the log of a gateway
that is not running, all with one device key (gateway.history_bench).
"""

import resource
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import psutil
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from loadtest.bench_gateway import Gateway, running_gateway, set_up
from loadtest.bench_machine import beside
from loadtest.bench_plan import STREAM, Load, Plan, Shape, Target, Till
from loadtest.bench_report import Mark, Work, check_of
from loadtest.bench_work import last_line
from loadtest.own_server import GatewayFailed

IDLE_TILLS = 10_000
SCAN_EVERY_SECONDS = 3.0
FILES_SPARE = 200  # open files beside the connections
SAMPLE_SECONDS = 0.05
ENROL_SECONDS_MAX = 60.0
STORE = "bench-0"  # one that `set_up` opens


def idle_work(directory: Path, seconds: float, generate: Callable[[Plan], list[Load]]) -> Work:
    """Tills that are connected, each scanning every SCAN_EVERY_SECONDS. Raises GatewayFailed."""
    tills = _open_files(IDLE_TILLS + FILES_SPARE) - FILES_SPARE
    rate = tills / SCAN_EVERY_SECONDS
    each = round(seconds / SCAN_EVERY_SECONDS) + 2
    with running_gateway(directory) as gateway:
        stage = set_up(gateway, 0, tills * each)
    key, server = Ed25519PrivateKey.generate(), gateway.server
    _enrol(directory, tills, key.public_key().public_bytes_raw())
    try:
        gateway = Gateway(server, server.start())
        pids = {"gateway": gateway.pid, "valkey": gateway.valkey_pid}
        plan = Plan(
            shape=Shape(STREAM, tills, rate=rate),
            targets=[Target("gateway", gateway.host, gateway.port, pids)],
            tills=[Till(number, key.private_bytes_raw()) for number in range(1, tills + 1)],
            token=stage.token,
            codes=stage.codes,
            seconds=seconds,
            turns=1,
            warm_seconds=0.5,
            seed=7,
        )
        gateway.ask("GET", "/readyz")
        with _Memory(gateway.pid) as memory:
            load = generate(plan)[0]
        gateway.close()
    finally:
        server.leave()
    kib = memory.grown / tills / 1024
    figures = {
        "tills connected": float(tills),
        "scans a second": load.scans / load.seconds,
        "gateway memory a till, KiB, at its most": kib,
        "gateway CPU a verdict, us": load.cpu_seconds["gateway"] * 1e6 / load.scans,
        "Valkey CPU a verdict, us": load.cpu_seconds["valkey"] * 1e6 / load.scans,
        "p50, ms": load.p50_ms,
        "p99, ms": load.p99_ms,
        "p99.9, ms": load.p999_ms,
        "the generator's lag p99, ms": load.lag_p99_ms,
    }
    marks = [Mark("p99, ms", load.p99_ms, 25, at_most=True), Mark("gateway memory a till, KiB", kib, 25, at_most=True)]
    what = f"{tills:,} tills connected, each scanning every {SCAN_EVERY_SECONDS:.0f} s"
    return Work("f", what, figures, check_of(load).holds, beside(directory), marks)


def _open_files(wanted: int) -> int:
    """How many files a process may have open after asking for that many; the gateway and the generator inherit it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    return max(min(soft, wanted), most)


def _enrol(directory: Path, tills: int, public_key: bytes) -> None:
    asked = ["--terminals", str(tills), "--store", STORE, "--public-key", public_key.hex()]
    command = [sys.executable, "-m", "gateway.history_bench", str(directory), *asked]
    made = subprocess.run(command, capture_output=True, timeout=ENROL_SECONDS_MAX, check=False)
    if made.returncode:
        raise GatewayFailed(f"the enrolment: {last_line(made.stderr)}")


class _Memory:
    """How much a process's resident memory grows at its most, while inside."""

    def __init__(self, pid: int) -> None:
        self._process, self._over = psutil.Process(pid), threading.Event()
        self._before = self._process.memory_info().rss
        self.grown = 0
        self._watch = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "_Memory":
        self._watch.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._watch.join()

    def _run(self) -> None:
        while not self._over.wait(SAMPLE_SECONDS):
            self.grown = max(self.grown, self._process.memory_info().rss - self._before)
