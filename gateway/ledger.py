"""What became of a redemption id: the index says where, the log says what."""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Protocol

import msgspec

from eventstore.events import (
    APPLIED,
    IMPORT,
    REVERSE,
    TOMBSTONED,
    Extra,
    Record,
    extras_of,
    iter_records,
    payload_head,
    record_at,
)
from eventstore.follower import Follower
from eventstore.log import Batch, EventLog, LogDamaged, LogLost
from eventstore.projections import RedemptionIndex
from eventstore.vouchers import REVERSED, Entry
from gateway.ids import RecentIds
from gateway.lane import Lane

AHEAD_MS_MAX = 86_400_000  # a clock more than a day ahead is noticed by people
CLOCKS_APART_MS = 3_600_000  # so far ahead of the others no gateway's clock is for long: it dates its batches
AHEAD_IDS_MAX = 10_000  # more ids from the future than this, and all up to the newest of them are looked up
FOUND_TOGETHER = 128  # looked up at a time: each comes with its record
LOOKED_UP_TOGETHER = 32  # ids: with each batch of its own, and 100 ms a read, some are told in time
LOOK_UP_S_MAX = 5.0  # the till has asked again by then; a rebuild of the index may take longer
OTHERS_MS = 600_000  # what other gateways logged before this is old enough for a look-up, not worth unpacking
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


def claim_of(found: Found | None) -> bytes | None:
    """The claim id that an id stands for; None if it was never used for a voucher."""
    return found.record.claim_id if found is not None and found.record.campaign else None


class Lookup(msgspec.Struct, frozen=True):
    """What the log says of some ids; the ones in neither were never used."""

    found: dict[bytes, Found]
    damaged: dict[bytes, LogDamaged]  # their batch cannot be read: nobody knows what they stand for


class UsedIds(Protocol):
    """Who knows what ids stand for."""

    async def find_many(self, redemption_ids: Sequence[bytes]) -> Lookup:
        """What these redemption ids stand for in the log, caught up to now. Raises LogDamaged, LogFailed, LogLost."""
        ...


async def looked_up(
    used: UsedIds, lanes: Sequence[Lane], recent: RecentIds, ids: Sequence[bytes]
) -> Mapping[bytes, Found | None]:
    """What stands in the log under each id; without the ids of which nobody can tell now.

    None: nothing yet, and what was used while we looked is in `recent`. A partition that turns out to be damaged halts.
    """
    rotations, told = recent.rotations, dict[bytes, Found | None]()
    try:
        async with asyncio.timeout(LOOK_UP_S_MAX):  # what was found by then is told: the till asks for less next time
            for first in range(0, len(ids), LOOKED_UP_TOGETHER):
                some = ids[first : first + LOOKED_UP_TOGETHER]
                looked = await used.find_many(some)
                for one in looked.damaged.values():
                    lanes[one.partition].halt(str(one))
                told.update((name, looked.found.get(name)) for name in some if name not in looked.damaged)
    except (LogLost, TimeoutError):
        pass
    except LogDamaged as damage:
        lanes[damage.partition].halt(str(damage))
    if recent.rotations - rotations > 1:  # something may have been used, and have left memory again
        return {name: found for name, found in told.items() if found is not None}
    return told


