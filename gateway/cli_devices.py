"""`tillgate terminal health` and `terminal detect`: what a till says of itself, and what is attached to it."""

from pathlib import Path
from typing import Any

import click

from gateway.cli_output import (
    EXIT_UNREACHABLE,
    EXIT_USAGE,
    Fault,
    next_step,
    print_one,
    print_rows,
    prints_results,
    say,
)

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
    free = f"{told.disk_free_bytes / 2**20:,.0f} MiB"
    print_one({"gateway": line, "waiting": told.waiting, "oldest_ms": told.oldest_ms, "disk free": free}, as_json)
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


@click.command()
@config_option
@prints_results
def detect(config_file: Path, as_json: bool) -> None:
    """List what could be a scanner here: how each is best read, what stands in the way, and the next step.

    \b
    tillgate terminal detect
    """
    import msgspec

    from devices.detect import detect as detect_devices

    found = detect_devices()
    configured = _configured(config_file)
    rows = [msgspec.structs.asdict(one) | {"configured_as": configured.get(one.path, "")} for one in found]
    if as_json:
        print_rows(rows, (), as_json)
        return
    if not rows:
        say("no serial port, input device, HID POS scanner or camera is attached to this machine")
        say("Plug the scanner in, and see in its manual that it is in a mode with USB COM, HID POS or keyboard.")
        return
    print_rows(rows, ("kind", "vendor", "product", "serial", "usb_id", "path", "configured_as"), as_json)
    for row in rows:
        click.echo(f"\n{row['path']}: {row['guess']}")
        if row["problem"]:
            click.echo(f"  problem: {row['problem']}")
        if not row["configured_as"]:
            click.echo(f"  next: {row['next_step']}")


def _configured(config_file: Path) -> dict[str, str]:
    """Names of the scanners of a configuration by their paths; nothing where there is none, or none that is sound."""
    from devices.config import ConfigFault, load_config

    try:
        return {one.path: one.name for one in load_config(config_file).scanners}
    except ConfigFault:
        return {}
