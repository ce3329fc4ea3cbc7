"""What is asked rarely: reversals, look-ups, issue, import, void, the life of one voucher. Off the hot path, async.

Everything that changes a voucher goes through the voucher's lane like a scan does, so it is claimed, logged and
answered by the same rules. A reversal names a redemption: if the log has it, its record says which voucher and which
claim id; if not, the till's copy of the original (it has one in its journal) does, and the reversal becomes a tombstone
that refuses the late original for ever.
"""

import asyncio
from collections.abc import Callable, Sequence

import msgspec

from eventstore.events import (
    IMPORT,
    NO_ID,
    RECORD,
    REDEEM,
    REVERSE,
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
    registry_key,
    registry_partition,
    voucher_field,
    voucher_key,
)
from gateway.campaign import FOREIGN, SIGNED, TYPED, Campaign, Made, decide_reversal
from gateway.claims import ValkeyArbiter
from gateway.codes import Hashed, Refused, classify_for_import
from gateway.control import Control
from gateway.directory import Directory, Rejected
from gateway.identity import Spot, claim_id_of, fault_of, fault_of_reversal, partition_of, void_claim_id
from gateway.lane import Asked, Lane
from gateway.ledger import Found, Ledger
from gateway.messages import ID_BYTES, Reverse, Verdict
from gateway.redeem import Redeemer
from gateway.roles import Principal

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
        ledger: Ledger,
        now_ms: Callable[[], int],
    ) -> None:
        self._redeemer, self._control, self._lanes, self._arbiter = redeemer, control, lanes, arbiter
        self._ledger, self._now_ms = ledger, now_ms

    # --- reversals ---

    async def reverse(
        self, asker: Principal, terminal: int, reversals: Sequence[Reverse], done: Callable[[Asked], None]
    ) -> None:
        """Undo named redemptions; `terminal` is where the asker stands (0: at none)."""
        asked = Asked(len(reversals), done)
        if not reversals:
            done(asked)
            return
        if not self._control.is_confirmed():
            asked.give_up(0, len(reversals))
            return
        for index, reversal in enumerate(reversals):
            fault = fault_of_reversal(reversal)
            if fault is not None:
                asked.notes[index] = fault
                self._add_reversal(asked, index, terminal, reversal, Verdict.UNREADABLE, None, NO_ID)
                continue
            await self._reverse_one(asker, asked, index, terminal, reversal)

    async def _reverse_one(self, asker: Principal, asked: Asked, index: int, terminal: int, reversal: Reverse) -> None:
        target = reversal.redemption_id
        found = await self._ledger.find(target)
        if found is None and self._redeemer.recent.get(target) is not None and reversal.original is None:
            asked.give_up(index, 1)  # it is on its way: neither "not found" nor anything else would be true
            return
        verdict, spot, claim_id = await self._judge_reversal(asker, terminal, reversal, found)
        if verdict is Verdict.UNRESOLVED:
            asked.give_up(index, 1)
            return
        if spot is not None:
            used = self._redeemer.recent.get(reversal.reversal_id)
            used = used or await self._ledger.claim_id_of(reversal.reversal_id)
            if used is not None and used != claim_id:
                verdict, spot = Verdict.ID_REUSED, None
            elif used is None:
                self._redeemer.recent.put(reversal.reversal_id, claim_id, self._now_ms())
        self._add_reversal(asked, index, terminal, reversal, verdict, spot, claim_id)

    async def _judge_reversal(
        self, asker: Principal, terminal: int, reversal: Reverse, found: Found | None
    ) -> tuple[Verdict, Spot | None, bytes]:
        if found is not None:
            record = found.record
            if record.op != REDEEM or not record.campaign:
                return Verdict.NOT_FOUND, None, NO_ID
            spot = Spot(record.campaign, record.serial, SIGNED)
            return self._may_reverse(asker, terminal, found), spot, record.claim_id
        original = reversal.original
        if original is None or original.redemption_id != reversal.redemption_id or fault_of(original):
            return Verdict.NOT_FOUND, None, NO_ID
        named = await self.identify(original.code)
        if named is None:
            return Verdict.UNRESOLVED, None, NO_ID
        if not isinstance(named, Spot):
            return Verdict.NOT_FOUND, None, NO_ID
        return Verdict.ACCEPTED, named, claim_id_of(terminal, original, named.campaign, named.serial)

    def _may_reverse(self, asker: Principal, terminal: int, found: Found) -> Verdict:
        directory = self._control.directory
        made_at = directory.terminals.get(found.record.terminal)
        campaign = directory.campaigns.get(found.record.campaign)
        assert made_at is not None, "a logged redemption names its terminal and campaign"
        assert campaign is not None, "a logged redemption names its terminal and campaign"
        merchant = directory.stores[made_at.store].merchant
        made = Made(found.record.terminal, merchant, found.at_ms)
        return decide_reversal(made, asker, acting_terminal=terminal, offer=campaign.offer, now_ms=self._now_ms())

    def _add_reversal(
        self,
        asked: Asked,
        index: int,
        terminal: int,
        reversal: Reverse,
        verdict: Verdict,
        spot: Spot | None,
        claim_id: bytes,
    ) -> None:
        campaign, serial = (spot.campaign, spot.serial) if spot else (0, 0)
        partition = partition_of(campaign, serial, len(self._lanes)) if spot else terminal % len(self._lanes)
        fits = len(reversal.reversal_id) == ID_BYTES and len(reversal.redemption_id) == ID_BYTES
        record = RECORD.pack(
            REVERSE,
            verdict,
            0,
            0,
            campaign,
            serial,
            reversal.reversal_id if fits else NO_ID,
            claim_id,
            terminal,
            reversal.reversed_ms if 0 <= reversal.reversed_ms < 2**63 else 0,
            self._control.directory.control_seq & 0xFFFFFFFF,
        )
        reason = reversal.reason[:REASON_CHARS_MAX] if reversal.reason else None
        extra = Extra(target_id=reversal.redemption_id if fits else None, reason=reason)
        key = voucher_key(partition, campaign, serial) if spot else None
        self._lanes[partition].add(record, key, asked, index, extra)

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
        """A voucher's entries as Valkey holds them. Raises ArbiterLost, ArbiterRefused."""
        partition = partition_of(campaign, serial, len(self._lanes))
        wanted = [(voucher_key(partition, campaign, serial), voucher_field(serial))]
        _, values = await self._arbiter.lookup(partition, wanted)
        return values[0] or b""

    async def find(self, redemption_id: bytes) -> Found | None:
        """What the log says of an id, caught up to now, and whether it was undone since. None: it was never used.

        Raises ArbiterLost, ArbiterRefused.
        """
        found = await self._ledger.find(redemption_id)
        if found is None or not found.record.campaign or found.record.op != REDEEM:
            return found
        state = await self.voucher(found.record.campaign, found.record.serial)
        undone = [entry for entry in state.settled if entry.claim_id == found.record.claim_id]
        return msgspec.structs.replace(found, undone=undone[0]) if undone else found

    # --- issue, import, void, purge ---

    async def issue(self, actor: str, slug: str, count: int, request_id: str) -> VouchersIssued | Rejected:
        """Make a range of signed codes exist; the same request again answers with the same range."""
        return await self._reserve(actor, slug, SIGNED, count, request_id)

    async def _reserve(
        self, actor: str, slug: str, kind: str, count: int, request_id: str
    ) -> VouchersIssued | Rejected:
        def make(directory: Directory, _: int) -> Sequence[ControlEvent] | Rejected:
            campaign = directory.campaign(slug)
            if campaign is None:
                return Rejected("slug", f"there is no campaign {slug!r}")
            number = campaign.number
            earlier = directory.issued_as(number, request_id)
            if earlier is not None:
                same = (earlier.kind, earlier.count) == (kind, count)
                return [] if same else Rejected("request_id", "it was used before for another issue")
            first = directory.next_serial(number)
            return [VouchersIssued(campaign=number, kind=kind, first_serial=first, count=count, request_id=request_id)]

        outcome = await self._control.record(actor, make)
        if isinstance(outcome, Rejected):
            return outcome
        campaign = self._control.directory.campaign(slug)
        assert campaign is not None
        issued = self._control.directory.issued_as(campaign.number, request_id)
        assert issued is not None, "it was written or found just now"
        return issued

    async def import_codes(
        self, actor: str, slug: str, codes: Sequence[str], request_id: str
    ) -> list[Imported] | Rejected:
        """Register typed and foreign codes. The same request again repeats nothing and says so per code."""
        if not 1 <= len(codes) <= IMPORT_CODES_MAX:
            return Rejected("codes", f"1 to {IMPORT_CODES_MAX} codes at a time, not {len(codes)}")
        results: dict[int, Imported] = {}
        groups: dict[str, list[tuple[int, bytes]]] = {TYPED: [], FOREIGN: []}
        for index, code in enumerate(codes):
            kind = classify_for_import(code)
            if isinstance(kind, Refused):
                results[index] = Imported(index, kind.verdict, kind.why)
                continue
            hashed = self._redeemer.ring.parse(code)
            assert isinstance(hashed, Hashed), "classify_for_import and parse agree"
            groups[kind].append((index, hashed.keyed_hash))
        for name, members in groups.items():
            if members:
                issued = await self._reserve(actor, slug, name, len(members), f"{request_id}:{name}")
                if isinstance(issued, Rejected):
                    return issued
                results.update(await self._register(issued, members))
        return [results[index] for index in range(len(codes))]

    async def _register(self, issued: VouchersIssued, members: Sequence[tuple[int, bytes]]) -> dict[int, Imported]:
        answered: asyncio.Future[Asked] = asyncio.get_running_loop().create_future()
        asked = Asked(len(members), answered.set_result)
        seq = self._control.directory.control_seq & 0xFFFFFFFF
        for offset, (_, keyed_hash) in enumerate(members):
            serial = issued.first_serial + offset
            partition = registry_partition(keyed_hash, len(self._lanes))
            record = RECORD.pack(IMPORT, 0, 0, 0, issued.campaign, serial, keyed_hash, NO_ID, 0, 0, seq)
            self._lanes[partition].add(record, registry_key(partition, keyed_hash), asked, offset)
        codes = (await answered).codes
        return {index: _imported(index, Verdict(codes[at])) for at, (index, _) in enumerate(members)}

    async def void(self, actor: str, campaign: int, serial: int, reason: str, request_id: str) -> Verdict | Rejected:
        """End an unredeemed voucher: VOIDED, or ALREADY_REDEEMED / UNRESOLVED."""
        directory = self._control.directory
        known = directory.campaigns.get(campaign)
        kinds = (known.signed, known.typed, known.foreign) if known else ()
        if not any(span.holds(serial) for span in kinds):
            return Rejected("voucher_id", "no such voucher was issued")
        if not 1 <= len(request_id) <= REASON_CHARS_MAX:
            return Rejected("request_id", f"1 to {REASON_CHARS_MAX} characters")
        claim_id = void_claim_id(campaign, serial, request_id)
        partition = partition_of(campaign, serial, len(self._lanes))
        seq = directory.control_seq & 0xFFFFFFFF
        record = RECORD.pack(VOID, 0, 0, 0, campaign, serial, claim_id, claim_id, 0, self._now_ms(), seq)
        answered: asyncio.Future[Asked] = asyncio.get_running_loop().create_future()
        asked = Asked(1, answered.set_result)
        extra = Extra(cashier_ref=actor, reason=reason[:REASON_CHARS_MAX])
        self._lanes[partition].add(record, voucher_key(partition, campaign, serial), asked, 0, extra)
        verdict = Verdict((await answered).codes[0])
        return Verdict.VOIDED if verdict in (Verdict.ACCEPTED, Verdict.REPEATED) else verdict

    async def purge(self, actor: str, slug: str) -> int | Rejected:
        """Log that a closed campaign's voucher state is no longer kept, then free it; returns hashes forgotten."""

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


def _imported(index: int, verdict: Verdict) -> Imported:
    why = {
        Verdict.DUPLICATE: "this code already belongs to another campaign",
        Verdict.UNRESOLVED: "nothing is known: send the same request again",
    }
    return Imported(index, verdict, why.get(verdict, ""))
