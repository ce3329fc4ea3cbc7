"""`tillgate init`, `token` and `key`: what a deployment starts with, and who may do what."""

import asyncio
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import click

from gateway.cli_output import EXIT_USAGE, Fault, next_step, print_one, print_rows, prints_results, say
from gateway.cli_session import Reach, ask, data_directory, loaded, reaches_gateway, takes_data

if TYPE_CHECKING:
    from gateway.deployment import Deployment
    from gateway.settings import Config

PARTITIONS_MAX = 1024  # eventstore.log has the reason

Row = dict[str, Any]


@click.command()
@click.option(
    "--partitions",
    type=click.IntRange(1, PARTITIONS_MAX),
    default=1,
    show_default=True,
    help="Shards of the log, for ever; more than 1 only for a cluster of Valkeys (2-4 for each primary).",
)
@click.option(
    "--join",
    "key_file",
    metavar="KEYFILE",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="Make nothing new: serve the log on servers from here too, with a copy of its key file.",
)
@takes_data
@prints_results
def init(partitions: int, key_file: Path | None, data_dir: str | None, as_json: bool) -> None:
    """Create a data directory: code keys, an empty log, and the first admin token.

    The log is a file in the directory, or on the servers that log.url (TILLGATE_LOG__URL) names, PostgreSQL or NATS
    JetStream; then it can be served from many machines, each with a directory of its own.

    \b
    tillgate init --data /var/lib/tillgate
    TILLGATE_LOG__URL=postgresql://tillgate@db/tillgate tillgate init --join codes.toml
    """
    from eventstore.log import LogDamaged, LogFailed, LogLost, LogUnreadable
    from gateway.deployment import AlreadyInitialised
    from gateway.keyfile import KeyFault

    config = loaded(data_dir).config
    directory = Path(config.data_dir)
    try:
        made = asyncio.run(_made(config, partitions, key_file))
    except (AlreadyInitialised, KeyFault, LogDamaged, LogFailed, LogLost, LogUnreadable) as error:
        raise Fault(str(error)) from None
    except FileNotFoundError as error:
        if error.filename is None:
            raise Fault(f"{error}: leave out --join to make one") from None
        raise Fault(f"{error.filename}: {error.strerror}") from None
    except OSError as error:
        raise Fault(f"{error.filename or directory}: {error.strerror}") from None
    result = {
        "data": str(directory),
        "deployment_id": made.deployment_id,
        "partitions": made.partitions,
        "token_file": str(made.token_file),
        "key_file": str(made.key_file),
    }
    print_one(result, as_json)
    say("Keep a copy of the key file elsewhere: without it no voucher can be redeemed.")
    next_step(f"tillgate key backup FILE --data {directory}; tillgate serve --data {directory}")


async def _made(config: "Config", partitions: int, key_file: Path | None) -> "Deployment":
    from gateway.deployment import initialise
    from gateway.keyfile import read_secret
    from gateway.storage import is_shared

    now_ms = time.time_ns() // 1_000_000
    if not is_shared(config):
        if key_file is not None:
            raise Fault("--join is for a log on servers: set log.url (TILLGATE_LOG__URL)", EXIT_USAGE)
        return await initialise(Path(config.data_dir), partitions, now_ms)
    from gateway.deployment_shared import initialise_shared, join_shared

    if key_file is not None:
        return await join_shared(config, read_secret(key_file))
    return await initialise_shared(config, partitions, now_ms)


# --- tokens ---------------------------------------------------------------------------------------------------------


@click.group()
def token() -> None:
    """Create, revoke and list the bearer tokens of people and programs."""


@token.command()
@click.argument("role")
@click.option("--scope", default="", help="Which merchant, channel or terminal number the role is bound to.")
@click.option("--label", required=True, help="Who holds it; shown in lists.")
@reaches_gateway
@prints_results
def create(role: str, scope: str, label: str, reach: Reach, as_json: bool) -> None:
    """Create a token of a ROLE: integrator, supervisor, merchant, channel, operator, auditor or admin.

    It is shown this once; the gateway keeps only its hash.

    \b
    tillgate token create integrator --scope noodle-king --label "till software of Noodle King"
    """
    body = {"role": role, "scope": scope, "label": label}
    made = ask(reach, lambda client: client.post("/v1/tokens", body, Row))
    print_one(made, as_json)
    say("This is the only time the token is shown.")


@token.command()
@click.argument("token_id")
@reaches_gateway
@prints_results
def revoke(token_id: str, reach: Reach, as_json: bool) -> None:
    """Revoke a token; every gateway refuses it within a second.

    \b
    tillgate token revoke 9f3c01
    """
    print_one(ask(reach, lambda client: client.post(f"/v1/tokens/{quote(token_id, '')}/revoke", {}, Row)), as_json)


@token.command("list")
@reaches_gateway
@prints_results
def list_tokens(reach: Reach, as_json: bool) -> None:
    """List tokens, without their secrets."""
    rows = ask(reach, lambda client: client.get("/v1/tokens", list[Row]))
    print_rows(rows, ("token_id", "role", "scope", "label", "revoked"), as_json)


# --- keys -----------------------------------------------------------------------------------------------------------


@click.group()
def key() -> None:
    """Add, retire, list and back up the keys that sign codes."""


@key.command()
@reaches_gateway
@prints_results
def add(reach: Reach, as_json: bool) -> None:
    """Add a key and sign new codes with it; codes signed with older live keys still count.

    \b
    tillgate key add
    """
    print_one(ask(reach, lambda client: client.post("/v1/keys", {}, Row)), as_json)
    next_step("tillgate key backup FILE")


@key.command()
@click.argument("key_id", type=click.IntRange(1, 255))
@reaches_gateway
@prints_results
def retire(key_id: int, reach: Reach, as_json: bool) -> None:
    """Retire a key for ever: unused vouchers signed with it can no longer be redeemed.

    \b
    tillgate key retire 1
    """
    print_one(ask(reach, lambda client: client.post(f"/v1/keys/{key_id}/retire", {}, Row)), as_json)


@key.command("list")
@reaches_gateway
@prints_results
def list_keys(reach: Reach, as_json: bool) -> None:
    """List key ids; the keys themselves are shown to nobody."""
    print_rows(ask(reach, lambda client: client.get("/v1/keys", list[Row])), ("key_id", "active", "retired"), as_json)


@key.command()
@click.argument("file", type=click.Path(path_type=Path))
@takes_data
@prints_results
def backup(file: Path, data_dir: str | None, as_json: bool) -> None:
    """Copy the key file to FILE, readable by you only. Works beside a running gateway.

    \b
    tillgate key backup /media/safe/codes.toml
    """
    from gateway.keyfile import KeyFault, KeyFile

    try:
        KeyFile(data_directory(data_dir)).backup(file)
    except KeyFault as error:
        raise Fault(str(error)) from None
    print_one({"backup": str(file)}, as_json)
    say("Whoever reads this file can mint vouchers: keep it as safe as cash.")
