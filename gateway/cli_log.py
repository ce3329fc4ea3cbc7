"""`tillgate log`: read, verify and export the event log, also beside the gateway that writes it."""

import asyncio
import os
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, TypeVar

import click

from gateway.cli_output import EXIT_DIFFERENT, EXIT_USAGE, Fault, print_one, prints_results, progress, shown
from gateway.cli_session import data_directory, loaded, takes_data

if TYPE_CHECKING:
    from eventstore.log import Batch
    from gateway.shared_logs import DeploymentReader

READ_BATCHES = 500  # log rows at a time; the reader bounds their bytes
FOLLOW_SECONDS = 0.2  # how far `tail --follow` is behind
CONTROL_NAME = "control"

T = TypeVar("T")


@click.group()
def log() -> None:
    """Read, verify and export the event log."""


_partition = click.option("--partition", help="Only this one: a number, or `control` (else all).")


@log.command()
@_partition
@click.option("-n", "--batches", type=click.IntRange(0, 10_000), default=10, show_default=True, help="How many.")
@click.option("-f", "--follow", is_flag=True, help="Go on with what is written from now on.")
@takes_data
@prints_results
def tail(partition: str | None, batches: int, follow: bool, data_dir: str | None, as_json: bool) -> None:
    """Show the newest batches; with --json every record and event of them, one batch a line.

    \b
    tillgate log tail -n 3 --partition control
    """

    async def job(reader: "DeploymentReader") -> None:
        names = _partitions(reader, partition)
        reached = {name: max(1, (await reader.head(name)).seq - batches + 1) for name in names}
        found = [batch for name in names async for batch in _from(reader, name, reached)]
        for batch in sorted(found, key=_at_ms)[-batches:] if batches else []:
            _print_batch(batch, as_json)
        while follow:
            await asyncio.sleep(FOLLOW_SECONDS)
            for name in names:
                async for batch in _from(reader, name, reached):
                    _print_batch(batch, as_json)

    _read(data_dir, job)


@log.command()
@click.option("--state", is_flag=True, help="Also fold all vouchers, and compare what Valkey holds; nothing may move.")
@takes_data
@prints_results
def verify(state: bool, data_dir: str | None, as_json: bool) -> int:
    """Check every batch of the log: checksums, chains, payloads. Exit code 3 names the first that is damaged.

    With --state also that every verdict in it could be, and that Valkey holds what they add up to, hash for hash; a
    private Valkey is there while its gateway runs. Takes some 60 bytes of memory a redeemed voucher.

    \b
    tillgate log verify --data /var/lib/tillgate
    """
    from eventstore.log import LogDamaged
    from eventstore.verify import verify as verify_log
    from gateway.cli_state import compare_states

    async def job(reader: "DeploymentReader") -> dict[str, Any]:
        total = sum([(await reader.head(name)).seq for name in _partitions(reader, None)])
        with progress("verify", total) as advance:
            done: Counter[int] = Counter()

            def on_progress(partition: int, seq: int, head_seq: int) -> None:
                advance(seq - done[partition])
                done[partition] = seq

            found = await verify_log(reader, on_progress)
        heads = {_name(name): head.seq for name, head in found.heads.items()}
        counts = {"batches": found.batches, "records": found.records, "control_events": found.control_events}
        told = {"intact": True, **counts, "heads": heads}
        return told | await compare_states(reader, loaded(data_dir).config) if state else told

    try:
        told = _read(data_dir, job, damaged=False)
        print_one(told, as_json)
    except LogDamaged as error:
        print_one({"intact": False, "partition": _name(error.partition), "seq": error.seq, "why": error.why}, as_json)
        return EXIT_DIFFERENT
    return EXIT_DIFFERENT if told.get("state", "equal") != "equal" else 0


