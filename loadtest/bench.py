"""`tillgate bench`: how many durable verdicts a second this machine gives, and what one costs.

A real gateway (private Valkey, SQLite log, every batch fsynced) runs in a fresh directory; a generator process loads
it, and in turns with it a bare server that decodes the same messages and does nothing. Throughput on a shared machine
swings by a fifth from run to run; CPU a verdict, from the accounts of the very processes, swings little, so the marks
are set on it. Vouchers are drawn at random from those issued, none twice.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path
from random import Random

import click
import msgspec
from rich.console import Console

from loadtest.bench_claim import CLAIM_SECONDS_MAX, claim_rows
from loadtest.bench_gateway import PARTITIONS, Gateway, Stage, running_gateway, set_up
from loadtest.bench_history import (
    SECONDS_MIN,
    compared,
    drift_lines,
    history_file,
    machine_class,
    recalled,
    remember,
    run_of,
)
from loadtest.bench_idle import SCAN_EVERY_SECONDS, idle_work
from loadtest.bench_machine import beside, cpu_model, environment_of
from loadtest.bench_plan import HTTP, STREAM, Load, Plan, Shape, Target
from loadtest.bench_report import Mark, Row, Side, Work, as_object, check_of, print_report, side_of
from loadtest.bench_work import IMPORT_CONNECTIONS, import_vouchers, import_work, issue_work, last_line, state_work
from loadtest.own_server import NO_VARIABLES, GatewayFailed

TURNS = 2  # of gateway and control: what the machine does meanwhile disturbs both
WARM_SECONDS = 0.5  # of load before each measured window
WORK_SECONDS_MAX = 120.0  # encoding and connecting, beside the measured time
EXIT_DIFFERENT = 3  # a check found a difference


class _Kind(msgspec.Struct, frozen=True):
    """A row that loads the gateway."""

    what: str
    shape: Shape
    rate_max: int  # vouchers a second it may use up; a faster machine ends the row early
    marks: Callable[[Side, Side], list[Mark]]


def _marks_a(side: Side, control: Side) -> list[Mark]:
    ratio = side.cpu_us["gateway"] / control.cpu_us["bare"]
    return [Mark("gateway CPU a request against the bare handler's", ratio, 1.25, at_most=True)]


def _marks_b(side: Side, control: Side) -> list[Mark]:
    return [Mark("durable verdicts a second", side.per_second, 35_000, at_most=False, goal=True)]


def _marks_c(side: Side, control: Side) -> list[Mark]:
    return [
        Mark("gateway CPU a verdict, us", side.cpu_us["gateway"], 8, at_most=True),
        Mark("Valkey CPU a verdict, us", side.cpu_us["valkey"], 5, at_most=True),
        Mark("durable verdicts a second", side.per_second, 100_000, at_most=False, goal=True),
    ]


def _marks_c3(side: Side, control: Side) -> list[Mark]:
    return [Mark("durable verdicts a second", side.per_second, 120_000, at_most=False, goal=True)]


def _marks_e(side: Side, control: Side) -> list[Mark]:
    return [Mark("scan to verdict, p50 ms", side.p50_ms, 1.0, at_most=True)]


KINDS = {
    "a": _Kind("HTTP, single scans, 64 connections", Shape(HTTP, 64), 12_000, _marks_a),
    "b": _Kind("stream, single scans, 256 connections", Shape(STREAM, 256), 50_000, _marks_b),
    "c": _Kind("stream, 64 scans a message, 8 connections x 8", Shape(STREAM, 8, 8, 64), 130_000, _marks_c),
    "c2": _Kind(
        "the same, 30 % repeats, 5 % already redeemed",
        Shape(STREAM, 8, 8, 64, repeats=0.30, used=0.05),
        85_000,
        lambda side, control: [],
    ),
    "c3": _Kind("stream, 256 scans a message, 8 connections x 4", Shape(STREAM, 8, 4, 256), 150_000, _marks_c3),
    "e": _Kind("stream, one terminal alone, one scan at a time", Shape(STREAM, 1), 5_000, _marks_e),
}
WORKS = ("g", "h")  # on a gateway of their own
ROWS = ("a", "b", "c", "c2", "c3", "d", "e", "f", *WORKS, "i")
USUAL = tuple(name for name in ROWS if name != "f")  # ten thousand connections take half a minute by themselves


def _row_names(context: click.Context, parameter: click.Parameter, text: str) -> list[str]:
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if name not in ROWS:
            raise click.BadParameter(f"there is no row {name!r}; the rows are {', '.join(ROWS)}")
    return [name for name in ROWS if name in names]


@click.command("bench")
@click.option("--rows", default=",".join(USUAL), show_default=True, callback=_row_names, help="Which ones.")
@click.option("--seconds", default=4.0, show_default=True, type=click.FloatRange(0.2, 60), help="Measured, a row.")
@click.option(
    "--directory",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Where to make the data directory: its disk is what is measured.  [default: the system's for temporary files]",
)
@click.option(
    "--log-url",
    metavar="URL",
    help="Measure (a) to (c2) once more with the log on these servers (PostgreSQL, NATS), where none may be yet.",
)
@click.option("--compare", is_flag=True, help="Say how far this run has drifted from earlier ones on such a machine.")
@click.option("--json", "as_json", is_flag=True, help="Print results as JSON.")
def command(
    rows: list[str], seconds: float, directory: Path | None, log_url: str | None, compare: bool, as_json: bool
) -> int:
    """Measure this machine: durable verdicts a second, and the CPU one costs. Takes two to three minutes.

    \b
    (a) HTTP redeem   (b) stream, one scan a message   (c) stream, 64 scans a message
    (c2) the same with repeats and used vouchers       (c3) 256 scans a message
    (d) what Valkey alone does                         (e) one terminal alone
    (f) 10,000 tills connected, not among the usual rows
    (g) an import beside redemptions                   (h) the issue of 1.2 million vouchers
    (i) bytes of Valkey, log and index a voucher

    Runs of two seconds a row or more are remembered, by machine class, in the user's state directory (XDG_STATE_HOME).

    Exit code 3: some answer was not the one it had to be.
    """
    console = Console(stderr=True)
    try:
        with tempfile.TemporaryDirectory(prefix="tillgate-", dir=directory) as name, console.status("") as told:
            environment, measured, works = _bench(Path(name), rows, seconds, log_url, told.update)
    except (GatewayFailed, OSError, HTTPException, subprocess.TimeoutExpired) as error:
        raise click.ClickException(str(error)) from None
    run = run_of(time.time_ns() // 1_000_000, environment.get("commit", ""), measured, works)
    history = history_file(machine_class(cpu_model(), os.cpu_count() or 1))
    before = recalled(history)
    drifts = compared(run, before) if compare else []
    if as_json:
        drifted = {"drift": msgspec.to_builtins(drifts)} if compare else {}
        click.echo(msgspec.json.encode(as_object(environment, measured, works) | drifted))
    else:
        print_report(Console(), environment, measured, works)
        for line in drift_lines(drifts, len(before)) if compare else ():
            click.echo(line)
    if seconds >= SECONDS_MIN and log_url is None:
        remember(history, run)
    right = all(row.check.holds for row in measured) and all(work.holds for work in works)
    return 0 if right else EXIT_DIFFERENT


def _bench(
    directory: Path, names: list[str], seconds: float, log_url: str | None, tell: Callable[[str], None]
) -> tuple[dict[str, str], list[Row], list[Work]]:
    loaded = [name for name in names if name in KINDS]
    environment, rows = _loaded(directory / "d", loaded, seconds, tell)
    if log_url is not None:
        _, shared = _loaded(directory / "p", loaded, seconds, tell, LOG__URL=log_url)
        for row in shared:  # the marks are for the log every gateway starts with
            what = f"{row.what}; log in {'PostgreSQL' if log_url.startswith('postgres') else 'NATS JetStream'}"
            rows.append(msgspec.structs.replace(row, name=f"{row.name} log", what=what, marks=[]))
    if "d" in names:
        rows += claim_rows(rows, min(seconds, CLAIM_SECONDS_MAX), directory, tell)
    works = _worked(directory / "w", [name for name in names if name in WORKS], seconds, tell)
    if "f" in names:
        tell("(f) ten thousand tills")
        works.insert(0, idle_work(directory / "f", max(seconds, SCAN_EVERY_SECONDS), generated))
    if "i" in names:
        tell("(i) what a voucher takes")
        works.append(state_work(directory))
    return environment, rows, works


def _worked(directory: Path, names: list[str], seconds: float, tell: Callable[[str], None]) -> list[Work]:
    works: list[Work] = []
    if names:
        with running_gateway(directory) as gateway:
            if "g" in names:
                tell("(g) an import beside redemptions")
                stage = set_up(gateway, IMPORT_CONNECTIONS, import_vouchers(seconds))
                works.append(import_work(gateway, stage, stage.codes, seconds, generated))
            if "h" in names:
                tell("(h) an issue")
                if "g" not in names:
                    set_up(gateway, 0, 1)
                works.append(issue_work(gateway))
    return works


def _loaded(
    directory: Path, loaded: list[str], seconds: float, tell: Callable[[str], None], **settings: str
) -> tuple[dict[str, str], list[Row]]:
    """The rows of a gateway of our own, with these settings besides."""
    wanted = [_vouchers(KINDS[name], seconds) for name in loaded]
    tills = max((KINDS[name].shape.connections for name in loaded), default=1)
    tell("starting a gateway")
    with running_gateway(directory, NO_VARIABLES, **settings) as gateway, bare_server() as bare:
        tell(f"issuing {sum(wanted):,} vouchers, enrolling {tills} tills")
        stage = set_up(gateway, tills, max(1, sum(wanted)))
        environment = environment_of(directory, gateway.valkey_pid)
        if loaded:
            environment["vouchers"] = f"{sum(wanted):,} issued, drawn at random; partitions (NP): {PARTITIONS}"
        Random(0).shuffle(stage.codes)  # noqa: S311 - load, not secrets
        rows, start = [], 0
        for name, count in zip(loaded, wanted, strict=True):
            tell(f"({name}) {KINDS[name].what}")
            codes, start = stage.codes[start : start + count], start + count
            rows.append(_row(name, gateway, bare, stage, codes, seconds))
    return environment, rows


def _vouchers(kind: _Kind, seconds: float) -> int:
    return round(kind.rate_max * (seconds + TURNS * WARM_SECONDS))


@contextmanager
def bare_server() -> Iterator[Target]:
    """The control, running. Raises GatewayFailed."""
    command = [sys.executable, "-m", "loadtest.bench_bare"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        port = server.stdout.readline()
        if not port:
            raise GatewayFailed("the bare server did not start")
        yield Target("bare", "127.0.0.1", int(port), {"bare": server.pid}, endless=True)


def _row(name: str, gateway: Gateway, bare: Target, stage: Stage, codes: list[str], seconds: float) -> Row:
    kind = KINDS[name]
    pids = {"gateway": gateway.pid, "valkey": gateway.valkey_pid}
    plan = Plan(
        shape=kind.shape,
        targets=[Target("gateway", gateway.host, gateway.port, pids), bare],
        tills=stage.tills,
        token=stage.token,
        codes=codes,
        seconds=seconds,
        turns=TURNS,
        warm_seconds=WARM_SECONDS,
        seed=ord(name[0]),
    )
    made, control_made = generated(plan)
    side, control = side_of(made), side_of(control_made)
    return Row(
        name=name,
        what=kind.what,
        side=side,
        control=control,
        ratio=side.cpu_us["gateway"] / control.cpu_us["bare"] if control.cpu_us["bare"] else None,
        check=check_of(made),
        beside=beside(gateway.directory),
        marks=kind.marks(side, control),
    )


def generated(plan: Plan) -> list[Load]:
    """What a generator process made of a plan. Raises GatewayFailed."""
    limit_s = WORK_SECONDS_MAX + len(plan.targets) * (plan.seconds + plan.turns * plan.warm_seconds)
    made = subprocess.run(
        [sys.executable, "-m", "loadtest.bench_generator"],
        input=msgspec.msgpack.encode(plan),
        capture_output=True,
        timeout=limit_s,
        check=False,
    )
    if made.returncode:
        raise GatewayFailed(f"the generator: {last_line(made.stderr)}")
    return msgspec.msgpack.decode(made.stdout, type=list[Load])
