"""The whole life of one voucher, with log positions: what took effect from Valkey's entries, the rest out of the log.

Valkey knows who holds a voucher and what was settled on it, each with the batch that did it; the record there says the
rest. Scans that were refused changed nothing and are indexed nowhere, so they are looked for, backwards, on request:
a record's campaign and serial lie side by side in the payload, and finding twelve bytes in a batch costs microseconds.
"""

import asyncio
import struct
from collections.abc import Callable, Iterator

from eventstore.events import (
    CONFLICT,
    EFFECTS_END,
    HEADER_BYTES,
    RECORD_BYTES,
    Extra,
    extras_of,
    payload_head,
    record_at,
)
from eventstore.log import CONTROL, Batch
from eventstore.vouchers import REDEEMED, REVERSED, Entry
from gateway import console_bodies as b
from gateway.campaign import Campaign
from gateway.console_events import event_of, events_of
from gateway.console_scope import View
from gateway.core import Core
from gateway.identity import partition_of
from gateway.roles import Action, may

LOOK_BATCHES = 128  # read at a time: some megabytes
LOOK_BATCHES_MAX = 50_000  # of one request: a second or two; who wants more asks from there on
ATTEMPTS_MAX = 50
PAGE_EVENTS_MAX = 256  # of a batch of up to 1,024: a page that a phone can draw
_NAMES = struct.Struct(">IQ")  # campaign, serial: see events.RECORD
_NAMES_AT = 4  # their place in a record


