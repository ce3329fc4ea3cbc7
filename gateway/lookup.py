"""Reading what Valkey holds, beside the lanes: at a glance, or so that also what is not there is a fact."""

import asyncio
from collections.abc import Sequence

from eventstore.log import Head, LogDamaged, LogLost, LogReader
from gateway.claims import Arbiter
from gateway.lane import Lane, LaneState

LOGGED_WAIT_S = (0, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)  # between looks for a batch that was just claimed


class ValkeyReader:
    """Reads values of (hash key, field) pairs. What is asked for raises ArbiterLost, ArbiterRefused."""

    def __init__(self, lanes: Sequence[Lane], arbiter: Arbiter, log: LogReader) -> None:
        self._lanes, self._arbiter, self._log = lanes, arbiter, log

    async def find(self, partition: int, wanted: Sequence[tuple[bytes, bytes]]) -> tuple[list[bytes | None], bool]:
        """The values, and whether an absence among them is a fact. Only who finds nothing has to wait for the log."""
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
        if lane.state is not LaneState.ADMITTING:
            return None
        try:
            known = await self._log.head(partition)
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
        """Whether what Valkey has claimed becomes a batch of the log, as it does within milliseconds."""
        for wait_s in LOGGED_WAIT_S:
            await asyncio.sleep(wait_s)
            for batch in await self._log.read(lane.partition, head.seq, 1):
                if batch.tip == head.tip:
                    return True
                lane.recover(f"Valkey's batch {head.seq} is not the log's")
                return False
        lane.recover(f"Valkey is at batch {head.seq}, which nobody brings into the log")
        return False
