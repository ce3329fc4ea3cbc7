"""Figures of a bench run, as a table for people and as one object for programs."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from rich import box
from rich.console import Console
from rich.table import Table

from loadtest.bench_plan import Load

SLOW = 1.3  # a row on cores that much slower than in this run's best moment says little


def percentile(ordered: Sequence[float], share: float) -> float:
    """The smallest of the rising values that at least `share` of them do not exceed (nearest rank); 0 of none."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else 0.0


class Beside(msgspec.Struct, frozen=True):
    """What the machine gave right after a row: how fast its disk makes a small append durable, how fast its cores are.

    Cores that share their parts with others' work are slower, and no account of CPU time says so.
    """

    fsync_p50_ms: float
    fsync_p99_ms: float
    fsyncs: int
    work_ms: float  # CPU time of a fixed piece of work


class Side(msgspec.Struct, frozen=True):
    """One server's part of a row: what it did a second, and what one verdict cost."""

    name: str
    per_second: float
    cpu_us: dict[str, float]  # a verdict, by process
    trailing_us: dict[str, float]  # a verdict, spent after the last answers: what was put off under load
    p50_ms: float
    p99_ms: float
    p999_ms: float
    lag_p99_ms: float
    seconds: float
    verdicts: int
    per_batch: float  # verdicts a claim call; 0: not known
    elsewhere_cores: float  # cores that other programs kept busy meanwhile


class Check(msgspec.Struct, frozen=True):
    """Whether the answers were the ones they had to be, warm-up included."""

    answered: int
    accepted: int
    accepted_expected: int
    distinct: int
    unresolved: int
    wrong: int

    @property
    def holds(self) -> bool:
        return not self.wrong and self.accepted + self.unresolved >= self.accepted_expected >= self.accepted


class Mark(msgspec.Struct, frozen=True):
    """A limit, and what was measured. A goal is wished for; a mark is meant for the machine it was set on."""

    what: str
    measured: float
    limit: float
    at_most: bool  # else at least
    goal: bool = False

    @property
    def met(self) -> bool:
        return self.measured <= self.limit if self.at_most else self.measured >= self.limit


class Row(msgspec.Struct, frozen=True):
    """One line of the result."""

    name: str
    what: str
    side: Side
    control: Side | None
    ratio: float | None  # CPU of a verdict, gateway against control; for Valkey alone: throughput of (c) against it
    check: Check
    beside: Beside
    marks: list[Mark]


def side_of(load: Load) -> Side:
    """A load's figures for one verdict."""
    scans, seconds = max(load.scans, 1), max(load.seconds, 1e-9)
    return Side(
        name=load.target,
        per_second=load.scans / seconds,
        cpu_us={name: spent * 1e6 / scans for name, spent in load.cpu_seconds.items()},
        trailing_us={name: spent * 1e6 / max(load.answered, 1) for name, spent in load.trailing_seconds.items()},
        p50_ms=load.p50_ms,
        p99_ms=load.p99_ms,
        p999_ms=load.p999_ms,
        lag_p99_ms=load.lag_p99_ms,
        seconds=load.seconds,
        verdicts=load.scans,
        per_batch=load.scans / load.batches if load.batches else 0.0,
        elsewhere_cores=max(0.0, load.elsewhere_seconds / seconds),
    )


def check_of(load: Load) -> Check:
    """A load's answers, counted."""
    return Check(
        answered=load.answered,
        accepted=load.accepted,
        accepted_expected=load.accepted_expected,
        distinct=load.distinct,
        unresolved=load.unresolved,
        wrong=load.wrong,
    )


class Work(msgspec.Struct, frozen=True):
    """A row that is no load of scans: a piece of work, what it took, and whether all of it was done right."""

    name: str
    what: str
    figures: dict[str, float]  # by a name that tells the unit
    holds: bool
    beside: Beside
    marks: list[Mark]


def as_object(environment: Mapping[str, Any], rows: Sequence[Row], works: Sequence[Work] = ()) -> dict[str, Any]:
    """Everything that was measured, for programs."""
    return {
        "environment": dict(environment),
        "rows": [_row_object(row) for row in rows],
        "works": [_with_marks(msgspec.to_builtins(work), work.marks) for work in works],
    }


def _row_object(row: Row) -> dict[str, Any]:
    made: dict[str, Any] = msgspec.to_builtins(row)
    made["check"]["holds"] = row.check.holds
    return _with_marks(made, row.marks)


