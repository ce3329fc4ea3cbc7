"""`tillgate terminal`: the store daemon itself, and on the gateway's side who may connect."""

import asyncio
from pathlib import Path
from typing import Any

import click

from gateway.cli_devices import config_option, detect, health
from gateway.cli_output import (
    EXIT_UNREACHABLE,
    EXIT_USAGE,
    Fault,
    next_step,
    print_one,
    print_rows,
    prints_results,
    read_secret_line,
    say,
)
from gateway.cli_scanner_setup import setup, test_scanner
from gateway.cli_session import Reach, ask, reaches_gateway

Row = dict[str, Any]
_number = click.argument("number", type=click.IntRange(1, 2**32 - 1))


@click.group(invoke_without_command=True)
@config_option
@click.pass_context
def terminal(ctx: click.Context, config_file: Path) -> int:
    """Run a store's terminal: scanners, journal, and the line to the gateway.

    \b
    At the gateway:  tillgate terminal offer --store noodle-king-3 --label "till 1"
    In the store:    tillgate terminal enrol --url https://gateway.example --token - --config terminal.toml
                     tillgate terminal detect; tillgate terminal setup; tillgate terminal test
                     tillgate terminal --config terminal.toml
    """
    if ctx.invoked_subcommand is not None:
        return 0
    from devices.terminal import run

    return run(config_file)


for command in (detect, setup, test_scanner, health):
    terminal.add_command(command)


@terminal.command()
@click.option("--url", required=True, help="Address of the gateway, e.g. https://gateway.example.")
@click.option("--token", required=True, help="The token `terminal offer` printed; `-` reads or scans it from a prompt.")
@config_option
@click.option(
    "--state",
    type=click.Path(path_type=Path, file_okay=False),
    help="Directory for key and journal (else `terminal-state` beside the configuration).",
)
@click.option("--ca-file", default="", help="PEM of a private certificate authority.")
@prints_results
def enrol(url: str, token: str, config_file: Path, state: Path | None, ca_file: str, as_json: bool) -> None:
    """Enrol this device: make its key, trade the token for a terminal number, and write the configuration.

    \b
    tillgate terminal enrol --url https://gateway.example --token - --config terminal.toml
    """
    from devices.config import ConfigFault
    from devices.enrol import EnrolRefused, GatewayUnreachable
    from devices.enrol import enrol as enrol_device
    from devices.keys import KeyFault

    if token == "-":  # noqa: S105 - a dash is no secret
        token = read_secret_line("Token")
    directory = state or config_file.parent / "terminal-state"
    try:
        config = asyncio.run(
            enrol_device(url, token.strip(), config_path=config_file, state_directory=directory, ca_file=ca_file)
        )
    except (ConfigFault, KeyFault) as error:
        raise Fault(str(error), EXIT_USAGE) from None
    except GatewayUnreachable as error:
        raise Fault(str(error), EXIT_UNREACHABLE) from None
    except EnrolRefused as error:
        raise Fault(str(error)) from None
    print_one({"terminal": config.terminal, "config": str(config_file), "state": config.state_directory}, as_json)
    say(f"Name the scanners in {config_file} before you start the terminal.")
    next_step(f"tillgate terminal --config {config_file}")


@terminal.command()
@click.option("--store", required=True, help="The store it stands in.")
@click.option("--label", required=True, help="What people call it, e.g. `till 1`.")
@click.option("--qr", is_flag=True, help="Draw the token as a QR code, for the scanner of the new terminal.")
@reaches_gateway
@prints_results
def offer(store: str, label: str, qr: bool, reach: Reach, as_json: bool) -> None:
    """Make a new terminal's number, and a token with which one device may enrol as it.

    \b
    tillgate terminal offer --store noodle-king-3 --label "till 1"
    """
    made = ask(reach, lambda client: client.post("/v1/terminals", {"store": store, "label": label}, Row))
    print_one(made, as_json)
    if qr:
        say(drawn(made["token"]))
    next_step("on the device: tillgate terminal enrol --url URL --token - --config terminal.toml")


def drawn(text: str) -> str:
    """A QR code with its quiet zone, two rows of modules a line; light is drawn, for dark screens."""
    import zxingcpp

    pixels: Any = zxingcpp.create_barcode(text, zxingcpp.BarcodeFormat.QRCode, ec_level="M").to_image(scale=1)
    rows = [bytes(row) for row in memoryview(pixels).tolist()]
    rows += [b"\xff" * len(rows[0])] * (len(rows) % 2)
    blocks = {(True, True): "█", (True, False): "▀", (False, True): "▄", (False, False): " "}
    return "\n".join(
        "".join(blocks[above > 0, below > 0] for above, below in zip(rows[at], rows[at + 1], strict=True))
        for at in range(0, len(rows), 2)
    )


@terminal.command("list")
@reaches_gateway
@prints_results
def list_terminals(reach: Reach, as_json: bool) -> None:
    """List terminals."""
    rows = ask(reach, lambda client: client.get("/v1/terminals", list[Row]))
    print_rows(rows, ("terminal", "store", "label", "enrolled", "revoked", "locked_until_ms"), as_json)


@terminal.command()
@_number
@reaches_gateway
@prints_results
def revoke(number: int, reach: Reach, as_json: bool) -> None:
    """Let a terminal in no more; it binds at every gateway within a second.

    \b
    tillgate terminal revoke 17
    """
    print_one(ask(reach, lambda client: client.post(f"/v1/terminals/{number}/revoke", {}, Row)), as_json)


@terminal.command()
@_number
@reaches_gateway
@prints_results
def unlock(number: int, reach: Reach, as_json: bool) -> None:
    """Lift the lock of a terminal that sent too many wrong codes.

    \b
    tillgate terminal unlock 17
    """
    print_one(ask(reach, lambda client: client.post(f"/v1/terminals/{number}/unlock", {}, Row)), as_json)
