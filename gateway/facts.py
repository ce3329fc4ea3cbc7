"""Facts: redemptions that tills accepted while they had no connection. They are logged, whatever they are.

Theory of operation. A fact is a redemption record like any other, under the same claim id as the scan it was, but its
static verdict is CONFLICT: the claim gives it the voucher if nobody holds it, and settles it as a conflict otherwise
(claim.lua). So a fact, a late copy of its scan, and a reversal of it may arrive in any order and any number of times,
and come to one end. What a fact broke of its campaign's rules stands in its record (offline_rules.breaches), and takes
nothing from it: the goods are given. Only a code that names no voucher of ours is logged as that, and holds nothing.

A conflict is written into the control partition, both scans named, before the till is told. A crash between the two is
harmless: the till has no answer, tells its fact again, and the missing event is written then.

Of a purged campaign Valkey holds nothing, and would give a voucher away a second time. So a fact that comes that late
claims nothing: what the log says of its id is the answer, and a new one is a conflict with nobody knows whom. Nobody
says so before every gateway has heard of the purge, and all that was claimed until then is in the log.
"""

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from itertools import dropwhile

from eventstore.events import NO_ID, RECORD, REDEEM, Extra
from eventstore.log import LogDamaged, LogLost
from eventstore.offline_events import Acceptance, OfflineConflict
from eventstore.vouchers import LOST, REDEEMED, REVERSED, VOIDED, Entry, entry_of, voucher_key
from gateway.campaign import Campaign
from gateway.codes import Refused
from gateway.control import HEARD_S, Control, ControlBusy
from gateway.desk import Desk
from gateway.directory import Directory, Rejected, Terminal
from gateway.identity import SCANNED_MS_END, Spot, claim_id_of, fault_of, partition_of
from gateway.lane import Asked, Lane
from gateway.ledger import Found, Ledger, claim_of, looked_up
from gateway.messages import ID_BYTES, Fact, Redeem, Verdict
from gateway.offline_codes import OfflineKeys
from gateway.offline_rules import Outage, breaches
from gateway.pipe import ArbiterLost, ArbiterRefused
from gateway.redeem import Redeemer

_LOST_BYTES = (Verdict.CONFLICT, Verdict.CONFLICT_AGAIN)
_ASKED_AGAIN = (Verdict.ACCEPTED, Verdict.REPEATED, Verdict.REVERSED)  # the claim says what became of it since
_UNTIL_ISSUED = (Verdict.NOT_ISSUED, Verdict.UNKNOWN_CODE)  # it may have been since, and have been logged as a fact
_NOBODY = Entry(LOST, NO_ID, 0, 0, 0)  # nothing is known of who was first
Logged = dict[bytes, Found | None]  # what the log says of each id
_KINDS = {REDEEMED: "redeemed", VOIDED: "voided", REVERSED: "redeemed"}


