"""The rules of a till, between the scanners, the journal, the outbox and the cashier.

Theory of operation. A scan is journalled before anything is sent, and an answer before it is told, so that a till that
is killed at any moment asks again with the same id when it comes back, and its journal never says less than the
cashier was told. Scans are taken one at a time, in the order they were read; while an id for a code is unresolved, a
further read of that code joins it, and no second redemption can come of it. There are two ways out: the answer, or the
cashier gives the id up, which is a reversal, asked until it is answered, over restarts too.

A scanner that can be answered hears twice of a scan: that the journal has it, at once, and the verdict. The verdict is
sounded only where nothing newer was scanned; when it takes long (no connection, no answer) the scanner is told to wait
no longer, so that one that reads nothing before its verdict is free again.

Without a connection a voucher may be accepted here, if its campaign allows it and within its caps (offline.py). That is
journalled before the yes, and from then on it is a fact: the gateway is told of it, not asked, until it says what it
came to.
"""

import asyncio
import os
import time
from collections.abc import Callable
from typing import Literal

from devices.config import TYPED_SOURCE
from devices.console import SetReference, ShowOpen, ShowPairing, TypedCode, Undo, parse_command
from devices.feedback import Mood, Told, mood_of, tail_of
from devices.framing import RESENT_MS, Frame, FrameFault, Signal
from devices.journal import Journal, JournalFull
from devices.offline import Refusal, Why, code_of
from devices.outbox import Answer, Outbox, is_final, uuid7
from devices.page_view import PAGE_NAME
from devices.records import (
    Answered,
    Entry,
    OfflineAccepted,
    Record,
    ReversalAnswered,
    ReversalAsked,
    Scanned,
    is_reversible,
)
from devices.scan import scan_of
from devices.screen import Screen
from devices.soundings import Soundings
from gateway.messages import Fact, Grant, Notice, Redeem, Reverse, Welcome

JOURNAL_UNRESOLVED_MAX = 10_000  # one scan per 3 s fills this in 8 h without a gateway: a full shift
REREAD_MS = 1500  # one pull of the trigger can read twice; a person who means it again takes longer
STATUS_LINES_MAX = 20  # what fits on a screen
ENTRY_SCANNED, ENTRY_TYPED = 1, 2
GIVEN_UP = "given up at the till"
SIGNAL_OF = {Mood.GOOD: Signal.GOOD, Mood.BAD: Signal.BAD, Mood.WAIT: Signal.WAIT}


