"""`tillgate backup` and `tillgate restore`: the event log to another file beside a gateway that writes it, and back."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from gateway.cli_output import EXIT_DIFFERENT, EXIT_USAGE, Fault, next_step, print_one, prints_results, progress
from gateway.cli_session import data_directory, loaded, takes_data

if TYPE_CHECKING:
    from eventstore.copying import Copied
    from eventstore.log import LogReader
    from eventstore.sqlite_file import SqliteReader
    from gateway.shared_logs import DeploymentReader

T = TypeVar("T")
_file = click.argument("file", type=click.Path(path_type=Path, dir_okay=False))


@click.command()
@_file
@takes_data
@prints_results
def backup(file: Path, data_dir: str | None, as_json: bool) -> None:
    """Copy the event log to FILE, or bring an earlier copy up to date. Works beside a running gateway.

    Every batch is checked on its way, so a finished backup is a verified one. The keys are not in it: they need a
    backup of their own, kept elsewhere.

    \b
    tillgate backup /media/safe/log.db          (again: only what is new)
    tillgate key backup /media/vault/codes.toml
    """
    from gateway.storage import open_log_reader

    data_directory(data_dir)

    async def job() -> "Copied":
        reader = await open_log_reader(loaded(data_dir).config)
        try:
            return await _bring_up(reader, file)
        finally:
            await reader.close()

    print_one({"file": str(file), **_told(_run(job))}, as_json)
    next_step(f"tillgate restore {file} --keys KEYFILE --data NEW_DIRECTORY (try it before you need it)")


@click.command()
@_file
@click.option(
    "--keys",
    "key_file",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    required=True,
    help="The copy of the key file that `tillgate key backup` made.",
)
@takes_data
@prints_results
def restore(file: Path, key_file: Path, data_dir: str | None, as_json: bool) -> None:
    """Make a data directory from a backup of the log and one of the keys, with a new admin token.

    Valkey's state is rebuilt at the next start. What was accepted after the backup is not in it: a log that can be read
    is always worth more than its backup, so try that first (`tillgate log verify`).

    \b
    tillgate restore /media/safe/log.db --keys /media/vault/codes.toml --data /var/lib/tillgate
    """
    from gateway import deployment
    from gateway.keyfile import KeyFault, read_secret

    directory = Path(loaded(data_dir).config.data_dir)

    async def job() -> "Copied":
        async with _reading(file) as reader:
            with progress("restore", await _size(reader)) as advance:
                now_ms = time.time_ns() // 1_000_000
                return await deployment.restore(directory, reader, read_secret(key_file), now_ms, advance)

    try:
        copied = _run(job)
    except (deployment.AlreadyInitialised, KeyFault) as error:
        raise Fault(str(error)) from None
    print_one({"data": str(directory), "token_file": str(directory / deployment.TOKEN_FILE), **_told(copied)}, as_json)
    next_step(f"tillgate doctor --data {directory}; tillgate serve --data {directory}")


@asynccontextmanager
async def _reading(path: Path) -> "AsyncIterator[SqliteReader]":
    from eventstore.sqlite_file import open_reader

    reader = open_reader(path)
    try:
        yield reader
    finally:
        await reader.close()


async def _bring_up(reader: "DeploymentReader", target: Path) -> "Copied":
    from eventstore.copying import copy_log
    from eventstore.sqlite_log import SqliteLog

    meta = reader.meta
    if not await asyncio.to_thread(target.exists):
        SqliteLog.create(target, meta.partitions, meta.deployment_id, meta.created_ms)
    copy = SqliteLog.open(target)
    try:
        if copy.meta.deployment_id != meta.deployment_id:
            raise Fault(f"{target} is a backup of another deployment: name another file", EXIT_USAGE)
        with progress("backup", max(0, await _size(reader) - await _size(copy))) as advance:
            return await copy_log(reader, copy, advance)
    finally:
        await copy.close()


async def _size(log: "LogReader") -> int:
    from eventstore.log import CONTROL

    return sum([(await log.head(partition)).seq for partition in (CONTROL, *range(log.partitions))])


def _run(job: Callable[[], Awaitable[T]]) -> T:
    from eventstore.copying import Diverged
    from eventstore.log import LogDamaged, LogFailed, LogLocked, LogLost, LogUnreadable

    async def in_loop() -> T:
        return await job()

    try:
        return asyncio.run(in_loop())
    except Diverged as error:
        raise Fault(f"{error}: keep this copy, and make a new one", EXIT_DIFFERENT) from None
    except LogDamaged as error:
        raise Fault(str(error), EXIT_DIFFERENT, hint="tillgate log verify") from None
    except (LogFailed, LogLocked, LogLost, LogUnreadable, FileNotFoundError) as error:
        raise Fault(str(error)) from None


def _told(copied: "Copied") -> dict[str, Any]:
    from eventstore.log import CONTROL

    heads = {"control" if name == CONTROL else str(name): head.seq for name, head in copied.heads.items()}
    return {"batches": copied.batches, "heads": heads}
