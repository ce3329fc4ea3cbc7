"""The cashier's page: what the daemon serves to a browser on the till, a phone or a tablet.

Theory of operation. The page is a few files and one WebSocket. Everything the page shows is sent whole whenever it
changes, and again at once to whoever connects, so that a page that was away knows all without asking. Each page has a
writer that sends the newest state there is: a slow phone skips states, and holds up nobody. A beat every two seconds
lets a page notice that the daemon is gone even where the network does not say so. What a page sends (a code, an undo, a
look through its camera) takes the same way as a command line or a scanner. Beyond this machine the page is served by
TLS only, and to paired devices only, because what it sends are voucher codes.
"""

import asyncio
import contextlib
import os
import ssl
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import NoReturn

import msgspec
from aiohttp import WSMsgType, web

from devices.feedback import Mood, Told
from devices.keys import read_or_create_secret
from devices.page_access import PAIR_MS, PAIRED_S, RANDOM_BYTES, Pairing, is_our_host, is_our_page
from devices.page_config import PageConfig
from devices.page_scanner import PageScanner
from devices.page_screen import PageScreen
from devices.page_tls import tls_files

PAGES_MAX = 8  # tabs, phones and tablets at one till; more is a page that reloads itself for ever
MESSAGE_BYTES_MAX = 1 << 15  # the longest code, four bytes a character, escaped
BEAT_S = 2.0  # a page takes silence of three of these for the end
REOPEN_S = 2.0  # somebody else has the port: look again, a person is about to end it
PAIR_KEY_NAME = "page.key"
COOKIE = "tillgate_page"
FILES = Path(__file__).parent / "page"
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".wasm": "application/wasm",
    ".svg": "image/svg+xml",
    ".webmanifest": "application/manifest+json",
}
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; style-src 'self'; "
    "img-src 'self'; connect-src 'self'; worker-src 'self'; manifest-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
    "Cache-Control": "no-cache",
}


class TypedHere(msgspec.Struct, tag="code", tag_field="do", frozen=True):
    """A code typed on the page."""

    code: str

    def __repr__(self) -> str:
        return "TypedHere()"


class SeenHere(msgspec.Struct, tag="see", tag_field="do", frozen=True):
    """A code that the page's camera sees, at every look."""

    code: str

    def __repr__(self) -> str:
        return "SeenHere()"


class CameraHere(msgspec.Struct, tag="camera", tag_field="do", frozen=True):
    on: bool


class UndoHere(msgspec.Struct, tag="undo", tag_field="do", frozen=True):
    redemption_id: str  # hex


class PairHere(msgspec.Struct, tag="pair", tag_field="do", frozen=True):
    """Show digits with which another device can be paired."""


FromPage = TypedHere | SeenHere | CameraHere | UndoHere | PairHere
Serve = Callable[[web.Request], Awaitable[web.StreamResponse]]
_decode = msgspec.json.Decoder(FromPage).decode
_encode = msgspec.json.Encoder().encode


