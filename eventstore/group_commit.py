"""Appends to a log that lives on a server: a queue and a writer for each partition, whatever the server is.

Everything that waits for a partition and hangs together as one chain is written at once; while that is under way
further runs queue up and share the next write. That is the group commit of a partition. A run whose place is not plain,
because somebody else moved the head or an answer got lost, is judged alone by the backend.
"""

import asyncio
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Protocol

from eventstore.log import (
    AppendRefused,
    Batch,
    LogDamaged,
    LogFailed,
    LogLost,
    is_chain,
    run_partition,
)

APPENDS_WAITING_MAX = 4096  # as many as the SQLite log takes; beyond it the callers wait their turn, in order
COMMIT_BYTES_MAX = 4 << 20  # about 40 ms of writing: what the last caller of a commit waits for its neighbours


class Backend(Protocol):
    """What a server can do with a run of batches of one partition."""

    async def join(self, partition: int, batches: Sequence[Batch]) -> bool:
        """The compare-and-set: whether the chain, all of it, is durable now behind its predecessor.

        Raises LogLost, LogFailed, LogDamaged.
        """
        ...

    async def judge(self, partition: int, batches: Sequence[Batch]) -> AppendRefused | None:
        """What becomes of one run that did not plainly join; None: it is durable. Raises as `join`."""
        ...


class _Run:
    """An append that waits."""

    __slots__ = ("batches", "bytes", "outcome")

    def __init__(self, batches: Sequence[Batch], outcome: asyncio.Future[None]) -> None:
        self.batches, self.outcome = batches, outcome
        self.bytes = sum(len(batch.payload) for batch in batches)

    def settle(self, error: Exception | None) -> None:
        if self.outcome.done():  # its caller was cancelled
            return
        if error is None:
            self.outcome.set_result(None)
        else:
            self.outcome.set_exception(error)


class GroupCommit:
    """The queues of all partitions, and the tasks that empty them."""

    def __init__(self, backend: Backend, partitions: Iterable[int], batches_max: int) -> None:
        """`batches_max`: in one commit of the backend; a run by itself may have more."""
        self._backend, self._batches_max = backend, batches_max
        self._queues: dict[int, deque[_Run]] = {number: deque() for number in partitions}
        self._writing: dict[int, asyncio.Task[None]] = {}
        self._room = asyncio.Semaphore(APPENDS_WAITING_MAX)
        self._closed = False

    async def append(self, batches: Sequence[Batch]) -> None:
        """Returns when they are durable. Raises AppendRefused, LogLost, LogFailed, LogDamaged.

        A cancelled one may still take effect.
        """
        if not batches:
            return
        partition = run_partition(batches)
        assert partition in self._queues, f"partition {partition}"
        assert not self._closed, "append after close"
        await self._room.acquire()
        loop = asyncio.get_running_loop()
        run = _Run(batches, loop.create_future())
        self._queues[partition].append(run)
        if partition not in self._writing:
            self._writing[partition] = loop.create_task(self._write(partition))
        try:
            await run.outcome
        finally:
            self._room.release()

    async def close(self) -> None:
        """Write what waits."""
        self._closed = True
        while self._writing:
            await asyncio.wait(self._writing.values())

    async def _write(self, partition: int) -> None:
        queue = self._queues[partition]
        taken: list[_Run] = []
        try:
            while queue:
                taken = _hanging_together(queue, self._batches_max)
                await self._commit(partition, taken)
        finally:
            del self._writing[partition]
            for run in (*taken, *queue):  # none, unless this task ended by a fault of its own
                run.settle(LogFailed("the log writer ended by a fault of its own"))

    async def _commit(self, partition: int, runs: Sequence[_Run]) -> None:
        try:
            batches = [batch for run in runs for batch in run.batches]
            if is_chain(batches) and await self._backend.join(partition, batches):
                outcomes: list[AppendRefused | None] = [None] * len(runs)
            else:
                outcomes = [await self._backend.judge(partition, run.batches) for run in runs]
        except (LogLost, LogFailed, LogDamaged) as error:
            for run in runs:
                run.settle(error)
            return
        for run, outcome in zip(runs, outcomes, strict=True):
            run.settle(outcome)


def _hanging_together(queue: deque[_Run], batches_max: int) -> list[_Run]:
    """The runs at the front that follow each other, at least one; they leave the queue."""
    taken = [queue.popleft()]
    size, count = taken[0].bytes, len(taken[0].batches)
    while queue and size < COMMIT_BYTES_MAX and count + len(queue[0].batches) <= batches_max:
        last, following = taken[-1].batches[-1], queue[0].batches[0]
        if (following.seq, following.prev) != (last.seq + 1, last.tip):
            break
        size += queue[0].bytes
        count += len(queue[0].batches)
        taken.append(queue.popleft())
    return taken
