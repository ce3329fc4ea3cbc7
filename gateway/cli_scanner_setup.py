"""`tillgate terminal setup` and `terminal test`: a scanner is configured, told what it needs, and tried."""

import asyncio
import sys
from base64 import b64encode
from collections.abc import AsyncIterator
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gateway.cli_devices import config_option
from gateway.cli_output import EXIT_FAILED, EXIT_USAGE, Fault, next_step, prints_results, say

if TYPE_CHECKING:
    from devices.config import ScannerConfig
    from devices.probe import Shown

KINDS = ("serial", "keyboard", "hid-pos", "camera")
FRAMINGS = ("raw", "ssi", "honeywell", "newland", "datalogic")
SIGNALS = ("good", "bad", "wait")
_kind = click.option("--kind", type=click.Choice(KINDS), help="How it is attached (else serial).")
_path = click.option("--path", "device", help="The device, as `terminal detect` names it.")
_framing = click.option("--framing", type=click.Choice(FRAMINGS), help="Protocol of a serial scanner.")
_more = click.option(
    "--set", "more", multiple=True, metavar="NAME=VALUE", help="Any other setting: --set suffix=tab --set baud=115200."
)


@click.command()
@config_option
@click.option("--name", help="What the cashier calls it, e.g. lane1.")
@_kind
@_path
@_framing
@_more
@click.option("--replace", is_flag=True, help="The scanner of this name is another one now.")
@click.option("--dry-run", is_flag=True, help="Show what would be written, and write nothing.")
@click.option(
    "--sheet", type=click.Path(path_type=Path, dir_okay=False), help="Write a page to print: what to set, test codes."
)
@prints_results
def setup(
    config_file: Path,
    name: str | None,
    kind: str | None,
    device: str | None,
    framing: str | None,
    more: tuple[str, ...],
    replace: bool,
    dry_run: bool,
    sheet: Path | None,
    as_json: bool,
) -> None:
    """Add a scanner to the configuration, and tell what has to be set on the scanner itself.

    \b
    tillgate terminal setup
    tillgate terminal setup --name lane1 --path /dev/serial/by-id/usb-Zebra-if00 --framing ssi --sheet lane1.html
    """
    from devices.config import ConfigFault, load_config
    from devices.setup import block_of, with_scanner, write_over

    try:
        names = [one.name for one in load_config(config_file).scanners]
        if not device:
            kind, device, framing = _asked_device(kind, framing)
        name = name or _asked_name(names)
        settings = ({"framing": framing} if framing else {}) | _settings(more)
        block = block_of(kind or "serial", name, device, settings)
        text, scanner = with_scanner(config_file, block, replace=replace)
    except ConfigFault as fault:
        raise Fault(str(fault), EXIT_USAGE) from None
    if not as_json:
        click.echo(block.strip())
    if not dry_run:
        if sys.stdin.isatty() and not as_json and not click.confirm(f"Write this into {config_file}?", default=True):
            raise click.Abort
        write_over(config_file, text)
    needs = _needs_of(scanner)
    if sheet:
        sheet.write_text(_sheet(name, needs), "utf-8")
    if as_json:
        _print_json({"config": str(config_file), "written": not dry_run, "scanner": block.strip(), "needs": needs})
        return
    _tell_needs(needs)
    if sheet:
        say(f"written: {sheet}, to be opened in a browser and printed")
    else:
        _draw_test_code()
    next_step(f"tillgate terminal test --scanner {name} --config {config_file}")


def _asked_device(kind: str | None, framing: str | None) -> tuple[str, str, str | None]:
    """Which of the attached devices is meant, and its protocol, asked at the terminal."""
    if not sys.stdin.isatty():
        raise Fault("name the device with --path: nobody is there to be asked", hint="tillgate terminal detect")
    from devices.detect import detect

    found = [one for one in detect() if kind in (None, one.kind)]
    if not found:
        raise Fault("nothing that could be a scanner is attached", hint="tillgate terminal detect")
    for number, one in enumerate(found, 1):
        say(f"{number}. {one.kind}: {' '.join(filter(None, (one.vendor, one.product)))} ({one.path}) - {one.guess}")
    chosen = found[click.prompt("Which one", type=click.IntRange(1, len(found)), default=1, err=True) - 1]
    if chosen.problem:
        say(f"problem: {chosen.problem}")
    if chosen.kind == "serial" and not framing:
        framing = click.prompt("Protocol", type=click.Choice(FRAMINGS), default=chosen.framing, err=True)
    return chosen.kind, chosen.path, framing