@log.command()
@_partition
@click.option("--from", "first", type=click.IntRange(1), default=1, show_default=True, help="First batch.")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="New file (else standard output).")
@takes_data
def export(partition: str | None, first: int, out: Path | None, data_dir: str | None) -> None:
    """Print the whole log as NDJSON, one batch a line, with its records or events unpacked.

    \b
    tillgate log export --partition control --out control.ndjson
    """

    async def job(reader: "DeploymentReader") -> None:
        names = _partitions(reader, partition)
        reached = dict.fromkeys(names, first)
        total = sum([max(0, (await reader.head(name)).seq - first + 1) for name in names])
        with _output(out) as file, progress("export", total) as advance:
            for name in names:
                async for batch in _from(reader, name, reached):
                    file.write(_line(batch))
                    advance(1)

    _read(data_dir, job)


def _read(data_dir: str | None, job: Callable[["DeploymentReader"], Awaitable[T]], *, damaged: bool = True) -> T:
    """Open the log beside whoever writes it. Raises Fault; LogDamaged only if `damaged` is False."""
    from eventstore.log import LogDamaged, LogFailed, LogLost, LogUnreadable
    from gateway.keyfile import KeyFault
    from gateway.storage import open_log_reader

    data_directory(data_dir)

    async def in_loop() -> T:
        reader = await open_log_reader(loaded(data_dir).config)
        try:
            return await job(reader)
        finally:
            await reader.close()

    try:
        return asyncio.run(in_loop())
    except (LogUnreadable, LogFailed, LogLost, KeyFault, FileNotFoundError) as error:
        raise Fault(str(error)) from None
    except LogDamaged as error:
        if not damaged:
            raise
        raise Fault(str(error), EXIT_DIFFERENT, hint="tillgate log verify") from None


def _partitions(reader: "DeploymentReader", wanted: str | None) -> list[int]:
    from eventstore.log import CONTROL

    known = {_name(number): number for number in (CONTROL, *range(reader.partitions))}
    if wanted is not None and wanted not in known:
        raise Fault(f"there is no partition {wanted!r}, only {', '.join(known)}", EXIT_USAGE)
    return list(known.values()) if wanted is None else [known[wanted]]


async def _from(reader: "DeploymentReader", partition: int, reached: dict[int, int]) -> AsyncIterator["Batch"]:
    """The batches from `reached` on, which moves along."""
    while batches := await reader.read(partition, reached[partition], READ_BATCHES):
        for batch in batches:
            reached[partition] = batch.seq + 1
            yield batch


@contextmanager
def _output(out: Path | None) -> Iterator[TextIO]:
    if out is None:
        yield sys.stdout
        sys.stdout.flush()  # here a closed pipe is told; at the end of the process it would be a complaint
        return
    try:
        fd = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise Fault(f"{out} exists already: name a new file", EXIT_USAGE) from None
    with open(fd, "w", encoding="utf-8") as file:
        yield file
        file.flush()
        os.fsync(fd)


def _name(partition: int) -> str:
    from eventstore.log import CONTROL

    return CONTROL_NAME if partition == CONTROL else str(partition)


def _at_ms(batch: "Batch") -> int:
    from eventstore.events import payload_head

    return payload_head(batch.payload)[2]


def _line(batch: "Batch") -> str:
    import msgspec

    from gateway.log_lines import line_of

    return msgspec.json.encode(line_of(batch)).decode() + "\n"


def _print_batch(batch: "Batch", as_json: bool) -> None:
    if as_json:
        click.echo(_line(batch), nl=False)
        return
    from gateway.log_lines import line_of

    line = line_of(batch)
    if "events" in line:
        what = f"{line['actor']}: " + ", ".join(type(event).__name__ for event in line["events"])
    else:
        counts = Counter(f"{record['op']} {record['verdict']}" for record in line["records"])
        what = ", ".join(f"{count} {name}" for name, count in counts.items()) or "nothing: a fence of recovery"
    click.echo(f"{shown('at_ms', line['at_ms'])}  {line['partition']}/{batch.seq}  {what}")
