"""`tillgate load`: load a gateway as a festival would, and say what came of it."""

import click

from gateway.cli_lazy import LazyGroup, Table

COMMANDS: Table = {  # in the order in which they are used
    "list": ("gateway.cli_load_run:list_scenarios", "List the scenarios that come with Tillgate."),
    "show": ("gateway.cli_load_run:show", "Show a scenario as it would be run."),
    "run": ("gateway.cli_load_run:run", "Run a scenario and write what came of it."),
    "verify": ("gateway.cli_load_verify:verify", "Compare a run with the event log and Valkey: ten invariants."),
    "report": ("gateway.cli_load_report:report", "Draw what came of a run: one HTML file, JSON or Markdown."),
    "compare": ("gateway.cli_load_report:compare", "Tell whether runs of the same load differ by more than noise."),
}
EPILOG = """\b
A run is a directory: `load run` makes it, the others read it.
Exit codes of `load run`: 0 every mark was met, 1 failed, 2 wrong usage or an
impossible scenario, 3 void (the generator itself was late), 4 a mark was missed,
130 interrupted (what there is was written).
"""


@click.group(cls=LazyGroup, table=COMMANDS, epilog=EPILOG)
def load() -> None:
    """Load a gateway as a festival would, and say what came of it."""
