"""How the command line talks: results on stdout (a table, or JSON), everything else on stderr."""

import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, TypeVar

import click

EXIT_FAILED, EXIT_USAGE, EXIT_DIFFERENT, EXIT_UNREACHABLE, EXIT_INTERRUPTED = 1, 2, 3, 4, 130
STILL_SECONDS = 10.0  # without a terminal, how often a long work says how far it is

# Moments, told to people as UTC; every other `_ms` is a length of time.
_MOMENTS = (
    *("at_ms", "last_at_ms", "expires_ms", "starts_ms", "ends_ms", "closed_ms", "created_ms"),
    *("locked_until_ms", "scanned_ms"),
)

_Decorated = TypeVar("_Decorated", bound=Callable[..., Any])


class Fault(Exception):
    """An expected failure: one sentence for people, an exit code, and perhaps the command that comes next."""

    def __init__(self, text: str, exit_code: int = EXIT_FAILED, *, hint: str = "") -> None:
        super().__init__(text)
        self.exit_code, self.hint = exit_code, hint

    def show(self) -> None:
        say(f"{_styled('error:', fg='red')} {self}")
        if self.hint:
            next_step(self.hint)


def say(text: str) -> None:
    """A message for people."""
    click.echo(text, err=True, color=False if "NO_COLOR" in os.environ else None)


def next_step(command: str) -> None:
    """What one would do next, when people are watching."""
    if sys.stderr.isatty():
        say(f"next: {command}")


def _styled(text: str, **style: Any) -> str:
    return click.style(text, **style)


def prints_results(command: _Decorated) -> _Decorated:
    """Gives a command the flag `--json`, as its argument `as_json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print results as JSON.")(command)


def _echo(text: str) -> None:
    click.echo(text, color=False if "NO_COLOR" in os.environ else None)


def print_one(result: Mapping[str, Any], as_json: bool) -> None:
    """One result: a JSON object, or its fields one a line."""
    if as_json:
        click.echo(json.dumps(result, ensure_ascii=False))
        return
    width = max((len(_label(name)) for name in result), default=0)
    for name, value in result.items():
        _echo(f"{_label(name):<{width}}  {shown(name, value)}")


def print_rows(rows: Sequence[Mapping[str, Any]], columns: Sequence[str], as_json: bool) -> None:
    """Many results: a JSON array with every field, or a table of the named columns."""
    if as_json:
        click.echo(json.dumps(list(rows), ensure_ascii=False))
        return
    if not rows:
        say("nothing yet")
        return
    table = [[shown(name, row.get(name)) for name in columns] for row in rows]
    labels = [_label(name) for name in columns]
    widths = [max(map(_cells, column)) for column in zip(labels, *table, strict=True)]
    for number, line in enumerate([labels, *table]):
        text = "  ".join(cell + " " * (width - _cells(cell)) for cell, width in zip(line, widths, strict=True))
        _echo(_styled(text.rstrip(), bold=True) if number == 0 else text.rstrip())


def print_checks(checks: Sequence[Mapping[str, str]], as_json: bool) -> None:
    """Rows of check, state (ok, warn, fail), text and fix: a JSON array, or a line each and the fix below it."""
    if as_json:
        click.echo(json.dumps(list(checks), ensure_ascii=False))
        return
    width = max(len(each["check"]) for each in checks)
    for each in checks:
        state = _styled(f"{each['state']:<4}", fg={"ok": "green", "warn": "yellow"}.get(each["state"], "red"))
        _echo(f"{state}  {each['check']:<{width}}  {each['text']}")
        if each["fix"]:
            _echo(f"      {'':<{width}}  to mend it: {each['fix']}")


def shown(name: str, value: Any) -> str:
    """A value as people read it."""
    if name in _MOMENTS and isinstance(value, int):
        return f"{datetime.fromtimestamp(value / 1000, UTC):%Y-%m-%d %H:%M:%SZ}" if value else "-"
    if name.endswith("_ms") and isinstance(value, int):
        return _duration(value)
    match value:
        case None | "" | [] | ():
            return "-"
        case bool():
            return "yes" if value else "no"
        case list() | tuple():
            return ", ".join(shown("", each) for each in value)
        case dict():
            return ", ".join(f"{key} {shown(key, each)}" for key, each in value.items())
        case _:
            return str(value)


def _label(name: str) -> str:
    """A field's name above its value: the unit is in the value."""
    return name.removesuffix("_ms")


def _duration(length_ms: int) -> str:
    """The largest unit that needs no fraction, as offers are written: 90d, 15m."""
    for unit, unit_ms in (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000)):
        if length_ms and length_ms % unit_ms == 0:
            return f"{length_ms // unit_ms}{unit}"
    return f"{length_ms}ms"


def _cells(text: str) -> int:
    if text.isascii():
        return len(text)
    from rich.cells import cell_len  # Chinese characters take two columns each

    return cell_len(text)


def read_secret_line(prompt: str) -> str:
    """One line from a hidden prompt, or from standard input when that is no terminal. Raises Fault."""
    if sys.stdin.isatty():
        return str(click.prompt(prompt, hide_input=True, err=True))
    line = sys.stdin.readline().strip("\r\n")
    if not line.strip():
        raise Fault(f"standard input is empty: the {prompt.lower()} was expected there", EXIT_USAGE)
    return line


@contextmanager
def progress(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """Shows how far a work of `total` rows is, with rows/s and the time left; call the result with rows done."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    began_s = told_s = time.monotonic()
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as bars:
        task = bars.add_task(what, total=total, rate="")

        def advance(rows: int) -> None:
            nonlocal told_s
            bars.advance(task, rows)
            done, now_s = bars.tasks[0].completed, time.monotonic()
            rate = f"{done / max(now_s - began_s, 0.001):,.0f}/s"
            bars.update(task, rate=rate)
            if not console.is_terminal and now_s - told_s >= STILL_SECONDS:
                told_s = now_s
                say(f"{what}: {done:,.0f} of {total:,}, {rate}")

        yield advance
