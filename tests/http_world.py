"""A core behind its real HTTP door: two merchants, two channels, a token of every role, and a client for tests."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
from aiohttp import web
from core_world import KEYS, World, new_id, offer, wall_ms, world

from eventstore import events as e
from gateway import http
from gateway.auth import BEARER_PREFIX, Auth, token_of
from gateway.http_hot import HotRunner
from gateway.keyfile import KEY_FILE, KeyFile, serialised
from gateway.metrics import Metrics

ROLES = {  # label: role, scope; the second of each pair belongs to somebody else
    "admin": ("admin", ""),
    "operator": ("operator", ""),
    "auditor": ("auditor", ""),
    "till-1": ("terminal", "1"),
    "till-2": ("terminal", "2"),
    "till-9": ("terminal", "9"),
    "integrator-1": ("integrator", "m1"),
    "integrator-2": ("integrator", "m2"),
    "supervisor-1": ("supervisor", "m1"),
    "supervisor-2": ("supervisor", "m2"),
    "merchant-1": ("merchant", "m1"),
    "merchant-2": ("merchant", "m2"),
    "channel-red": ("channel", "red"),
    "channel-blue": ("channel", "blue"),
}


class Reply(msgspec.Struct, frozen=True):
    code: int
    headers: dict[str, str]
    content: bytes

    @property
    def body(self) -> Any:
        return msgspec.json.decode(self.content)


class HttpWorld:
    """`w` is the core's world; every call is one real request."""

    def __init__(self, w: World, app: web.Application, session: aiohttp.ClientSession, tokens: dict[str, str]) -> None:
        self.w, self.app, self.session, self.tokens = w, app, session, tokens
        self.host, self.port = "", 0
        self.doors: http.Doors

    async def send(self, who: str, method: str, path: str, content: Any = None, **headers: str) -> Reply:
        if who:
            headers["Authorization"] = f"Bearer {self.tokens[who]}"
        if content is not None:
            headers.setdefault("Content-Type", "application/json")
        async with self.session.request(method, path, data=content, headers=headers) as response:
            return Reply(response.status, dict(response.headers), await response.read())

    async def get(self, who: str, path: str) -> Reply:
        return await self.send(who, "GET", path)

    async def post(self, who: str, path: str, **body: object) -> Reply:
        return await self.send(who, "POST", path, msgspec.json.encode(body))

    async def redeem(self, who: str, code: str, redemption_id: str = "", **more: object) -> Reply:
        body = {"redemption_id": redemption_id or new_id().hex(), "code": code} | more
        return await self.post(who, "/v1/redemptions", **body)


async def _furnish(w: World) -> None:
    await w.write(
        e.MerchantAdded(merchant="m2", title="N"),
        e.StoreOpened(store="s9", merchant="m2", title="S9"),
        e.AllianceDefined(alliance="both", merchants=("m1", "m2")),
        e.TerminalOffered(terminal=9, store="s9", label="t-9", token_hash=b"9" * 32, expires_ms=wall_ms() + 60_000),
        e.CampaignCreated(campaign=2, slug="red", offer=offer(channel="red")),
        e.CampaignCreated(campaign=3, slug="blue", offer=offer(channel="blue", stores=("s9",))),
        e.CampaignCreated(campaign=4, slug="shared", offer=offer(stores=("s1", "s9"))),
    )


async def _tokens(w: World, auth: Auth) -> dict[str, str]:
    tokens = {label: token_of(BEARER_PREFIX, label.encode().ljust(32)) for label in ROLES}
    hashes = {label: auth.token_hash(token) or b"" for label, token in tokens.items()}
    await w.write(
        *(
            e.TokenCreated(token_id=label, token_hash=hashes[label], role=role, scope=scope, label=label)
            for label, (role, scope) in ROLES.items()
        )
    )
    return tokens


def _key_file(directory: Path) -> KeyFile:
    path = directory / KEY_FILE
    path.parent.mkdir(mode=0o700)
    path.touch(0o600)
    path.write_text(serialised(KEYS))
    return KeyFile(directory)


@asynccontextmanager
async def http_world(directory: Path, valkey_url: str) -> AsyncIterator[HttpWorld]:
    async with world(directory, valkey_url) as w:
        await _furnish(w)
        auth = Auth(KEYS.pepper, w.directory)
        tokens = await _tokens(w, auth)
        app = web.Application()
        doors = http.doors(w.core, auth, _key_file(directory), Metrics("test"), "test")
        app.add_routes(doors.routes)
        runner = HotRunner(app, doors.admit, access_log=None)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        try:
            host, port = runner.addresses[0][:2]
            async with aiohttp.ClientSession(f"http://{host}:{port}") as session:
                made = HttpWorld(w, app, session, tokens)
                made.host, made.port, made.doors = host, port, doors
                yield made
        finally:
            await runner.cleanup()
