"""What the gateway and Valkey of a deployment say of themselves, for `tillgate doctor`. Nothing is changed."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import redis.exceptions
from redis.asyncio.connection import Connection

from gateway.claims import LIBRARY
from gateway.client import Client, ClientFault
from gateway.config import Loaded
from gateway.doctor import Finding, ok
from gateway.embedded import EmbeddedError, endpoint_of
from gateway.keyfile import KeyFault
from gateway.main import connector_of_endpoint, connector_of_url
from gateway.valkey_server import VERSION_MIN, find_server, packaged_server


class _Readiness(msgspec.Struct):
    ready: bool
    troubles: list[str] = []


async def gateway(client: Client | None) -> Finding:
    """Whether one runs on this directory, and what keeps it from answering."""
    if client is None:
        return ok("gateway", "none runs on this data directory")
    try:
        readiness = await client.get_whatever("/readyz", _Readiness, verbose=1)
    except ClientFault as error:
        return Finding("gateway", "fail", str(error), "look at its messages, or restart it")
    if readiness.ready:
        return ok("gateway", f"ready at {client.url}")
    return Finding(
        "gateway",
        "fail",
        f"not ready: {'; '.join(readiness.troubles)}",
        "if it does not pass by itself: tillgate log verify, then tillgate rebuild",
    )


async def valkey(loaded: Loaded, directory: Path, gateway_runs: bool) -> list[Finding]:
    """The program (if a private one is to be started), and what a running one says of itself."""
    config = loaded.config.valkey
    findings = [] if config.url else [await _program()]
    try:
        if config.url:
            connection = connector_of_url(config.url, config.password_file)()
        elif gateway_runs and (endpoint := endpoint_of(directory)):
            connection = connector_of_endpoint(endpoint)()
        else:
            return [*findings, ok("valkey", "not running: a gateway starts it when it starts")]
        return [*findings, *await _ask(connection)]
    except KeyFault as error:
        return [Finding("valkey", "fail", str(error), "mend valkey.password_file")]
    except (redis.exceptions.RedisError, OSError) as error:
        return [*findings, Finding("valkey", "fail", f"does not answer: {error}", "start it, or mend valkey.url")]


async def _program() -> Finding:
    try:
        program = await find_server(os.environ.get("PATH", os.defpath), packaged_server())
    except EmbeddedError as error:
        return Finding("valkey program", "fail", str(error), "install valkey, or tillgate[gateway]")
    return ok("valkey program", str(program))


async def _ask(connection: Connection) -> list[Finding]:
    async def ask(*args: str) -> Any:
        await connection.send_command(*args)
        return await connection.read_response(disable_decoding=True)

    try:
        await connection.connect()  # type: ignore[no-untyped-call]
        raw = await ask("INFO")
        functions = await ask("FUNCTION", "LIST", "LIBRARYNAME", LIBRARY)
    finally:
        await connection.disconnect(nowait=True)
    lines = raw.decode("utf-8", "replace").splitlines()
    facts = dict(line.split(":", 1) for line in lines if ":" in line)
    return list(_judge(facts, bool(functions)))


def _judge(facts: dict[str, str], has_functions: bool) -> Iterator[Finding]:
    """What an INFO says (the same names in Redis 7 and Valkey 8 and 9)."""
    found = facts.get("valkey_version") or facts.get("redis_version", "0")
    if int(found.partition(".")[0]) < VERSION_MIN:
        yield Finding("valkey", "fail", f"version {found}", f"run Valkey, or Redis {VERSION_MIN} or newer")
    else:
        memory = facts.get("used_memory_human", "?")
        yield ok("valkey", f"version {found}, {memory} of memory, up {facts.get('uptime_in_seconds', '?')} s")
    policy, role = facts.get("maxmemory_policy", "?"), facts.get("role", "?")
    if policy != "noeviction":
        text = f"maxmemory-policy is {policy}: it may forget redeemed vouchers"
        yield Finding("valkey policy", "fail", text, "set maxmemory-policy noeviction")
    else:
        yield ok("valkey policy", policy)
    if role != "master":
        yield Finding("valkey role", "fail", f"it is a {role}", "connect to the primary")
    else:
        yield ok("valkey role", "primary")
    text = (
        f"{LIBRARY} is loaded" if has_functions else f"{LIBRARY} is not loaded yet: a gateway loads it when it starts"
    )
    yield ok("valkey function", text)
