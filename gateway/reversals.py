"""Undo one named redemption, through the voucher's lane like everything else that changes a voucher.

If the log has the redemption, its record says which voucher and which claim id, and the rules say whether the asker
may. If not, the till's own copy of the original (it has one in its journal) says it, and the reversal becomes a
tombstone under the very claim id with which the late original will come. Only the till that made it can be believed
there: a claim id names its terminal. And a reversal must be no oracle: an unknown code in it counts as a guess, and a
campaign that is not for this store is not acknowledged.
"""

from collections.abc import Callable, Mapping, Sequence, Set

import msgspec

from eventstore.events import NO_ID, RECORD, REDEEM, REVERSE, Extra
from eventstore.log import LogLost
from eventstore.vouchers import voucher_key
from gateway.campaign import SIGNED, Campaign, Made, decide_reversal, is_eligible
from gateway.codes import Refused
from gateway.control import HEARD_S, Control
from gateway.desk import REASON_CHARS_MAX, Desk
from gateway.identity import Spot, claim_id_of, fault_of, fault_of_reversal, partition_of
from gateway.lane import Asked, Lane
from gateway.ledger import Found, Ledger, claim_of, looked_up
from gateway.messages import ID_BYTES, Reverse, Verdict
from gateway.redeem import Redeemer
from gateway.roles import Action, Principal, may


class _Known(msgspec.Struct, frozen=True):
    """What a message's ids stand for: in the log, and those of its redemptions that were in memory before we looked."""

    logged: Mapping[bytes, Found | None]
    on_way: Set[bytes]


