"""What a closed model hides: the same gateway, frozen for five seconds, measured by both. `make closed-open`.

Two runs of Locust over the same wire, each against a gateway of its own: first users who wait for their answer and then
for a tenth of a second (the usual load test), then an open model in which shoppers come whether or not anybody is
served. Both write the same files through the same recorder, and the figures of both come from its histograms.
"""

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click
import msgspec
from rich.console import Console
from rich.table import Table

from loadtest.bench_gateway import Gateway, running_gateway
from loadtest.histograms import Histogram, highest_us, read
from loadtest.run_files import RUN_FILE, Fault, Run, read_run

SLOW_US = 1_000_000
FREEZE_S = 5.0
FREEZE_AFTER = 0.4  # of the run
WORKERS = 2  # a thousand answers at once, after the freeze, must not make one generator late
BEGIN_S_MAX = 60.0
POLL_S = 0.02
TABLE_COLUMNS = 100  # it stays whole where the terminal is narrower, or none
STARTS_FILE = "starts"  # Locust's master writes when it begins (loadtest/locust_master.py, which needs gevent)
LOCUSTFILE = Path(__file__).with_name("locustfile.py")
SCENARIO = """
title = "A freeze of five seconds"
shows = "What a closed model hides."
seconds = {seconds}
seed = {seed}

[arrivals]
shape = "constant"
rate = {rate}

[terminals]
count = {users}
stores = 4

[marks]
"""


class Figures(msgspec.Struct, frozen=True):
    """One model's row. Milliseconds; of the open model from the intended start."""

    model: str
    requests: int
    slow: int  # waited for more than a second, those that were never answered too
    slow_share: float
    p95_ms: float | None  # None: it falls among those
    p99_ms: float | None
    p999_ms: float | None
    lag_p99_ms: float | None  # of the generator itself
    void: list[str]


class Failed(Exception):
    """Locust did not make its run; says what it said."""


@click.command()
@click.option("--rate", default=200.0, show_default=True, help="Scans a second: offered, or what users would make.")
@click.option("--seconds", default=30.0, show_default=True, help="How long each run takes.")
@click.option("--users", default=20, show_default=True, help="Tills; of the closed model each is a user.")
@click.option("--seed", default=1, show_default=True)
@click.option("--keep", type=click.Path(path_type=Path), help="Keep both runs in this directory.")
@click.option("--json", "as_json", is_flag=True, help="Figures as JSON, on stdout.")
def command(rate: float, seconds: float, users: int, seed: int, keep: Path | None, as_json: bool) -> None:
    """Freeze a gateway for five seconds under a closed and under an open model, and compare what they tell."""
    with tempfile.TemporaryDirectory(prefix="tillgate-closed-open-") as made:
        directory = keep or Path(made)
        directory.mkdir(parents=True, exist_ok=True)
        scenario = directory / "freeze.toml"
        scenario.write_text(SCENARIO.format(rate=rate, seconds=seconds, users=users, seed=seed))
        try:
            rows = [_measured(model, scenario, directory / model, users, seconds) for model in ("closed", "open")]
        except Failed as error:
            sys.exit(str(error))
    if as_json:
        click.echo(msgspec.json.encode([msgspec.to_builtins(row) for row in rows]))
    else:
        _show(rows, users / rate)


def _measured(model: str, scenario: Path, directory: Path, users: int, seconds: float) -> Figures:
    """One run and its freeze. Raises Failed, GatewayFailed."""
    with running_gateway(directory.with_name(f"{model}-gateway")) as gateway:
        token = (gateway.directory / "secrets" / "admin.token").read_text().strip()
        options = ("--model", model, "--closed-users", str(users), "--run-directory", str(directory))
        line = [sys.executable, "-m", "locust", "-f", str(LOCUSTFILE), "--headless", "--only-summary"]
        line += ["--processes", str(WORKERS), "--scenario", str(scenario), "--host", gateway.url, *options]
        with (scenario.parent / f"{model}.log").open("w+b") as log:
            environment = os.environ | {"TILLGATE_ADMIN_TOKEN": token}
            locust = subprocess.Popen(line, env=environment, stdout=log, stderr=log)
            try:
                began_s = _begun(locust, directory, Path(log.name))
                fault = _frozen(gateway, began_s, seconds * FREEZE_AFTER)
                locust.wait(timeout=seconds + BEGIN_S_MAX)
            finally:
                locust.kill()
                locust.wait()
    run = msgspec.structs.replace(read_run(directory), faults=[fault])
    (directory / RUN_FILE).write_bytes(msgspec.json.format(msgspec.json.encode(run)))  # for whoever draws it
    return figures(model, run)


