"""`tillgate rebuild`: throw away what Valkey holds, and load it anew from the event log. Offline."""

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gateway.cli_output import EXIT_DIFFERENT, Fault, next_step, print_one, prints_results, progress, say
from gateway.cli_session import data_directory, loaded, takes_data

if TYPE_CHECKING:
    from gateway.settings import Config


@click.command()
@takes_data
@prints_results
def rebuild(data_dir: str | None, as_json: bool) -> None:
    """Rebuild Valkey's whole state from the event log. Stop the gateway first.

    Use it when a partition is halted and the log is to be believed as it is. What the log holds, stays; claims that
    never reached the log were never answered with a yes.

    \b
    tillgate rebuild --data /var/lib/tillgate
    """
    from eventstore.log import LogDamaged, LogFailed, LogLocked, LogLost, LogUnreadable
    from gateway.claims import ArbiterUnfit
    from gateway.embedded import EmbeddedError
    from gateway.keyfile import KeyFault
    from gateway.pipe import ArbiterLost, ArbiterRefused

    directory = data_directory(data_dir)
    try:
        heads = asyncio.run(_rebuild(directory, loaded(data_dir).config))
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
        KeyFault,
    ) as error:
        raise Fault(str(error), hint="tillgate doctor") from None
    print_one({"rebuilt": True, "heads": heads}, as_json)
    next_step("tillgate serve")


async def _rebuild(directory: Path, config: "Config") -> dict[str, int]:
    from gateway.claims import ValkeyArbiter
    from gateway.control import Control
    from gateway.core import mint_tip, wall_ms
    from gateway.recovery import rebuild as rebuild_partition
    from gateway.storage import open_log

    async with AsyncExitStack() as stack:
        log = await open_log(config, lambda seconds, batches: None)
        stack.push_async_callback(log.close)
        control = Control(log, now_ms=wall_ms, mint_tip=mint_tip)
        await control.confirm()
        arbiter = ValkeyArbiter(await _connector(stack, directory, config), lambda partition: None)
        stack.push_async_callback(arbiter.close)
        total = sum([(await log.head(partition)).seq for partition in range(log.partitions)])
        heads = {}
        with progress("rebuild", total) as advance:
            for partition in range(log.partitions):
                await arbiter.check(partition)
                head = await rebuild_partition(
                    arbiter, log, partition, token=mint_tip(), purged=control.purged(), advance=advance
                )
                if await arbiter.head(partition) != head:
                    raise Fault(f"partition {partition} is being changed by somebody else: is another gateway running?")
                heads[str(partition)] = head.seq
    return heads


async def _connector(stack: AsyncExitStack, directory: Path, config: "Config") -> Any:
    from gateway.embedded import EmbeddedValkey
    from gateway.main import connector_of_endpoint, connector_of_url

    if config.valkey.url:
        return connector_of_url(config.valkey.url, config.valkey.password_file)
    valkey = EmbeddedValkey(directory, on_report=say)
    endpoint = await valkey.start()
    stack.push_async_callback(valkey.stop)
    return connector_of_endpoint(endpoint)
