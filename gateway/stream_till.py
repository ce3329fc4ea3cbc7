"""One terminal's connection, once it is welcome: its messages, their answers, its end.

Theory of operation. The only task of a connection is its receive loop, which most messages do not even wake
(stream_frames.py). A message is decoded and admitted in one go, and
when the last of its scans is in the log the lane calls `Till._answer`, which writes the frame at once: no task and no
future for a message, none for a scan (but where a typed code is taken: its campaign must be looked up before anybody
is told who was first). The frame goes straight to the transport. That is right because a server's
frame is its length and the payload (RFC 6455 section 5.2: no mask, and compression is never agreed here), and because
it needs no `await`: a till that does not read has its buffer bounded and its line cut instead of holding up anybody.
"""

import asyncio
import functools
import socket
import struct
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from aiohttp import WSCloseCode, WSMsgType, web

from gateway.answers import TEXTS_KEPT_MAX, note_of, winner_of
from gateway.campaign import Campaign, is_eligible
from gateway.codes import KeyRing, Signed, spelled_by
from gateway.directory import Directory, Terminal
from gateway.identity import Spot
from gateway.lane import Asked
from gateway.messages import (
    PUBLIC,
    SCANS_PER_MESSAGE_MAX,
    Detail,
    Fact,
    FactMany,
    FromGateway,
    Notice,
    Place,
    Redeem,
    RedeemMany,
    Reverse,
    ReverseMany,
    Verdict,
    Verdicts,
)
from gateway.money import money_text
from gateway.offline_rules import Outage
from gateway.stream_frames import Frames
from gateway.stream_wire import NO_REVERSAL, NO_SCAN, UNDECODABLE, LooseRedeem, Wire, fault_text, read_each
from gateway.texts import moment_text

if TYPE_CHECKING:
    from gateway.stream import Stream

UNANSWERED_MAX = 2048  # scans of one till, two full batches; then it is not read until some are answered
MESSAGE_WEIGHT = 64  # what a message counts as at least: 32 messages of one scan cost as much as a few large ones
BUFFER_BYTES_MAX = 1 << 20  # 100 answers of 256 refused scans: a till that far behind does not read at all
REF_END = 2**63  # fits both encodings

_REDEEMED = bytes(byte if public is None else public for byte, public in enumerate(PUBLIC))
_REVERSED = bytes([Verdict.REVERSED] * 3) + _REDEEMED[3:]  # of a reversal 0, 1, 2 mean: it is undone
_TAKEN = (Verdict.ALREADY_REDEEMED, Verdict.CONFLICT)
_NO_FAULTS: Mapping[int, str] = {}
_RESET = struct.pack("ii", 1, 0)  # linger for no time: a reset (socket(7)), not a farewell behind a full buffer
_SILENT = (Verdict.ACCEPTED, Verdict.UNRESOLVED)  # nothing to add


