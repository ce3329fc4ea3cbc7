"""What became of a redemption id: the index says where, the log says what."""

from collections.abc import Sequence

import msgspec

from eventstore.events import APPLIED, IMPORT, REVERSE, Extra, Record, extras_of, iter_records, payload_head, record_at
from eventstore.follower import Follower
from eventstore.log import Batch, EventLog, LogDamaged, LogLost
from eventstore.projections import Place, RedemptionIndex
from eventstore.vouchers import REVERSED, Entry
from gateway.ids import RecentIds

AHEAD_MS_MAX = 86_400_000  # a clock more than a day ahead is noticed by people
AHEAD_IDS_MAX = 10_000  # more ids from the future than this, and all up to the newest of them are looked up
FOUND_TOGETHER = 128  # looked up at a time: each comes with its record
RECENT_BATCHES = 256  # read back at start, per partition: what retries of the last minutes may ask for
SEARCH_BATCHES = 256  # read at a time: at most about 20 MB


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
        await self._caught_up()
        place = await self._index.find(redemption_id)
        if place is None:
            return None
        return await self._at(place)

    async def find_many(self, redemption_ids: Sequence[bytes]) -> dict[bytes, Found]:
        """Those of these ids that were ever used, looked up together."""
        await self._caught_up()
        places = await self._index.find_many(redemption_ids)
        return {redemption_id: await self._at(place) for redemption_id, place in places.items()}

    async def _at(self, place: Place) -> Found:
        partition, seq, index = place
        batch = (await self._log.read(partition, seq, 1))[0]
        _, _, at_ms = payload_head(batch.payload)
        record = record_at(batch.payload, index)
        extra = extras_of(batch.payload).get(index, Extra())
        return Found(record, batch.verdicts[index], at_ms, partition, seq, index, extra)

    async def _caught_up(self) -> None:
        for partition in range(self._log.partitions):  # not what our lanes know: another gateway may have logged it
            await self._follower.wait_until(partition, (await self._log.head(partition)).seq)

    async def holds(self, partition: int, seq: int) -> bool:
        """Whether this batch is durable: Valkey may tell of later ones, of which nobody knows whether they will be."""
        return (await self._log.head(partition)).seq >= seq

    async def undone_by(self, partition: int, reversal: Entry) -> Found | None:
        """The redemption that the reversal behind this entry undid, as it was when it took effect."""
        for batch in await self._log.read(partition, reversal.seq, 1):
            extras = extras_of(batch.payload)
            for index, record in enumerate(iter_records(batch.payload)):
                target_id = extras.get(index, Extra()).target_id
                if (record.op, record.claim_id) == (REVERSE, reversal.claim_id) and target_id is not None:
                    return await self.find(target_id)
        return None

    async def reversal_of(self, found: Found) -> Entry | None:
        """The reversal of a redemption, searched for in the log behind it: slow, for vouchers Valkey has forgotten."""
        seq, head = found.seq, await self._log.head(found.partition)
        while seq < head.seq:
            for batch in await self._log.read(found.partition, seq + 1, SEARCH_BATCHES):
                seq = batch.seq
                if found.record.claim_id in batch.payload and (entry := _reversal_in(batch, found.record.claim_id)):
                    return entry
        return None

    async def ids_dated(self, index: RedemptionIndex, after_ms: int, until_ms: int) -> list[bytes]:
        """Logged UUIDv7 ids minted in (after_ms, until_ms], oldest first, at most AHEAD_IDS_MAX."""
        await self._caught_up()
        return await index.ids_dated(after_ms, until_ms, AHEAD_IDS_MAX)

    async def claim_id_of(self, redemption_id: bytes) -> bytes | None:
        """What this id stands for in the log; None if it was never used for a voucher."""
        found = await self.find(redemption_id)
        return found.record.claim_id if found and found.record.campaign else None


def _reversal_in(batch: Batch, claim_id: bytes) -> Entry | None:
    _, _, at_ms = payload_head(batch.payload)
    for record, verdict in zip(iter_records(batch.payload), batch.verdicts, strict=True):
        if (record.op, record.claim_id, verdict) == (REVERSE, claim_id, APPLIED):
            return Entry(REVERSED, claim_id, record.terminal, at_ms, batch.seq)
    return None


async def recent_ids(log: EventLog, now_ms: int) -> tuple[RecentIds, int]:
    """The ids of the newest batches in memory, and since when (ms) they are complete, but for ids dated ahead."""
    recent, floor_ms = RecentIds(), 0
    for partition in range(log.partitions):
        head = await log.head(partition)
        first_seq = max(1, head.seq - RECENT_BATCHES + 1)
        try:
            batches = await log.read(partition, first_seq, RECENT_BATCHES) if head.seq else []
        except LogDamaged:  # its lane will halt; the others must not wait for it
            floor_ms = max(floor_ms, now_ms)
            continue
        if first_seq > 1:
            floor_ms = max(floor_ms, payload_head(batches[0].payload)[2])
        for batch in batches:
            use_ids(recent, batch, now_ms)
    return recent, floor_ms


def use_ids(recent: RecentIds, batch: Batch, now_ms: int) -> None:
    """Remember what the ids of a batch stand for."""
    for record in iter_records(batch.payload):
        if record.op != IMPORT and record.campaign:
            recent.put(record.redemption_id, record.claim_id, now_ms)


async def add_ids_ahead(recent: RecentIds, ledger: Ledger, index: RedemptionIndex, floor_ms: int, now_ms: int) -> None:
    """Add what tills with fast clocks used before `floor_ms`; from then on memory can tell what is new."""
    try:
        ahead = await ledger.ids_dated(index, floor_ms, now_ms + AHEAD_MS_MAX)
        for first in range(0, len(ahead), FOUND_TOGETHER):
            unknown = [one for one in ahead[first : first + FOUND_TOGETHER] if recent.get(one) is None]
            for redemption_id, found in (await ledger.find_many(unknown)).items():
                if found.record.campaign and recent.get(redemption_id) is None:
                    recent.put(redemption_id, found.record.claim_id, now_ms)
    except (LogDamaged, LogLost):  # the damaged partition halts when it is asked; until then, every id is looked up
        return
    newest_ms = int.from_bytes(ahead[-1][:6], "big") if len(ahead) == AHEAD_IDS_MAX else floor_ms
    recent.trust_from(max(floor_ms, newest_ms))
