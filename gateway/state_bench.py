"""What a redeemed voucher takes: bytes of Valkey's memory, and of the log and the index on disk.

`python -m gateway.state_bench --vouchers 1000000` prints one JSON object. Valkey is a private one, told of redemptions
by the claim function itself; its memory is `used_memory` after against before, less the redis stream, which holds the
newest batches and never grows beyond its limit. A voucher that is issued takes nothing: nothing is told of it.
"""

import argparse
import asyncio
import itertools
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import hiredis
import msgspec

from eventstore.follower import FOLLOW_BATCHES
from eventstore.log import EMPTY_HEAD
from eventstore.projections import RedemptionIndex
from eventstore.sqlite_log import SqliteLog
from gateway.claim_bench import PARTITION, READ_BYTES, Caller, connected, install, packed, packed_calls
from gateway.core import INDEX_FILE, LOG_FILE
from gateway.embedded import EmbeddedValkey
from gateway.history_bench import batches, write
from gateway.valkey_server import Endpoint

SHARES = {"dense": 1, "one in 2": 2, "one in 6": 6, "one in 64": 64}  # of the issued vouchers; the origin's is one in 6
CALL_RECORDS = 512
BATCHES = (1, 4, 64, 512)  # scans a batch
LOG_EVENTS_MAX = 20_000  # for a batch of one: the figure is the same from a thousand on, and this takes a second
INDEX_EVENTS_MAX = 200_000
CAMPAIGN = 1


class Bytes(msgspec.Struct):
    """Bytes a redeemed voucher, or a scan."""

    vouchers: int
    valkey: dict[str, float]  # by the share of issued vouchers that are redeemed
    log: dict[str, float]  # by scans a batch
    index: float
    index_us: float  # wall time of indexing one, by itself


class _Asker:
    """A connection that asks one thing at a time."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._connection, self._reader = connected(endpoint), hiredis.Reader()

    def ask(self, *call: Any) -> Any:
        """The reply. Raises hiredis.ReplyError."""
        self._connection.sendall(packed(*call))
        while (reply := self._reader.gets()) is False:
            self._reader.feed(self._connection.recv(READ_BYTES))
        if isinstance(reply, hiredis.ReplyError):
            raise reply
        return reply

    def used_bytes(self) -> int:
        """What Valkey has allocated."""
        told: bytes = self.ask("INFO", "memory")
        used = next(line for line in told.split(b"\r\n") if line.startswith(b"used_memory:"))
        return int(used.partition(b":")[2])


def grown(endpoint: Endpoint, serials: Sequence[int], rng: Random) -> float:
    """Bytes a voucher that Valkey's memory grows by when these are redeemed; it is empty before."""
    asker = _Asker(endpoint)
    asker.ask("FLUSHALL", "SYNC")
    before = asker.used_bytes()
    caller = Caller(endpoint, packed_calls(serials, CALL_RECORDS, rng))
    caller.run(float("inf"))
    caller.finish()
    assert caller.accepted == caller.records, "a voucher was redeemed twice"
    stream: int = asker.ask("MEMORY", "USAGE", b"{%d}log" % PARTITION, "SAMPLES", "0")
    return (asker.used_bytes() - before - stream) / caller.records


async def log_bytes(directory: Path, events: int, per_batch: int) -> float:
    """Bytes of the log's file a scan, the write-ahead log copied into it; `directory` holds an empty log."""
    written = await write(directory, CAMPAIGN, 1, events, per_batch)
    return written.log_bytes / events


def _empty_log(directory: Path) -> Path:
    directory.mkdir()
    SqliteLog.create(directory / LOG_FILE, 1, "bench", 1)
    return directory


async def index_cost(directory: Path, events: int) -> tuple[float, float]:
    """Bytes of index.db, and microseconds, a scan."""
    path, spent_s = directory / INDEX_FILE, 0.0
    index = RedemptionIndex.open(path, 1, "bench")
    history = batches(EMPTY_HEAD, CAMPAIGN, 1, events, 64, time.time_ns() // 1_000_000)
    while run := list(itertools.islice(history, FOLLOW_BATCHES)):
        started_s = time.perf_counter()
        await index.apply(PARTITION, run)
        spent_s += time.perf_counter() - started_s
    await index.close()
    return path.stat().st_size / events, spent_s / events * 1e6


async def _measured(vouchers: int) -> Bytes:
    rng, valkey = Random(1), {}  # noqa: S311 - load, not secrets
    with tempfile.TemporaryDirectory(prefix="tillgate-") as name:
        directory = Path(name)
        embedded = EmbeddedValkey(directory, on_report=lambda text: print(text, file=sys.stderr))
        endpoint = await embedded.start()
        try:
            await asyncio.to_thread(install, endpoint)
            for share, one_in in SHARES.items():
                serials = rng.sample(range(vouchers * one_in), vouchers)
                valkey[share] = await asyncio.to_thread(grown, endpoint, serials, rng)
        finally:
            await embedded.stop()
        log = {}
        for size in BATCHES:
            events = min(vouchers, LOG_EVENTS_MAX * size)
            log[str(size)] = await log_bytes(_empty_log(directory / f"log-{size}"), events, size)
        index, index_us = await index_cost(directory, min(vouchers, INDEX_EVENTS_MAX))
    return Bytes(vouchers, valkey, log, index, index_us)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m gateway.state_bench", description="Measure what a voucher takes.")
    parser.add_argument("--vouchers", type=int, default=1_000_000)
    asked = parser.parse_args()
    print(msgspec.json.encode(asyncio.run(_measured(asked.vouchers))).decode())


if __name__ == "__main__":
    main()
