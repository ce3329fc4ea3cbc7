"""`tillgate slo`: Prometheus rules from what is promised."""

from pathlib import Path

import click

from gateway import slo as promised
from gateway.cli_output import EXIT_USAGE, Fault, say

RULES_FILE = "slo.yml"


@click.group()
def slo() -> None:
    """Make Prometheus rules of what is promised (ops/slo.toml)."""


@slo.command()
@click.argument("promises", type=click.Path(path_type=Path, dir_okay=False, exists=True))
@click.option(
    "--into",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    help=f"Write {RULES_FILE} there, instead of to standard output.",
)
@click.option("--window-days", type=click.IntRange(1, 90), help="Another window than the file's: a campaign's length.")
@click.option(
    "--time-scale",
    type=click.IntRange(1, 10_000),
    default=1,
    help="For trying alerts: windows this many times shorter; with --into, of all rules there.",
)
def rules(promises: Path, into: Path | None, window_days: int | None, time_scale: int) -> None:
    """Make the rules of PROMISES: recorded ratios, and alerts on how fast an error budget burns.

    \b
    tillgate slo rules ops/slo.toml --into ops/prometheus/rules
    tillgate slo rules ops/slo.toml --window-days 30
    """
    try:
        read = promised.read(promises.read_text())
    except promised.BadPromises as error:
        raise Fault(f"{promises}: {error}", EXIT_USAGE) from None
    if window_days is not None:
        read = promised.with_window(read, window_days)
    text = promised.scaled(promised.rules(read), time_scale)
    if into is None:
        click.echo(text, nl=False)
        return
    if time_scale != 1:
        for path in into.glob("*.yml"):
            path.write_text(promised.scaled(path.read_text(), time_scale))
    (into / RULES_FILE).write_text(text)
    say(f"wrote {into / RULES_FILE}: windows for {read.window_days} days")
