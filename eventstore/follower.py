"""Keeps one projection up with the log: reads from its checkpoint, applies, waits for the head to move."""

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Protocol

from eventstore.log import EMPTY_HEAD, Batch, Head, LogDamaged, LogLost, LogReader

FOLLOW_BATCHES = 128  # one read, one transaction of the projection: about 8,000 records, 10 ms of its thread
OFFERED_MAX = 512  # batches in memory waiting to be followed: two rounds; what is beyond is read from the log again
LINGER_SECONDS = 0.1  # what moved is gathered this long: fewer, larger transactions; a waiting caller cuts it short
RETURN_SECONDS_MAX = 10.0  # a Valkey that still has what a log lost gives it back when its partition recovers
POLL_SECONDS = 0.25  # other holders of the log do not wake us


class Projection(Protocol):
    """A read model computed only from the log."""

    async def apply(self, partition: int, batches: Sequence[Batch]) -> None:
        """Apply the next batches of a partition and save the position with the output, both or neither."""
        ...

    async def reset(self) -> None:
        """Forget everything: what was built is not of this log, and will be built again from its start."""
        ...


class FollowerEnded(Exception):
    """The follower stopped (or failed) before the awaited position was applied."""


class Follower:
    """Applies the partitions named in `checkpoint`, each from its position there (`EMPTY_HEAD`: from the start)."""

    def __init__(
        self,
        log: LogReader,
        projection: Projection,
        checkpoint: Mapping[int, Head],
        on_damage: Callable[[LogDamaged], None] | None = None,
        on_read: Callable[[Batch], None] | None = None,
    ) -> None:
        """`on_damage` is told of a damaged partition, which is then left where it is; without it, `run` raises.

        A log that ends before the checkpoint is damage to those who are told of it; to others it is another log.

        `on_read` is told of every batch that was read from the log, not offered: others append to it, too.
        """
        self._log, self._projection = log, projection
        self._checkpoint = checkpoint
        self._applied = dict.fromkeys(checkpoint, EMPTY_HEAD)  # until `run` has found the checkpoint in the log
        self._offered: dict[int, deque[Batch]] = {partition: deque() for partition in checkpoint}
        self._moved, self._urgent = asyncio.Event(), asyncio.Event()
        self._round_over = asyncio.Event()  # a new one each round
        self._on_damage, self._on_read = on_damage, on_read
        self._damaged: dict[int, LogDamaged] = {}
        self._verified = False  # whether what the projection holds is known to be of this log
        self._ended = False

    def applied(self, partition: int) -> Head:
        """The position the projection has applied; `EMPTY_HEAD` until its checkpoint was found in the log."""
        return self._applied[partition]

    def offer(self, batch: Batch) -> None:
        """A batch that just became durable: following it from memory saves reading it back. Gaps are read."""
        offered = self._offered[batch.partition]
        if offered and (batch.seq != offered[-1].seq + 1 or len(offered) >= OFFERED_MAX):
            offered.clear()
        offered.append(batch)
        self._moved.set()

    async def wait_until(self, partition: int, seq: int) -> None:
        """Return once batch `seq` is applied; for 0, once the projection is known to be of this log.

        A batch that never comes is waited for for ever. Raises FollowerEnded, and LogDamaged where the log is damaged
        before it.
        """
        if not self._has(partition, seq):
            self._urgent.set()
            self._moved.set()
        while not self._has(partition, seq):
            if partition in self._damaged:
                raise self._damaged[partition]
            if self._ended:
                raise FollowerEnded(f"partition {partition}, batch {seq} is not applied")
            await self._round_over.wait()

    def _has(self, partition: int, seq: int) -> bool:
        return self._verified and self._applied[partition].seq >= seq

    async def run(self) -> None:
        """Follow until cancelled. Raises LogDamaged, LogFailed, and whatever the projection raises."""
        try:
            while True:
                with suppress(LogLost):  # a shared log comes back; whoever waits, waits
                    await self._follow()
                await self._pause()
        finally:
            self._ended = True
            self._round_over.set()

    async def _follow(self) -> None:
        """Everything there is now."""
        if not self._verified:
            if await self._built_from_this_log():
                self._applied.update(self._checkpoint)
            else:
                await self._projection.reset()
            self._verified = True
        while await self._round():
            pass

    async def _built_from_this_log(self) -> bool:
        for partition, applied in self._checkpoint.items():
            if applied.seq == 0:
                continue
            try:
                held = await self._log.read(partition, applied.seq, 1)
            except LogDamaged as damage:
                self._leave(partition, damage)
                continue
            if not held and self._on_damage is not None:
                held = await self._given_back(partition, applied.seq)
                if not held:  # an older log: who tells an operator so must still know it after the next start
                    self._leave(
                        partition, LogDamaged(partition, applied.seq, "the log had it once, and ends before it")
                    )
                    continue
            if not held or held[0].tip != applied.tip:
                return False
        return True

    async def _given_back(self, partition: int, seq: int) -> list[Batch]:
        """The batch, if it comes within RETURN_SECONDS_MAX."""
        waited_s, held = 0.0, list[Batch]()
        while not held and waited_s < RETURN_SECONDS_MAX:
            await asyncio.sleep(POLL_SECONDS)
            waited_s += POLL_SECONDS
            held = await self._log.read(partition, seq, 1)
        return held

    async def _round(self) -> bool:
        """One read of each partition; True if there is certainly more."""
        self._moved.clear()
        self._urgent.clear()
        more = False
        for partition in self._applied:
            if partition in self._damaged:
                continue
            try:
                more = await self._advance(partition) or more
            except LogDamaged as damage:
                self._leave(partition, damage)
        over, self._round_over = self._round_over, asyncio.Event()
        over.set()
        return more

    def _leave(self, partition: int, damage: LogDamaged) -> None:
        if self._on_damage is None:
            raise damage
        self._damaged[partition] = damage
        self._on_damage(damage)

    async def _advance(self, partition: int) -> bool:
        applied = self._applied[partition]
        batches = self._from_memory(partition, applied.seq + 1)
        batches = batches or await self._read(partition, applied.seq + 1)
        if not batches:
            return False
        if batches[0].prev != applied.tip:
            raise LogDamaged(partition, batches[0].seq, f"does not follow batch {applied.seq}")
        await self._projection.apply(partition, batches)
        self._applied[partition] = Head(batches[-1].seq, batches[-1].tip)
        return len(batches) == FOLLOW_BATCHES

    async def _read(self, partition: int, seq: int) -> list[Batch]:
        batches = await self._log.read(partition, seq, FOLLOW_BATCHES)
        if self._on_read is not None:
            for batch in batches:
                self._on_read(batch)
        return batches

    def _from_memory(self, partition: int, seq: int) -> list[Batch]:
        offered = self._offered[partition]
        while offered and offered[0].seq < seq:
            offered.popleft()
        if not offered or offered[0].seq > seq:
            return []
        return [offered.popleft() for _ in range(min(len(offered), FOLLOW_BATCHES))]

    async def _pause(self) -> None:
        if not self._moved.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(POLL_SECONDS):
                    await self._moved.wait()
        if not self._urgent.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(LINGER_SECONDS):
                    await self._urgent.wait()
