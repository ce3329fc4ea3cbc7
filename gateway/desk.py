"""What is asked rarely: look-ups, issue, import, void, the life of one voucher. Off the hot path, async.

What changes a voucher here goes through the voucher's lane like a scan does, so it is claimed, logged and answered by
the same rules. What is read from Valkey counts only beside a head that is the log's.
"""

import asyncio
from collections.abc import Callable, Sequence
from functools import partial

import msgspec

from eventstore.events import (
    RECORD,
    REDEEM,
    VOID,
    CampaignPurged,
    ControlEvent,
    Extra,
    VouchersIssued,
)
from eventstore.vouchers import (
    REDEEMED,
    SERIALS_PER_KEY,
    VOIDED,
    Entry,
    entries,
    voucher_field,
    voucher_key,
)
from gateway.campaign import SIGNED, Campaign
from gateway.claims import ValkeyArbiter
from gateway.codes import Refused
from gateway.control import HEARD_S, Control
from gateway.directory import Directory, Rejected
from gateway.identity import Spot, partition_of, void_claim_id
from gateway.imports import WHY_NOT_IMPORTED, Chunk, Imports, reserve
from gateway.lane import Asked, Lane
from gateway.ledger import Found, Ledger
from gateway.lookup import ValkeyReader
from gateway.messages import Verdict
from gateway.pipe import ArbiterRefused
from gateway.redeem import Redeemer

IMPORT_CODES_MAX = 1000  # one batch; a larger list comes in chunks, each with its own request id
REASON_CHARS_MAX = 200
PURGE_KEYS = 1000  # hashes forgotten per call: about a millisecond of Valkey


class Imported(msgspec.Struct, frozen=True):
    """What came of one code of an import: ACCEPTED, REPEATED (already there), DUPLICATE, UNREADABLE, UNRESOLVED."""

    index: int
    verdict: Verdict
    why: str = ""


class VoucherState(msgspec.Struct, frozen=True):
    """A voucher as Valkey holds it: who holds it, and the ids already settled on it."""

    holder: Entry | None
    settled: list[Entry]


