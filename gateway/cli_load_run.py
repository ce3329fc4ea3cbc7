"""`tillgate load run`, `list` and `show`: make a run, and say which scenarios there are."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gateway.cli_output import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_USAGE, Fault, print_rows, prints_results, say

if TYPE_CHECKING:
    from loadtest.run_files import Run
    from loadtest.scenario import Scenario

EXIT_VOID, EXIT_MISSED = 3, 4
RUNS = Path("runs")
STILL_BEATS = 10  # without a terminal, how many seconds' news are left out between two that are told


@click.command("list")
@prints_results
def list_scenarios(as_json: bool) -> None:
    """List the scenarios that come with Tillgate.

    \b
    tillgate load list
    """
    from loadtest.arrivals import expected, rate_most
    from loadtest.scenario_rules import named, names

    rows = []
    for name in names():
        scenario = named(name)
        rows.append(
            {
                "scenario": name,
                "seconds": round(scenario.length_s),
                "arrivals": expected(scenario),
                "most a second": round(rate_most(scenario)),
                "tills": scenario.terminals.count,
                "tags": list(scenario.tags),
                "title": scenario.title,
            }
        )
    print_rows(rows, ("scenario", "seconds", "arrivals", "most a second", "tills", "title"), as_json)


@click.command()
@click.argument("name")
@prints_results
def show(name: str, as_json: bool) -> None:
    """Show a scenario as it would be run, every default filled in; NAME is one of the list, or a file.

    \b
    tillgate load show origin-replay
    """
    import json

    import msgspec

    scenario = _scenario(name, {})
    if as_json:
        click.echo(json.dumps(msgspec.to_builtins(scenario), ensure_ascii=False))
        return
    click.echo(f"{scenario.name}: {scenario.title}\n{scenario.shows}\n")
    for line in _lines(msgspec.to_builtins(scenario)):
        click.echo(line)


def _lines(fields: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for name, value in fields.items():
        if isinstance(value, dict):
            yield from _lines(value, f"{prefix}{name}.")
        elif value not in (None, [], "") and not (prefix == "" and name in ("name", "title", "shows")):
            yield f"  {prefix}{name} = {value}"


@click.command()
@click.argument("scenario", metavar="NAME|FILE")
@click.option("--seconds", type=float, help="Stretch or shrink its timeline; of a search: the length of each step.")
@click.option("--rate", type=float, help="Its highest rate of arrivals a second, the others in proportion.")
@click.option("--scale", type=float, help="Of the origin's days: how many times as many vouchers.")
@click.option("--terminals", type=int, help="Other than its number of tills.")
@click.option("--generators", type=int, help="Processes that make the load.")
@click.option("--seed", type=int, help="Other arrivals of the same kind; the same seed, the same arrivals.")
@click.option(
    "--directory",
    type=click.Path(path_type=Path, file_okay=False),
    help="Where to write the run: a new or empty directory.  [default: runs/NAME-time]",
)
@click.option("--url", help="Load this running gateway instead of one made for the run.")
@click.option("--token-file", type=click.Path(path_type=Path, dir_okay=False, exists=True), help="Its admin token.")
@click.option(
    "--data",
    "data_dir",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="Its data directory, where it is on this machine: token and address are found there, processes watched.",
)
@click.option("--log-url", metavar="URL", help="The log of a gateway made for the run, where none is yet.")
@click.option("--valkey-url", metavar="URL", help="Its Valkey, empty; several workers need one that runs by itself.")
@click.option("--workers", type=click.IntRange(1, 64), help="Its processes.")
@prints_results
def run(
    scenario: str,
    directory: Path | None,
    url: str | None,
    token_file: Path | None,
    data_dir: Path | None,
    log_url: str | None,
    valkey_url: str | None,
    workers: int | None,
    as_json: bool,
    **asked: Any,
) -> int:
    """Run a scenario and write what came of it.

    Without --url or --data a gateway is made for the run; its data stay in RUN/deployment, so that `tillgate load
    verify RUN` can open its log afterwards. Delete them when the run has been verified. A gateway that is given is
    loaded under store and campaign names that begin with `load-`: never give one that real tills redeem at.

    \b
    tillgate load run smoke
    tillgate load run origin-replay --seconds 540
    tillgate load run saturation-search --seconds 10 --rate 6000
    tillgate load run rolling-restart --log-url postgresql://till@db/load --valkey-url redis://cache:6379/0 --workers 2
    """
    from loadtest.own_server import GatewayFailed

    chosen = _scenario(scenario, asked)
    place = _directory(directory, chosen)
    wanted = {"LOG__URL": log_url, "VALKEY__URL": valkey_url, "WORKERS": workers}
    settings = {name: str(value) for name, value in wanted.items() if value is not None}
    opened = _opened(chosen, place, url, token_file, data_dir, settings)
    try:
        with _told(as_json) as tell:
            made = _made(chosen, place, opened, tell)
    except (GatewayFailed, OSError) as error:
        raise Fault(f"the run could not be made: {error}") from None
    _print(made, place, data_dir, as_json)
    return _exit_code(made)


def _scenario(name: str, asked: dict[str, Any]) -> "Scenario":
    """Raises Fault with the field's name."""
    from loadtest.faults import FAULTS
    from loadtest.scenario import ScenarioRefused
    from loadtest.scenario_rules import adjusted, check, named

    try:
        scenario = adjusted(named(name), **asked)
        check(scenario, tuple(FAULTS))
    except ScenarioRefused as error:
        raise Fault(str(error), EXIT_USAGE, hint="tillgate load list") from None
    return scenario