def _with_marks(made: dict[str, Any], marks: Sequence[Mark]) -> dict[str, Any]:
    for mark, each in zip(marks, made["marks"], strict=True):
        each["met"] = mark.met
    return made


def print_report(
    console: Console, environment: Mapping[str, Any], rows: Sequence[Row], works: Sequence[Work] = ()
) -> None:
    """The same for people."""
    for name, value in environment.items():
        console.print(f"[bold]{name:<12}[/] {value}", highlight=False)
    if rows:
        console.print(_table(rows))
    best_ms = min([row.beside.work_ms for row in rows] + [work.beside.work_ms for work in works], default=0.0)
    for row in rows:
        console.print(f"[bold]({row.name})[/] {row.what}", highlight=False)
        if row.beside.work_ms > SLOW * best_ms:
            slower = row.beside.work_ms / best_ms
            console.print(f"    [yellow]cores were {slower:.1f} times slower than at best[/]: measure again")
        if row.ratio is not None:
            console.print(f"    {_ratio_text(row)}", highlight=False)
        for mark in row.marks:
            console.print(_mark_line(mark), highlight=False)
        if not row.check.holds:
            console.print(f"    [red]wrong answers[/]: {msgspec.to_builtins(row.check)}", highlight=False)
        elif row.check.unresolved:
            console.print(f"    unresolved, to be asked again: {row.check.unresolved:,}", highlight=False)
        if row.side.lag_p99_ms:
            console.print(f"    the generator's own lag, p99: {row.side.lag_p99_ms:.3g} ms", highlight=False)
    for work in works:
        _print_work(console, work, best_ms)


def _print_work(console: Console, work: Work, best_ms: float) -> None:
    console.print(f"[bold]({work.name})[/] {work.what}", highlight=False)
    if work.beside.work_ms > SLOW * best_ms:
        console.print(f"    [yellow]cores were {work.beside.work_ms / best_ms:.1f} times slower than at best[/]")
    for name, value in work.figures.items():
        console.print(f"    {name}: {_number(value)}", highlight=False)
    for mark in work.marks:
        console.print(_mark_line(mark), highlight=False)
    if not work.holds:
        console.print("    [red]not all of it was done right[/]")


def _table(rows: Sequence[Row]) -> Table:
    table = Table(
        title="CPU in us a verdict (load: the generator's); latency p50/p99/p99.9, fsync p50/p99, ms; cores of others",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    table.add_column("row", no_wrap=True)
    for name in ("a second", "gateway", "Valkey", "load", "latency", "batch", "fsync", "else"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        fsync = f"{in_ms(row.beside.fsync_p50_ms)}/{in_ms(row.beside.fsync_p99_ms)}"
        table.add_row(row.name, *_side_cells(row.side), fsync, f"{row.side.elsewhere_cores:.1f}")
        if row.control is not None:
            others = f"{row.control.elsewhere_cores:.1f}"
            table.add_row(f"  {row.control.name}", *_side_cells(row.control), "", others)
    return table


def _side_cells(side: Side) -> tuple[str, ...]:
    return (
        f"{side.per_second:,.0f}",
        _us(side.cpu_us.get("gateway", side.cpu_us.get("bare"))),
        _us(side.cpu_us.get("valkey")),
        _us(side.cpu_us.get("generator")),
        "/".join(map(in_ms, (side.p50_ms, side.p99_ms, side.p999_ms))),
        f"{side.per_batch:,.0f}" if side.per_batch else "",
    )


def in_ms(value: float) -> str:
    """Milliseconds, two digits of them."""
    return f"{value:.0f}" if value >= 10 else f"{value:.2g}"


def _us(spent: float | None) -> str:
    return "" if spent is None else f"{spent:.1f}"


def _ratio_text(row: Row) -> str:
    if row.control is None:
        return f"row (c) reached {row.ratio:.2f} of this throughput"
    return f"{row.ratio:.2f} times the CPU of the {row.control.name} server"


def _mark_line(mark: Mark) -> str:
    word = "goal" if mark.goal else "mark"
    colour = "green" if mark.met else "yellow" if mark.goal else "red"
    told = "met" if mark.met else "missed"
    bound = "at most" if mark.at_most else "at least"
    return f"    {word} [{colour}]{told}[/]: {mark.what}: {_number(mark.measured)}, {bound} {_number(mark.limit)}"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"