class Facts:
    """Takes facts of authenticated terminals. `keys` are those of the offline codes, replaced when keys change."""

    def __init__(
        self,
        *,
        keys: OfflineKeys,
        redeemer: Redeemer,
        desk: Desk,
        control: Control,
        lanes: Sequence[Lane],
        ledger: Ledger,
        now_ms: Callable[[], int],
    ) -> None:
        self.keys = keys
        self._redeemer, self._desk, self._control, self._lanes = redeemer, desk, control, lanes
        self._ledger, self._now_ms = ledger, now_ms

    async def take(self, terminal: Terminal, facts: Sequence[Fact], outage: Outage) -> Asked:
        """Log every fact of a message, and its conflicts; what could not be logged now is UNRESOLVED.

        `outage`: what the terminal has told on this connection so far.
        """
        if not facts or not self._control.is_confirmed():
            return _unresolved(len(facts))
        answered: asyncio.Future[Asked] = asyncio.get_running_loop().create_future()
        asked = Asked(len(facts), partial(_settle_once, answered))
        ids = [fact.redeem.redemption_id for fact in facts]
        logged = dict(await looked_up(self._ledger, self._lanes, self._redeemer.recent, ids))
        for index, fact in enumerate(facts):
            if fact.redeem.redemption_id not in logged:
                asked.give_up(index, 1)
                continue
            try:
                await self._take_one(asked, index, terminal, fact, logged, outage)
            except (ArbiterLost, ArbiterRefused, LogLost):
                asked.give_up(index, 1)
            except LogDamaged as damage:
                self._lanes[damage.partition].halt(str(damage))
                asked.give_up(index, 1)
        await answered
        try:
            await self._report(terminal, facts, asked, logged)
        except (ArbiterLost, ArbiterRefused, ControlBusy, LogLost):
            return _unresolved(len(facts))  # logged, but not told: the till tells them again
        except LogDamaged as damage:
            self._lanes[damage.partition].halt(str(damage))
            return _unresolved(len(facts))
        return asked

    async def _take_one(
        self, asked: Asked, index: int, terminal: Terminal, fact: Fact, logged: Logged, outage: Outage
    ) -> None:
        scan, found = fact.redeem, logged[fact.redeem.redemption_id]
        if fault := fault_of(scan):
            self._log_strange(asked, index, terminal, fact, Verdict.UNREADABLE, fault)
            return
        if (first := claim_of(found)) is not None:  # perhaps used at another gateway; from now on here, too
            self._redeemer.recent.put(scan.redemption_id, first, self._now_ms())
        told = found if found is not None and found.extra.offline is not None else None
        if told is not None and told.verdict not in (*_ASKED_AGAIN, *_UNTIL_ISSUED):
            conflict = self._control.directory.conflicts.get(scan.redemption_id)
            if told.verdict not in _LOST_BYTES or conflict is not None:
                self._answer_from_log(asked, index, told, told.verdict, conflict)
                return
        named = await self._named(scan.code)
        if named is None:
            asked.give_up(index, 1)
        elif isinstance(named, Refused):
            if told is not None and told.verdict == named.verdict:
                self._answer_from_log(asked, index, told, told.verdict)
                return
            if named.verdict is Verdict.UNKNOWN_CODE:  # of typed and foreign codes, which can be guessed
                self._redeemer.count_guess(terminal, scan.redemption_id)
            self._log_strange(asked, index, terminal, fact, named.verdict, named.why)
        else:
            await self._log(asked, index, terminal, fact, named, logged, outage)

    def _answer_from_log(
        self, asked: Asked, index: int, found: Found, verdict: int, conflict: OfflineConflict | None = None
    ) -> None:
        if conflict is not None and conflict.first_kind == "redeemed":
            who = conflict.first_terminal.to_bytes(4, "big") + conflict.first_ms.to_bytes(6, "big")
            asked.told[index] = REDEEMED + NO_ID + who + conflict.first_seq.to_bytes(5, "big")
        asked.at_ms = asked.at_ms or found.at_ms
        asked.settle(index, bytes((verdict,)), found.partition, found.seq, found.index)

    async def _named(self, code: str) -> Spot | Refused | None:
        """The issued voucher a code names, Refused if there is none, None if nobody can tell right now."""
        named = await self._redeemer.identify(code)
        if not isinstance(named, Spot) or self._is_issued(named):
            return named
        await self._control.confirm()
        return named if self._is_issued(named) else Refused(Verdict.NOT_ISSUED, "its serial was never issued")

    def _is_issued(self, spot: Spot) -> bool:
        campaign = self._control.directory.campaigns.get(spot.campaign)
        return campaign is not None and campaign.issued(spot.kind).holds(spot.serial)

    async def _log(
        self,
        asked: Asked,
        index: int,
        terminal: Terminal,
        fact: Fact,
        spot: Spot,
        logged: Logged,
        outage: Outage,
    ) -> None:
        directory, scan, now_ms = self._control.directory, fact.redeem, self._now_ms()
        campaign = directory.campaigns[spot.campaign]
        claim_id = claim_id_of(terminal.number, scan, spot.campaign, spot.serial)
        recent = self._redeemer.recent
        if campaign.purged:
            logged[scan.redemption_id] = await self._found_for_good(spot, scan.redemption_id)
        found = logged[scan.redemption_id]
        first = claim_of(found) or recent.get(scan.redemption_id)
        if first is not None and first != claim_id:
            why = "this number was used for another voucher"
            self._log_strange(asked, index, terminal, fact, Verdict.ID_REUSED, why)
            return
        undone = None
        if campaign.purged and found is not None and found.verdict not in _LOST_BYTES:
            undone = await self._ledger.reversal_of(found, campaign.offer.reversal_window_ms)
        if campaign.purged and found is not None and found.verdict in _ASKED_AGAIN:
            self._answer_from_log(asked, index, found, Verdict.REVERSED if undone else found.verdict)
            return
        broken = self._breaches(directory, campaign, terminal, fact, outage)
        if first is None:
            outage.add(campaign.number, campaign.offer.value_minor)
            recent.put(scan.redemption_id, claim_id, now_ms)
        partition = partition_of(spot.campaign, spot.serial, len(self._lanes))
        again = campaign.purged and found is not None and found.verdict in _LOST_BYTES
        verdict = Verdict.CONFLICT_AGAIN if again else Verdict.REVERSED if undone else Verdict.CONFLICT
        record = self._packed(verdict, terminal, scan, spot.campaign, spot.serial, claim_id)
        acceptance = Acceptance(_sane(fact.accepted_ms), _sane(fact.contact_ms), broken)
        extra = Extra(scan.merchant_ref, scan.cashier_ref, offline=acceptance)
        key = None if campaign.purged else voucher_key(partition, spot.campaign, spot.serial)
        self._lanes[partition].add(record, key, asked, index, extra)

    async def _found_for_good(self, spot: Spot, redemption_id: bytes) -> Found | None:
        """What the log says of a fact of a purged campaign, when no gateway can claim it any more.

        Raises ArbiterRefused until then, ArbiterLost, LogLost, LogDamaged.
        """
        if self._control.purged_for_s(spot.campaign) < HEARD_S:
            raise ArbiterRefused("the campaign was purged a moment ago: ask again")
        await self._desk.claims_logged(partition_of(spot.campaign, spot.serial, len(self._lanes)))
        logged = await looked_up(self._ledger, self._lanes, self._redeemer.recent, [redemption_id])
        if redemption_id not in logged:
            raise ArbiterRefused("nobody can tell now what the log says of it: ask again")
        return logged[redemption_id]

    def _breaches(
        self, directory: Directory, campaign: Campaign, terminal: Terminal, fact: Fact, outage: Outage
    ) -> tuple[str, ...]:
        return breaches(
            campaign,
            directory.outlet(terminal.store),
            fact,
            outage,
            revoked=directory.terminals[terminal.number].revoked,
            signed=self.keys.is_signed(fact.redeem.code),
            now_ms=self._now_ms(),
        )

    def _log_strange(
        self, asked: Asked, index: int, terminal: Terminal, fact: Fact, verdict: Verdict, why: str
    ) -> None:
        """A record of a fact that can hold no voucher; the reason stands in it, and the till hears a public word."""
        if verdict in (Verdict.UNREADABLE, Verdict.ID_REUSED):
            asked.notes[index] = why
        scan, tag = fact.redeem, self._redeemer.ring.tag(fact.redeem.code)
        claim_id = claim_id_of(terminal.number, scan, 0, tag) if len(scan.redemption_id) == ID_BYTES else NO_ID
        record = self._packed(verdict, terminal, scan, 0, tag, claim_id)
        extra = Extra(reason=why, offline=Acceptance(_sane(fact.accepted_ms), _sane(fact.contact_ms)))
        self._lanes[terminal.number % len(self._lanes)].add(record, None, asked, index, extra)

    def _packed(
        self, verdict: Verdict, terminal: Terminal, scan: Redeem, campaign: int, serial: int, claim_id: bytes
    ) -> bytes:
        redemption_id = scan.redemption_id if len(scan.redemption_id) == ID_BYTES else NO_ID
        control_seq = self._control.directory.control_seq & 0xFFFFFFFF
        return RECORD.pack(
            *(REDEEM, verdict, scan.entry & 3, 0, campaign, serial, redemption_id, claim_id),
            *(terminal.number, scan.scanned_ms if 0 <= scan.scanned_ms < SCANNED_MS_END else 0, control_seq),
        )

    # --- conflicts ---

    async def _report(self, terminal: Terminal, facts: Sequence[Fact], asked: Asked, logged: Logged) -> None:
        """Write the conflicts of a message that are not written yet. Raises ControlBusy, LogLost, LogFailed."""
        places = {
            first + offset: (partition, seq, index + offset)
            for first, partition, seq, index, count in asked.places
            for offset in range(count)
        }
        events = []
        for index, code in enumerate(asked.codes):
            fact, before = facts[index], logged.get(facts[index].redeem.redemption_id)
            if code not in _LOST_BYTES or fact.redeem.redemption_id in self._control.directory.conflicts:
                continue
            place = places[index]
            if before is not None and before.verdict == Verdict.CONFLICT:
                place = before.partition, before.seq, before.index
            told = entry_of(asked.told[index]) if index in asked.told else _NOBODY
            events.append(await self._conflict(terminal, fact, place, told, code))
        if not events:
            return

        def make(directory: Directory, _: int) -> list[OfflineConflict]:
            return list({e.redemption_id: e for e in events if e.redemption_id not in directory.conflicts}.values())

        outcome = await self._control.record("gateway", make)
        assert not isinstance(outcome, Rejected), f"{outcome.field}: {outcome.why}"

    async def _conflict(
        self, terminal: Terminal, fact: Fact, place: tuple[int, int, int], told: Entry, code: int
    ) -> OfflineConflict:
        spot = await self._redeemer.identify(fact.redeem.code)
        if not isinstance(spot, Spot):
            raise ArbiterLost("a code that was known a moment ago cannot be looked up")
        first = told if code == Verdict.CONFLICT else await self._first_of(spot, terminal, fact, told)
        at_first = self._control.directory.terminals.get(first.terminal) if first.kind != LOST else None
        return OfflineConflict(
            campaign=spot.campaign,
            serial=spot.serial,
            redemption_id=fact.redeem.redemption_id,
            place=place,
            terminal=terminal.number,
            store=terminal.store,
            accepted_ms=fact.accepted_ms,
            first_kind=_KINDS.get(first.kind, "unknown"),
            first_terminal=at_first.number if at_first else 0,
            first_store=at_first.store if at_first else "",
            first_ms=first.at_ms,
            first_seq=first.seq,
        )

    async def _first_of(self, spot: Spot, terminal: Terminal, fact: Fact, told: Entry) -> Entry:
        """Who held the voucher when this fact lost it, some time ago: may be reversed by now, and another one there."""
        state = await self._desk.voucher(spot.campaign, spot.serial)
        claim_id = claim_id_of(terminal.number, fact.redeem, spot.campaign, spot.serial)
        since = dropwhile(lambda entry: (entry.kind, entry.claim_id) != (LOST, claim_id), state.settled)
        undone = next((entry for entry in since if entry.kind == REVERSED), None)  # they stand as they came about
        if undone is None:
            return state.holder or told
        partition = partition_of(spot.campaign, spot.serial, len(self._lanes))
        found = await self._ledger.undone_by(partition, undone)
        if found is None:
            return undone
        return Entry(REDEEMED, undone.claim_id, undone.terminal, found.at_ms, found.seq)


def _settle_once(answered: asyncio.Future[Asked], asked: Asked) -> None:
    if not answered.done():  # the caller may have gone away
        answered.set_result(asked)


def _sane(moment_ms: int) -> int:
    return moment_ms if 0 <= moment_ms < SCANNED_MS_END else 0


def _unresolved(count: int) -> Asked:
    asked = Asked(count, lambda whole: None)
    asked.give_up(0, count)
    return asked
