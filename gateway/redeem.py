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
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

import msgspec

from eventstore.events import NO_ID, RECORD, REDEEM, Extra
from eventstore.vouchers import REGISTRY_VALUE, registry_key, registry_partition
from gateway.campaign import SIGNED, Spans, compose, standing
from gateway.claims import Arbiter
from gateway.codes import Hashed, KeyRing, Refused, Signed
from gateway.control import Control
from gateway.directory import Terminal
from gateway.guesses import Guesses
from gateway.identity import SCANNED_MS_END, Spot, claim_id_of, fault_of, partition_of
from gateway.ids import RecentIds
from gateway.lane import Asked, Lane
from gateway.messages import ID_BYTES, Redeem, Verdict
from gateway.pipe import ArbiterLost, ArbiterRefused

RULES_STALE_MS_MAX = 10  # standings are computed once per campaign, store and tick of this length
SLOW_SCANS_MAX = 4096  # scans waiting for a look-up; more is shed as UNRESOLVED, and the till asks again
_ACCEPTED, _UNKNOWN, _FORGED, _NOT_ISSUED = (
    Verdict.ACCEPTED,
    Verdict.UNKNOWN_CODE,
    Verdict.FORGED,
    Verdict.NOT_ISSUED,
)
pack = RECORD.pack


class UsedIds(Protocol):
    """The slow half of refusing a reused id."""

    async def claim_id_of(self, redemption_id: bytes) -> bytes | None:
        """The claim id this redemption id stands for in the log, caught up to now; None if it was never used."""
        ...


class _Kept:
    """What the rules say of a campaign in a store during one tick. `first`..`end` is its largest issued range."""

    __slots__ = ("end", "first", "issued", "standing")

    def __init__(self, standing: Verdict, issued: Spans) -> None:
        self.standing, self.issued = standing, issued
        ranges = zip(issued.starts, issued.ends, strict=True)
        self.first, self.end = max(ranges, key=lambda span: span[1] - span[0], default=(0, 0))


