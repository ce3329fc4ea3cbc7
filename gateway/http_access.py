"""Bearer tokens and code keys over HTTP. Secrets are shown once, to whoever asked for them, or never."""

import asyncio
import secrets
from collections.abc import Callable
from http import HTTPStatus

import msgspec
from aiohttp import web

from eventstore import events as e
from gateway.auth import BEARER_PREFIX, TOKEN_BYTES, Auth, token_of
from gateway.codes import CodeKeys
from gateway.core import Core
from gateway.directory import Token
from gateway.http_gate import Gate, Problem, absent, allowed, json_response, path_number
from gateway.keyfile import KEY_IDS, KeyFault, KeyFile
from gateway.roles import Action

TOKEN_ID_BYTES = 5  # ten hex digits: short enough to type, and a collision is refused


class NewToken(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A bearer token to make: what it may do, and for whom (`scope`: the merchant or channel of a bound role)."""

    role: str
    label: str
    scope: str = ""


class TokenRow(msgspec.Struct, frozen=True):
    """A bearer token without its secret."""

    token_id: str
    role: str
    scope: str
    label: str
    revoked: bool


class TokenMade(msgspec.Struct, frozen=True):
    """A new bearer token. The secret is shown this once."""

    token_id: str
    token: str


class KeyRow(msgspec.Struct, frozen=True):
    """A key that codes are signed with, by its id; the key itself is told to nobody."""

    key_id: int
    active: bool
    retired: bool


_token = msgspec.json.Decoder(NewToken)


class Access:
    """Bearer tokens and code keys."""

    def __init__(self, core: Core, gate: Gate, auth: Auth, keys: KeyFile) -> None:
        self._core, self._control = core, core.control
        self._gate, self._auth, self._keys = gate, auth, keys

    def routes(self) -> list[web.RouteDef]:
        """What to mount."""
        return [
            web.get("/v1/tokens", self.list_tokens),
            web.post("/v1/tokens", self.create_token),
            web.post("/v1/tokens/{token_id}/revoke", self.revoke_token),
            web.get("/v1/keys", self.list_keys),
            web.post("/v1/keys", self.add_key),
            web.post("/v1/keys/{key_id}/retire", self.retire_key),
        ]

    async def list_tokens(self, request: web.Request) -> web.Response:
        self._gate.asker(request, Action.TOKEN_READ)
        return json_response([_token_row(token) for token in self._control.directory.tokens.values()])

    async def create_token(self, request: web.Request) -> web.Response:
        """POST /v1/tokens: shown this once."""
        asker, body = await self._gate.read(request, _token, Action.TOKEN_WRITE)
        token, token_id = token_of(BEARER_PREFIX, secrets.token_bytes(TOKEN_BYTES)), secrets.token_hex(TOKEN_ID_BYTES)
        token_hash = self._auth.token_hash(token)
        assert token_hash is not None
        event = e.TokenCreated(
            token_id=token_id, token_hash=token_hash, role=body.role, scope=body.scope, label=body.label
        )
        allowed(await self._control.record(asker.actor, lambda directory, now_ms: [event]))
        return json_response(TokenMade(token_id, token))

    async def revoke_token(self, request: web.Request) -> web.Response:
        """POST /v1/tokens/{token_id}/revoke."""
        asker = self._gate.asker(request, Action.TOKEN_WRITE)
        token_id = request.match_info["token_id"]
        if token_id not in self._control.directory.token_hashes:
            raise absent("such token")
        event = e.TokenRevoked(token_id=token_id)
        allowed(await self._control.record(asker.actor, lambda directory, now_ms: [event]))
        directory = self._control.directory
        return json_response(_token_row(directory.tokens[directory.token_hashes[token_id]]))

    async def list_keys(self, request: web.Request) -> web.Response:
        """GET /v1/keys: ids only; the keys themselves are told to nobody."""
        self._gate.asker(request, Action.KEY_READ)
        return json_response(await self._key_rows())

    async def _key_rows(self) -> list[KeyRow]:
        keys = await _in_file(self._keys.load)
        live = [KeyRow(number, number == keys.active, retired=False) for number in sorted(keys.keys)]
        return [*live, *(KeyRow(number, active=False, retired=True) for number in sorted(keys.retired))]

    async def add_key(self, request: web.Request) -> web.Response:
        """POST /v1/keys: a new key, in the file before in the log: an event must never name a key that is nowhere."""
        asker = self._gate.asker(request, Action.KEY_WRITE)
        keys = await _in_file(self._keys.add)
        event = e.KeyAdded(key_id=keys.active)
        allowed(await self._control.record(asker.actor, lambda directory, now_ms: [event]))
        self._core.reload_keys(keys)
        return json_response(KeyRow(keys.active, active=True, retired=False))

    async def retire_key(self, request: web.Request) -> web.Response:
        """POST /v1/keys/{key_id}/retire: out of the file first, so that the log never calls a live key retired."""
        asker = self._gate.asker(request, Action.KEY_WRITE)
        key_id = path_number(request, "key_id", KEY_IDS[-1])
        keys = await _in_file(self._keys.load)
        if key_id in keys.keys:
            self._core.reload_keys(await _in_file(lambda: self._keys.retire(key_id)))
        elif key_id not in keys.retired:
            raise absent(f"key {key_id}")
        event = e.KeyRetired(key_id=key_id)
        allowed(await self._control.record(asker.actor, lambda directory, now_ms: [event]))
        return json_response(KeyRow(key_id, active=False, retired=True))


def _token_row(token: Token) -> TokenRow:
    return TokenRow(token.token_id, token.role, token.scope, token.label, token.revoked)


async def _in_file(step: Callable[[], CodeKeys]) -> CodeKeys:
    """A step with the key file, off the loop: it syncs. Raises Problem 409."""
    try:
        return await asyncio.to_thread(step)
    except KeyFault as fault:
        raise Problem(HTTPStatus.CONFLICT, str(fault), "key_id") from None
