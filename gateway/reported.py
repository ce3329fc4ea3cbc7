"""What the control partition says already of redemption ids that took effect twice."""

from collections.abc import Sequence

from eventstore.events import IdReused, decode_control
from eventstore.log import CONTROL, EventLog
from gateway.control import READ_BATCHES


class Reported:
    """What the control partition says of reused ids, up to its batch `seq`."""

    def __init__(self, log: EventLog) -> None:
        self.seq = 0
        self._log = log
        self._places: dict[bytes, set[tuple[int, int, int]]] = {}

    async def catch_up(self) -> None:
        """Raises LogDamaged, LogFailed."""
        while batches := await self._log.read(CONTROL, self.seq + 1, READ_BATCHES):
            for batch in batches:
                for event in decode_control(batch.payload).events:
                    if isinstance(event, IdReused):
                        self._places.setdefault(event.redemption_id, set()).update((event.first, event.second))
            self.seq = batches[-1].seq

    def news(self, reused: Sequence[IdReused]) -> list[IdReused]:
        """Those that name a new place. Which place of an id comes first is another matter when an index is rebuilt."""
        return [event for event in reused if {event.first, event.second} - self._places.get(event.redemption_id, set())]
