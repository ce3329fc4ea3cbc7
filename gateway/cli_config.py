"""`tillgate config`: what a gateway would run with and where each value comes from, checks, and forms to start from."""

import json
import os
from pathlib import Path
from typing import get_args

import click
import msgspec
from msgspec import Meta

from gateway.cli_output import EXIT_USAGE, Fault, print_one, print_rows, prints_results
from gateway.config import SETTINGS, BadConfig, Loaded, flag_of, read, variable_of
from gateway.settings import Config

_file = click.option(
    "--config", type=click.Path(path_type=Path, dir_okay=False), help="TOML file (else TILLGATE_CONFIG)."
)


@click.group()
def config() -> None:
    """Show, check and explain the gateway's settings."""


@config.command()
@_file
@prints_results
def show(config: Path | None, as_json: bool) -> None:
    """Every setting, its value, and where that comes from: default, a line of the file, or a variable.

    Secrets are never settings, only the names of the files that hold them, so this may be shown to anybody.

    \b
    tillgate config show --config /etc/tillgate/gateway.toml
    """
    effective = _loaded(config)
    rows = [
        {"setting": key, "value": _value(effective.config, key), "from": effective.origins[key], "flag": flag_of(key)}
        for key in SETTINGS
    ]
    print_rows(rows, ("setting", "value", "from"), as_json)


@config.command()
@_file
@prints_results
def check(config: Path | None, as_json: bool) -> None:
    """Whether a gateway would start with these settings; exit code 2 names every fault with its line and the fix.

    \b
    tillgate config check --config gateway.toml && systemctl reload tillgate
    """
    effective = _loaded(config)
    changed = sum(origin != "default" for origin in effective.origins.values())
    print_one({"valid": True, "settings": len(SETTINGS), "set": changed}, as_json)


@config.command()
def schema() -> None:
    """The JSON Schema (2020-12) of the TOML file, for editors that check while one types."""
    made = msgspec.json.schema(Config)
    click.echo(msgspec.json.format(msgspec.json.encode(made)).decode())


@config.command()
def example() -> None:
    """A TOML file with every setting, its default and what it means.

    \b
    tillgate config example > gateway.toml
    """
    click.echo(example_text(), nl=False)


def example_text() -> str:
    """Every setting commented out, so that a file made of it changes nothing before somebody wants it to."""
    lines = ["# Tillgate's gateway. Every setting is here with its default; take the # away from what you change."]
    table = ""
    for key in sorted(
        SETTINGS, key=lambda key: "." in key
    ):  # what stands in no table comes first, or it would be in one
        own_table, _, name = key.rpartition(".")
        if own_table != table:
            table = own_table
            lines += ["", f"[{table}]"]
        said = next(extra for extra in get_args(SETTINGS[key]) if isinstance(extra, Meta))
        value = f"{name} = {json.dumps(_value(Config(), key))}"  # strings and numbers are written alike in both
        example = f" For example {said.examples[0]!r}." if said.examples else ""
        lines += ["", f"# {key}: {said.description}.{example} Or {variable_of(key)}.", f"# {value}"]
    return "\n".join(lines) + "\n"


def _loaded(path: Path | None) -> Loaded:
    try:
        return read(path, os.environ, {})
    except BadConfig as error:
        raise Fault(str(error), EXIT_USAGE) from None


def _value(config: Config, key: str) -> object:
    at: object = msgspec.to_builtins(config)
    for name in key.split("."):
        assert isinstance(at, dict)
        at = at[name]
    return at
