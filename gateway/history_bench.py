"""A long history, written quickly: redemptions straight into the log of a deployment that no gateway serves.

`python -m gateway.history_bench DIRECTORY --events N` appends N redemptions of the vouchers FIRST to
FIRST + N - 1 of one campaign, each once and in scattered order, in batches of BATCH. The records are what a
gateway would have written; only nobody asked Valkey, so the next start finds it behind the log.

A block of records is made column by column, with strided slices, because 64 bytes a record field by field take ten
times as long.
"""

import argparse
import asyncio
import math
import os
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from eventstore.events import (
    BATCH_FORMAT,
    ENTRY_SCANNED,
    HEADER,
    KIND_VOUCHERS,
    RECORD,
    RECORD_BYTES,
    REDEEM,
    Control,
    ControlEvent,
    TerminalEnrolled,
    TerminalOffered,
    encode_control,
)
from eventstore.log import CONTROL, TIP_BYTES, Batch, Head
from eventstore.sqlite_log import SqliteLog
from gateway.core import LOG_FILE

PARTITION = 0  # a bench has one
BLOCK_RECORDS = 65_536  # made at once: 4 MiB
ENROLLED_AT_ONCE = 500  # terminals a control batch: 60 kB
RUN_BATCHES = 512  # appended at once: about 2 MiB, one transaction
DAY_MS = 86_400_000  # what a history spans: ids all of one moment would look like ids dated ahead
GOLDEN = 0.6180339887498949  # of a range: steps of about this size visit it all over


class Written(msgspec.Struct):
    """What was written, and what it takes on disk once the write-ahead log is in the file."""

    events: int
    batches: int
    seconds: float
    log_bytes: int


def scattered(count: int) -> Iterator[int]:
    """Every number below `count` once, neighbours far apart: multiples of a step that shares no divisor with it."""
    step = max(1, round(count * GOLDEN))
    while math.gcd(step, count) != 1:
        step += 1
    return (number * step % count for number in range(count))


def blocks(campaign: int, first: int, count: int, at_ms: int) -> Iterator[tuple[int, bytes]]:
    """When (over DAY_MS from `at_ms` on), and BLOCK_RECORDS redemptions of then; ids are UUIDv7s of that moment."""
    offsets = scattered(count)
    for start in range(0, count, BLOCK_RECORDS):
        size = min(BLOCK_RECORDS, count - start)
        stamp = at_ms + start * DAY_MS // count
        sample = RECORD.pack(REDEEM, 0, ENTRY_SCANNED, 0, campaign, 0, _id_at(stamp), bytes(16), 1, stamp, 1)
        block = bytearray(sample * size)
        serials = struct.pack(f">{size}Q", *(first + next(offsets) for _ in range(size)))
        chance = os.urandom(25 * size)
        for at in range(8):
            block[8 + at :: RECORD_BYTES] = serials[at::8]
        for at in range(9):  # of the redemption id: behind time, version and variant
            block[16 + 7 + at :: RECORD_BYTES] = chance[at::25]
        for at in range(16):
            block[32 + at :: RECORD_BYTES] = chance[9 + at :: 25]
        yield stamp, bytes(block)


def _id_at(at_ms: int) -> bytes:
    return at_ms.to_bytes(6, "big") + b"\x70" + bytes(9)


def batches(head: Head, campaign: int, first: int, count: int, per_batch: int, at_ms: int) -> Iterator[Batch]:
    """The history as the chain's next batches."""
    assert BLOCK_RECORDS % per_batch == 0, "a block is a whole number of batches"
    seq, prev = head.seq, head.tip
    for stamp, block in blocks(campaign, first, count, at_ms):
        for start in range(0, len(block), per_batch * RECORD_BYTES):
            records = block[start : start + per_batch * RECORD_BYTES]
            size = len(records) // RECORD_BYTES
            header = HEADER.pack(BATCH_FORMAT, KIND_VOUCHERS, 0, size, stamp)
            seq, tip = seq + 1, os.urandom(TIP_BYTES)
            yield Batch(PARTITION, seq, prev, tip, header + records, bytes(size))
            prev = tip


async def write(directory: Path, campaign: int, first: int, count: int, per_batch: int) -> Written:
    """Append the history to a deployment's log. Raises LogLocked while a gateway has it."""
    started_s, path = time.perf_counter(), directory / LOG_FILE
    log = SqliteLog.open(path)
    written, run = 0, list[Batch]()
    head = await log.head(PARTITION)
    for batch in batches(head, campaign, first, count, per_batch, time.time_ns() // 1_000_000 - 2 * DAY_MS):
        run.append(batch)
        if len(run) == RUN_BATCHES:
            await log.append(run)
            written, run = written + len(run), []
    if run:
        await log.append(run)
    await log.close()  # the last connection: SQLite copies the write-ahead log into the file
    return Written(count, written + len(run), time.perf_counter() - started_s, path.stat().st_size)


async def enrol(directory: Path, store: str, terminals: int, public_key: bytes) -> None:
    """Enrol terminals 1 to `terminals` of a store, all with one device key; there are none yet. Raises LogLocked."""
    log = SqliteLog.open(directory / LOG_FILE)
    head, now_ms = await log.head(CONTROL), time.time_ns() // 1_000_000
    for start in range(1, 1 + terminals, ENROLLED_AT_ONCE):
        events: list[ControlEvent] = []
        for number in range(start, min(start + ENROLLED_AT_ONCE, 1 + terminals)):
            token_hash, label = number.to_bytes(32, "big"), f"till {number}"
            offered = TerminalOffered(
                terminal=number, store=store, label=label, token_hash=token_hash, expires_ms=now_ms
            )
            events += [offered, TerminalEnrolled(terminal=number, public_key=public_key)]
        payload = encode_control(Control("bench", tuple(events)), at_ms=now_ms)
        batch = Batch(CONTROL, head.seq + 1, head.tip, os.urandom(TIP_BYTES), payload, b"")
        await log.append([batch])
        head = Head(batch.seq, batch.tip)
    await log.close()


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m gateway.history_bench", description="Write a long history.")
    parser.add_argument("directory", type=Path, help="of the deployment")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--events", type=int)
    what.add_argument("--terminals", type=int, help="enrolled, with the key of --public-key, in --store")
    parser.add_argument("--store")
    parser.add_argument("--public-key", type=bytes.fromhex)
    parser.add_argument("--campaign", type=int, default=1)
    parser.add_argument("--first", type=int, default=1, help="first serial")
    parser.add_argument("--batch", type=int, default=64, help="records a batch, a power of two")
    asked = parser.parse_args()
    if asked.terminals:
        asyncio.run(enrol(asked.directory, asked.store, asked.terminals, asked.public_key))
        return
    made = asyncio.run(write(asked.directory, asked.campaign, asked.first, asked.events, asked.batch))
    print(msgspec.json.encode(made).decode())


if __name__ == "__main__":
    main()