def _asked_name(taken: list[str]) -> str:
    free = next(f"lane{number}" for number in range(1, len(taken) + 2) if f"lane{number}" not in taken)
    return str(click.prompt("Name", default=free, err=True)) if sys.stdin.isatty() else free


def _settings(more: tuple[str, ...]) -> dict[str, str]:
    settings = {}
    for one in more:
        setting, given, value = one.partition("=")
        if not given or not setting.isidentifier():
            raise Fault(f"--set {one}: expected NAME=VALUE, like suffix=tab", EXIT_USAGE)
        settings[setting] = value
    return settings


# --- what the scanner itself needs ------------------------------------------------------------------------------------


def _needs_of(scanner: "ScannerConfig") -> list[dict[str, str]]:
    from devices.config import SerialConfig
    from devices.vendors import NEEDS

    kind = scanner.framing if isinstance(scanner, SerialConfig) else str(scanner.__struct_config__.tag)
    return [
        {
            "what": need.what,
            "how": "the till sends this itself at each connect"
            if need.sent_by_till
            else f"see the scanner's manual, and scan its barcode there: {need.look_for}",
            "octets": need.octets.hex(" "),
        }
        for need in NEEDS[kind]
    ]


def _tell_needs(needs: list[dict[str, str]]) -> None:
    if needs:
        click.echo("\nThe scanner has to be set to:")
    for need in needs:
        click.echo(f"  - {need['what']}\n      {need['how']}" + (f": {need['octets']}" if need["octets"] else ""))


def _draw_test_code() -> None:
    from devices.vendors import TEST_CODES

    try:
        from gateway.cli_terminal import drawn

        click.echo("\nA test code, which is no voucher:\n" + drawn(TEST_CODES["letters and signs"]))
    except ModuleNotFoundError as error:
        say(f"test codes are drawn with {error.name}, which is not installed: pip install 'tillgate[camera]'")


def _sheet(name: str, needs: list[dict[str, str]]) -> str:
    """A page that prints on one sheet: what to set, and every test code as a picture."""
    from devices.vendors import TEST_CODES
    from gateway import qr

    rows = "".join(
        f"<li>{escape(need['what'])}: {escape(need['how'])}"
        + (f" <code>{need['octets']}</code>" if need["octets"] else "")
        + "</li>"
        for need in needs
    )
    pictures = "".join(
        f'<figure><img width="200" alt="" src="data:image/png;base64,{_png64(qr.render(code, px=400, fmt="png"))}">'
        f"<figcaption>{escape(title)}<br><code>{escape(repr(code)[1:-1])}</code></figcaption></figure>"
        for title, code in TEST_CODES.items()
    )
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>Scanner {escape(name)}</title>"
        "<style>body{font:16px sans-serif;max-width:46em;margin:2em auto}figure{display:inline-block;margin:1em 2em}"
        "img{image-rendering:pixelated}</style>"
        f"<h1>Scanner {escape(name)}</h1><h2>To be set on the scanner</h2><ul>{rows}</ul>"
        "<h2>Test codes</h2><p>They are no vouchers. Run <code>tillgate terminal test</code> and scan each: it tells "
        f"whether the code arrived whole.</p>{pictures}</html>\n"
    )


def _png64(picture: bytes) -> str:
    return b64encode(picture).decode("ascii")


# --- the test ---------------------------------------------------------------------------------------------------------