class Reversals:
    """Admits reversals of authenticated askers."""

    def __init__(
        self,
        *,
        desk: Desk,
        redeemer: Redeemer,
        control: Control,
        lanes: Sequence[Lane],
        ledger: Ledger,
        now_ms: Callable[[], int],
    ) -> None:
        self._desk, self._redeemer, self._control, self._lanes = desk, redeemer, control, lanes
        self._ledger, self._now_ms = ledger, now_ms

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
        faults = [fault_of_reversal(reversal) for reversal in reversals]
        sound = [reversal for reversal, fault in zip(reversals, faults, strict=True) if fault is None]
        ids, recent = [name for one in sound for name in (one.redemption_id, one.reversal_id)], self._redeemer.recent
        on_way = {one.redemption_id for one in sound if recent.get(one.redemption_id) is not None}
        known = _Known(await looked_up(self._ledger, self._lanes, recent, ids), on_way)
        for index, (reversal, fault) in enumerate(zip(reversals, faults, strict=True)):
            if fault is not None:
                asked.notes[index] = fault
                self._add_reversal(asked, index, terminal, reversal, Verdict.UNREADABLE, None, NO_ID)
            elif reversal.redemption_id not in known.logged or reversal.reversal_id not in known.logged:
                asked.give_up(index, 1)
            else:
                await self._reverse_one(asker, asked, index, terminal, reversal, known)

    async def _reverse_one(
        self, asker: Principal, asked: Asked, index: int, terminal: int, reversal: Reverse, known: _Known
    ) -> None:
        recent, found = self._redeemer.recent, known.logged[reversal.redemption_id]
        if self._answer_from_log(asked, index, terminal, reversal, known.logged[reversal.reversal_id]):
            return
        used = recent.get(reversal.reversal_id) or claim_of(known.logged[reversal.reversal_id])
        if found is not None and found.record.terminal not in self._control.directory.terminals:
            try:
                await self._control.confirm()  # it was enrolled, and redeemed, at another gateway a moment ago
            except LogLost:
                asked.give_up(index, 1)
                return
        is_on_way = reversal.redemption_id in known.on_way or recent.get(reversal.redemption_id) is not None
        if found is None and is_on_way and not reversal.original:
            asked.give_up(index, 1)  # neither "not found" nor anything else would be true
            return
        if found is None or _named_nothing(found):
            verdict, spot, claim_id = await self._judge_unseen(asker, terminal, reversal, used)
        else:
            verdict, spot, claim_id = self._judge_found(asker, terminal, found)
        used = recent.get(reversal.reversal_id) or used  # while we looked further
        if verdict is Verdict.UNRESOLVED or not self._control.is_confirmed():
            asked.give_up(index, 1)
            return
        if spot is not None and used is not None and used != claim_id:
            verdict, spot = Verdict.ID_REUSED, None
        elif spot is not None and used is None:
            recent.put(reversal.reversal_id, claim_id, self._now_ms())
        self._add_reversal(asked, index, terminal, reversal, verdict, spot, claim_id)

    def _judge_found(self, asker: Principal, terminal: int, found: Found) -> tuple[Verdict, Spot | None, bytes]:
        record = found.record
        if record.op != REDEEM:
            return Verdict.NOT_FOUND, None, NO_ID
        spot = Spot(record.campaign, record.serial, SIGNED)
        return self._may_reverse(asker, terminal, found), spot, record.claim_id

    async def _judge_unseen(
        self, asker: Principal, terminal: int, reversal: Reverse, used: bytes | None
    ) -> tuple[Verdict, Spot | None, bytes]:
        """The log, caught up, has no such redemption of a voucher; perhaps it is still to come.

        `used`: the claim that this reversal's id stands for already. A lock does not change an answer that was given.
        """
        original, till = reversal.original, self._control.directory.terminals.get(terminal)
        if original is None or original.redemption_id != reversal.redemption_id or fault_of(original):
            return Verdict.NOT_FOUND, None, NO_ID
        merchant = self._control.directory.stores[till.store].merchant if till else None
        if till is None or not may(asker, Action.REVERSE, merchant=merchant, terminal=terminal):
            return Verdict.NOT_FOUND, None, NO_ID
        is_locked = self._redeemer.is_locked(till)
        if is_locked and used is None:
            return Verdict.TERMINAL_LOCKED, None, NO_ID
        named = await self._desk.identify(original.code)
        if named is None:
            return Verdict.UNRESOLVED, None, NO_ID
        if is_locked and isinstance(named, Refused):
            return Verdict.TERMINAL_LOCKED, None, NO_ID
        if isinstance(named, Refused):
            if named.verdict is not Verdict.UNREADABLE:
                self._redeemer.count_guess(till, reversal.reversal_id)
            return Verdict.NOT_FOUND, None, NO_ID
        campaign = self._control.directory.campaigns.get(named.campaign)
        if campaign is None or not is_eligible(campaign, self._control.directory.outlet(till.store)):
            return Verdict.NOT_FOUND, None, NO_ID
        claim_id = claim_id_of(terminal, original, named.campaign, named.serial)
        if is_locked and used != claim_id:
            return Verdict.TERMINAL_LOCKED, None, NO_ID
        return self._too_late(campaign) if campaign.purged else Verdict.ACCEPTED, named, claim_id

    def _may_reverse(self, asker: Principal, terminal: int, found: Found) -> Verdict:
        directory = self._control.directory
        made_at = directory.terminals.get(found.record.terminal)
        campaign = directory.campaigns.get(found.record.campaign)
        assert made_at is not None, "a logged redemption names its terminal and campaign"
        assert campaign is not None, "a logged redemption names its terminal and campaign"
        merchant = directory.stores[made_at.store].merchant
        made = Made(found.record.terminal, merchant, found.at_ms)
        verdict = decide_reversal(made, asker, acting_terminal=terminal, offer=campaign.offer, now_ms=self._now_ms())
        # Purged, though this clock says that it could be undone: another one was ahead, and Valkey has forgotten it.
        return self._too_late(campaign) if verdict is Verdict.ACCEPTED and campaign.purged else verdict

    def _too_late(self, campaign: Campaign) -> Verdict:
        """A gateway that has not heard of the purge may still undo it; after that, nobody."""
        return Verdict.UNRESOLVED if self._control.purged_for_s(campaign.number) < HEARD_S else Verdict.WINDOW_OVER

    def _answer_from_log(
        self, asked: Asked, index: int, terminal: int, reversal: Reverse, before: Found | None
    ) -> bool:
        """Tell of a reversal in a purged campaign what was told of it before. False: there is nothing to tell."""
        if (
            before is None
            or before.record.op != REVERSE
            or before.verdict not in (Verdict.ACCEPTED, Verdict.TOMBSTONED)
        ):
            return False
        campaign = self._control.directory.campaigns.get(before.record.campaign)
        same = (before.record.terminal, before.extra.target_id) == (terminal, reversal.redemption_id)
        if campaign is None or not campaign.purged or not same:
            return False
        asked.at_ms = asked.at_ms or before.at_ms
        asked.settle(index, bytes((before.verdict,)), before.partition, before.seq, before.index)
        return True

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


def _named_nothing(found: Found) -> bool:
    """A scan refused because its code named no voucher. By now it may name one, and a tombstone may lie there."""
    return found.record.op == REDEEM and not found.record.campaign
