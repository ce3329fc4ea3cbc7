"""Reading what Valkey holds, beside the lanes: at a glance, or so that also what is not there is a fact."""

import asyncio
from collections.abc import Sequence

from eventstore.log import Batch, Head, LogDamaged, LogLost, LogReader
from gateway.claims import Arbiter
from gateway.lane import Lane, LaneState

LOGGED_S_MAX = 2.0  # a batch is logged milliseconds after its claim; of what takes this long nobody may know any more
LOOK_S = (0.005, 0.2)  # the first pause between two looks for it, twice as long each time, and the longest


class ValkeyReader:
    """Reads values of (hash key, field) pairs. All of it raises ArbiterLost, ArbiterRefused, LogFailed."""

    def __init__(self, lanes: Sequence[Lane], arbiter: Arbiter, log: LogReader) -> None:
        self._lanes, self._arbiter, self._log = lanes, arbiter, log

    async def find(self, partition: int, wanted: Sequence[tuple[bytes, bytes]]) -> tuple[Sequence[bytes | None], bool]:
        """The values, and whether an absence among them is a fact. Only who finds nothing has to wait for the log."""
        if self._lanes[partition].state is not LaneState.ADMITTING:
            return [None] * len(wanted), False
        _, values = await self._arbiter.lookup(partition, wanted)
        absent = [index for index, value in enumerate(values) if value is None]
        if not absent:
            return values, True
        again = await self.read(partition, [wanted[index] for index in absent])
        if again is None:
            return values, False
        for index, value in zip(absent, again, strict=True):
            values[index] = value
        return values, True

    async def read(self, partition: int, wanted: Sequence[tuple[bytes, bytes]]) -> list[bytes | None] | None:
        """The values, absences too, as the log has them at a moment of this call; None: nobody can tell now.

        They were read beside a head that is a batch of the log, and no older than the log was when the call came. What
        the lane knows of the log would not do: others append to it, and a Valkey that is emptied has no head at all.
        """
        lane = self._lanes[partition]
        try:
            known = await self._log.head(partition)
            if lane.state is not LaneState.ADMITTING:  # what it holds then may be of a file that nobody believes
                return None
            head, values = await self._arbiter.lookup(partition, wanted)
            if head.seq < known.seq:
                lane.recover(f"Valkey is at batch {head.seq}, the log at {known.seq}")
            elif head == known or await self._is_logged(lane, head):
                return values
        except LogLost:
            pass
        except LogDamaged as damage:
            lane.halt(f"{damage}: restore the log from its backup")
        return None

    async def _is_logged(self, lane: Lane, head: Head) -> bool:
        """Whether this batch, which Valkey has claimed, becomes one of the log."""
        logged: list[Batch] = []
        try:
            async with asyncio.timeout(LOGGED_S_MAX):
                pause_s, longest_s = LOOK_S
                while not (logged := await self._log.read(lane.partition, head.seq, 1)):
                    await asyncio.sleep(pause_s)
                    pause_s = min(2 * pause_s, longest_s)
        except TimeoutError:
            pass
        if logged and logged[0].tip == head.tip:
            return True
        # Meanwhile others may have mended it; and what the lane has under way, it sees itself when that is not logged.
        if not lane.under_way and await self._arbiter.head(lane.partition) == head:
            lane.recover(f"Valkey is at batch {head.seq}, which is not in the log")
        return False
