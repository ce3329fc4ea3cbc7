"""The work of a snapshot, dealt out to worker processes: which parts, how many at once, what becomes of them."""

import asyncio
import os
import sys
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from eventstore.finished import SLICES_MAX
from eventstore.log import EMPTY_HEAD, Head, LogDamaged
from eventstore.snapshot import Manifest, Section
from eventstore.snapshot_file import PART_SUFFIX
from gateway.settings import Config
from gateway.snapshot_worker import EXIT_BASE, EXIT_LOG, Folded, Job, Part

WORKERS_MAX = 4
# 47 to 54 bytes each in a worker, however serials lie, measured, and 90 MiB besides: half a GiB. A slice is told by
# bits 8 to 15 of the serial, so small campaigns (256 vouchers) all lie in the first, which more slices make no smaller.
SLICE_RECORDS = 8_000_000
FEW_RECORDS = 100_000  # folded in less time than a second worker takes to start

Advance = Callable[[int], None]


class SnapshotFailed(Exception):
    """No snapshot was made; says why. What was there before is as it was."""


def slices_for(records: int) -> int:
    """Into how many slices so many records are cut; a snapshot on top of another keeps its number."""
    at_once = _cores() if records > FEW_RECORDS else 1
    return min(max(at_once, records // SLICE_RECORDS), SLICES_MAX)


def _cores() -> int:
    return min(WORKERS_MAX, len(os.sched_getaffinity(0)))


def parts_of(
    rows: Path, heads: dict[int, Head], base: Manifest | None, slices: int, purged: Sequence[int]
) -> list[Part]:
    """The work that makes the file `rows`, every slice of every partition."""
    parts = []
    for partition, head in sorted(heads.items()):
        sections: dict[int, Section] = {s.slice: s for s in base.rows_of(partition)} if base else {}
        after = base.head(partition) if base else EMPTY_HEAD
        for number in range(slices):
            part = Part(
                partition=partition,
                slice=number,
                slices=slices,
                upto=(head.seq, head.tip),
                out=f"{rows}.{partition}.{number}{PART_SUFFIX}",
                after=(after.seq, after.tip),
            )
            if base is not None:
                part.base, part.base_section = str(rows.with_name(base.file)), sections[number]
                part.base_is_clean = set(base.purged) == set(purged)
            parts.append(part)
    return parts


async def fold_parts(config: Config, parts: list[Part], purged: list[int], nice: int, advance: Advance) -> list[Folded]:
    """What became of each part, in order. Raises SnapshotFailed, LogDamaged, OSError."""
    workers = min(_cores(), len(parts))
    slices, read = parts[0].slices, 0

    def on_read(batches: int) -> None:
        nonlocal read
        before, read = read, read + batches
        advance(read // slices - before // slices)  # every batch is read once for each slice

    jobs = [Job(config, parts[number::workers], purged, nice) for number in range(workers)]
    shares = await _together([_work(job, on_read) for job in jobs])
    folded: list[Folded] = [shares[number % workers][number // workers] for number in range(len(parts))]
    return folded


async def _work(job: Job, on_read: Callable[[int], None]) -> list[Folded]:
    """One worker. Raises LogDamaged, SnapshotFailed."""
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "gateway.snapshot_worker"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        limit=16 << 20,  # the last line names every campaign once for each slice
    )
    assert child.stdin is not None
    assert child.stdout is not None
    assert child.stderr is not None
    try:
        child.stdin.write(msgspec.json.encode(job) + b"\n")
        child.stdin.close()
        last = b""
        async for line in child.stdout:
            if line[:1] == b"[":
                last = line
            else:
                on_read(int(line))
        said = (await child.stderr.read()).decode("utf-8", "replace").strip()
        code = await child.wait()
    finally:
        if child.returncode is None:
            with suppress(ProcessLookupError):
                child.kill()
            await child.wait()
    if code == EXIT_LOG:
        raise LogDamaged(job.parts[0].partition, 0, said)
    if code:
        what = "the snapshot it builds on is damaged: " if code == EXIT_BASE else ""
        raise SnapshotFailed(f"{what}{said or f'a worker ended with {code}'}")
    return msgspec.json.decode(last, type=list[Folded])


async def _together(works: Sequence[Coroutine[Any, Any, list[Folded]]]) -> list[list[Folded]]:
    """All of them, or the first failure and none."""
    tasks = [asyncio.create_task(work) for work in works]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