class Desk:
    """The slow counter beside the tills."""

    def __init__(
        self,
        *,
        redeemer: Redeemer,
        control: Control,
        lanes: Sequence[Lane],
        arbiter: ValkeyArbiter,
        reader: ValkeyReader,
        ledger: Ledger,
        now_ms: Callable[[], int],
    ) -> None:
        self._redeemer, self._control, self._lanes, self._arbiter = redeemer, control, lanes, arbiter
        self._reader, self._ledger, self._now_ms = reader, ledger, now_ms
        self.imports = Imports(control, lanes)

    # --- look-ups ---

    async def identify(self, code: str) -> Spot | Refused | None:
        """Which voucher a code names, Refused if none does, None if nobody can tell right now."""
        named = await self._redeemer.identify(code)
        if named is not None and isinstance(named, Spot) and named.kind == SIGNED:
            campaign = self._control.directory.campaigns.get(named.campaign)
            if campaign is None or not campaign.signed.holds(named.serial):
                await self._control.confirm()
                campaign = self._control.directory.campaigns.get(named.campaign)
            if campaign is None or not campaign.signed.holds(named.serial):
                return Refused(Verdict.NOT_ISSUED, "its serial was never issued")
        return named

    async def voucher(self, campaign: int, serial: int) -> VoucherState:
        """Holder and settled ids of one voucher. Raises ArbiterLost, ArbiterRefused."""
        rows = entries(await self.value(campaign, serial))
        held = [entry for entry in rows if entry.kind in (REDEEMED, VOIDED)]
        return VoucherState(held[0] if held else None, rows[len(held) :])

    async def value(self, campaign: int, serial: int) -> bytes:
        """A voucher's entries as Valkey holds them; none of a purged campaign. Raises as ValkeyReader does."""
        if self._is_purged(campaign):  # a replay may have brought back something, and not the whole of it
            return b""
        partition = partition_of(campaign, serial, len(self._lanes))
        wanted = [(voucher_key(partition, campaign, serial), voucher_field(serial))]
        values = await self._reader.read(partition, wanted)
        # It may have been forgotten since, heard of here or not.
        if values is None or self._is_purged(campaign) or not self._control.is_confirmed():
            raise ArbiterRefused("Valkey's state is being brought up to the log's: ask again")
        return values[0] or b""

    def _is_purged(self, campaign: int) -> bool:
        known = self._control.directory.campaigns.get(campaign)
        return known is not None and known.purged

    async def claims_logged(self, partition: int) -> None:
        """Return once all that Valkey has claimed by now is in the log, also for a gateway that died in between.

        Raises ArbiterLost, LogFailed; ArbiterRefused: not yet.
        """
        if await self._reader.read(partition, []) is None:
            raise ArbiterRefused("what was claimed is being brought into the log: ask again")

    async def find(self, redemption_id: bytes) -> Found | None:
        """What the log says of an id, caught up to now, and whether it was undone since. None: it was never used.

        Raises ArbiterLost, ArbiterRefused.
        """
        found = await self._ledger.find(redemption_id)
        if found is None or not found.record.campaign or found.record.op != REDEEM:
            return found
        campaign = self._control.directory.campaigns.get(found.record.campaign)
        if campaign is not None and campaign.purged:  # Valkey has forgotten it; the log never does
            reversal = await self._ledger.reversal_of(found, campaign.offer.reversal_window_ms)
            return msgspec.structs.replace(found, undone=reversal)
        state = await self.voucher(found.record.campaign, found.record.serial)
        undone = [entry for entry in state.settled if entry.claim_id == found.record.claim_id]
        return msgspec.structs.replace(found, undone=undone[0]) if undone else found

    # --- issue, import, void, purge ---

    async def issue(self, actor: str, slug: str, count: int, request_id: str) -> VouchersIssued | Rejected:
        """Make a range of signed codes exist; the same request again answers with the same range."""
        return await reserve(self._control, actor, slug, SIGNED, count, request_id)

    async def import_codes(
        self, actor: str, slug: str, codes: Sequence[str], request_id: str
    ) -> list[Imported] | Rejected:
        """Register typed and foreign codes. The same request again repeats nothing and says so per code."""
        if not 1 <= len(codes) <= IMPORT_CODES_MAX:
            return Rejected("codes", f"1 to {IMPORT_CODES_MAX} codes at a time, not {len(codes)}")
        results: dict[int, Imported] = {}
        chunk = Chunk()
        for index, code in enumerate(codes):
            refused = chunk.take(self._redeemer.ring, index, code)
            if refused is not None:
                results[index] = Imported(index, refused.verdict, refused.why)
        outcome = await self.imports.register(actor, slug, request_id, chunk)
        if isinstance(outcome, Rejected):
            return outcome
        for came in outcome:
            for index, verdict in came.verdicts():
                results[index] = Imported(index, verdict, WHY_NOT_IMPORTED.get(verdict, ""))
        return [results[index] for index in range(len(codes))]

    async def void(self, actor: str, campaign: int, serial: int, reason: str, request_id: str) -> Verdict | Rejected:
        """End an unredeemed voucher: VOIDED, or ALREADY_REDEEMED / UNRESOLVED."""
        if not self._control.is_confirmed():
            return Verdict.UNRESOLVED
        directory = self._control.directory
        known = directory.campaigns.get(campaign)
        kinds = (known.signed, known.typed, known.foreign) if known else ()
        if known is None or not any(span.holds(serial) for span in kinds):
            return Rejected("voucher_id", "no such voucher was issued")
        if known.purged:  # Valkey would take a redeemed one for unused
            return Rejected("voucher_id", f"{known.slug} is purged: nothing can become of its vouchers any more")
        if not 1 <= len(request_id) <= REASON_CHARS_MAX:
            return Rejected("request_id", f"1 to {REASON_CHARS_MAX} characters")
        claim_id = void_claim_id(campaign, serial, request_id)
        partition = partition_of(campaign, serial, len(self._lanes))
        seq = directory.control_seq & 0xFFFFFFFF
        record = RECORD.pack(VOID, 0, 0, 0, campaign, serial, claim_id, claim_id, 0, self._now_ms(), seq)
        answered: asyncio.Future[Asked] = asyncio.get_running_loop().create_future()
        asked = Asked(1, partial(_settle_once, answered))
        extra = Extra(cashier_ref=actor, reason=reason[:REASON_CHARS_MAX])
        self._lanes[partition].add(record, voucher_key(partition, campaign, serial), asked, 0, extra)
        verdict = Verdict((await answered).codes[0])
        return Verdict.VOIDED if verdict in (Verdict.ACCEPTED, Verdict.REPEATED) else verdict

    async def purge(self, actor: str, slug: str) -> int | Rejected:
        """Log that a closed campaign's voucher state is no longer kept, then free it; returns hashes forgotten.

        What Valkey has forgotten it takes for new. So every gateway has heard of the close before the purge (no more
        scans), however soon the dispute period ends by the clocks, and of the purge before Valkey forgets (no facts).
        """
        await self._control.confirm()
        closing = self._control.directory.campaign(slug)
        if closing is not None and closing.closed_ms is not None:
            await asyncio.sleep(HEARD_S - self._control.closed_for_s(closing.number))

        def make(directory: Directory, _: int) -> Sequence[ControlEvent] | Rejected:
            campaign = directory.campaign(slug)
            if campaign is None:
                return Rejected("slug", f"there is no campaign {slug!r}")
            return [] if campaign.purged else [CampaignPurged(campaign=campaign.number)]

        outcome = await self._control.record(actor, make)
        if isinstance(outcome, Rejected):
            return outcome
        campaign = self._control.directory.campaign(slug)
        assert campaign is not None
        await asyncio.sleep(HEARD_S)
        return await self._forget(campaign)

    async def _forget(self, campaign: Campaign) -> int:
        doomed: dict[int, list[bytes]] = {}
        firsts = campaign.issued_every(SERIALS_PER_KEY)
        for serial in firsts:
            partition = partition_of(campaign.number, serial, len(self._lanes))
            doomed.setdefault(partition, []).append(voucher_key(partition, campaign.number, serial))
        for partition, keys in doomed.items():
            for start in range(0, len(keys), PURGE_KEYS):
                await self._arbiter.delete(partition, keys[start : start + PURGE_KEYS])
        for lane in self._lanes:
            await self._arbiter.forget_codes(lane.partition, campaign.number)
        return len(firsts)


def _settle_once(answered: asyncio.Future[Asked], asked: Asked) -> None:
    if not answered.done():  # the caller may have gone away
        answered.set_result(asked)