class Till:
    """One terminal's connection once it is welcome. Everything but `run` is synchronous."""

    def __init__(
        self,
        stream: "Stream",
        ws: web.WebSocketResponse,
        transport: asyncio.Transport,
        wire: Wire,
        terminal: Terminal,
        frames: Frames | None = None,
    ) -> None:
        self._stream, self._ws, self._transport, self._wire = stream, ws, transport, wire
        self.terminal = terminal
        self._terminals = stream.core.control.directory.terminals
        self._frames = frames
        if frames is not None and wire.kind is WSMsgType.BINARY:
            frames.take = self._take_directly
        self._unanswered = 0
        self._room: asyncio.Future[None] | None = None
        self._is_full = self._leaving = self._finishing = False
        self._outage = Outage()  # what it tells of it on this connection
        self._farewell: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Read until either side leaves."""
        receive, kind = self._ws.receive, self._wire.kind
        while True:
            message = await receive()
            if message.type is not kind:
                break
            self._take(message.data)
            if self._unanswered >= UNANSWERED_MAX and not self._leaving:
                self._is_full = True
                self._room = self._stream.loop.create_future()
                await self._room
        if message.type in (WSMsgType.BINARY, WSMsgType.TEXT):
            said = f"a {message.type.name.lower()} message, where {kind.name.lower()} was agreed"
            self.leave(WSCloseCode.UNSUPPORTED_DATA, "wrong_encoding", said)
        if self._farewell is not None:  # returning would cut the line before the till has read why
            await asyncio.wait([self._farewell])

    def is_welcome(self) -> bool:
        """Whether its terminal may still be here, as of what the directory says now."""
        self.terminal = self._terminals[self.terminal.number]
        return not self.terminal.revoked

    def send(self, message: FromGateway) -> None:
        """Write at once. Never raises: it is called from the lanes."""
        transport = self._transport
        if self._leaving or transport.is_closing():
            return
        transport.write(self._wire.frame(message))
        if transport.get_write_buffer_size() > BUFFER_BYTES_MAX:
            self._stream.metrics.shed("slow_reader")
            self.abort()

    def leave(self, code: int, name: str, text: str) -> None:
        """Say why, and close; the line is cut if the till does not say goodbye in time."""
        if not self._leaving:
            self.send(Notice(name, text))
            self._farewell = self._stream.spawn(self._close(code, name))
            self._stop_reading()

    def finish(self) -> None:
        """Take no message any more, and leave with the last answer."""
        self._finishing = True
        if not self._unanswered:
            self.leave(WSCloseCode.SERVICE_RESTART, "draining", "this gateway is leaving")

    def abort(self) -> None:
        """Cut the line now, and let the till's side know at once: what the kernel still holds for it is thrown away."""
        self._stop_reading()
        if not self._transport.is_closing():
            self._transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self._transport.abort()

    def _stop_reading(self) -> None:
        self._leaving = True
        self._make_room()

    async def _close(self, code: int, name: str) -> None:
        await self._ws.close(code=code, message=name.encode())
        self._transport.abort()

    def _make_room(self) -> None:
        if self._frames is not None:
            self._stream.loop.call_soon(self._frames.go_on)
        room, self._room = self._room, None
        if room is not None and not room.done():
            room.set_result(None)

    # --- a message ---

    def _take_directly(self, content: bytearray) -> bool:
        self._take(content)
        self._is_full = self._unanswered >= UNANSWERED_MAX and not self._leaving
        return not self._is_full

    def _take(self, content: bytes | bytearray | str) -> None:
        if self._leaving or self._finishing:
            return
        try:
            message = self._wire.decode(content)
        except UNDECODABLE as error:
            self._take_loosely(content, error)
            return
        if type(message) is RedeemMany:
            self._redeem(message.ref, message.scans, _NO_FAULTS)
        elif type(message) is ReverseMany:
            self._reverse(message.ref, message.reversals, _NO_FAULTS)
        elif type(message) is FactMany:
            self._take_facts(message.ref, message.facts)
        else:
            self.leave(WSCloseCode.POLICY_VIOLATION, "out_of_turn", "this message has its place before the welcome")

    def _take_loosely(self, content: bytes | bytearray | str, error: Exception) -> None:
        try:
            message = self._wire.decode_loosely(content)
        except UNDECODABLE:
            self.leave(WSCloseCode.INVALID_TEXT, "malformed", f"this is no message: {fault_text(error)}")
            return
        some = slice(SCANS_PER_MESSAGE_MAX + 1)  # one too many is enough to know
        if isinstance(message, LooseRedeem):
            self._redeem(message.ref, *read_each(self._wire.decode_scan, NO_SCAN, message.scans[some]))
        else:
            self._reverse(message.ref, *read_each(self._wire.decode_reversal, NO_REVERSAL, message.reversals[some]))

    def _is_taken(self, ref: int, count: int) -> bool:
        if not self.is_welcome():
            self._stream.dismiss(self)
        elif count > SCANS_PER_MESSAGE_MAX:
            text = f"more than {SCANS_PER_MESSAGE_MAX} in one message: send them in several"
            self.leave(WSCloseCode.POLICY_VIOLATION, "too_many", text)
        elif not 0 <= ref < REF_END:
            self.leave(WSCloseCode.POLICY_VIOLATION, "malformed", "ref must be a whole number from 0 to 2^63 - 1")
        else:
            self._unanswered += max(count, MESSAGE_WEIGHT)
            return True
        return False

    def _redeem(self, ref: int, scans: Sequence[Redeem], faults: Mapping[int, str]) -> None:
        if self._is_taken(ref, len(scans)):
            self._stream.redeemed.in_flight += 1
            done = partial(self._answer, ref, self._stream.loop.time(), scans, faults)
            self._stream.core.redeemer.redeem(self.terminal, scans, done)

    def _reverse(self, ref: int, reversals: Sequence[Reverse], faults: Mapping[int, str]) -> None:
        if self._is_taken(ref, len(reversals)):
            self._stream.reversed.in_flight += 1
            done = partial(self._answer_reversals, ref, self._stream.loop.time(), faults)
            self._stream.reverse(self.terminal, reversals, done)

    def _take_facts(self, ref: int, facts: Sequence[Fact]) -> None:
        if self._is_taken(ref, len(facts)):
            self._stream.redeemed.in_flight += 1
            self._stream.spawn(self._settle_facts(ref, self._stream.loop.time(), facts))

    async def _settle_facts(self, ref: int, started_s: float, facts: Sequence[Fact]) -> None:
        asked = await self._stream.core.facts.take(self.terminal, facts, self._outage)
        self._answer(ref, started_s, [fact.redeem for fact in facts], _NO_FAULTS, asked)

    # --- its answer: called from the lanes, must not raise ---

    def _answer(
        self, ref: int, started_s: float, scans: Sequence[Redeem], faults: Mapping[int, str], asked: Asked
    ) -> None:
        self._stream.redeemed.answered(self.terminal.store, asked.codes, self._stream.loop.time() - started_s)
        codes = asked.codes.translate(_REDEEMED)
        if len(codes) == 1 and not codes[0]:
            self._tell(ref, codes, asked, offer_of(self._stream.core.control.directory, scans[0]))
        elif codes.count(0) == len(codes):
            self._tell(ref, codes, asked, {})
        elif nameless := [i for i in asked.told if codes[i] in _TAKEN and spelled_by(scans[i].code) is None]:
            self._stream.spawn(self._answer_named(ref, codes, scans, faults, asked, nameless))
        else:
            self._tell(ref, codes, asked, self._details(asked, codes, scans, faults, {}))

    async def _answer_named(
        self,
        ref: int,
        codes: bytearray,
        scans: Sequence[Redeem],
        faults: Mapping[int, str],
        asked: Asked,
        nameless: Sequence[int],
    ) -> None:
        """Answer once it is known of which campaigns the `nameless` are; where nobody can tell, no winner is told."""
        named: dict[int, int] = {}
        for index in nameless:
            spot = await self._stream.core.redeemer.identify(scans[index].code)
            if isinstance(spot, Spot):
                named[index] = spot.campaign
        self._tell(ref, codes, asked, self._details(asked, codes, scans, faults, named))

    def _answer_reversals(self, ref: int, started_s: float, faults: Mapping[int, str], asked: Asked) -> None:
        self._stream.reversed.answered(self.terminal.store, asked.codes, self._stream.loop.time() - started_s)
        codes = asked.codes.translate(_REVERSED)
        self._tell(ref, codes, asked, self._details(asked, codes, (), faults, {}))

    def _details(
        self,
        asked: Asked,
        codes: bytearray,
        scans: Sequence[Redeem],
        faults: Mapping[int, str],
        named: Mapping[int, int],
    ) -> dict[int, Detail]:
        for index, fault in faults.items():
            if codes[index] == Verdict.UNREADABLE:
                asked.notes[index] = fault
        core = self._stream.core
        return details(core.control.directory, core.ring, self.terminal, asked, codes, scans, named)

    def _tell(self, ref: int, codes: bytearray, asked: Asked, details: dict[int, Detail]) -> None:
        self._unanswered -= max(len(codes), MESSAGE_WEIGHT)
        if self._is_full:
            self._is_full = False
            self._make_room()
        places = [Place(*place[1:]) for place in asked.places]
        self.send(Verdicts(ref, bytes(codes), asked.at_ms, places, details))
        if self._finishing:
            self.finish()


