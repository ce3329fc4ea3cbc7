"""Merchants, alliances, stores and terminals over HTTP: doors to the control partition.

Every change is an event, allowed or refused by `gateway.control_rules` at the control head (409 names the field and
why). Every list shows only what its asker may see.
"""

import re
import secrets
from http import HTTPStatus

import msgspec
from aiohttp import web

from eventstore import events as e
from eventstore.events import ControlEvent
from gateway.auth import ENROLMENT_PREFIX, TOKEN_BYTES, Asker, Auth, token_of
from gateway.control_rules import TERMINAL_MAX
from gateway.core import Core
from gateway.directory import Directory, Terminal
from gateway.http_gate import Gate, Problem, absent, allowed, bad, json_response, path_number, read_body
from gateway.roles import Action, Principal, may

ENROLMENT_MS = 24 * 3_600_000  # a working day to walk to the till; a forgotten printout is worthless tomorrow
ALLIANCE_BYTES_MAX = 512 * 1024  # control_rules.MERCHANTS_MAX names of 32 letters, quoted
_ed25519_hex = re.compile(r"[0-9A-Fa-f]{64}").fullmatch


class MerchantBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A legal party that is paid."""

    merchant: str
    title: str


class AllianceBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Merchants whose stores a campaign may name together."""

    alliance: str
    merchants: tuple[str, ...]


class StoreBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An outlet of a merchant."""

    store: str
    merchant: str
    title: str


class NewTerminal(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A till that is to be let in."""

    store: str
    label: str


class TerminalOffer(msgspec.Struct, frozen=True):
    """A terminal's number, and the token that one device may enrol with until `expires_ms`. Shown this once."""

    terminal: int
    token: str
    expires_ms: int


