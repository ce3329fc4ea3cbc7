"""Scans become records: parse the code, ask the rules, pack 64 bytes, hand them to the voucher's lane.

Theory. This is the hot path, so it is synchronous: a message becomes records in one go, and its answers come back
through `Asked` when the lanes have them in the log. Three things cannot be decided from memory and take the slow way, a
task for the message: typed and foreign codes (a look-up in Valkey's registry, which counts only beside a head), serials
and campaigns this gateway does not know (no refusal rests on absence until the control head is confirmed), and ids that
may have been used before the ids in memory begin (a look-up in the redemption index).

Every scan becomes a record, refused ones too, and the claim sees all that name a voucher: a retry of an accepted
redemption must get its first answer even if its campaign has closed since. The claim id is a digest of terminal,
redemption id and body (code and references; not the time of the scan, which a till may stamp anew): another body or
another terminal is never a repeat.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence

from eventstore.events import NO_ID, RECORD, REDEEM, Extra
from eventstore.log import LogLost
from eventstore.vouchers import voucher_key
from gateway.campaign import SIGNED, decide
from gateway.codes import SERIAL_MAX, Hashed, KeyRing, Refused
from gateway.control import Control
from gateway.directory import Terminal
from gateway.guesses import Guesses
from gateway.identity import NO_BODY, SCANNED_MS_END, Spot, claim_id_of, fault_of, pack_claim, partition_of
from gateway.ids import RecentIds
from gateway.lane import Asked, Lane
from gateway.ledger import LOOK_UP_S_MAX, Found, UsedIds, claim_of, looked_up
from gateway.messages import ID_BYTES, Redeem, Verdict
from gateway.pipe import ArbiterLost, ArbiterRefused
from gateway.registry import Nowhere, Registry
from gateway.standings import Standings

SLOW_SCANS_MAX = 4096  # scans waiting for a look-up; more is shed as UNRESOLVED, and the till asks again
_UNKNOWN, _FORGED = Verdict.UNKNOWN_CODE, Verdict.FORGED
pack = RECORD.pack


class Redeemer:
    """Admits scans of authenticated terminals."""

    def __init__(
        self,
        *,
        ring: KeyRing,
        control: Control,
        lanes: Sequence[Lane],
        registry: Registry,
        used: UsedIds,
        recent: RecentIds,
        now_ms: Callable[[], int],
        is_stalled: Callable[[], bool],
        on_fatal: Callable[[BaseException], None],
    ) -> None:
        self.ring = ring
        self.recent = recent
        self._control, self._lanes, self._used = control, lanes, used
        self._is_stalled, self._on_fatal = is_stalled, on_fatal
        self._registry = registry
        self._rules = Standings(control, now_ms)
        self._guesses = Guesses()
        self._partitions = len(lanes)
        self._slow_scans = 0
        self._tasks: set[asyncio.Task[None]] = set()

    def redeem(self, terminal: Terminal, scans: Sequence[Redeem], done: Callable[[Asked], None]) -> None:
        """Admit one message. `done` gets every verdict, UNRESOLVED where nothing is known; maybe at once."""
        asked = Asked(len(scans), done)
        if not scans:
            done(asked)
            return
        if self._is_stalled() or not self._control.is_confirmed():
            asked.give_up(0, len(scans))
            return
        now_ms = self._rules.tick()
        odd: Iterable[int] = range(len(scans))
        if self._partitions == 1 and now_ms >= terminal.locked_until_ms:
            odd = self._admit_plain(asked, terminal, scans, now_ms)
        slow = [index for index in odd if not self._admit_one(asked, index, terminal, scans[index], now_ms)]
        if slow:
            self._slowly(asked, terminal, scans, slow)

    def _admit_plain(self, asked: Asked, terminal: Terminal, scans: Sequence[Redeem], now_ms: int) -> list[int]:
        """Admit the scans with nothing special about them, which is nearly all, in one loop; returns the others.

        Plain: a clean genuine code of a known range, a new id (or a repeat), no references, one partition.
        """
        genuine, use, number, store = self.ring.genuine, self.recent.use, terminal.number, terminal.store
        seq = self._rules.control_seq & 0xFFFFFFFF
        records: list[bytes] = []
        keys: list[bytes] = []
        odd: list[int] = []
        first, of_campaign, hash_prefix, standing, begin, end = 0, -1, b"", 0, 0, 0
        for index, scan in enumerate(scans):
            both, redemption_id, scanned_ms = genuine(scan.code), scan.redemption_id, scan.scanned_ms
            campaign, serial = both >> 40, both & SERIAL_MAX
            if campaign != of_campaign and both >= 0:
                kept = self._rules.kept(campaign, store, SIGNED)
                of_campaign, standing, begin, end = campaign, int(kept.standing), kept.first, kept.end
                hash_prefix = b"{0}v%d:" % campaign  # the voucher_key() of what this loop admits, without the call
            if (
                both >= 0
                and begin <= serial < end
                and scan.merchant_ref is None
                and scan.cashier_ref is None
                and len(redemption_id) == ID_BYTES
                and 0 <= scanned_ms < SCANNED_MS_END
            ):
                state = NO_BODY.copy()
                state.update(pack_claim(number, redemption_id, campaign, serial))
                claim_id = state.digest()
                if use(redemption_id, claim_id, now_ms) == claim_id:
                    entry = scan.entry & 3  # no star in the call: it would cost twice what the packing does
                    record = pack(
                        REDEEM, standing, entry, 0, campaign, serial, redemption_id, claim_id, number, scanned_ms, seq
                    )
                    records.append(record)
                    keys.append(b"%b%d" % (hash_prefix, serial >> 6))
                    continue
            odd.append(index)
            if records:
                self._lanes[0].add_run(records, keys, asked, first)
                records, keys = [], []
            first = index + 1
        if records:
            self._lanes[0].add_run(records, keys, asked, first)
        return odd

    def _admit_one(self, asked: Asked, index: int, terminal: Terminal, scan: Redeem, now_ms: int) -> bool:
        """Admit or refuse any scan. False: it needs the slow way."""
        code = self.ring.parse(scan.code)
        if isinstance(code, Hashed):
            return False
        if isinstance(code, Refused):
            self._refuse(asked, index, terminal, scan, code.verdict, code.why)
            return True
        verdict = self._rules.judge(terminal, code.campaign, code.serial, SIGNED)
        if verdict is Verdict.NOT_ISSUED:
            return False
        return self._admit(asked, index, terminal, scan, code.campaign, code.serial, verdict, now_ms)

    def judge(self, terminal: Terminal, spot: Spot) -> Verdict:
        """What the static rules say of this voucher at this terminal now."""
        directory = self._control.directory
        return decide(
            directory.campaigns.get(spot.campaign),
            directory.outlet(terminal.store),
            serial=spot.serial,
            kind=spot.kind,
            locked_until_ms=terminal.locked_until_ms,
            now_ms=self._rules.tick(),
        )

    def count_guess(self, terminal: Terminal, request: bytes) -> None:
        """An unknown or forged code from this terminal, in this request; too many lock it."""
        if self._guesses.wrong(terminal.number, self._rules.tick(), request):
            self._guesses.locking.add(terminal.number)
            self._spawn(self._lock(terminal.number))

    async def _lock(self, terminal: int) -> None:
        try:
            await self._control.lock_terminal(terminal)
        finally:
            self._guesses.locking.discard(terminal)

    def is_locked(self, terminal: Terminal) -> bool:
        """Whether this terminal has guessed too often lately."""
        return self._rules.tick() < terminal.locked_until_ms or terminal.number in self._guesses.locking

    async def identify(self, code: str) -> Spot | Refused | None:
        """Which voucher a code names; None if the registry cannot be believed right now."""
        parsed = self.ring.parse(code)
        if isinstance(parsed, Refused):
            return parsed
        try:
            spot = (await self._registry.find([parsed]))[0]
        except (ArbiterLost, ArbiterRefused):
            return None
        return Refused(_UNKNOWN, "no voucher has this code") if isinstance(spot, Nowhere) else spot

    def _admit(
        self,
        asked: Asked,
        index: int,
        terminal: Terminal,
        scan: Redeem,
        campaign: int,
        serial: int,
        verdict: Verdict,
        now_ms: int,
    ) -> bool:
        """Hand a scan that names a voucher to its lane. False: whether its id is new cannot be told from memory."""
        redemption_id, has_refs = scan.redemption_id, scan.merchant_ref is not None or scan.cashier_ref is not None
        if len(redemption_id) != ID_BYTES or not 0 <= scan.scanned_ms < SCANNED_MS_END or has_refs:
            fault = fault_of(scan)
            if fault is not None:
                self._refuse(asked, index, terminal, scan, Verdict.UNREADABLE, fault)
                return True
        claim_id = claim_id_of(terminal.number, scan, campaign, serial)
        first = self.recent.use(redemption_id, claim_id, now_ms)
        if first is None:
            return False
        if first != claim_id:
            self._refuse(asked, index, terminal, scan, Verdict.ID_REUSED, None)
            return True
        partition = partition_of(campaign, serial, self._partitions)
        self._lanes[partition].add(
            pack(
                REDEEM,
                verdict,
                scan.entry & 3,
                0,
                campaign,
                serial,
                redemption_id,
                claim_id,
                terminal.number,
                scan.scanned_ms,
                self._rules.control_seq & 0xFFFFFFFF,
            ),
            voucher_key(partition, campaign, serial),
            asked,
            index,
            Extra(scan.merchant_ref, scan.cashier_ref) if has_refs else None,
        )
        return True

    def _refuse(
        self,
        asked: Asked,
        index: int,
        terminal: Terminal,
        scan: Redeem,
        verdict: Verdict,
        note: str | None,
        partition: int | None = None,
    ) -> None:
        """Record a scan that names no voucher (or must not touch the one it names)."""
        if verdict > Verdict.TERMINAL_LOCKED and self.is_locked(terminal):
            verdict, note = Verdict.TERMINAL_LOCKED, None
        elif verdict in (_UNKNOWN, _FORGED, Verdict.NOT_ISSUED):
            self.count_guess(terminal, scan.redemption_id)
        elif note is not None:
            asked.notes[index] = note
        redemption_id = scan.redemption_id if len(scan.redemption_id) == ID_BYTES else NO_ID
        tag = self.ring.tag(scan.code)
        record = pack(
            REDEEM,
            verdict,
            scan.entry & 3,
            0,
            0,
            tag,
            redemption_id,
            claim_id_of(terminal.number, scan, 0, tag),
            terminal.number,
            scan.scanned_ms if 0 <= scan.scanned_ms < SCANNED_MS_END else 0,
            self._rules.control_seq & 0xFFFFFFFF,
        )
        lane = self._lanes[terminal.number % len(self._lanes) if partition is None else partition]
        lane.add(record, None, asked, index)

    # --- the slow way ---

    def _slowly(self, asked: Asked, terminal: Terminal, scans: Sequence[Redeem], slow: list[int]) -> None:
        if self._slow_scans + len(slow) > SLOW_SCANS_MAX:
            for index in slow:
                asked.give_up(index, 1)
            return
        self._slow_scans += len(slow)
        self._spawn(self._admit_slowly(asked, terminal, scans, slow))

    def _spawn(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._on_fatal(error)  # a bug, or the log failed

    async def _admit_slowly(self, asked: Asked, terminal: Terminal, scans: Sequence[Redeem], slow: list[int]) -> None:
        spots: Sequence[Spot | Nowhere | None] = [None] * len(slow)
        try:
            with contextlib.suppress(ArbiterLost, ArbiterRefused, LogLost, TimeoutError):
                async with asyncio.timeout(LOOK_UP_S_MAX):
                    await self._control.confirm()
                    spots = await self._registry.find([self.ring.parse(scans[index].code) for index in slow])
            named = [scans[i].redemption_id for i, spot in zip(slow, spots, strict=True) if isinstance(spot, Spot)]
            strange = [one for one in named if self._is_strange(one)]
            logged = await looked_up(self._used, self._lanes, self.recent, strange)
            for index, spot in zip(slow, spots, strict=True):
                if spot is None or not self._learn(logged, scans[index], spot, terminal.number):
                    asked.give_up(index, 1)
                else:
                    self._admit_found(asked, index, terminal.number, scans[index], spot)
        finally:
            self._slow_scans -= len(slow)

    def _is_strange(self, redemption_id: bytes) -> bool:
        return len(redemption_id) == ID_BYTES and self.recent.is_strange(redemption_id)

    def _learn(self, logged: Mapping[bytes, Found | None], scan: Redeem, spot: Spot | Nowhere, terminal: int) -> bool:
        """Bring what this scan's id stands for into memory, if memory cannot tell; False: nobody can."""
        redemption_id = scan.redemption_id
        if isinstance(spot, Nowhere) or not self._is_strange(redemption_id):
            return True
        if redemption_id not in logged:
            return False
        claim_id = claim_of(logged[redemption_id]) or claim_id_of(terminal, scan, spot.campaign, spot.serial)
        self.recent.put(redemption_id, claim_id, self._rules.tick())
        return True

    def _admit_found(self, asked: Asked, index: int, number: int, scan: Redeem, spot: Spot | Nowhere) -> None:
        """Judge after the last wait: the campaign, the terminal and the lock may have changed meanwhile."""
        terminal = self._control.directory.terminals[number]
        if terminal.revoked or not self._control.is_confirmed():
            asked.give_up(index, 1)
            return
        now_ms = self._rules.tick()
        if isinstance(spot, Nowhere):
            self._refuse(asked, index, terminal, scan, _UNKNOWN, None, spot.partition)
            return
        verdict = self._rules.judge(terminal, spot.campaign, spot.serial, spot.kind)
        if verdict is Verdict.NOT_ISSUED:
            self._refuse(asked, index, terminal, scan, verdict, None)
            return
        if verdict is not Verdict.TERMINAL_LOCKED and number in self._guesses.locking:
            verdict = Verdict.TERMINAL_LOCKED
        if not self._admit(asked, index, terminal, scan, spot.campaign, spot.serial, verdict, now_ms):
            asked.give_up(index, 1)  # its id left memory in the moment between: as good as not asked

    async def close(self) -> None:
        """Wait for look-ups under way."""
        while self._tasks:
            await asyncio.wait(self._tasks)
