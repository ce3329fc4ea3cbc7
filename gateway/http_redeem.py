"""The tills' routes: redeem, preview, look up, reverse. `POST /v1/redemptions` is the hot one.

Every verdict is HTTP 200 with an Answer; 503 with `retry` says that nothing is known. An outcome that stands for ever
is answered the same, byte for byte, however often it is asked: a repeat is answered from the record it repeats.
"""

import asyncio
from collections.abc import Callable
from functools import partial
from http import HTTPStatus

import msgspec
from aiohttp import web

from eventstore.events import REDEEM
from eventstore.vouchers import REDEEMED
from gateway import answers
from gateway.codes import spelled_by
from gateway.core import Core, wall_ms
from gateway.directory import Terminal
from gateway.http_bodies import id_of, reversal_of, scan_of
from gateway.http_gate import (
    JSON,
    PROBLEM_JSON,
    RETRY_AFTER_S,
    UNSURE,
    Gate,
    Problem,
    absent,
    problem_bytes,
    read_body,
    unsure,
)
from gateway.http_hot import Tell
from gateway.http_tills import Tills
from gateway.identity import Spot
from gateway.lane import Asked
from gateway.ledger import Found
from gateway.messages import Answer, Position, Redeem, RedemptionRequest, ReversalRequest, Reverse, Verdict
from gateway.metrics import Metrics
from gateway.pipe import ArbiterLost, ArbiterRefused
from gateway.preview import preview
from gateway.roles import Action, Principal, may

_ACCEPTED, _REPEATED, _REVERSED = int(Verdict.ACCEPTED), int(Verdict.REPEATED), int(Verdict.REVERSED)
_FIRST_STANDS = frozenset((_REPEATED, _REVERSED, int(Verdict.CONFLICT), int(Verdict.CONFLICT_AGAIN)))  # first record
_NO_VOUCHER_BYTES = frozenset((Verdict.UNREADABLE, Verdict.UNKNOWN_CODE, Verdict.FORGED, Verdict.NOT_ISSUED))

_redemption = msgspec.json.Decoder(RedemptionRequest)
_reversal = msgspec.json.Decoder(ReversalRequest)
_encode = msgspec.json.Encoder().encode


