"""What a scrape tells of the gateway's surroundings: Valkey, disk and clock, looked at off the hot path.

One task looks every SAMPLE_S over a connection of its own, so neither a scrape nor a claim ever waits for it; while
Valkey does not answer, the newest sample says so. Everything it keeps is one `Sampled`.
"""

import asyncio
import math
import shutil
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

import msgspec
import redis.exceptions

from eventstore.vouchers import head_key
from gateway.claims import parse_head
from gateway.cluster import Server, Valkey, servers_of
from gateway.pipe import LOST, ArbiterLost, ArbiterRefused, ArbiterUnfit, Pipe, connected
from gateway.slots import Address, fields_of

SAMPLE_S = 2.5  # twice between scrapes of every 5 s; INFO costs Valkey about 0.1 ms
CONNECT_S_MAX = 2.0  # a paused server takes the connection and says nothing
SECTIONS = ("server", "memory", "persistence", "stats", "replication", "clients")


class ValkeySeen(msgspec.Struct, frozen=True):
    """What Valkey said of itself. Bytes, seconds and counts as it tells them.

    Of a cluster's primaries that have a partition: memory of the one that is fullest, the clock that is worst, and the
    sum of everything else.
    """

    used_memory_bytes: int
    memory_limit_bytes: int  # 0: none
    evicted_keys: int
    connections: int
    is_primary: bool
    aof_is_failing: bool
    aof_bytes: int  # 0 when it keeps none
    clock_offset_s: float  # how much later our wall clock is than Valkey's, to within half a round trip
    log_difference: Mapping[int, int]  # batches by which its head is off the log's, by partition


class DiskSeen(msgspec.Struct, frozen=True):
    """The data directory's file system, and the log in it."""

    free_bytes: int  # for us, not for root
    size_bytes: int
    log_bytes: int | None  # the file and its write-ahead log; None: the log is not on this disk


class Sampled(msgspec.Struct, frozen=True):
    """The newest look; `valkey` is None when it did not answer."""

    valkey: ValkeySeen | None = None
    disk: DiskSeen | None = None


class Sampler:
    """Looks again and again. `durable` gives each partition's newest durable batch."""

    def __init__(self, log_file: Path, valkey: Valkey, durable: Callable[[], Sequence[int]]) -> None:
        self.sampled = Sampled()
        self._log_file, self._valkey, self._durable = log_file, valkey, durable
        self._pipes: dict[Address | None, Pipe] = {}
        self._heads: list[int] = []  # Valkey's, at the last look

    async def run(self) -> None:
        """Look every SAMPLE_S until cancelled."""
        try:
            while True:
                disk = await asyncio.to_thread(_disk, self._log_file)
                self.sampled = Sampled(await self._ask_valkey(), disk)
                await asyncio.sleep(SAMPLE_S)
        finally:
            await self._leave(list(self._pipes))

    async def _ask_valkey(self) -> ValkeySeen | None:
        try:
            servers = await servers_of(self._valkey, len(self._durable()))
            await self._leave(self._pipes.keys() - {server.address for server in servers})
            before = self._durable()
            heads = [0] * len(before)
            told = [await self._ask(server, heads) for server in servers]
        except (ArbiterLost, ArbiterRefused, ArbiterUnfit, redis.exceptions.RedisError, OSError, TimeoutError):
            return None
        last, self._heads = self._heads or before, heads
        return together(told, differences(before, heads, last))

    async def _ask(self, server: Server, heads: list[int]) -> ValkeySeen:
        pipe = await self._connected(server)
        began_s = time.time()
        now = await pipe.call("TIME")
        ended_s = time.time()
        told = fields_of(await pipe.call("INFO", *SECTIONS))
        for number in server.partitions:
            heads[number] = parse_head(await pipe.call("GET", head_key(number))).seq
        return seen(told, (began_s + ended_s) / 2 - (int(now[0]) + int(now[1]) / 1e6), {})

    async def _connected(self, server: Server) -> Pipe:
        pipe = self._pipes.get(server.address)
        if pipe is None or pipe.lost:
            await self._leave([server.address])
            connection = server.connect()
            try:
                async with asyncio.timeout(CONNECT_S_MAX):
                    await connected(connection)
            except (*LOST, TimeoutError, redis.exceptions.ResponseError):
                await connection.disconnect(nowait=True)
                raise
            pipe = self._pipes[server.address] = Pipe(connection, lambda: None)
        return pipe

    async def _leave(self, addresses: Collection[Address | None]) -> None:
        for address in addresses:
            if (pipe := self._pipes.pop(address, None)) is not None:
                await pipe.close()


def seen(told: Mapping[str, str], offset_s: float, difference: Mapping[int, int]) -> ValkeySeen:
    """From what INFO told; a name that this server does not have counts as 0."""

    def number(name: str) -> int:
        return int(told.get(name, "0"))

    return ValkeySeen(
        used_memory_bytes=number("used_memory"),
        memory_limit_bytes=number("maxmemory"),
        evicted_keys=number("evicted_keys"),
        connections=number("connected_clients"),
        is_primary=told.get("role") == "master",
        aof_is_failing="err" in (told.get("aof_last_write_status"), told.get("aof_last_bgrewrite_status")),
        aof_bytes=number("aof_current_size"),
        clock_offset_s=offset_s,
        log_difference=difference,
    )


def _fullness(one: ValkeySeen) -> tuple[float, int]:
    return one.used_memory_bytes / (one.memory_limit_bytes or math.inf), one.used_memory_bytes


def together(told: Sequence[ValkeySeen], difference: Mapping[int, int]) -> ValkeySeen:
    """What several primaries said, as one; see ValkeySeen."""
    fullest = max(told, key=_fullness)
    return ValkeySeen(
        used_memory_bytes=fullest.used_memory_bytes,
        memory_limit_bytes=fullest.memory_limit_bytes,
        evicted_keys=sum(one.evicted_keys for one in told),
        connections=sum(one.connections for one in told),
        is_primary=all(one.is_primary for one in told),
        aof_is_failing=any(one.aof_is_failing for one in told),
        aof_bytes=sum(one.aof_bytes for one in told),
        clock_offset_s=max((one.clock_offset_s for one in told), key=abs),
        log_difference=difference,
    )


def differences(durable: Sequence[int], heads: Sequence[int], last: Sequence[int]) -> dict[int, int]:
    """By how many batches each of Valkey's heads is off the log's: negative when it is behind, 0 when it agrees.

    `durable` is what the log held before `heads` were read, so Valkey can only be ahead of it, by batches under way at
    this gateway or another. A batch under way at the last look, whose heads were `last`, is in the log by now.
    """
    return {
        partition: min(0, head - low) or max(0, earlier - low)
        for partition, (low, head, earlier) in enumerate(zip(durable, heads, last, strict=True))
    }


def _disk(log_file: Path) -> DiskSeen | None:
    try:
        usage = shutil.disk_usage(log_file.parent)
        sizes = [file.stat().st_size for file in (log_file, Path(f"{log_file}-wal")) if file.exists()]
        return DiskSeen(usage.free, usage.total, sum(sizes) if sizes else None)
    except OSError:
        return None