@click.command("test")
@config_option
@click.option("--scanner", "name", help="One of the configuration's scanners.")
@_kind
@_path
@_framing
@_more
@click.option("--signal", type=click.Choice(SIGNALS), help="What the scanner is to sound after each read.")
@click.option("--reads", type=click.IntRange(0), default=0, help="End after so many reads (else with q or Ctrl-C).")
@click.option("--seconds", type=click.FloatRange(0), default=0.0, help="End after so long.")
@click.option("--show-code", is_flag=True, help="Show codes in clear: whoever sees one can redeem it.")
@prints_results
def test_scanner(
    config_file: Path,
    name: str | None,
    kind: str | None,
    device: str | None,
    framing: str | None,
    more: tuple[str, ...],
    signal: str | None,
    reads: int,
    seconds: float,
    show_code: bool,
    as_json: bool,
) -> int:
    """Show what a scanner sends and what it is told: bytes, frame, AIM identifier, kind of code. Nothing is redeemed.

    \b
    tillgate terminal test --scanner lane1
    tillgate terminal test --path /dev/ttyACM0 --framing ssi --signal good

    While it runs: g, b or w and Enter sound good, bad or wait; q ends it. Codes are left out, in the hex too, because
    a code is money: --show-code shows them.
    """
    from devices.config import ConfigFault
    from devices.console import stdin_lines
    from devices.framing import Signal
    from devices.probe import Probe

    def tell(shown: "Shown") -> None:
        click.echo(_json_line(shown) if as_json else _line(shown))

    async def run() -> int:
        probe = Probe(scanner, tell, _kind_of, signal=Signal(signal) if signal else None, show_code=show_code)
        lines: AsyncIterator[str] = stdin_lines()
        await probe.run(lines, reads=reads, seconds=seconds)
        return 0 if probe.reads >= reads else EXIT_FAILED

    try:
        scanner = _scanner_meant(config_file, name, kind, device, {"framing": framing} if framing else {}, more)
        return asyncio.run(run())
    except ConfigFault as fault:
        raise Fault(str(fault), EXIT_USAGE) from None


def _scanner_meant(
    config_file: Path,
    name: str | None,
    kind: str | None,
    device: str | None,
    settings: dict[str, str],
    more: tuple[str, ...],
) -> "ScannerConfig":
    """Raises ConfigFault, or Fault when the running terminal has it."""
    from devices.config import load_config
    from devices.console import HEALTH_COMMAND, SOCKET_NAME, NotRunning, ask_terminal
    from devices.setup import alone, block_of

    if device:
        return alone(block_of(kind or "serial", name or "test", device, settings | _settings(more)), config_file)
    config = load_config(config_file)
    scanners = {one.name: one for one in config.scanners}
    if name is None and len(scanners) == 1:
        name = next(iter(scanners))
    if name not in scanners:
        known = ", ".join(scanners) or "it has none"
        raise Fault(f"name one of the scanners of {config_file} with --scanner: {known}", EXIT_USAGE)
    try:
        ask_terminal(Path(config.state_directory) / SOCKET_NAME, HEALTH_COMMAND)
    except NotRunning:
        return scanners[name]
    raise Fault(f"the terminal of {config_file} is running and has `{name}` for itself: stop it first")


def _kind_of(text: str) -> str:
    """What the gateway would take it for. Its signature, and whether anybody issued it, are known there only."""
    from gateway.codes import Refused, import_spelling, normalise, spelled_by

    if spelled_by(normalise(text)):
        return "signed voucher code, signature not checked here"
    told = import_spelling(text)
    return f"no voucher code: {told.why}" if isinstance(told, Refused) else f"{told[0]} code, if anybody imported it"


def _json_line(shown: "Shown") -> str:
    import msgspec

    return msgspec.json.encode(shown).decode()


def _line(shown: "Shown") -> str:
    from datetime import datetime

    at = datetime.fromtimestamp(shown.at_ms / 1000).astimezone()
    length = f"{shown.bytes} bytes" if shown.bytes else ""
    words = (shown.hex, shown.aim, length, shown.code_kind, shown.code, shown.text)
    return f"{at:%H:%M:%S.%f}"[:-3] + f"  {shown.what:<10}  {'  '.join(filter(None, words))}"


def _print_json(result: dict[str, Any]) -> None:
    import json

    click.echo(json.dumps(result, ensure_ascii=False))