def _directory(directory: Path | None, scenario: "Scenario") -> Path:
    place = directory or RUNS / f"{scenario.name}-{datetime.now(UTC):%Y%m%d-%H%M%S}"
    place.mkdir(parents=True, exist_ok=True)
    if any(place.iterdir()):
        raise Fault(f"{place}: there is something in it already; a run needs a directory of its own", EXIT_USAGE)
    return place.absolute()


def _opened(
    scenario: "Scenario",
    place: Path,
    url: str | None,
    token_file: Path | None,
    data_dir: Path | None,
    settings: dict[str, str],
) -> Any:
    """The deployment as a context manager. Raises Fault."""
    import msgspec

    from loadtest.stage import own_deployment, running_deployment

    if url is None and data_dir is None:
        if token_file is not None:
            raise Fault("--token-file is for a gateway that runs: give --url or --data with it", EXIT_USAGE)
        return own_deployment(place, scenario, **settings)
    if settings:
        raise Fault("--log-url, --valkey-url and --workers are for a gateway made for the run", EXIT_USAGE)
    if data_dir is not None:
        token_file = token_file or data_dir / "secrets" / "admin.token"
        try:
            url = url or msgspec.json.decode((data_dir / "gateway.json").read_bytes(), type=dict[str, Any])["url"]
        except (OSError, msgspec.DecodeError, KeyError):
            raise Fault(f"{data_dir}: no gateway serves this directory", hint="tillgate serve") from None
    if token_file is None:
        raise Fault("--url needs --token-file: stores, tills and vouchers are made with the admin's token", EXIT_USAGE)
    assert url is not None
    return running_deployment(url, token_file.read_text().strip(), data_dir)


def _made(scenario: "Scenario", place: Path, opened: Any, tell: Callable[[str], None]) -> "Run":
    from loadtest.run import make

    try:
        return asyncio.run(make(scenario, place, opened, tell))
    except asyncio.CancelledError:  # before anything was sent
        raise click.Abort from None


@contextmanager
def _told(as_json: bool) -> Iterator[Callable[[str], None]]:
    """Where the run says how far it is: one line that changes, or now and then a line."""
    from rich.console import Console

    console = Console(stderr=True)
    if console.is_terminal and not as_json:
        with console.status("") as line:
            yield lambda text: line.update(text.replace("[", r"\["))
        return
    beats = 0

    def tell(text: str) -> None:
        nonlocal beats
        if text[:1].isdigit() and " sent, " in text:
            beats += 1
            if beats % STILL_BEATS != 1:
                return
        say(text)

    yield tell


def _exit_code(made: "Run") -> int:
    if any(reason == "broken off" for reason in made.void):
        return EXIT_INTERRUPTED
    if any(reason.startswith("broken off") for reason in made.void):
        return EXIT_FAILED
    if made.void:
        return EXIT_VOID
    return EXIT_MISSED if any(mark.met is False for mark in made.marks) else 0


def _print(made: "Run", place: Path, data_dir: Path | None, as_json: bool) -> None:
    import json
    import os

    import msgspec

    shown = os.path.relpath(place)
    if as_json:
        fields = msgspec.to_builtins(made)
        del fields["latencies"]
        click.echo(json.dumps({"directory": str(place), "exit_code": _exit_code(made), **fields}, ensure_ascii=False))
    else:
        _print_table(made)
    where = f" --data {data_dir}" if data_dir else ""
    say(f"the run is in {shown}")
    say(f"  to check it against the log: tillgate load verify {shown}{where}")
    say(f"  to see it:                   tillgate load report {shown}")


def _print_table(made: "Run") -> None:
    from rich.console import Console
    from rich.table import Table

    from loadtest.histograms import read

    console = Console()
    code = _exit_code(made)
    word, colour = {0: ("MET", "green"), EXIT_VOID: ("VOID", "yellow"), EXIT_MISSED: ("MISSED", "red")}.get(
        code, ("BROKEN OFF", "red")
    )
    counts = made.counts
    console.print(
        f"[bold {colour}]{word}[/]  {made.scenario['name']}: {counts.completed:,} of {counts.offered:,} attempts"
        f" answered in {made.seconds:.1f} s, {counts.sends:,} sends,"
        f" {counts.unresolved:,} unresolved, {counts.dropped:,} dropped",
        soft_wrap=True,
    )
    for reason in made.void:
        console.print(f"      void: {reason}", markup=False, soft_wrap=True)
    table = Table("ms", "p50", "p99", "p99.9", "largest", box=None, pad_edge=False)
    for label, name in (("from the intended start", "intended"), ("from the first send", "service"), ("lag", "lag")):
        series = read(getattr(made.latencies, name))
        cells = [series.percentile_us(share) for share in (0.5, 0.99, 0.999)] + [series.largest_us]
        table.add_row(label, *("-" if cell is None else f"{cell / 1000:.2f}" for cell in cells))
    console.print(table)
    marks = Table("mark", "measured", "limit", "", box=None, pad_edge=False)
    for mark in made.marks:
        told = {True: "[green]met[/]", False: "[red]missed[/]", None: "[yellow]not judged[/]"}[mark.met]
        marks.add_row(mark.name, f"{mark.measured:,.2f}".rstrip("0").rstrip("."), f"{mark.most:,g}", told)
    if made.marks:
        console.print(marks)
    outcomes = ", ".join(f"{name} {count:,}" for name, count in sorted(made.outcomes.items(), key=lambda o: -o[1]))
    console.print(f"outcomes: {outcomes or 'none'}", markup=False, soft_wrap=True)
