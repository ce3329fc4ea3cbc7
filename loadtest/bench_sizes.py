"""Whether a scan costs the same after ten thousand redemptions and after ten million: `python -m loadtest.bench_sizes`.

For each size a deployment of its own is furnished through its API, its history is written straight into the log
(`python -m gateway.history_bench`), and then its gateway is started twice: once with nothing but the log, once as after
any restart. What a verdict costs is then measured with vouchers of the same campaign, beside the bare server; latency
at a thousand scans a second, which no size saturates.
"""

import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from random import Random

import click
import msgspec
import psutil
from rich import box
from rich.console import Console
from rich.table import Table

from loadtest.bench import bare_server, generated
from loadtest.bench_gateway import CAMPAIGN, Gateway, Stage, running_gateway, set_up
from loadtest.bench_machine import beside
from loadtest.bench_plan import STREAM, Load, Plan, Shape, Target
from loadtest.bench_report import check_of, in_ms
from loadtest.bench_work import last_line
from loadtest.own_server import GatewayFailed

SIZES = (10_000, 100_000, 1_000_000, 10_000_000)
SATURATED, CALM = Shape(STREAM, 8, 8, 64), Shape(STREAM, 64, rate=1000.0)
SCANS_PER_SECOND_MAX = 130_000
HISTORY_SECONDS_MAX, READY_SECONDS_MAX, INDEX_SECONDS_MAX = 600.0, 300.0, 300.0
QUIET_SECONDS, QUIET_SHARE = 1.0, 0.05  # a gateway that takes less of a core than that has caught up
BYTES_FREE_EACH = 250  # of disk an event: log, index, Valkey's append-only file, and a copy of it while it is rewritten


class Size(msgspec.Struct, frozen=True):
    """One line of the table."""

    events: int
    log_bytes: float  # an event
    index_bytes: float  # an event
    valkey_bytes: float  # resident, an event; Valkey's own five megabytes among them
    cold_seconds: float  # from the start with the log alone until /readyz says yes
    index_us: float  # gateway CPU an event after it was ready, until index and counts had caught up
    warm_seconds: float  # the same with everything in place
    gateway_us: float
    valkey_us: float
    bare_us: float
    per_second: float
    p50_ms: float
    p99_ms: float
    p999_ms: float
    lag_p99_ms: float
    work_ms: float  # a fixed piece of work: how slow the machine was
    holds: bool


@click.command()
@click.option("--sizes", default=",".join(map(str, SIZES)), show_default=True, help="Events, one run each.")
@click.option("--seconds", default=2.0, show_default=True, type=click.FloatRange(0.2, 60), help="Measured, a load.")
@click.option("--directory", type=click.Path(exists=True, file_okay=False, path_type=Path), help="On which disk.")
@click.option("--json", "as_json", is_flag=True, help="Print results as JSON.")
def main(sizes: str, seconds: float, directory: Path | None, as_json: bool) -> None:
    """What a scan costs with more and more behind it."""
    found: list[Size] = []
    for events in map(int, sizes.split(",")):
        with tempfile.TemporaryDirectory(prefix="tillgate-", dir=directory) as name:
            if shutil.disk_usage(name).free < events * BYTES_FREE_EACH:
                raise click.ClickException(
                    f"{events:,} events need {events * BYTES_FREE_EACH >> 20:,} MiB of free disk"
                )
            click.echo(f"{events:,} events ...", err=True)
            try:
                found.append(_size(Path(name) / "d", events, seconds))
            except (GatewayFailed, OSError, HTTPException, subprocess.TimeoutExpired) as error:
                raise click.ClickException(f"{events:,} events: {error}") from None
    if as_json:
        click.echo(msgspec.json.encode(found))
    else:
        Console().print(_table(found))
    sys.exit(0 if all(size.holds for size in found) else 3)


def _size(directory: Path, events: int, seconds: float) -> Size:
    fresh = round(SCANS_PER_SECOND_MAX * (seconds + 1)) + round(CALM.rate * (seconds + 2))
    with running_gateway(directory) as gateway:
        stage = set_up(gateway, CALM.connections, fresh)
        body = {"count": events, "request_id": "history"}
        first = gateway.post(f"/v1/campaigns/{CAMPAIGN}/issues", body)["first_serial"]
    _write_history(directory, events, first)
    server = gateway.server
    try:
        cold_s, gateway = _started(gateway)
        index_s = _caught_up(gateway)
        server.leave()
        index_bytes, log_bytes = (sum(f.stat().st_size for f in directory.glob(g)) for g in ("index.db*", "log.db*"))
        warm_s, gateway = _started(gateway)
        valkey_bytes = psutil.Process(gateway.valkey_pid).memory_info().rss
        _caught_up(gateway)
        saturated, bare, calm = _loads(gateway, stage, seconds)
        gateway.close()
    finally:
        server.leave()
    return Size(
        events=events,
        log_bytes=log_bytes / events,
        index_bytes=index_bytes / events,
        valkey_bytes=valkey_bytes / events,
        cold_seconds=cold_s,
        index_us=index_s * 1e6 / events,
        warm_seconds=warm_s,
        gateway_us=saturated.cpu_seconds["gateway"] * 1e6 / saturated.scans,
        valkey_us=saturated.cpu_seconds["valkey"] * 1e6 / saturated.scans,
        bare_us=bare.cpu_seconds["bare"] * 1e6 / bare.scans,
        per_second=saturated.scans / saturated.seconds,
        p50_ms=calm.p50_ms,
        p99_ms=calm.p99_ms,
        p999_ms=calm.p999_ms,
        lag_p99_ms=calm.lag_p99_ms,
        work_ms=beside(directory).work_ms,
        holds=check_of(saturated).holds and check_of(calm).holds,
    )


