"""`tillgate load report` and `tillgate load compare`: what came of a load run, and whether two runs differ."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from gateway.cli_output import EXIT_DIFFERENT, EXIT_FAILED, EXIT_USAGE, Fault, say

RUN = click.Path(exists=True, file_okay=False, path_type=Path)


@click.command()
@click.argument("run", type=RUN)
@click.option("--html", type=click.Path(dir_okay=False, path_type=Path), help="The page [RUN/report.html].")
@click.option("--json", "as_json", is_flag=True, help="Print everything the page shows as JSON, and write no page.")
@click.option("--markdown", is_flag=True, help="Print a summary for a pull request, and write no page.")
@click.option("--baseline", type=RUN, help="Another run of the same load, to compare with.")
def report(run: Path, html: Path | None, as_json: bool, markdown: bool, baseline: Path | None) -> None:
    """Draw what came of a load run.

    Writes one HTML file that needs nothing else: open it, or mail it. Says first whether the run counts at all,
    whether the invariants hold (after `tillgate load verify RUN`) and whether the scenario's marks are met.
    """
    import msgspec

    from loadtest import report_files, report_text
    from loadtest.compare import NotComparable
    from loadtest.report_model import report as made
    from loadtest.report_words import verdict_of
    from loadtest.run_files import RunUnreadable

    if as_json and markdown:
        raise Fault("--json or --markdown, not both", EXIT_USAGE)
    comparison, against = None, None
    try:
        if baseline is None:
            shown = report_files.report_of(run)
        else:
            base, reading, comparison = report_files.compared(baseline, run)
            shown, against = made(reading), (made(base), comparison)
    except (RunUnreadable, NotComparable) as error:
        raise Fault(str(error), EXIT_USAGE) from error
    verdict = verdict_of(shown)
    if as_json:
        whole = {"verdict": verdict, "report": shown, "comparison": comparison}
        click.echo(msgspec.json.encode(whole).decode())
        return
    if markdown:
        click.echo(report_text.markdown(shown, comparison), nl=False)
        return
    page = html or run / "report.html"
    page.write_text(report_files.html(shown, against), encoding="utf-8")
    say(f"{verdict.word}: {verdict.sentence}")
    click.echo(page)


@click.command()
@click.argument("runs", nargs=-1, required=True, type=RUN)
@click.option("--json", "as_json", is_flag=True, help="Print the comparisons as JSON.")
@click.option("--markdown", is_flag=True, help="Print them for a pull request.")
def compare(runs: Sequence[Path], as_json: bool, markdown: bool) -> int:
    """Compare load runs with the first of them.

    The runs must have offered the same load. Each difference is told with the interval that chance alone explains;
    a void run is never better or worse than anything. Exit code 3: something is worse by more than noise.
    """
    import msgspec

    from loadtest import report_files, report_text
    from loadtest.compare import NotComparable
    from loadtest.run_files import RunUnreadable

    if len(runs) < 2:
        raise Fault("name two runs or more; the others are compared with the first", EXIT_USAGE)
    try:
        found = [report_files.compared(runs[0], other)[2] for other in runs[1:]]
    except RunUnreadable as error:
        raise Fault(str(error), EXIT_USAGE) from error
    except NotComparable as error:
        raise Fault(str(error), EXIT_FAILED, hint="compare runs of one scenario") from error
    if as_json:
        click.echo(msgspec.json.encode(found).decode())
    elif markdown:
        click.echo("\n\n".join(map(report_text.comparison_markdown, found)))
    else:
        for one in found:
            _print(one)
    return EXIT_DIFFERENT if any(row.judgement == "worse" for one in found for row in one.rows) else 0


def _print(one: Any) -> None:
    from rich import box
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from loadtest.compare_rows import JUDGED
    from loadtest.report_words import number, with_unit

    colours = {"better": "green", "worse": "red", "differs": "yellow", "void": "dim"}
    for name, why in ((one.base, one.base_void), (one.other, one.other_void)):
        if why:
            say(f"void: {name}: {'; '.join(why)}")
    for text in one.warnings:
        say(f"warning: {text}")
    table = Table(title=f"{escape(one.other)} against {escape(one.base)}", box=box.SIMPLE_HEAD, title_justify="left")
    table.add_column("")
    for head in ("base", "other", "ratio", "95 % interval"):
        table.add_column(head, justify="right", no_wrap=True)
    table.add_column("more than noise?")
    for row in one.rows:
        interval = "" if row.interval is None else f"{number(row.interval[0])} to {number(row.interval[1])}"
        colour = colours.get(row.judgement, "")
        told = f"[{colour}]{JUDGED[row.judgement]}[/]" if colour else JUDGED[row.judgement]
        values = with_unit(row.base, row.unit), with_unit(row.other, row.unit)
        table.add_row(escape(row.name), *values, "" if row.ratio is None else number(row.ratio), interval, told)
    console = Console(highlight=False)
    console.print(table)
    for text in one.changed:
        console.print(f"changed: {escape(text)}")
    console.print(one.rule, style="dim")