class Redeemer:
    """Admits scans of authenticated terminals."""

    def __init__(
        self,
        *,
        ring: KeyRing,
        control: Control,
        lanes: Sequence[Lane],
        arbiter: Arbiter,
        used: UsedIds,
        recent: RecentIds,
        now_ms: Callable[[], int],
        is_stalled: Callable[[], bool],
        on_fatal: Callable[[BaseException], None],
    ) -> None:
        self.ring = ring
        self.recent = recent
        self._control, self._lanes, self._arbiter, self._used = control, lanes, arbiter, used
        self._now_ms, self._is_stalled, self._on_fatal = now_ms, is_stalled, on_fatal
        self._guesses = Guesses()
        self._partitions = len(lanes)
        self._standings: dict[tuple[int, str, str], _Kept] = {}
        self._standings_ms = 0
        self._standings_seq = -1
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
        now_ms = self._tick()
        parse = self.ring.parse
        slow: list[int] = []
        for index, scan in enumerate(scans):
            code = parse(scan.code)
            if type(code) is Signed:
                campaign, serial = code.campaign, code.serial
                verdict = self._judge(terminal, campaign, serial, SIGNED, now_ms)
                if verdict is _NOT_ISSUED or not self._admit(
                    asked, index, terminal, scan, campaign, serial, verdict, now_ms
                ):
                    slow.append(index)
            elif type(code) is Refused:
                self._refuse(asked, index, terminal, scan, code.verdict, code.why, now_ms)
            else:
                slow.append(index)
        if slow:
            self._slowly(asked, terminal, scans, slow)

    def judge(self, terminal: Terminal, spot: Spot) -> Verdict:
        """What the static rules say of this voucher at this terminal now."""
        return self._judge(terminal, spot.campaign, spot.serial, spot.kind, self._tick())

    async def identify(self, code: str) -> Spot | Refused | None:
        """Which voucher a code names; None if the registry cannot be believed right now."""
        parsed = self.ring.parse(code)
        if isinstance(parsed, Refused):
            return parsed
        try:
            spot = (await self._find([parsed]))[0]
        except (ArbiterLost, ArbiterRefused):
            return None
        return Refused(_UNKNOWN, "no voucher has this code") if isinstance(spot, _Nowhere) else spot

    def _tick(self) -> int:
        """The clock the rules use; forgets standings that a newer tick or a newer control event outdates."""
        now_ms = self._now_ms()
        seq = self._control.directory.control_seq
        if not 0 <= now_ms - self._standings_ms < RULES_STALE_MS_MAX or seq != self._standings_seq:
            self._standings.clear()
            self._standings_ms, self._standings_seq = now_ms, seq
        return self._standings_ms

    def _judge(self, terminal: Terminal, number: int, serial: int, kind: str, now_ms: int) -> Verdict:
        """decide(), with the part that all scans of a campaign and store share kept for the tick."""
        here = (number, terminal.store, kind)
        kept = self._standings.get(here)
        if kept is None:
            directory = self._control.directory
            campaign = directory.campaigns.get(number)
            if campaign is None:
                kept = _Kept(_ACCEPTED, Spans())
            else:
                kept = _Kept(standing(campaign, directory.outlet(terminal.store), now_ms), campaign.issued(kind))
            self._standings[here] = kept
        if now_ms >= terminal.locked_until_ms and kept.first <= serial < kept.end:
            return kept.standing
        return compose(kept.standing, locked=now_ms < terminal.locked_until_ms, issued=kept.issued.holds(serial))

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
                self._refuse(asked, index, terminal, scan, Verdict.UNREADABLE, fault, now_ms)
                return True
        claim_id = claim_id_of(terminal.number, scan, campaign, serial)
        first = self.recent.use(redemption_id, claim_id, now_ms)
        if first is None:
            return False
        if first != claim_id:
            self._refuse(asked, index, terminal, scan, Verdict.ID_REUSED, None, now_ms)
            return True
        partition = partition_of(campaign, serial, self._partitions) if self._partitions > 1 else 0
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
                self._standings_seq & 0xFFFFFFFF,
            ),
            b"{%d}v%d:%d" % (partition, campaign, serial >> 6),  # voucher_key(), without the call
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
        now_ms: int,
        partition: int | None = None,
    ) -> None:
        """Record a scan that names no voucher (or must not touch the one it names)."""
        if now_ms < terminal.locked_until_ms and verdict > Verdict.TERMINAL_LOCKED:
            verdict, note = Verdict.TERMINAL_LOCKED, None
        elif verdict in (_UNKNOWN, _FORGED, Verdict.NOT_ISSUED):
            self._count_guess(terminal, now_ms)
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
            self._standings_seq & 0xFFFFFFFF,
        )
        lane = self._lanes[terminal.number % len(self._lanes) if partition is None else partition]
        lane.add(record, None, asked, index)

    def _count_guess(self, terminal: Terminal, now_ms: int) -> None:
        if self._guesses.wrong(terminal.number, now_ms):
            self._spawn(self._control.lock_terminal(terminal.number))

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
        spots: Sequence[Spot | _Nowhere | None] = [None] * len(slow)
        with contextlib.suppress(ArbiterLost, ArbiterRefused):
            await self._control.confirm()
            spots = await self._find([self.ring.parse(scans[index].code) for index in slow])
        self._slow_scans -= len(slow)
        for index, spot in zip(slow, spots, strict=True):
            await self._admit_found(asked, index, terminal, scans[index], spot)

    async def _admit_found(
        self, asked: Asked, index: int, terminal: Terminal, scan: Redeem, spot: "Spot | _Nowhere | None"
    ) -> None:
        if spot is None:  # the registry could not be read beside a head that is good enough
            asked.give_up(index, 1)
            return
        now_ms = self._tick()
        if isinstance(spot, _Nowhere):
            self._refuse(asked, index, terminal, scan, _UNKNOWN, None, now_ms, spot.partition)
            return
        verdict = self._judge(terminal, spot.campaign, spot.serial, spot.kind, now_ms)
        if verdict is Verdict.NOT_ISSUED:
            self._refuse(asked, index, terminal, scan, verdict, None, now_ms)
            return
        if self._admit(asked, index, terminal, scan, spot.campaign, spot.serial, verdict, now_ms):
            return
        claim_id = claim_id_of(terminal.number, scan, spot.campaign, spot.serial)
        first = await self._used.claim_id_of(scan.redemption_id)
        if self.recent.get(scan.redemption_id) is None:  # nobody was quicker while we looked
            self.recent.put(scan.redemption_id, first or claim_id, now_ms)
        admitted = self._admit(asked, index, terminal, scan, spot.campaign, spot.serial, verdict, now_ms)
        assert admitted, "the id was just put into memory"

    async def _find(self, codes: Sequence[Signed | Hashed | Refused]) -> "list[Spot | _Nowhere | None]":
        """Which vouchers these codes name; None where the registry's answer cannot be trusted."""
        found: list[Spot | _Nowhere | None] = [None] * len(codes)
        wanted: dict[int, list[tuple[int, Hashed]]] = {}
        for index, code in enumerate(codes):
            if isinstance(code, Signed):
                found[index] = Spot(code.campaign, code.serial, SIGNED)
            elif isinstance(code, Hashed):
                home = registry_partition(code.keyed_hash, len(self._lanes))
                wanted.setdefault(home, []).append((index, code))
        for partition, hashed in wanted.items():
            keys = [(registry_key(partition, code.keyed_hash), code.keyed_hash) for _, code in hashed]
            durable_seq = self._lanes[partition].durable_seq
            head, values = await self._arbiter.lookup(partition, keys)
            nowhere = _Nowhere(partition) if head.seq >= durable_seq else None
            for (index, code), value in zip(hashed, values, strict=True):
                found[index] = nowhere if value is None else _registered(value, code)
        return found

    async def close(self) -> None:
        """Wait for look-ups under way."""
        while self._tasks:
            await asyncio.wait(self._tasks)


class _Nowhere(msgspec.Struct, frozen=True):
    """No voucher has this code, says the registry of `partition` beside a head no older than the log's."""

    partition: int


def _registered(value: bytes, code: Hashed) -> Spot:
    campaign, serial = REGISTRY_VALUE.unpack(value)
    return Spot(campaign, serial, code.entry)