class Redemptions:
    """Routes under /v1/redemptions."""

    def __init__(self, core: Core, gate: Gate, metrics: Metrics) -> None:
        self._core, self._gate = core, gate
        self._redeemed, self._reversed = metrics.tally("redeem", "http"), metrics.tally("reverse", "http")
        self._time = asyncio.get_running_loop().time
        self._tills = Tills(core, gate)

    def routes(self) -> list[web.RouteDef]:
        """What to mount."""
        return [
            web.post("/v1/redemptions", self.redeem),
            web.post("/v1/redemptions/preview", self.preview),
            web.get("/v1/redemptions/{id}", self.find),
            web.post("/v1/redemptions/{id}/reversal", self.reverse),
        ]

    # --- redeem ---

    async def redeem(self, request: web.Request) -> web.StreamResponse:
        """POST /v1/redemptions."""
        self._tills.of(request)
        body = await read_body(request, _redemption)
        tills = self._tills.of(request)  # again: the body may have taken longer than a revocation
        terminal = tills.get(body.terminal)
        if terminal is None:
            terminal = tills[body.terminal] = self._tills.chosen(request, body.terminal, Action.REDEEM)
        scan = scan_of(body)
        answered, done = _answer_box()
        started_s = self._time()
        self._redeemed.in_flight += 1
        self._core.redeemer.redeem(terminal, (scan,), done)
        asked = await answered
        self._redeemed.answered(terminal.store, asked.codes, self._time() - started_s)
        return _response(await self._told(terminal, scan, asked))

    def admit(self, authorization: str, body: bytes, tell: Tell) -> bool:
        """What `redeem` does, without a task. False: something is not plain, and nothing was done (see http_hot.py)."""
        tills = self._tills.known(authorization)
        if tills is None:
            return False
        try:
            asked_for = _redemption.decode(body)
            terminal, scan = tills.get(asked_for.terminal), scan_of(asked_for)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, Problem):
            return False
        if terminal is None:
            return False
        self._redeemed.in_flight += 1
        self._core.redeemer.redeem(terminal, (scan,), partial(self._admitted, tell, terminal, scan, self._time()))
        return True

    def _admitted(self, tell: Tell, terminal: Terminal, scan: Redeem, started_s: float, asked: Asked) -> None:
        """Called from the lane; must not raise."""
        self._redeemed.answered(terminal.store, asked.codes, self._time() - started_s)
        spelled = spelled_by(scan.code) if asked.codes[0] == _ACCEPTED else None
        if spelled is not None:  # nearly always
            tell(HTTPStatus.OK, _encode(self._accepted(scan, asked, spelled)), JSON)
        else:
            self._core.watch(self._tell_later(tell, terminal, scan, asked))

    async def _tell_later(self, tell: Tell, terminal: Terminal, scan: Redeem, asked: Asked) -> None:
        try:
            answer = await self._told(terminal, scan, asked)
        except UNSURE:
            tell(HTTPStatus.SERVICE_UNAVAILABLE, problem_bytes(unsure()), PROBLEM_JSON)
        else:
            tell(_code(answer), _encode(answer), JSON)

    async def _told(self, terminal: Terminal, scan: Redeem, asked: Asked) -> Answer:
        byte = asked.codes[0]
        if byte == answers.NO_ANSWER:
            return answers.unresolved(scan.redemption_id.hex())
        if byte in _FIRST_STANDS:
            return await self._first_answer(scan.redemption_id)
        _, partition, seq, index, _ = asked.places[0]
        position = Position(partition, seq, index)
        named = await self._named(byte, scan.code)
        directory = self._core.control.directory
        if byte == _ACCEPTED:
            if named is None:  # the registry cannot be asked any more, but the log can
                return await self._first_answer(scan.redemption_id)
            return self._accepted(scan, asked, named)
        return answers.refused(
            scan.redemption_id.hex(),
            byte,
            at_ms=asked.at_ms,
            position=position,
            directory=directory,
            terminal=terminal,
            named=named,
            winner=answers.winner_of(directory, asked.told.get(0)),
            note=asked.notes.get(0),
        )

    def _accepted(self, scan: Redeem, asked: Asked, named: tuple[int, int]) -> Answer:
        _, partition, seq, index, _ = asked.places[0]
        campaign, position = self._core.control.directory.campaigns[named[0]], Position(partition, seq, index)
        return answers.accepted(scan.redemption_id.hex(), campaign, named[1], asked.at_ms, position)

    async def _named(self, byte: int, code: str) -> tuple[int, int] | None:
        """Campaign and serial of a code that was found genuine; None if it was not, or nobody can tell now."""
        if byte in _NO_VOUCHER_BYTES:
            return None
        spelled = spelled_by(code)
        if spelled is not None:
            return spelled
        spot = await self._core.redeemer.identify(code)
        return (spot.campaign, spot.serial) if isinstance(spot, Spot) else None

    # --- preview and look-up ---

    async def preview(self, request: web.Request) -> web.StreamResponse:
        """POST /v1/redemptions/preview: what a redemption would be told now; changes nothing."""
        self._gate.asker(request, Action.PREVIEW)
        body = await read_body(request, _redemption)
        terminal = self._tills.chosen(request, body.terminal, Action.PREVIEW)
        scan = scan_of(body)
        redemption_id = scan.redemption_id.hex()
        core = self._core
        told = await preview(core.desk, core.redeemer, terminal, scan.code)
        if told.verdict is Verdict.UNRESOLVED:
            return _response(answers.unresolved(redemption_id))
        directory = self._core.control.directory
        named = (told.spot.campaign, told.spot.serial) if told.spot else None
        at_ms = wall_ms()
        if told.verdict is Verdict.ACCEPTED and named:
            return _response(answers.accepted(redemption_id, directory.campaigns[named[0]], named[1], at_ms, None))
        answer = answers.refused(
            redemption_id,
            told.verdict,
            at_ms=at_ms,
            position=None,
            directory=directory,
            terminal=terminal,
            named=named,
            winner=answers.winner_of(directory, told.entry),
            note=told.note,
        )
        return _response(answer)

    async def find(self, request: web.Request) -> web.StreamResponse:
        """GET /v1/redemptions/{id}: what became of it, reversed later or not."""
        principal = self._gate.asker(request, Action.REDEMPTION_READ).principal
        redemption_id = id_of(request.match_info["id"], "id")
        found = await self._core.desk.find(redemption_id)
        directory = self._core.control.directory
        terminal = directory.terminals.get(found.record.terminal) if found and found.record.op == REDEEM else None
        if found is not None and terminal is not None:
            merchant, number = directory.stores[terminal.store].merchant, terminal.number
            if may(principal, Action.REDEMPTION_READ, merchant=merchant, terminal=number, store=terminal.store):
                return _response(await self._answer_of(found, terminal))
        raise absent(f"redemption {redemption_id.hex()}")

    async def _first_answer(self, redemption_id: bytes) -> Answer:
        """What the first record of an id that was just answered says."""
        try:
            found = await self._core.desk.find(redemption_id)
            assert found is not None, "its record is in the log, and the index has caught up"
            return await self._answer_of(found, self._core.control.directory.terminals[found.record.terminal])
        except (ArbiterLost, ArbiterRefused):
            return answers.unresolved(redemption_id.hex())

    async def _answer_of(self, found: Found, terminal: Terminal) -> Answer:
        record, directory = found.record, self._core.control.directory
        redemption_id, position = record.redemption_id.hex(), Position(found.partition, found.seq, found.index)
        byte, at_ms = found.verdict, found.at_ms
        if found.undone is not None:
            byte, at_ms = _REVERSED, found.undone.at_ms
        elif byte == _ACCEPTED:
            campaign = directory.campaigns[record.campaign]
            return answers.accepted(redemption_id, campaign, record.serial, at_ms, position)
        winner = None
        if byte == Verdict.ALREADY_REDEEMED:
            holder = (await self._core.desk.voucher(record.campaign, record.serial)).holder
            if holder is not None and holder.kind == REDEEMED and holder.at_ms <= at_ms:
                winner = answers.winner_at(directory, holder.terminal, holder.at_ms)
        return answers.refused(
            redemption_id,
            byte,
            at_ms=at_ms,
            position=position,
            directory=directory,
            terminal=terminal,
            named=(record.campaign, record.serial) if record.campaign else None,
            winner=winner,
            note=None,
        )

    # --- reverse ---

    async def reverse(self, request: web.Request) -> web.StreamResponse:
        """POST /v1/redemptions/{id}/reversal: undo it, or refuse it for ever if it has not arrived yet."""
        self._gate.asker(request, Action.REVERSE, Action.REVERSE_ANY)
        redemption_id = id_of(request.match_info["id"], "id")
        body = await read_body(request, _reversal)
        principal, number = self._tills.reverser(request, body.terminal)
        asked_for = reversal_of(redemption_id, body)
        asked = await self._asked(principal, number, asked_for)
        byte = asked.codes[0]
        if byte == answers.NO_ANSWER:
            return _response(answers.unresolved(redemption_id.hex()))
        at_ms, (_, *place, _) = asked.at_ms, asked.places[0]
        if byte == _REPEATED:
            found = await self._core.desk.find(asked_for.reversal_id)
            assert found is not None, "its record is in the log, and the index has caught up"
            byte, at_ms, place = found.verdict, found.at_ms, [found.partition, found.seq, found.index]
        position, note = Position(*place), asked.notes.get(0)
        return _response(answers.reversal(redemption_id.hex(), byte, at_ms=at_ms, position=position, note=note))

    async def _asked(self, principal: Principal, number: int, reversal: Reverse) -> Asked:
        answered, done = _answer_box()
        started_s = self._time()
        self._reversed.in_flight += 1
        try:
            await self._core.reversals.reverse(principal, number, [reversal], done)
        except (ArbiterLost, ArbiterRefused):
            Asked(1, done).give_up(0, 1)
        asked = await answered
        self._reversed.answered(principal.store, asked.codes, self._time() - started_s)
        return asked


def _answer_box() -> tuple["asyncio.Future[Asked]", Callable[[Asked], None]]:
    """A future, and the `done` that fills it."""
    answered: asyncio.Future[Asked] = asyncio.get_running_loop().create_future()

    def done(asked: Asked) -> None:
        if not answered.done():  # the server may have dropped the request meanwhile
            answered.set_result(asked)

    return answered, done


def _code(answer: Answer) -> HTTPStatus:
    return HTTPStatus.SERVICE_UNAVAILABLE if answer.retry else HTTPStatus.OK


def _response(answer: Answer) -> web.StreamResponse:
    response = web.Response(body=_encode(answer), status=_code(answer), content_type=JSON)
    if answer.retry:
        response.headers["Retry-After"] = RETRY_AFTER_S
    return response