def _write_history(directory: Path, events: int, first: int) -> None:
    asked = ["--events", str(events), "--first", str(first)]
    command = [sys.executable, "-m", "gateway.history_bench", str(directory), *asked]
    made = subprocess.run(command, capture_output=True, timeout=HISTORY_SECONDS_MAX, check=False)
    if made.returncode:
        raise GatewayFailed(f"the history: {last_line(made.stderr)}")


def _started(gateway: Gateway) -> tuple[float, Gateway]:
    """Seconds from the start until it is ready, and the gateway."""
    started_s, server = time.perf_counter(), gateway.server
    again = Gateway(server, server.start())
    while not _is_ready(again):
        if time.perf_counter() - started_s > READY_SECONDS_MAX:
            raise GatewayFailed(f"it was not ready within {READY_SECONDS_MAX:.0f} s")
        time.sleep(0.05)
    return time.perf_counter() - started_s, again


def _is_ready(gateway: Gateway) -> bool:
    connection = HTTPConnection(gateway.host, gateway.port, timeout=10)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def _caught_up(gateway: Gateway) -> float:
    """CPU seconds of the gateway until it is quiet."""
    process, until_s = psutil.Process(gateway.pid), time.perf_counter() + INDEX_SECONDS_MAX
    first_s = spent_s = sum(process.cpu_times()[:2])
    while time.perf_counter() < until_s:
        time.sleep(QUIET_SECONDS)
        before_s, spent_s = spent_s, sum(process.cpu_times()[:2])
        if spent_s - before_s < QUIET_SHARE * QUIET_SECONDS:
            break
    return spent_s - first_s


def _loads(gateway: Gateway, stage: Stage, seconds: float) -> tuple[Load, Load, Load]:
    """Saturated; the bare server, saturated in turns with it; and calm."""
    codes = list(stage.codes)
    Random(0).shuffle(codes)  # noqa: S311 - load, not secrets
    calm = round(CALM.rate * (seconds + 2))
    target = Target("gateway", gateway.host, gateway.port, {"gateway": gateway.pid, "valkey": gateway.valkey_pid})

    def plan(shape: Shape, targets: list[Target], some: list[str], turns: int) -> Plan:
        return Plan(shape, targets, stage.tills, stage.token, some, seconds, turns, 0.3, 7)

    with bare_server() as bare:
        saturated, control = generated(plan(SATURATED, [target, bare], codes[calm:], 2))
    return saturated, control, generated(plan(CALM, [target], codes[:calm], 1))[0]


def _table(sizes: list[Size]) -> Table:
    table = Table(title="64 scans a message; latency at 1,000 scans a second", box=box.SIMPLE_HEAD)
    table.add_column("events")
    for size in sizes:
        table.add_column(f"{size.events:,}", justify="right", no_wrap=True)
    lines: dict[str, Callable[[Size], str]] = {
        "gateway CPU a verdict, us": lambda size: f"{size.gateway_us:.1f}",
        "Valkey CPU a verdict, us": lambda size: f"{size.valkey_us:.1f}",
        "bare server's CPU, us": lambda size: f"{size.bare_us:.1f}",
        "verdicts a second": lambda size: f"{size.per_second:,.0f}",
        "latency, ms p50/p99/p99.9": lambda size: "/".join(map(in_ms, (size.p50_ms, size.p99_ms, size.p999_ms))),
        "the generator's lag, ms p99": lambda size: in_ms(size.lag_p99_ms),
        "start with the log alone, s": lambda size: f"{size.cold_seconds:.1f}",
        "start, s": lambda size: f"{size.warm_seconds:.1f}",
        "log, bytes an event": lambda size: f"{size.log_bytes:.0f}",
        "index, bytes an event": lambda size: f"{size.index_bytes:.0f}",
        "index, CPU us an event": lambda size: f"{size.index_us:.1f}",
        "Valkey, resident bytes an event": lambda size: f"{size.valkey_bytes:.0f}",
        "fixed work, ms": lambda size: f"{size.work_ms:.1f}",
    }
    for name, told in lines.items():
        table.add_row(name, *map(told, sizes))
    return table


if __name__ == "__main__":
    main()