def _begun(locust: subprocess.Popen[bytes], directory: Path, log: Path) -> float:
    """When the first scan is due, by time.time."""
    until_s, told = time.monotonic() + BEGIN_S_MAX, directory / STARTS_FILE
    while not told.exists():
        if locust.poll() is not None or time.monotonic() > until_s:
            raise Failed(f"Locust made no run:\n{log.read_text()}")
        time.sleep(POLL_S)
    return int(told.read_text()) / 1000


def _frozen(gateway: Gateway, began_s: float, after_s: float) -> Fault:
    """Stop the gateway's process for a while, as a host does that has stolen its time."""
    time.sleep(max(began_s + after_s - time.time(), 0))
    at_s = time.time() - began_s
    os.kill(gateway.pid, signal.SIGSTOP)
    try:
        time.sleep(FREEZE_S)
    finally:
        os.kill(gateway.pid, signal.SIGCONT)
    return Fault("freeze-5s", at_s, time.time() - began_s)


def figures(model: str, run: Run) -> Figures:
    """What the run's own histograms say."""
    waited, lag = read(run.latencies.intended), read(run.latencies.lag)
    missing = run.counts.unresolved + run.counts.dropped
    slow = sum(count for index, count in waited.counts.items() if highest_us(index) > SLOW_US) + missing
    return Figures(
        model=model,
        requests=run.counts.offered,
        slow=slow,
        slow_share=slow / max(run.counts.offered, 1),
        p95_ms=_ms(waited, 0.95, missing),
        p99_ms=_ms(waited, 0.99, missing),
        p999_ms=_ms(waited, 0.999, missing),
        lag_p99_ms=_ms(lag, 0.99, 0),
        void=run.void,
    )


def _ms(histogram: Histogram, share: float, missing: int) -> float | None:
    found = histogram.percentile_us(share, missing)
    return None if found is None else found / 1000


def _show(rows: list[Figures], pause_s: float) -> None:
    table = Table(title=f"The same gateway, frozen for {FREEZE_S:.0f} s", title_justify="left")
    for column in ("model", "requests", "over 1 s", "share", "p95", "p99", "p99.9", "lag p99"):
        table.add_column(column, justify="left" if column == "model" else "right", no_wrap=True)
    for row in rows:
        waits = (_told(ms) for ms in (row.p95_ms, row.p99_ms, row.p999_ms, row.lag_p99_ms))
        table.add_row(row.model, f"{row.requests:,}", f"{row.slow:,}", f"{row.slow_share:.1%}", *waits)
    console = Console(width=max(Console().width, TABLE_COLUMNS), soft_wrap=True)
    console.print(table)
    closed, opened = rows
    console.print(
        f"closed: users who pause {pause_s:g} s after each answer. open: shoppers who come all the same, timed from"
        " when they came.\n"
        f"Of the shoppers, {opened.slow_share:.1%} waited longer than a second; the closed model tells"
        f" {closed.slow_share:.1%} and a p99 of {_told(closed.p99_ms)}, because its users stopped coming while the"
        " gateway stood still."
    )
    for row in rows:
        for why in row.void:
            console.print(f"{row.model}: to be believed with care: {why}")


def _told(ms: float | None) -> str:
    if ms is None:
        return "never"
    return f"{ms:,.0f} ms" if ms >= 10 else f"{ms:.1f} ms"


if __name__ == "__main__":
    command()
