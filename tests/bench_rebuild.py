"""`make bench-rebuild EVENTS=10000000`: how fast state comes back from the log, beside controls of the same minute.

A log of EVENTS redemptions with random serials (out of six times as many) in batches of 512 is written first. Then, one
after the other, wall time each, and events/s. The controls say how busy the machine was: reading the file without
looking at it, and a Lua loop in Valkey that applies one event after the other, which folding first is meant to beat.
On a busy machine only CPU an event and the ratio to a control mean something.
"""

import argparse
import asyncio
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from resource import RUSAGE_CHILDREN, RUSAGE_SELF, getrusage

import psutil
import redis

from eventstore.events import RECORD, REDEEM, encode_records
from eventstore.log import ZERO_TIP, Batch
from eventstore.snapshot import Manifest
from eventstore.sqlite_file import connect, open_reader, row_id
from eventstore.sqlite_log import batch_crc
from gateway.claims import ValkeyArbiter
from gateway.core import LOG_FILE, mint_tip
from gateway.deployment import initialise
from gateway.embedded import EmbeddedValkey
from gateway.main import connector_of_endpoint, running
from gateway.settings import Config, ConsoleConfig, MetricsConfig, ServerConfig
from gateway.snapshots import Snapshots
from gateway.valkey_server import Endpoint

BATCH = 512
AT_MS = 1_700_000_000_000
TAIL = 20  # a part in so many is left behind the snapshot, for the start that has a tail
LUA_EVENTS = 200_000  # enough for a rate
LUA_LOOP = """#!lua name=loop
redis.register_function('one_by_one', function(keys, args)
  local blob = args[1]
  for i = 1, #blob, 28 do
    local hi, lo, value = struct.unpack('>I4I4c20', blob, i)
    redis.call('HSET', '{0}7:' .. string.format('%d', hi * 67108864 + (lo - lo % 64) / 64), lo % 64, value)
  end
  return #blob / 28
end)"""


def write_log(path: Path, first_seq: int, prev: bytes, serials: list[int]) -> None:
    """Redemptions of these serials, behind the batch before `first_seq`, whose tip is `prev`."""
    rng, connection = random.Random(first_seq), connect(path, "rw")
    connection.execute("PRAGMA synchronous=OFF")
    connection.execute("BEGIN")
    seq = first_seq - 1
    for start in range(0, len(serials), BATCH):
        seq, at_ms = seq + 1, AT_MS + seq
        stamp = at_ms.to_bytes(6, "big") + b"\x70"
        records = [
            RECORD.pack(REDEEM, 0, 1, 0, 7, serial, stamp + rng.randbytes(9), rng.randbytes(16), 5, at_ms, 1)
            for serial in serials[start : start + BATCH]
        ]
        batch = Batch(0, seq, prev, mint_tip(), encode_records(records, {}, received_ms=at_ms), bytes(len(records)))
        row = (row_id(0, seq), batch.prev, batch.tip, batch.payload, batch.verdicts, batch_crc(batch))
        connection.execute("INSERT INTO batch VALUES (?,?,?,?,?,?)", row)
        prev = batch.tip
    connection.execute("COMMIT")
    connection.close()


class Table:
    """One line a measurement."""

    def __init__(self) -> None:
        self.server: psutil.Process | None = None  # a Valkey that runs on
        print(f"{'':58} {'seconds':>8} {'events/s':>12} {'CPU us/event':>13} {'in Valkey':>10}")

    async def line(self, what: str, events: int, work: Callable[[], Awaitable[object]]) -> None:
        began_s, cpu_s, there_s = time.perf_counter(), used_s(), used_there_s(self.server)
        await work()
        taken_s, cpu_s, there_s = time.perf_counter() - began_s, used_s() - cpu_s, used_there_s(self.server) - there_s
        rate, cpu_us, there_us = events / taken_s, cpu_s / events * 1e6, there_s / events * 1e6
        print(f"{what:58} {taken_s:8.2f} {rate:12,.0f} {cpu_us:13.2f} {there_us:10.2f}", flush=True)


def used_s() -> float:
    """CPU of this process and of children that have ended."""
    return sum(usage.ru_utime + usage.ru_stime for usage in map(getrusage, (RUSAGE_SELF, RUSAGE_CHILDREN)))


def used_there_s(server: psutil.Process | None) -> float:
    """CPU of a Valkey that runs on."""
    times = server.cpu_times() if server else None
    return times.user + times.system if times else 0.0


async def read_only(path: Path) -> None:
    reader, seq = open_reader(path), 0
    while batches := await reader.read(0, seq + 1, 256):
        seq = batches[-1].seq
    await reader.close()