class Lives:
    """Looks vouchers up for one who may see them."""

    def __init__(self, core: Core, now_ms: Callable[[], int]) -> None:
        self._core, self._now_ms = core, now_ms

    async def life(self, view: View, campaign: Campaign, serial: int, kind: str) -> b.VoucherLife:
        """Raises ArbiterLost, ArbiterRefused, LogDamaged, LogFailed."""
        number = campaign.number
        partition = partition_of(number, serial, len(self._core.lanes))
        state = await self._core.desk.voucher(number, serial)
        entries = ([state.holder] if state.holder else []) + state.settled
        events: list[b.Event] = []
        for entry in entries:
            events += await self._events_of(view, partition, number, serial, entry)
        events.sort(key=lambda event: (event.at_ms, position_key(event)))
        standing = {None: "unused", REDEEMED: "redeemed"}.get(state.holder.kind if state.holder else None, "voided")
        reversible, until_ms = self._reversible(view, campaign, state.holder, events)
        return b.VoucherLife(
            voucher_id=f"{number}-{serial}",
            campaign=campaign.slug,
            kind=kind,
            state="purged" if campaign.purged else standing,
            issued_by=self._issued_by(number, serial),
            events=[event for event in events if view.sees_cell(event.store, number)],
            may_void=standing == "unused" and not campaign.purged and may(view.principal, Action.VOUCHER_VOID),
            reversible_id=reversible,
            reversible_until_ms=until_ms,
            head_seq=self._core.lanes[partition].durable_seq,
            partition=partition,
        )

    async def _events_of(self, view: View, partition: int, number: int, serial: int, entry: Entry) -> list[b.Event]:
        """The event behind an entry; for a reversal also the redemption it undid."""
        batches = await self._core.log.read(partition, entry.seq, 1)
        found: list[b.Event] = []
        for batch in batches:
            for index in indexes_of(batch, number, serial):
                record = record_at(batch.payload, index)
                if record.claim_id != entry.claim_id or not left_a_mark(batch.verdicts[index]):
                    continue
                extra = extras_of(batch.payload).get(index, Extra())
                found.append(event_of(view, batch, index, record, entry.at_ms, extra))
                if entry.kind == REVERSED and extra.target_id is not None:
                    found += await self._original(view, extra.target_id)
        return found

    async def _original(self, view: View, redemption_id: bytes) -> list[b.Event]:
        found = await self._core.ledger.find(redemption_id)
        if found is None:
            return []
        batch = (await self._core.log.read(found.partition, found.seq, 1))[0]
        return [event_of(view, batch, found.index, found.record, found.at_ms, found.extra)]

    def _issued_by(self, number: int, serial: int) -> str:
        for (campaign, request_id), issued in self._core.control.directory.issues.items():
            if campaign == number and issued.first_serial <= serial < issued.first_serial + issued.count:
                return request_id
        return ""

    def _reversible(
        self, view: View, campaign: Campaign, holder: Entry | None, events: list[b.Event]
    ) -> tuple[str, int]:
        if holder is None or holder.kind != REDEEMED:
            return "", 0
        store = next((event.store for event in reversed(events) if event.op == "redeem"), "")
        found = view.directory.stores.get(store)
        until_ms = holder.at_ms + campaign.offer.reversal_window_ms
        allowed = may(view.principal, Action.REVERSE_ANY, merchant=found.merchant if found else None)
        if not allowed or self._now_ms() > until_ms:
            return "", until_ms
        return next((event.redemption_id for event in reversed(events) if event.op == "redeem"), ""), until_ms

    async def attempts(self, view: View, number: int, serial: int, before_seq: int) -> b.Attempts:
        """Everything in the log that names this voucher, newest first, from below `before_seq` (0: the end) on.

        Raises LogDamaged, LogFailed.
        """
        partition = partition_of(number, serial, len(self._core.lanes))
        last = min(before_seq or 2**62, self._core.lanes[partition].durable_seq + 1) - 1
        low, floor, since_ms = last + 1, max(0, last - LOOK_BATCHES_MAX), 0
        events: list[b.Event] = []
        while low - 1 > floor and len(events) < ATTEMPTS_MAX:
            first = max(floor + 1, low - LOOK_BATCHES)
            batches = await self._core.log.read(partition, first, low - first)
            for batch in reversed(batches):
                events += reversed(list(_attempts_in(view, batch, number, serial)))
            low, since_ms = first, payload_head(batches[0].payload)[2] if batches else since_ms
            await asyncio.sleep(0)
        return b.Attempts(events, low, last, since_ms)

    async def page(self, view: View, partition: int, seq: int, head_seq: int) -> b.Page | None:
        """One batch of the log; None if there is none at this position. Raises LogDamaged, LogFailed, BadPayload."""
        batches = await self._core.log.read(partition, seq, 1)
        if not batches or batches[0].seq != seq:
            return None
        batch = batches[0]
        events = list(events_of(view, batch))
        _, _, at_ms = payload_head(batch.payload)
        shown, name = events[:PAGE_EVENTS_MAX], "control" if partition == CONTROL else str(partition)
        return b.Page(name, seq, head_seq, at_ms, batch.tip.hex(), batch.prev.hex(), shown, len(events) - len(shown))


def left_a_mark(verdict: int) -> bool:
    """Whether a record with this verdict byte has an entry in its voucher's value."""
    return verdict < EFFECTS_END or verdict == CONFLICT


def position_key(event: b.Event) -> tuple[int, ...]:
    """For sorting by place in the log."""
    return tuple(int(part) for part in event.position.split(":") if part.isdigit())


def indexes_of(batch: Batch, campaign: int, serial: int) -> list[int]:
    """Indexes of the records that name this voucher."""
    wanted, payload, found = _NAMES.pack(campaign, serial), batch.payload, []
    end = HEADER_BYTES + len(batch.verdicts) * RECORD_BYTES
    at = payload.find(wanted, HEADER_BYTES, end)
    while at >= 0:
        index, inside = divmod(at - HEADER_BYTES, RECORD_BYTES)
        if inside == _NAMES_AT:
            found.append(index)
        at = payload.find(wanted, at + 1, end)
    return found


def _attempts_in(view: View, batch: Batch, number: int, serial: int) -> Iterator[b.Event]:
    indexes = indexes_of(batch, number, serial)
    extras = extras_of(batch.payload) if indexes else {}
    _, _, at_ms = payload_head(batch.payload)
    for index in indexes:
        record = record_at(batch.payload, index)
        event = event_of(view, batch, index, record, at_ms, extras.get(index, Extra()))
        if view.sees_cell(event.store, number):
            yield event
