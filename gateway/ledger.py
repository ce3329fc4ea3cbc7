"""What became of a redemption id: the index says where, the log says what."""

import msgspec

from eventstore.events import IMPORT, Extra, Record, extras_of, iter_records, payload_head, record_at
from eventstore.follower import Follower
from eventstore.log import EventLog
from eventstore.projections import RedemptionIndex
from eventstore.vouchers import Entry
from gateway.ids import RecentIds


class Found(msgspec.Struct, frozen=True):
    """A logged redemption or reversal: its record, the verdict byte it got, and where it stands."""

    record: Record
    verdict: int
    at_ms: int  # the gateway's clock when its batch was made
    partition: int
    seq: int
    index: int
    extra: Extra
    undone: Entry | None = None  # its reversal, if there was one


class Ledger:
    """Looks up ids, caught up to everything durable when the question came."""

    def __init__(self, log: EventLog, follower: Follower, index: RedemptionIndex) -> None:
        self._log, self._follower, self._index = log, follower, index

    async def find(self, redemption_id: bytes) -> Found | None:
        """The place where the id took effect first, else where it was first refused; None if it was never used."""
        for partition in range(self._log.partitions):  # not what our lanes know: another gateway may have logged it
            await self._follower.wait_until(partition, (await self._log.head(partition)).seq)
        place = await self._index.find(redemption_id)
        if place is None:
            return None
        partition, seq, index = place
        batch = (await self._log.read(partition, seq, 1))[0]
        _, _, at_ms = payload_head(batch.payload)
        record = record_at(batch.payload, index)
        extra = extras_of(batch.payload).get(index, Extra())
        return Found(record, batch.verdicts[index], at_ms, partition, seq, index, extra)

    async def claim_id_of(self, redemption_id: bytes) -> bytes | None:
        """What this id stands for in the log; None if it was never used for a voucher."""
        found = await self.find(redemption_id)
        return found.record.claim_id if found and found.record.campaign else None


RECENT_BATCHES = 256  # read back at start, per partition: what retries of the last minutes may ask for


async def recent_ids(log: EventLog, now_ms: int) -> RecentIds:
    """The ids of the newest batches in memory; older ones are looked up in the index."""
    newest = []
    floor_ms = 0
    for partition in range(log.partitions):
        head = await log.head(partition)
        first_seq = max(1, head.seq - RECENT_BATCHES + 1)
        batches = await log.read(partition, first_seq, RECENT_BATCHES) if head.seq else []
        if first_seq > 1:
            floor_ms = max(floor_ms, payload_head(batches[0].payload)[2])
        newest += batches
    recent = RecentIds(floor_ms)
    for batch in newest:
        for record in iter_records(batch.payload):
            if record.op != IMPORT and record.campaign:
                recent.put(record.redemption_id, record.claim_id, now_ms)
    return recent