class Page:
    """Serves the page for as long as the till runs. `execute` carries out a line of the cashier's."""

    def __init__(
        self,
        config: PageConfig,
        directory: Path,
        screen: PageScreen,
        scanner: PageScanner,
        execute: Callable[[str], Awaitable[str]],
        tell: Callable[[Told], object],
    ) -> None:
        self._config, self._directory = config, directory
        self._screen, self._scanner = screen, scanner
        self._execute, self._tell = execute, tell
        self._pairing = None if config.on_this_machine else Pairing(read_or_create_secret(directory / PAIR_KEY_NAME))
        self._pages: dict[int, web.WebSocketResponse] = {}
        self._numbered = 0

    async def run(self) -> NoReturn:
        """Serve for ever. A port that cannot be had is told once, and tried again: scanners go on without a page."""
        told = False
        while True:
            runner = web.AppRunner(self._app(), access_log=None, shutdown_timeout=0.5)
            try:
                await runner.setup()
                host, port = self._config.address
                site = web.TCPSite(runner, host, port, ssl_context=self._tls())
                await site.start()
                self._tell(Told(Mood.PLAIN, "page", words=self._where(runner)))
                if digits := self.offer_pairing():
                    self._tell(Told(Mood.PLAIN, "pair", words=digits))
                await asyncio.get_running_loop().create_future()
            except OSError as error:
                if not told:
                    self._tell(Told(Mood.BAD, "no_page", words=f"{self._config.listen}: {error.strerror or error}"))
                told = True
            finally:
                await runner.cleanup()
            await asyncio.sleep(REOPEN_S)

    def offer_pairing(self) -> str:
        """Digits that pair one device, as `1234 5678`; empty where none is needed."""
        digits = self._pairing.offer(_now_ms(), os.urandom(RANDOM_BYTES)) if self._pairing else ""
        return f"{digits[:4]} {digits[4:]}" if digits else ""

    def _where(self, runner: web.AppRunner) -> str:
        host, port = runner.addresses[0][:2]
        shown = f"[{host}]" if ":" in host else host
        return f"{'https' if self._pairing else 'http'}://{shown}:{port}"

    def _tls(self) -> ssl.SSLContext | None:
        if self._config.on_this_machine:
            return None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*tls_files(self._config, self._directory))
        return context

    def _app(self) -> web.Application:
        app = web.Application(middlewares=[self._guard], client_max_size=1024)
        app.router.add_get("/live", self._live)
        app.router.add_get("/me", self._me)
        app.router.add_post("/pair", self._pair)
        app.on_shutdown.append(self._say_goodbye)
        names = {"": "index.html", **{path.name: path.name for path in FILES.iterdir() if path.suffix in TYPES}}
        for route, name in names.items():
            app.router.add_get(f"/{route}", _served(FILES / name))
        return app

    @web.middleware
    async def _guard(self, request: web.Request, handler: Serve) -> web.StreamResponse:
        if not is_our_host(request.host, self._config.names):
            return web.Response(status=421, text=_NOT_OUR_HOST, headers=HEADERS)
        acts = request.method != "GET" or request.path == "/live"
        if acts and not is_our_page(request.headers.get("Origin", ""), request.scheme, request.host):
            return web.Response(status=403, text="This came from another page than the till's own.", headers=HEADERS)
        try:
            response = await handler(request)
        except web.HTTPException as answer:
            answer.headers.update(HEADERS)
            raise
        if not response.prepared:
            response.headers.update(HEADERS)
        return response

    def _is_paired(self, request: web.Request) -> bool:
        return self._pairing is None or self._pairing.knows(request.cookies.get(COOKIE, ""), _now_ms())

    async def _me(self, request: web.Request) -> web.Response:
        return web.json_response({"paired": self._is_paired(request), "language": self._screen.language})

    async def _pair(self, request: web.Request) -> web.Response:
        code = (await request.content.read(64)).decode("ascii", "replace")
        cookie = self._pairing.take(code, _now_ms()) if self._pairing else None
        if cookie is None:
            return web.Response(status=403, text="wrong")
        response = web.Response(text="paired")
        response.set_cookie(COOKIE, cookie, max_age=PAIRED_S, httponly=True, secure=True, samesite="Strict")
        return response

    async def _live(self, request: web.Request) -> web.StreamResponse:
        if not self._is_paired(request):
            return web.Response(status=401, text="This device is not paired with the till.")
        if len(self._pages) >= PAGES_MAX:
            return web.Response(status=503, text=f"The till serves {PAGES_MAX} pages already.")
        ws = web.WebSocketResponse(heartbeat=10, max_msg_size=MESSAGE_BYTES_MAX, compress=False)
        await ws.prepare(request)
        self._numbered += 1
        number, wake = self._numbered, asyncio.Event()
        self._pages[number] = ws
        self._screen.wakes.add(wake)
        writer = asyncio.create_task(self._write(ws, wake))
        try:
            await self._read(ws, number)
        finally:
            self._screen.wakes.discard(wake)
            del self._pages[number]
            self._scanner.switch(number, False)
            writer.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await writer
        return ws

    async def _write(self, ws: web.WebSocketResponse, wake: asyncio.Event) -> None:
        wake.set()
        with contextlib.suppress(ConnectionError):
            await ws.send_str(_beat())
            while not ws.closed:
                try:
                    async with asyncio.timeout(BEAT_S):
                        await wake.wait()
                except TimeoutError:
                    await ws.send_str(_beat())
                    continue
                wake.clear()
                await ws.send_str(self._screen.encoded())

    async def _read(self, ws: web.WebSocketResponse, number: int) -> None:
        async for message in ws:
            if message.type is not WSMsgType.TEXT:
                return
            try:
                asked = _decode(message.data)
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
                return  # not our page: the line is closed
            await self._act(ws, number, asked)

    async def _act(self, ws: web.WebSocketResponse, number: int, asked: FromPage) -> None:
        match asked:
            case SeenHere(code=code):
                self._scanner.see(number, code)
            case CameraHere(on=on):
                self._scanner.switch(number, on)
            case TypedHere(code=code):
                await self._execute(f"code {code}")
            case UndoHere(redemption_id=redemption_id):
                await self._execute(f"reverse {redemption_id}")
            case PairHere():
                code, minutes = self.offer_pairing(), PAIR_MS // 60_000
                await ws.send_str(_encode({"pair": code, "minutes": minutes}).decode())

    async def _say_goodbye(self, app: web.Application) -> None:
        for ws in list(self._pages.values()):
            await ws.close(code=1001, message=b"stopped")


_NOT_OUR_HOST = "This address is not one of the till's. Its own go in `names` of [page] in its configuration.\n"


def _served(path: Path) -> Serve:
    async def serve(request: web.Request) -> web.StreamResponse:
        return web.FileResponse(path, headers={"Content-Type": TYPES[path.suffix]})

    return serve


def _beat() -> str:
    """The till's clock, so that a page with another one can say how long ago something was."""
    return f'{{"beat":{_now_ms()}}}'


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
