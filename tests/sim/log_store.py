"""The durable log that the gateways of the simulated world share."""

from collections.abc import Iterator, Sequence

from eventstore.events import CampaignPurged, ControlEvent, decode_control
from eventstore.log import CONTROL, EMPTY_HEAD, AppendRefused, Batch, Head, check_join
from eventstore.offline_events import OfflineConflict


class LogStore:
    """The durable log that all gateways share: nothing in it is ever lost, unless a backup is put in its place."""

    def __init__(self, partitions: int, control: Sequence[Batch]) -> None:
        self.partitions = partitions
        self.chains: dict[int, list[Batch]] = {number: [] for number in range(partitions)}
        self.chains[CONTROL] = list(control)
        self.under_way = 0  # appends that have not come to an end here, whether their gateway still waits or not

    def head(self, partition: int) -> Head:
        chain = self.chains[partition]
        return Head(chain[-1].seq, chain[-1].tip) if chain else EMPTY_HEAD

    def append(self, batches: Sequence[Batch]) -> None:
        """Compare-and-set by the shipped rule. Raises AppendRefused."""
        partition = batches[0].partition
        chain, head = self.chains[partition], self.head(partition)
        fresh = check_join(head, batches, lambda seq: chain[seq - 1].tip)
        if fresh is None:
            raise AppendRefused(partition, batches[0].seq, head)
        chain.extend(fresh)

    def conflicts(self) -> list[OfflineConflict]:
        """Those in the control partition."""
        return [event for event in self._control_events() if isinstance(event, OfflineConflict)]

    def purged(self) -> set[int]:
        """The campaigns that are."""
        return {event.campaign for event in self._control_events() if isinstance(event, CampaignPurged)}

    def _control_events(self) -> Iterator[ControlEvent]:
        return (event for batch in self.chains[CONTROL] for event in decode_control(batch.payload).events)