@functools.lru_cache(maxsize=TEXTS_KEPT_MAX)
def _offered(title: str, value_minor: int, currency: str) -> dict[int, Detail]:
    value = f", {money_text(value_minor, currency)}" if value_minor else ""  # a gift may have none
    return {0: Detail(offer=title + value)}


def offer_of(directory: Directory, scan: Redeem) -> dict[int, Detail]:
    """What an accepted voucher is worth, told where it came alone, because then a cashier waits for it.

    Only codes that name their campaign say it at once. The voucher was accepted, so its code is genuine.
    """
    spelled = spelled_by(scan.code)
    campaign = None if spelled is None else directory.campaigns.get(spelled[0])
    if campaign is None:
        return {}
    return _offered(campaign.offer.title, campaign.offer.value_minor, campaign.offer.currency)


def details(
    directory: Directory,
    ring: KeyRing,
    terminal: Terminal,
    asked: Asked,
    codes: bytes | bytearray,
    scans: Sequence[Redeem],
    named: Mapping[int, int],
) -> dict[int, Detail]:
    """What is told beside a refusal's number: who was first, what was wrong, until when.

    `named` are the campaigns, by index, of codes that do not say it themselves. Who was first is told only where the
    campaign is valid: a store learns nothing of vouchers that are not for it.
    """
    found: dict[int, Detail] = {}
    for index, code in enumerate(codes):
        if code in _SILENT:
            continue
        winner, note = None, asked.notes.get(index)
        if scans:
            campaign = _campaign_of(directory, ring, scans[index], named.get(index))
            if note is None:
                note = _moment(terminal, campaign, Verdict(code), asked.at_ms)
            if code in _TAKEN and campaign is not None and is_eligible(campaign, directory.outlet(terminal.store)):
                winner = winner_of(directory, asked.told.get(index))
        if winner is not None or note is not None:
            found[index] = Detail(winner, note)
    return found


def _campaign_of(directory: Directory, ring: KeyRing, scan: Redeem, named: int | None) -> Campaign | None:
    if named is None:
        code = ring.parse(scan.code)
        named = code.campaign if isinstance(code, Signed) else None
    return None if named is None else directory.campaigns.get(named)


def _moment(terminal: Terminal, campaign: Campaign | None, verdict: Verdict, at_ms: int) -> str | None:
    """When a refusal ends, or began, as far as it is known which campaign it is of."""
    if verdict is Verdict.TERMINAL_LOCKED:
        return moment_text(terminal.locked_until_ms, "UTC") if terminal.locked_until_ms else None
    return None if campaign is None else note_of(verdict, campaign.offer, at_ms)