class Ledger:
    """Looks up ids, caught up to everything durable when the question came."""

    def __init__(self, log: EventLog, follower: Follower, index: RedemptionIndex) -> None:
        self._log, self._follower, self._index = log, follower, index

    async def find(self, redemption_id: bytes) -> Found | None:
        """The place where the id took effect first, else where it was first refused; None if it was never used.

        Raises LogDamaged, LogFailed, LogLost.
        """
        looked = await self.find_many([redemption_id])
        if redemption_id in looked.damaged:
            raise looked.damaged[redemption_id]
        return looked.found.get(redemption_id)

    async def find_many(self, redemption_ids: Sequence[bytes]) -> Lookup:
        """These ids, looked up together: one look at the index, one read of each batch. Raises as `find` does.

        A batch that is damaged is told of; LogDamaged is raised where the log cannot be followed to its end.
        """
        await self._caught_up()
        looked = Lookup({}, {})
        wanted: defaultdict[tuple[int, int], list[tuple[bytes, int]]] = defaultdict(list)
        for redemption_id, (partition, seq, index) in (await self._index.find_many(redemption_ids)).items():
            wanted[partition, seq].append((redemption_id, index))
        for (partition, seq), ids in wanted.items():
            try:
                batches = await self._log.read(partition, seq, 1)
                if not batches:
                    raise LogDamaged(partition, seq, "the log had it once, and ends before it")
            except LogDamaged as damage:
                looked.damaged.update((redemption_id, damage) for redemption_id, _ in ids)
            else:
                looked.found.update(_found_in(batches[0], ids))
        return looked

    async def _caught_up(self) -> None:
        for partition in range(self._log.partitions):  # not what our lanes know: another gateway may have logged it
            await self._follower.wait_until(partition, (await self._log.head(partition)).seq)

    async def undone_by(self, partition: int, reversal: Entry) -> Found | None:
        """The redemption that the reversal behind this entry undid, as it was when it took effect."""
        for batch in await self._log.read(partition, reversal.seq, 1):
            extras = extras_of(batch.payload)
            for index, record in enumerate(iter_records(batch.payload)):
                target_id = extras.get(index, Extra()).target_id
                if (record.op, record.claim_id) == (REVERSE, reversal.claim_id) and target_id is not None:
                    return await self.find(target_id)
        return None

    async def reversal_of(self, found: Found, window_ms: int) -> Entry | None:
        """The reversal of a redemption (if that was refused: its tombstone), which came within `window_ms` if it did.

        Searched for in the log behind it, which is slow: for vouchers that Valkey has forgotten.
        """
        until_ms = found.at_ms + window_ms + CLOCKS_APART_MS
        seq, head = found.seq, await self._log.head(found.partition)
        while seq < head.seq:
            for batch in await self._log.read(found.partition, seq + 1, SEARCH_BATCHES):
                seq = batch.seq
                if payload_head(batch.payload)[2] > until_ms:
                    return None
                if found.record.claim_id in batch.payload and (entry := _reversal_in(batch, found.record.claim_id)):
                    return entry
        return None

    async def ids_dated(self, index: RedemptionIndex, after_ms: int, until_ms: int) -> list[bytes]:
        """Logged UUIDv7 ids minted in (after_ms, until_ms], oldest first, at most AHEAD_IDS_MAX."""
        await self._caught_up()
        return await index.ids_dated(after_ms, until_ms, AHEAD_IDS_MAX)


def _found_in(batch: Batch, ids: Sequence[tuple[bytes, int]]) -> Iterator[tuple[bytes, Found]]:
    """What stands in a batch under these ids, each at its index."""
    _, _, at_ms = payload_head(batch.payload)
    extras = extras_of(batch.payload)
    for redemption_id, index in ids:
        record, extra = record_at(batch.payload, index), extras.get(index, Extra())
        yield redemption_id, Found(record, batch.verdicts[index], at_ms, batch.partition, batch.seq, index, extra)


def _reversal_in(batch: Batch, claim_id: bytes) -> Entry | None:
    _, _, at_ms = payload_head(batch.payload)
    for record, verdict in zip(iter_records(batch.payload), batch.verdicts, strict=True):
        if (record.op, record.claim_id) == (REVERSE, claim_id) and verdict in (APPLIED, TOMBSTONED):
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


def rememberer(recent: RecentIds, now_ms: Callable[[], int]) -> Callable[[Batch], None]:
    """Brings what other gateways have just logged into memory, so that their ids are not taken for new here."""

    def on_read(batch: Batch) -> None:
        if payload_head(batch.payload)[2] > now_ms() - OTHERS_MS:
            use_ids(recent, batch, now_ms())

    return on_read


async def add_ids_ahead(recent: RecentIds, ledger: Ledger, index: RedemptionIndex, floor_ms: int, now_ms: int) -> None:
    """Add what tills with fast clocks used before `floor_ms`; from then on memory can tell what is new."""
    try:
        ahead = await ledger.ids_dated(index, floor_ms, now_ms + AHEAD_MS_MAX)
        for first in range(0, len(ahead), FOUND_TOGETHER):
            unknown = [one for one in ahead[first : first + FOUND_TOGETHER] if recent.get(one) is None]
            looked = await ledger.find_many(unknown)
            for redemption_id, found in looked.found.items():
                if found.record.campaign and recent.get(redemption_id) is None:
                    recent.put(redemption_id, found.record.claim_id, now_ms)
            if looked.damaged:
                return  # as below
    except (LogDamaged, LogLost):  # the damaged partition halts when it is asked; until then, every id is looked up
        return
    newest_ms = int.from_bytes(ahead[-1][:6], "big") if len(ahead) == AHEAD_IDS_MAX else floor_ms
    recent.trust_from(max(floor_ms, newest_ms))
