"""`tillgate terminal health`, and more of what one asks of the scanners of a till, on the till itself."""

from pathlib import Path
from typing import Any

import click

from gateway.cli_output import EXIT_UNREACHABLE, EXIT_USAGE, Fault, next_step, print_one, print_rows, prints_results

Row = dict[str, Any]
config_option = click.option(
    "--config",
    "config_file",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("terminal.toml"),
    show_default=True,
    help="The terminal's configuration.",
)


@click.command()
@config_option
@prints_results
def health(config_file: Path, as_json: bool) -> None:
    """Show what the running terminal says of its scanners, its journal and its line.

    \b
    tillgate terminal health --config terminal.toml
    """
    import msgspec

    from devices.config import ConfigFault, load_config
    from devices.console import HEALTH_COMMAND, SOCKET_NAME, NotRunning, ask_terminal
    from devices.health import Health

    try:
        config = load_config(config_file)
        answer = ask_terminal(Path(config.state_directory) / SOCKET_NAME, HEALTH_COMMAND)
    except ConfigFault as fault:
        raise Fault(str(fault), EXIT_USAGE) from None
    except NotRunning as fault:
        hint = f"tillgate terminal --config {config_file}"
        raise Fault(str(fault), EXIT_UNREACHABLE, hint=hint) from None
    if as_json:
        click.echo(answer)
        return
    told = msgspec.json.decode(answer, type=Health)
    line = "connected" if told.connected else "not connected: scans are kept and asked later"
    print_one({"gateway": line, "waiting": told.waiting, "oldest_ms": told.oldest_ms}, as_json)
    click.echo()
    columns = ("scanner", "kind", "state", "reads", "faults", "checksum", "resent", "refused", "lost", "last_at_ms")
    rows = [
        {
            "scanner": one.name,
            "kind": one.kind,
            "state": one.state.value,
            "reads": one.counts.reads,
            "faults": sum(one.counts.faults.values()),
            "checksum": one.counts.damaged,
            "resent": one.counts.resent,
            "refused": one.counts.refused,
            "lost": one.counts.lost,
            "last_at_ms": one.counts.last_read_ms,
        }
        for one in told.scanners
    ]
    print_rows(rows, columns, as_json)
    if not rows:
        next_step("tillgate terminal setup")
