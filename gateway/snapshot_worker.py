"""Folds slices of the log into rows of a snapshot: `python -m gateway.snapshot_worker < job`, a process of its own.

Beside the gateway that started it, so that its answers do not wait for a fold, and several at once, each with slices of
its own. The job is one JSON line on standard input; on standard output stand lines with the number of batches read
since the line before, then one JSON line. A reader that is gone ends it, and nothing it wrote counts before that reader
says so. Exit codes: 0 done; 3 the log is damaged (its text on standard error); 4 the base is.
"""

import asyncio
import os
import sys
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from eventstore.events import APPLIED
from eventstore.log import EMPTY_HEAD, Batch, Head, LogDamaged, LogFailed, LogLost, LogReader
from eventstore.snapshot import Section, apart, rows_of
from eventstore.snapshot_file import read_section
from gateway.settings import Config
from gateway.storage import open_log_reader

if TYPE_CHECKING:
    from eventstore.bulk_fold import BulkFold

READ_BATCHES = 256  # at most 17 MB of full batches; the next page is read while one is folded
WRITE_BYTES = 1 << 20
EXIT_LOG, EXIT_BASE = 3, 4


class Part(msgspec.Struct):
    """One slice of one partition: folded from batch `after` to `upto`, on top of the hashes of `base`."""

    partition: int
    slice: int
    slices: int
    upto: tuple[int, bytes]
    out: str
    after: tuple[int, bytes] = (0, EMPTY_HEAD.tip)
    base: str = ""  # a file of rows, and where in it this slice lies
    base_section: Section | None = None
    base_is_clean: bool = True  # nothing in it has been purged since


class Job(msgspec.Struct):
    config: Config
    parts: list[Part]
    purged: list[int]
    nice: int = 0


class Folded(msgspec.Struct):
    """What became of one part."""

    section: Section  # its `start` does not count yet
    records: int
    applied: list[tuple[int, int, int, int]]  # partition, op, campaign, how many records took effect


class BaseDamaged(Exception):
    pass


async def work(job: Job) -> list[Folded]:
    """Raises LogDamaged, LogFailed, LogLost, BaseDamaged, OSError."""
    reader = await open_log_reader(job.config)
    try:
        return [await _fold(reader, part, job.purged) for part in job.parts]
    finally:
        await reader.close()


async def _fold(reader: LogReader, part: Part, purged: list[int]) -> Folded:
    from eventstore.bulk_fold import BulkFold, Slice  # and numpy, which a gateway that takes Job from here does without

    fold = BulkFold(part.partition, Slice(part.slice, part.slices), Head(*part.after), purged=purged)
    base = b""
    if part.base_section is not None:
        rows = read_section(Path(part.base), part.base_section)
        if rows is None:
            raise BaseDamaged(part.base)
        base = rows
    last = part.upto[0]
    page = _begin(reader, part.partition, fold.head.seq, last)
    while page is not None:
        batches = await page
        if not batches:
            raise LogDamaged(part.partition, fold.head.seq + 1, "the batch is missing")
        page = _begin(reader, part.partition, batches[-1].seq, last)
        await asyncio.sleep(0)  # so that it is read while we fold
        for batch in batches:
            fold.apply(batch)
        _say(str(len(batches)))
    if fold.head != Head(*part.upto):
        raise LogDamaged(part.partition, last, "another batch than before")
    return _write(fold, part, _rows(fold, base, part))


def _begin(reader: LogReader, partition: int, after: int, last: int) -> asyncio.Task[list[Batch]] | None:
    if after >= last:
        return None
    return asyncio.create_task(reader.read(partition, after + 1, min(READ_BATCHES, last - after)))


def _rows(fold: "BulkFold", base: bytes, part: Part) -> Iterator[bytes | memoryview]:
    """What the fold comes to on top of its base. Rows in which nothing happened are neither parsed nor made again."""
    found, untouched = apart(base, fold.keys() if part.base_is_clean else None)
    for key, held in found:
        fold.put(key, held)
    whole = memoryview(base)
    for start, end in untouched:
        for at in range(start, end, WRITE_BYTES):
            yield whole[at : min(end, at + WRITE_BYTES)]
    for hashes in fold.finished():
        yield rows_of(hashes)


def _write(fold: "BulkFold", part: Part, made: Iterator[bytes | memoryview]) -> Folded:
    crc = length = waiting = 0
    rows: list[bytes | memoryview] = []
    with open(os.open(part.out, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600), "wb") as file:
        for packed in made:
            rows.append(packed)
            waiting += len(packed)
            if waiting >= WRITE_BYTES:
                crc, length = _put(file.write, rows, crc, length)
                waiting = 0
        crc, length = _put(file.write, rows, crc, length)
    applied: Counter[tuple[int, int]] = Counter()
    for (op, campaign, _, verdict), n in fold.counts.items():
        if verdict == APPLIED:
            applied[op, campaign] += n
    section = Section(part.partition, part.slice, 0, length, crc)
    rows_applied = [(part.partition, op, campaign, n) for (op, campaign), n in sorted(applied.items())]
    return Folded(section, sum(fold.counts.values()), rows_applied)


def _put(write: Callable[[bytes], int], rows: list[bytes | memoryview], crc: int, length: int) -> tuple[int, int]:
    content = b"".join(rows)
    rows.clear()
    write(content)
    return zlib.crc32(content, crc), length + len(content)


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main() -> int:
    """The process."""
    job = msgspec.json.decode(sys.stdin.buffer.readline(), type=Job)
    os.nice(job.nice)
    try:
        folded = asyncio.run(work(job))
        _say(msgspec.json.encode(folded).decode())
    except BrokenPipeError:  # whoever asked is gone
        os._exit(1)
    except BaseDamaged as error:
        sys.stderr.write(f"{error}\n")
        return EXIT_BASE
    except LogDamaged as error:
        sys.stderr.write(f"{error}\n")
        return EXIT_LOG
    except (LogFailed, LogLost, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
