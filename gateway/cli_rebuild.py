"""`tillgate rebuild`: throw away what Valkey holds, and load it anew from the event log. Offline."""

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gateway.cli_output import EXIT_DIFFERENT, Fault, next_step, print_one, prints_results, progress, say
from gateway.cli_session import data_directory, loaded, takes_data

if TYPE_CHECKING:
    from eventstore.finished import Finished
    from eventstore.snapshot import Manifest
    from gateway.claims import ValkeyArbiter
    from gateway.cluster import Valkey
    from gateway.recovery import Folded
    from gateway.settings import Config
    from gateway.snapshots import Snapshots

TOLD_EVERY = 50_000  # vouchers; the bar is drawn a few times a second


@click.command()
@takes_data
@prints_results
def rebuild(data_dir: str | None, as_json: bool) -> None:
    """Rebuild Valkey's whole state from the event log. Stop the gateway first.

    Use it when a partition is halted and the log is to be believed as it is. What the log holds, stays; claims that
    never reached the log were never answered with a yes. It makes a new snapshot on the way.

    \b
    tillgate rebuild --data /var/lib/tillgate
    """
    from eventstore.log import LogDamaged, LogFailed, LogLocked, LogLost, LogUnreadable
    from gateway.embedded import EmbeddedError
    from gateway.keyfile import KeyFault
    from gateway.pipe import ArbiterLost, ArbiterRefused, ArbiterUnfit
    from gateway.snapshot_making import SnapshotFailed

    directory = data_directory(data_dir)
    began_s = time.monotonic()
    try:
        manifest = asyncio.run(_rebuild(directory, loaded(data_dir).config))
    except LogLocked as error:
        raise Fault(f"a gateway runs on this directory: {error}. Stop it first") from None
    except LogDamaged as error:
        raise Fault(str(error), EXIT_DIFFERENT, hint="tillgate log verify") from None
    except (
        LogFailed,
        LogLost,
        LogUnreadable,
        ArbiterUnfit,
        ArbiterLost,
        ArbiterRefused,
        EmbeddedError,
        SnapshotFailed,
        KeyFault,
    ) as error:
        raise Fault(str(error), hint="tillgate doctor") from None
    heads = {str(partition): seq for partition, (seq, _) in manifest.heads.items()}
    taken_s = round(time.monotonic() - began_s, 1)
    print_one({"rebuilt": True, "heads": heads, "records": manifest.records, "seconds": taken_s}, as_json)
    next_step("tillgate serve")


async def _rebuild(directory: Path, config: "Config") -> "Manifest":
    from gateway.snapshots import Snapshots
    from gateway.storage import open_log

    async with AsyncExitStack() as stack:
        log = await open_log(config, lambda seconds, batches: None)  # which no gateway has, then
        stack.push_async_callback(log.close)
        snapshots = Snapshots(config, say)
        total = sum([(await log.head(partition)).seq for partition in range(log.partitions)])
        with progress("fold", total) as advance:
            manifest = await snapshots.write(None, advance=advance)
        _forget_indexes(directory)
        arbiter = await _arbiter(stack, directory, config, snapshots)
        for partition in range(log.partitions):
            await arbiter.check(partition)
        if config.valkey.url:
            with progress("load", manifest.records) as advance:
                for partition in range(log.partitions):
                    await _load(arbiter, snapshots.folded(manifest, partition), partition, advance)
        for partition in range(log.partitions):
            if await arbiter.head(partition) != manifest.head(partition):
                raise Fault(f"partition {partition} is being changed by somebody else: is another gateway running?")
    return manifest


def _forget_indexes(directory: Path) -> None:
    """What gateways had read of a log that is another one now would halt them; they read it again."""
    for home in (directory, *directory.glob("gateway-*")):
        for path in [*home.glob("index.db*"), *home.glob("console.db*")]:
            path.unlink()


async def _load(arbiter: "ValkeyArbiter", folded: "Folded", partition: int, advance: Callable[[int], None]) -> None:
    from gateway.core import mint_tip

    await arbiter.rebuild(partition, _counted(folded.hashes, advance), folded.head, mint_tip())


def _counted(hashes: "Iterable[Finished]", advance: Callable[[int], None]) -> "Iterator[Finished]":
    from eventstore.finished import PIECE_BYTES

    vouchers = 0
    for key, held in hashes:
        vouchers += len(held) if isinstance(held, dict) else len(held) // PIECE_BYTES
        if vouchers >= TOLD_EVERY:
            advance(vouchers)
            vouchers = 0
        yield key, held
    advance(vouchers)


async def _arbiter(stack: AsyncExitStack, directory: Path, config: "Config", snapshots: "Snapshots") -> "ValkeyArbiter":
    """Of the configured Valkey as it is, or of a private one that has just started on the snapshot."""
    from gateway.claims import ValkeyArbiter
    from gateway.embedded import EmbeddedValkey
    from gateway.main import connector_of_endpoint, connector_of_url

    connect: Valkey
    if config.valkey.url:
        connect = connector_of_url(config.valkey.url, config.valkey.password_file)
    else:
        valkey = EmbeddedValkey(directory, on_report=say, seed=snapshots.seed, adopts=False)
        connect = connector_of_endpoint(await valkey.start())
        stack.push_async_callback(valkey.stop)
    arbiter = ValkeyArbiter(connect, lambda partition: None)
    stack.push_async_callback(arbiter.close)
    return arbiter
