"""`tillgate serve`: every setting of the gateway as a flag, and the gateway until it is told to leave."""

import asyncio
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import click
from msgspec import Meta

from gateway.cli_output import EXIT_USAGE, Fault, prints_results
from gateway.config import SETTINGS, BadConfig, flag_of, read, variable_of
from gateway.settings import Config


def _flags(command: Callable[..., Any]) -> Callable[..., Any]:
    for key, annotated in reversed(SETTINGS.items()):
        meta = next(extra for extra in get_args(annotated) if isinstance(extra, Meta))
        said = meta.description or key
        text = f"{said[0].upper()}{said[1:]} (else {variable_of(key)})."
        command = click.option(flag_of(key), key.replace(".", "__"), help=text, metavar="VALUE")(command)
    return command


@click.command()
@click.option("--config", type=click.Path(path_type=Path, dir_okay=False), help="TOML file (else TILLGATE_CONFIG).")
@_flags
@prints_results
def serve(config: Path | None, as_json: bool, **given: str | None) -> int:
    """Run the gateway until SIGTERM or Ctrl-C. Flags override TILLGATE_* variables, and those the TOML file.

    With --json, one line on standard output says that it answers, and where. SIGHUP reads the configuration again: one
    gateway takes over drain_seconds, code keys and certificate; with --workers, they are replaced one after another.

    \b
    tillgate serve --data /var/lib/tillgate --server-port 8080
    """
    flags = {key.replace("__", "."): text for key, text in given.items() if text is not None}

    def reread() -> Config:
        return read(config, os.environ, flags).config

    try:
        first = reread()
    except BadConfig as error:
        raise Fault(str(error), EXIT_USAGE) from None
    return _serve(first, reread, as_json)


def _serve(config: Config, reread: Callable[[], Config], as_json: bool) -> int:
    from eventstore.log import LogDamaged, LogFailed, LogLocked, LogLost, LogUnreadable
    from gateway.core import wall_ms
    from gateway.diary import Diary, say_so, to_stderr
    from gateway.embedded import EmbeddedError
    from gateway.keyfile import KeyFault
    from gateway.main import Gateway, Served
    from gateway.serving import run
    from gateway.supervisor import WorkerFailed, supervise

    told = Diary(config.messages, wall_ms, to_stderr).tell if config.messages.form == "json" else say_so

    def ready(served: Gateway | Served) -> None:
        workers = f", {config.workers} workers" if config.workers > 1 else ""
        told(f"serving {config.data_dir} at {served.url}{workers}; Ctrl-C ends it")
        if as_json:
            click.echo(json.dumps({"url": served.url, "pid": os.getpid()}))

    try:
        if config.workers > 1:
            return asyncio.run(supervise(config, ready=ready, report=told, reread=reread))
        return run(config, ready=ready, report=told, reread=reread)
    except BadConfig as error:
        raise Fault(str(error), EXIT_USAGE) from None
    except FileNotFoundError as error:
        raise Fault(str(error), hint=f"tillgate init --data {config.data_dir}") from None
    except WorkerFailed as error:
        raise Fault(str(error)) from None
    except (LogDamaged, LogFailed, LogLocked, LogLost, LogUnreadable, EmbeddedError, KeyFault) as error:
        raise Fault(str(error), hint="tillgate doctor") from None