class Till:
    """Takes reads, commands and answers.

    `wake` is called whenever the outbox has something new, `sound` to have a scanner sound something, `pairing` for
    digits that pair a device with the cashier's page.
    """

    def __init__(self, journal: Journal, outbox: Outbox, screen: Screen, language: str) -> None:
        self.wake: Callable[[], None] = lambda: None
        self.sound: Callable[[str, Signal], None] = lambda source, signal: None
        self.pairing: Callable[[], str] = lambda: ""
        self._journal = journal
        self._outbox = outbox
        self._screen = screen
        self._language_fixed = bool(language)
        self._online: bool | None = None
        self._taking = asyncio.Lock()
        self._last_reads: dict[str, tuple[bytes, bytes, int]] = {}  # source -> hash, redemption_id, monotonic ms
        self._told_unsure: set[bytes] = set()
        self._soundings = Soundings(self)
        self._references: dict[str, str | None] = {"receipt": None, "cashier": None}  # of new scans

    @property
    def online(self) -> bool:
        return self._online is True

    def resume(self) -> None:
        """Ask again for everything the journal left open. Raises `JournalDamaged` when a seal does not open."""
        for record in self._journal.ledger.open_records():
            if record.unresolved:
                self._outbox.add_redeem(self._journal.unseal(record), record.code_hash, monotonic_ms())
            if record.offline and record.untold:
                self._tell_fact(self._journal.unseal(record), record.offline, record.code_hash)
            if reversing := record.reversing:
                self._ask_reversal(record, reversing.reversal_id, reversing.reversed_ms, reversing.gave_up)

    async def take_read(
        self,
        source: str,
        found: Frame | FrameFault,
        entry: int = ENTRY_SCANNED,
        settle: Callable[[bool], None] = lambda kept: None,
    ) -> str:
        """Take what a scanner read; the text that was shown for it. `settle` hears whether the journal has it."""
        scan = scan_of(found, source) if isinstance(found, Frame) else found
        if isinstance(scan, FrameFault):
            settle(False)
            self.sound(source, Signal.BAD)
            return self._tell(Mood.BAD, scan.reason.value, source=source)
        async with self._taking:
            code_hash = self._journal.code_hash(scan.code)
            record = self._same_scan(source, code_hash, resent=isinstance(found, Frame) and found.resent)
            redemption_id = record.redemption_id if record else _new_id()
            asking = record is None or record.unresolved
            offline = self._journal.offline.ask(scan.code, redemption_id, self._journal.ledger) if asking else None
            if isinstance(offline, Refusal) and offline.why is Why.USED_HERE:
                settle(True)
                self.sound(source, Signal.BAD)
                return self._tell(Mood.BAD, offline.why, source=source)
            kept = await self._keep(redemption_id, scan.code, code_hash, entry, record, offline)
            settle(kept)
            if not kept:
                self.sound(source, Signal.BAD)
                return self._tell(Mood.BAD, "journal_full", source=source)
            if record is None or not record.unresolved:
                self._last_reads[source] = (code_hash, redemption_id, monotonic_ms())
            if offline is not None:
                return self._tell_offline(source, redemption_id, offline)
            return self._tell_heard(source, redemption_id, record)

    async def execute(self, command: str) -> str:
        """Carry out one line of the cashier's; returns the text that was shown for it."""
        match parse_command(command):
            case Undo(verb=verb, tail=tail):
                async with self._taking:
                    return await self._undo(verb, tail)
            case TypedCode(code=code):
                return await self.take_read(TYPED_SOURCE, Frame(code.encode()), ENTRY_TYPED)
            case ShowOpen():
                return self._show_open()
            case SetReference(which=which, text=text):
                self._references[which] = text or None
                return self._tell(Mood.PLAIN, f"ref_{which}" if text else f"no_ref_{which}", words=text)
            case ShowPairing():
                digits = self.pairing()
                return self._tell(Mood.PLAIN, "pair" if digits else "no_pair", words=digits)
            case None:
                return self._tell(Mood.PLAIN, "commands")

    # --- what the uplink tells us -------------------------------------------------------------------------------------

    async def on_answers(self, answers: list[Answer]) -> None:
        final = [a for a in answers if is_final(a.verdict, is_reversal=a.is_reversal)]
        if final:
            await self._journal.note(*map(_entry_of, final))
        for answer in answers:
            self._tell_answer(answer)
        await self._journal.compact_if_due()

    def on_welcome(self, welcome: Welcome) -> None:
        if not self._language_fixed:
            self._screen.language = welcome.language
        if self._online is not True:
            self._tell(Mood.PLAIN, "online", words=welcome.store)
        self._online = True
        self._journal.offline.connected(welcome.server_ms)

    async def on_grant(self, grant: Grant) -> None:
        await self._journal.offline.take(grant)

    def on_link_lost(self, reason: str) -> None:
        if self._online is not False:
            self._tell(Mood.WAIT, "offline", words=reason)
        self._online = False
        self._journal.offline.lost()
        self._soundings.take_long()

    def on_notice(self, notice: Notice) -> None:
        self._tell(Mood.PLAIN, "notice", words=f"{notice.code}: {notice.text}")

    def on_port(self, scanner: str, lost: str | None) -> None:
        if lost is None:
            self._tell(Mood.PLAIN, "scanner_ready", source=scanner)
        else:
            self._tell(Mood.WAIT, "scanner_lost", source=scanner, words=lost)

    def _tell(self, mood: Mood, key: str, redemption_id: bytes = b"", source: str = "", words: str = "") -> str:
        return self._screen.tell(Told(mood, key, redemption_id, source, words))

    # --- redemptions --------------------------------------------------------------------------------------------------

    def _same_scan(self, source: str, code_hash: bytes, *, resent: bool) -> Record | None:
        """What a further read of a code belongs to, when it is being asked or was just accepted here."""
        if record := self._journal.ledger.unresolved_for(code_hash):
            return record
        last_hash, redemption_id, read_ms = self._last_reads.get(source, (b"", b"", 0))
        # The cameras of all pages have one name; each folds its own looks, and two phones are two readers.
        just_read = last_hash == code_hash and monotonic_ms() - read_ms < REREAD_MS and source != PAGE_NAME
        record = self._journal.ledger.records.get(redemption_id) if just_read else None
        if record is None and resent:
            record = self._lately(code_hash)
        return record if record and record.stands and not record.reversals else None

    def _lately(self, code_hash: bytes) -> Record | None:
        """The scan that a scanner sends again, when this till was killed between the journal and the ACK."""
        since_ms = _now_ms() - RESENT_MS
        for record in reversed(self._journal.ledger.records.values()):
            if record.scanned_ms < since_ms:
                break
            if record.code_hash == code_hash:
                return record
        return None

    async def _keep(
        self,
        redemption_id: bytes,
        code: str,
        code_hash: bytes,
        entry: int,
        record: Record | None,
        offline: OfflineAccepted | Refusal | None,
    ) -> bool:
        """Journal what is new of a scan and have it asked, or told if it was accepted here; False: no room for it."""
        accepted: list[Entry] = [offline] if isinstance(offline, OfflineAccepted) else []
        if record is not None:
            redeem, entries = self._journal.unseal(record) if accepted else None, accepted
        else:
            if self._journal.ledger.open_count() >= JOURNAL_UNRESOLVED_MAX:
                return False
            receipt, cashier = self._references["receipt"], self._references["cashier"]
            redeem, spelled = Redeem(redemption_id, code, _now_ms(), entry, receipt, cashier), code_of(code)
            sealed, voucher = self._journal.seal(redeem), spelled.voucher if spelled else b""
            entries = [Scanned(redemption_id, redeem.scanned_ms, code_hash, sealed, voucher), *accepted]
        try:
            if entries:
                await self._journal.commit(*entries)
        except JournalFull:
            return False
        if redeem and isinstance(offline, OfflineAccepted):
            self._tell_fact(redeem, offline, code_hash)
        elif redeem:
            self._outbox.add_redeem(redeem, code_hash, monotonic_ms())
        return True

    def _tell_fact(self, redeem: Redeem, offline: OfflineAccepted, code_hash: bytes) -> None:
        self._outbox.add_fact(Fact(redeem, offline.accepted_ms, offline.contact_ms), code_hash, monotonic_ms())

    def _tell_offline(self, source: str, redemption_id: bytes, offline: OfflineAccepted | Refusal) -> str:
        """What the till itself says of a scan while there is no connection."""
        self.wake()
        if isinstance(offline, OfflineAccepted):
            self._soundings.forget(redemption_id)
            self.sound(source, Signal.GOOD)
            return self._tell(Mood.OFFLINE, "accepted_offline", redemption_id, source, offline.offer)
        self._soundings.expect(source, redemption_id, long=True)
        return self._tell(Mood.WAIT, offline.why, redemption_id, source, offline.words)

    def _tell_heard(self, source: str, redemption_id: bytes, record: Record | None) -> str:
        """`record`: the scan was known before."""
        if record and not record.unresolved:
            self.sound(source, Signal.WAIT)  # its yes was sounded once, and stands for one voucher
            if record.untold:
                return self._tell(Mood.OFFLINE, "same_scan_offline", redemption_id, source)
            return self._tell(Mood.GOOD, "same_scan", redemption_id, source)
        if record:
            self._outbox.hurry(redemption_id, monotonic_ms())
        self.wake()
        held = self._outbox.is_held(redemption_id)
        long = held or not self._online or redemption_id in self._told_unsure
        self._soundings.expect(source, redemption_id, long=long)
        heard = "heard" if self._online else "heard_offline"
        return self._tell(Mood.WAIT, "again" if record else "held" if held else heard, redemption_id, source)

    # --- reversals ----------------------------------------------------------------------------------------------------

    async def _undo(self, verb: Literal["reverse", "give-up"], tail: str) -> str:
        record = self._meant(verb, tail)
        if isinstance(record, str):
            return self._tell(Mood.BAD, record)
        asked = ReversalAsked(_new_id(), record.redemption_id, _now_ms(), record.unresolved)
        try:
            await self._journal.commit(asked)
        except JournalFull:
            return self._tell(Mood.BAD, "journal_full")
        self._ask_reversal(record, asked.reversal_id, asked.reversed_ms, asked.gave_up)
        self.wake()
        self._soundings.verdict(record.redemption_id, Signal.WAIT)
        return self._tell(Mood.WAIT, "undoing", record.redemption_id)

    def _meant(self, verb: Literal["reverse", "give-up"], tail: str) -> Record | str:
        """The record a command speaks of, or what to say instead."""
        ledger = self._journal.ledger
        if not tail:
            return ledger.last(unresolved=verb == "give-up") or "no_such"
        named = ledger.with_tail(tail)
        if len(named) > 1:
            return "ambiguous"
        if not named or not is_reversible(named[0]):
            return "no_such"
        return "not_open" if verb == "give-up" and not named[0].unresolved else named[0]

    def _ask_reversal(self, record: Record, reversal_id: bytes, reversed_ms: int, gave_up: bool) -> None:
        # The same on every retry, over restarts too: the seal stays in the journal until this has its answer.
        original = self._journal.unseal(record) if record.sealed else None
        reason = GIVEN_UP if gave_up else None
        reverse = Reverse(reversal_id, record.redemption_id, reversed_ms, original, reason)
        self._outbox.add_reverse(reverse, record.code_hash, monotonic_ms())
        self._told_unsure.discard(record.redemption_id)

    # --- answers ------------------------------------------------------------------------------------------------------

    def _tell_answer(self, answer: Answer) -> None:
        record = self._journal.ledger.records.get(answer.redemption_id)
        if record and record.reversals and not answer.is_reversal and mood_of(answer) is Mood.GOOD:
            return  # given up while this answer was journalled: no yes after "undoing", the reversal's answer is told
        if is_final(answer.verdict, is_reversal=answer.is_reversal):
            self._told_unsure.discard(answer.asked_id)
        elif answer.asked_id in self._told_unsure or not self._outbox.is_asking(answer.asked_id):
            return  # once is enough, however often it is asked; and what was given up meanwhile is not waited for
        else:
            self._told_unsure.add(answer.asked_id)
        if not answer.is_reversal:
            self._soundings.verdict(answer.redemption_id, SIGNAL_OF[mood_of(answer)])
        self._screen.tell(Told(mood_of(answer), redemption_id=answer.redemption_id, answer=answer))

    def _show_open(self) -> str:
        records = self._journal.ledger.open_records()
        if not records:
            return self._tell(Mood.PLAIN, "nothing_open")
        tails = " ".join(tail_of(r.redemption_id) for r in records[-STATUS_LINES_MAX:])
        return self._tell(Mood.WAIT, "open", words=f"({len(records)}): {tails}")


def _entry_of(answer: Answer) -> Entry:
    place = (answer.place.partition, answer.place.seq, answer.place.index) if answer.place else (0, 0, 0)
    told = (answer.verdict, *place, answer.at_ms)
    if answer.is_reversal:
        return ReversalAnswered(answer.asked_id, answer.redemption_id, *told)
    return Answered(answer.redemption_id, *told)


def _new_id() -> bytes:
    return uuid7(_now_ms(), os.urandom(10))


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def monotonic_ms() -> int:
    return time.monotonic_ns() // 1_000_000