class Enrolment(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a device enrols with: the token it was given, and its own Ed25519 key as 64 hex digits."""

    token: str
    public_key: str


class Enrolled(msgspec.Struct, frozen=True):
    """What a device has become."""

    terminal: int
    store: str


class TerminalRow(msgspec.Struct, frozen=True):
    """A terminal as its owner and the operators see it."""

    terminal: int
    store: str
    label: str
    enrolled: bool
    revoked: bool
    locked_until_ms: int
    expires_ms: int  # of its enrolment token


_merchant = msgspec.json.Decoder(MerchantBody)
_alliance = msgspec.json.Decoder(AllianceBody)
_store = msgspec.json.Decoder(StoreBody)
_terminal = msgspec.json.Decoder(NewTerminal)
_enrolment = msgspec.json.Decoder(Enrolment)


class Parties:
    """Merchants, alliances and stores."""

    def __init__(self, core: Core, gate: Gate) -> None:
        self._control, self._gate = core.control, gate

    def routes(self) -> list[web.RouteDef]:
        """What to mount."""
        return [
            web.get("/v1/merchants", self.list_merchants),
            web.post("/v1/merchants", self.add_merchant),
            web.get("/v1/alliances", self.list_alliances),
            web.post("/v1/alliances", self.define_alliance),
            web.get("/v1/stores", self.list_stores),
            web.post("/v1/stores", self.open_store),
        ]

    async def list_merchants(self, request: web.Request) -> web.Response:
        principal = self._gate.asker(request, Action.STORE_READ).principal
        rows = self._control.directory.merchants.values()
        return json_response([MerchantBody(m.merchant, m.title) for m in rows if _sees(principal, m.merchant)])

    async def add_merchant(self, request: web.Request) -> web.Response:
        asker, body = await self._gate.read(request, _merchant, Action.STORE_WRITE)
        return await self._record(asker.actor, e.MerchantAdded(merchant=body.merchant, title=body.title), body)

    async def list_alliances(self, request: web.Request) -> web.Response:
        """An alliance is told to its members, each of whom sees no other."""
        principal = self._gate.asker(request, Action.STORE_READ).principal
        seen = {
            alliance: tuple(sorted(member for member in members if _sees(principal, member)))
            for alliance, members in self._control.directory.alliances.items()
        }
        return json_response([AllianceBody(name, members) for name, members in seen.items() if members])

    async def define_alliance(self, request: web.Request) -> web.Response:
        """POST /v1/alliances: defines it, or replaces its members."""
        asker, body = await self._gate.read(request, _alliance, Action.STORE_WRITE, ALLIANCE_BYTES_MAX)
        return await self._record(
            asker.actor, e.AllianceDefined(alliance=body.alliance, merchants=body.merchants), body
        )

    async def list_stores(self, request: web.Request) -> web.Response:
        principal = self._gate.asker(request, Action.STORE_READ).principal
        rows = self._control.directory.stores.values()
        return json_response([StoreBody(s.store, s.merchant, s.title) for s in rows if _sees(principal, s.merchant)])

    async def open_store(self, request: web.Request) -> web.Response:
        asker, body = await self._gate.read(request, _store, Action.STORE_WRITE)
        event = e.StoreOpened(store=body.store, merchant=body.merchant, title=body.title)
        return await self._record(asker.actor, event, body)

    async def _record(self, actor: str, event: ControlEvent, told: object) -> web.Response:
        allowed(await self._control.record(actor, lambda directory, now_ms: [event]))
        return json_response(told)


def _sees(principal: Principal, merchant: str) -> bool:
    return may(principal, Action.STORE_READ, merchant=merchant)


class Terminals:
    """Terminals and their enrolment."""

    def __init__(self, core: Core, gate: Gate, auth: Auth) -> None:
        self._control, self._gate, self._auth = core.control, gate, auth

    def routes(self) -> list[web.RouteDef]:
        """What to mount."""
        return [
            web.get("/v1/terminals", self.list_terminals),
            web.post("/v1/terminals", self.offer),
            web.post("/v1/terminals/enrol", self.enrol),
            web.post("/v1/terminals/{number}/revoke", self.revoke),
            web.post("/v1/terminals/{number}/unlock", self.unlock),
        ]

    async def list_terminals(self, request: web.Request) -> web.Response:
        principal = self._gate.asker(request, Action.TERMINAL_READ).principal
        directory = self._control.directory
        rows = directory.terminals.values()
        return json_response([_terminal_row(row) for row in rows if _sees_terminal(principal, directory, row)])

    async def offer(self, request: web.Request) -> web.Response:
        """POST /v1/terminals: a new number, and a token that one device may enrol with."""
        asker, body = await self._gate.read(request, _terminal, Action.TERMINAL_WRITE)
        token = token_of(ENROLMENT_PREFIX, secrets.token_bytes(TOKEN_BYTES))
        token_hash = self._auth.token_hash(token)
        assert token_hash is not None

        def make(directory: Directory, now_ms: int) -> list[ControlEvent]:
            number, expires_ms = directory.next_terminal_number(), now_ms + ENROLMENT_MS
            return [
                e.TerminalOffered(
                    terminal=number, store=body.store, label=body.label, token_hash=token_hash, expires_ms=expires_ms
                )
            ]

        (event,) = allowed(await self._control.record(asker.actor, make))
        assert isinstance(event, e.TerminalOffered)
        return json_response(TerminalOffer(event.terminal, token, event.expires_ms))

    async def enrol(self, request: web.Request) -> web.Response:
        """POST /v1/terminals/enrol: the token is the permission. The same device may ask again after a lost answer."""
        body = await read_body(request, _enrolment)
        if not _ed25519_hex(body.public_key):
            raise bad("public_key", "must be an Ed25519 public key: 64 hex digits")
        public_key = bytes.fromhex(body.public_key)
        await self._control.confirm()
        terminal = self._enrolled_before(body.token, public_key)
        if terminal is None:
            terminal = await self._enrol(body.token, public_key)
        return json_response(Enrolled(terminal.number, terminal.store))

    def _enrolled_before(self, token: str, public_key: bytes) -> Terminal | None:
        token_hash = self._auth.token_hash(token)
        for terminal in self._control.directory.terminals.values():
            if terminal.public_key == public_key and terminal.token_hash == token_hash and not terminal.revoked:
                return terminal
        return None

    async def _enrol(self, token: str, public_key: bytes) -> Terminal:
        number = 0

        def make(directory: Directory, now_ms: int) -> list[ControlEvent]:
            nonlocal number
            terminal = self._auth.enrolling(token, now_ms)
            if terminal is None:
                raise Problem(
                    HTTPStatus.FORBIDDEN, "this enrolment token is unknown, used or expired: ask for a new one", "token"
                )
            number = terminal.number
            return [e.TerminalEnrolled(terminal=number, public_key=public_key)]

        allowed(await self._control.record("enrolment token", make))
        return self._control.directory.terminals[number]

    async def revoke(self, request: web.Request) -> web.Response:
        """POST /v1/terminals/{number}/revoke: it is let in nowhere any more, within a second."""
        asker, number = self._write_to(request)
        return await self._step(asker.actor, number, e.TerminalRevoked(terminal=number))

    async def unlock(self, request: web.Request) -> web.Response:
        """POST /v1/terminals/{number}/unlock: ends a lock for wrong codes."""
        asker, number = self._write_to(request)
        return await self._step(asker.actor, number, e.TerminalUnlocked(terminal=number))

    def _write_to(self, request: web.Request) -> tuple[Asker, int]:
        asker = self._gate.asker(request, Action.TERMINAL_WRITE)
        number = path_number(request, "number", TERMINAL_MAX)
        if number not in self._control.directory.terminals:
            raise absent(f"terminal {number}")
        return asker, number

    async def _step(self, actor: str, number: int, event: ControlEvent) -> web.Response:
        allowed(await self._control.record(actor, lambda directory, now_ms: [event]))
        return json_response(_terminal_row(self._control.directory.terminals[number]))


def _sees_terminal(principal: Principal, directory: Directory, terminal: Terminal) -> bool:
    merchant, store = directory.stores[terminal.store].merchant, terminal.store
    return may(principal, Action.TERMINAL_READ, merchant=merchant, terminal=terminal.number, store=store)


def _terminal_row(terminal: Terminal) -> TerminalRow:
    return TerminalRow(
        terminal=terminal.number,
        store=terminal.store,
        label=terminal.label,
        enrolled=terminal.public_key is not None,
        revoked=terminal.revoked,
        locked_until_ms=terminal.locked_until_ms,
        expires_ms=terminal.token_expires_ms,
    )