async def lua_loop(client: redis.Redis, events: int) -> None:
    serials = random.Random(2).sample(range(6 * events), events)
    rows = [serial.to_bytes(8, "big") + bytes(20) for serial in serials]
    for start in range(0, events, 1000):
        client.fcall("one_by_one", 1, "{0}7", b"".join(rows[start : start + 1000]))


async def started(config: Config) -> None:
    async with running(config) as gateway:
        while gateway.core.troubles():  # noqa: ASYNC110 - a question, no event
            await asyncio.sleep(0.01)


async def load_external(snapshots: Snapshots, endpoint: Endpoint) -> None:
    manifest = snapshots.on_disk()
    assert isinstance(manifest, Manifest)
    arbiter = ValkeyArbiter(connector_of_endpoint(endpoint), lambda partition: None)
    await arbiter.check(0)
    folded = snapshots.folded(manifest, 0)
    assert await arbiter.rebuild(0, folded.hashes, folded.head, mint_tip())
    await arbiter.close()


async def measure(directory: Path, events: int) -> None:
    data = directory / "data"
    await initialise(data, 1, AT_MS)
    serials = random.Random(1).sample(range(6 * events), events)
    tail = events // TAIL
    write_log(data / LOG_FILE, 1, ZERO_TIP, serials[:-tail])
    config = Config(
        data_dir=str(data),
        server=ServerConfig(port=0),
        metrics=MetricsConfig(port=0),
        console=ConsoleConfig(served=False),
    )
    snapshots, table = Snapshots(config, print), Table()
    log_mib = (data / LOG_FILE).stat().st_size >> 20
    print(f"{events:,} events, {log_mib} MiB of log, load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    await table.line("control: read the file, checksums compared", events - tail, lambda: read_only(data / LOG_FILE))
    await table.line("snapshot from the log's first batch", events - tail, lambda: snapshots.write(None))
    base = snapshots.on_disk()
    assert isinstance(base, Manifest)
    await table.line("gateway starts on it and is ready", events - tail, lambda: started(config))
    head = await head_of(data)  # a gateway that started may have appended a fence
    write_log(data / LOG_FILE, head[0] + 1, head[1], serials[-tail:])
    await table.line(f"gateway starts, with a tail of {tail:,} behind it", events, lambda: started(config))
    command = [sys.executable, "-m", "gateway.cli", "rebuild", "--data", str(data)]
    run = lambda: asyncio.to_thread(subprocess.run, command, check=True, stdout=subprocess.DEVNULL)  # noqa: E731
    await table.line("tillgate rebuild (private Valkey)", events, run)
    await table.line("control: read the file, checksums compared", events, lambda: read_only(data / LOG_FILE))
    async with AsyncExitStack() as stack:
        valkey = EmbeddedValkey(directory / "external", on_report=print)
        endpoint = await valkey.start()
        stack.push_async_callback(valkey.stop)
        assert valkey.pid is not None
        table.server = psutil.Process(valkey.pid)
        client = stack.enter_context(redis.Redis(unix_socket_path=endpoint.unix_path))
        client.function_load(LUA_LOOP)
        for append_only in ("no", "yes"):
            client.flushall()
            client.config_set("appendonly", append_only)
            client.config_set("aof-load-truncated", "no")
            named = f"append-only file: {append_only}"
            lua = min(events, LUA_EVENTS)
            await table.line(f"control: Lua loop of {lua:,}, {named}", lua, lambda n=lua: lua_loop(client, n))
            client.flushall()
            load = lambda: load_external(snapshots, endpoint)  # noqa: E731
            await table.line(f"the snapshot into another Valkey, {named}", events, load)
        environment = os.environ | {"TILLGATE_VALKEY__URL": f"unix://{endpoint.unix_path}"}
        run = lambda: asyncio.to_thread(  # noqa: E731
            subprocess.run, command, check=True, stdout=subprocess.DEVNULL, env=environment
        )
        for what in ("with all that", "empty"):
            await table.line(f"tillgate rebuild (that Valkey, {what}, append-only file: yes)", events, run)
            client.flushall()


async def head_of(data: Path) -> tuple[int, bytes]:
    reader = open_reader(data / LOG_FILE)
    head = await reader.head(0)
    await reader.close()
    return head.seq, head.tip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=1_000_000)
    with tempfile.TemporaryDirectory(prefix="tillgate-") as name:
        asyncio.run(measure(Path(name), parser.parse_args().events))


if __name__ == "__main__":
    main()
