"""The control partition: campaigns, stores, terminals, tokens and keys as events, appended straight to the log.

Every gateway folds the same events into its `Directory`. What a gateway may say rests on that fold, so it must be
fresh: `run` confirms the partition's head four times a second, and a gateway that has not confirmed it for FRESH_S
answers UNRESOLVED. That is why a pause or a revocation binds everywhere within a second.
"""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress

from eventstore.events import (
    CampaignClosed,
    CampaignPurged,
    ControlEvent,
    TerminalLocked,
    decode_control,
    encode_control,
    payload_head,
)
from eventstore.events import Control as ControlBatch
from eventstore.log import CONTROL, AppendRefused, Batch, EventLog, LogLost
from gateway.control_rules import check
from gateway.directory import Directory, Rejected
from gateway.guesses import LOCK_MS
from gateway.pipe import ANSWER_TIMEOUT_S

FRESH_S = 1.0  # the promise: a pause binds within a second
CONFIRM_EVERY_S = 0.25  # three chances to miss before answers stop
HEARD_S = FRESH_S + 1.25 * ANSWER_TIMEOUT_S  # then nobody claims any more what was judged before a control event
LATELY_MS = 60_000  # a purge that is dated further from now was not a moment ago, whosever clock dated it
READ_BATCHES = 500
ATTEMPTS_MAX = 10  # lost races against other gateways' control events, which are rare
LATE_S = 2.0  # who writes so late stood still: by now an operator may have decided otherwise at another gateway

Make = Callable[[Directory, int], Sequence[ControlEvent] | Rejected]
"""Given the directory as it stands and the time, the events to write, or why not. Called again after a lost race."""


class ControlBusy(Exception):
    """Other gateways kept writing control events first; nothing was written."""


class Control:
    """This gateway's copy of the control partition."""

    def __init__(self, log: EventLog, *, now_ms: Callable[[], int], mint_tip: Callable[[], bytes]) -> None:
        self.directory = Directory()
        self._log, self._now_ms, self._mint_tip = log, now_ms, mint_tip
        self._tip = b""
        self._others_seq = 0  # the newest batch that was read from the log: others wrote it
        self._loop = asyncio.get_running_loop()
        self._confirmed_s = float("-inf")
        self._closed_seen_s: dict[int, float] = {}  # campaigns, and since when they are known here to be closed
        self._purged_seen_s: dict[int, float] = {}
        self._purged_ms = 0  # when the newest of them was, by the clock of whoever did it
        self._lock = asyncio.Lock()

    def is_confirmed(self) -> bool:
        """Whether what this gateway knows was the newest less than FRESH_S ago."""
        return self._loop.time() - self._confirmed_s < FRESH_S

    def judged_by(self) -> int | None:
        """What is judged now is judged by a state that lasts until this is another number, or None: it is not known."""
        return len(self._purged_seen_s) if self.is_confirmed() else None

    def purged(self) -> frozenset[int]:
        """Campaigns whose voucher state is no longer kept."""
        return frozenset(number for number, campaign in self.directory.campaigns.items() if campaign.purged)

    async def purged_now(self) -> frozenset[int]:
        """The same, by all that the log says now: another gateway may have done it."""
        await self.confirm()
        return self.purged()

    async def purges_heard(self) -> None:
        """Return when every gateway has heard of all that is purged by now. Raises LogDamaged, LogFailed, LogLost."""
        await self.confirm()
        if self._purged_seen_s and abs(self._now_ms() - self._purged_ms) < LATELY_MS:
            await asyncio.sleep(HEARD_S - min(map(self.purged_for_s, self._purged_seen_s)))

    def closed_for_s(self, campaign: int) -> float:
        """For how long this gateway has known of a close: no matter how clocks step, and anew after a restart."""
        return self._loop.time() - self._closed_seen_s[campaign]

    def purged_for_s(self, campaign: int) -> float:
        """For how long this gateway has known of a purge, on the same terms."""
        return self._loop.time() - self._purged_seen_s[campaign]

    async def confirm(self) -> None:
        """Read the head asked for after this call began, and fold what is new."""
        async with self._lock:
            await self._catch_up()

    async def _catch_up(self) -> None:
        asked_s = self._loop.time()
        head = await self._log.head(CONTROL)
        while self.directory.control_seq < head.seq:
            for batch in await self._log.read(CONTROL, self.directory.control_seq + 1, READ_BATCHES):
                self._fold(batch)
                self._others_seq = batch.seq
        self._tip = head.tip
        self._confirmed_s = asked_s

    def _fold(self, batch: Batch) -> None:
        _, _, at_ms = payload_head(batch.payload)
        events = decode_control(batch.payload)
        self.directory.apply(events, batch.seq, at_ms)
        for event in events.events:
            if isinstance(event, CampaignClosed):
                self._closed_seen_s[event.campaign] = self._loop.time()
            elif isinstance(event, CampaignPurged):
                self._purged_seen_s[event.campaign], self._purged_ms = self._loop.time(), at_ms

    async def record(self, actor: str, make: Make) -> tuple[ControlEvent, ...] | Rejected:
        """Write events if the directory allows them; returns them once they are durable and folded here.

        Raises ControlBusy, LogFailed, and LogLost, after which nobody knows whether they were written: look again.
        """
        known_seq = self.directory.control_seq
        # It may have been asked for as long ago as this gateway has known nothing new: it stood still, then.
        asked_s = self._loop.time() if self.is_confirmed() else self._confirmed_s
        async with self._lock:
            for _ in range(ATTEMPTS_MAX):
                await self._catch_up()
                if self._others_seq > known_seq and self._loop.time() - asked_s > LATE_S:
                    raise ControlBusy("it was asked for some seconds ago, and others have written since: ask again")
                now_ms = self._now_ms()
                events = make(self.directory, now_ms)
                if isinstance(events, Rejected):
                    return events
                if not events:
                    return ()
                rejected = check(self.directory, events, now_ms=now_ms)
                if rejected is not None:
                    return rejected
                if await self._write(actor, events, now_ms):
                    return tuple(events)
        raise ControlBusy(f"{ATTEMPTS_MAX} attempts lost against other gateways")

    async def _write(self, actor: str, events: Sequence[ControlEvent], now_ms: int) -> bool:
        payload = encode_control(ControlBatch(actor, tuple(events)), at_ms=now_ms)
        seq = self.directory.control_seq + 1
        batch = Batch(CONTROL, seq, self._tip, self._mint_tip(), payload, b"")
        try:
            await self._log.append([batch])
        except AppendRefused:
            return False
        self._fold(batch)
        self._tip = batch.tip
        return True

    async def lock_terminal(self, terminal: int) -> None:
        """Too many wrong codes: no more scans from this terminal for a while (an operator can lift it)."""
        with suppress(ControlBusy, LogLost):  # then it may guess a few times more
            await self.record(
                "gateway", lambda _, now_ms: [TerminalLocked(terminal=terminal, until_ms=now_ms + LOCK_MS)]
            )

    async def run(self) -> None:
        """Keep the fold fresh until cancelled."""
        while True:
            await asyncio.sleep(CONFIRM_EVERY_S)
            with suppress(LogLost):  # after FRESH_S of it this gateway answers nothing
                await self.confirm()
