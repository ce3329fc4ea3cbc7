"""The console's door: opened beside the core, mounted under /console, closed before it. console_bodies.py is its map.

Whoever asks is told by bearer token, as everywhere; there is no cookie, so no other site can make a browser ask in a
viewer's name (ops/decisions/010). A fault of the counts' file stops the counts, never the gateway.
"""

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable, Mapping, Sequence
from http import HTTPStatus
from pathlib import Path
from typing import Any

import msgspec
from aiohttp import web

from eventstore.events import BadPayload
from eventstore.follower import Follower
from eventstore.hourly import HourlyCounts
from eventstore.log import CONTROL, SEQ_BITS, Batch, LogFailed
from eventstore.outcomes import Cell
from gateway import console_bodies as b
from gateway.auth import Asker, Auth
from gateway.campaign import Campaign
from gateway.console_board import Board
from gateway.console_events import Filters
from gateway.console_files import Files
from gateway.console_hub import TOPICS, VIEWERS_MAX, Hub, Viewer, frame_of
from gateway.console_live import Live
from gateway.console_lives import Lives
from gateway.console_scope import SCREENS, View, deeds_of, screens_of
from gateway.console_system import Surroundings
from gateway.core import Core, wall_ms
from gateway.directory import Terminal
from gateway.http_bodies import id_of
from gateway.http_gate import Gate, Problem, absent, bad, json_response, problems, read_body, unknown_yet, whole_number
from gateway.http_vouchers import VoucherNamed, Vouchers
from gateway.metrics import Metrics
from gateway.roles import Action
from gateway.scrape import Scrapes
from gateway.settings import Config
from gateway.stream import Stream

CONSOLE_FILE = "console.db"  # in the data directory: counts, rebuilt from the log whenever it is deleted
HOURS_DEFAULT, HOURS_MIN, HOURS_MAX = 49, 25, 24 * 92  # a forecast wants a day; three months fit a chart
EVERY_ACTION = tuple(dict.fromkeys(action for actions in SCREENS.values() for action in actions))
TOPIC_SCREENS = {"now": "now", "stores": "stores", "campaigns": "campaigns", "load": "load", "tail": "events"}
assert set(TOPIC_SCREENS) == set(TOPICS)


class Asked(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One of the three; none of them is ever in a path, because paths are logged."""

    voucher_id: str | None = None
    code: str | None = None
    redemption_id: str | None = None


class AskedAttempts(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    voucher_id: str
    before_seq: int = 0


_asked = msgspec.json.Decoder(Asked)
_asked_attempts = msgspec.json.Decoder(AskedAttempts)


class Console:
    """Everything of the console in one gateway. `follower` keeps the counts up with the log."""

    def __init__(
        self, core: Core, auth: Auth, board: Board, hub: Hub, counts: HourlyCounts, around: Surroundings
    ) -> None:
        self._core, self._board, self._hub, self._counts, self._around = core, board, hub, counts, around
        self._gate = Gate(core.control, auth)
        self._vouchers, self._lives, self._files = Vouchers(core, self._gate), Lives(core, wall_ms), Files()
        self._live_since_ms = wall_ms()
        self._tasks: list[asyncio.Task[None]] = []

    @classmethod
    async def open(
        cls,
        core: Core,
        auth: Auth,
        metrics: Metrics,
        stream: Stream,
        scrapes: Scrapes,
        config: Config,
        directory: Path,
    ) -> "Console":
        """Read what was counted in `directory`, and count on. Raises sqlite3.Error, OSError."""
        live = Live(wall_ms())
        hub: Hub

        def store_of(terminal: int) -> str | None:
            found: Terminal | None = core.control.directory.terminals.get(terminal)
            return found.store if found else None if terminal else ""

        def on_counted(batches: Sequence[Batch], seconds: Mapping[int, Mapping[Cell, int]]) -> None:
            for at_s, cells in seconds.items():
                live.counted(at_s, cells, wall_ms() // 1000)
            hub.saw(batches)

        owner = (core.log.partitions, core.log.meta.deployment_id)
        path = directory / CONSOLE_FILE
        counts = await asyncio.to_thread(HourlyCounts.open, path, *owner, store_of, core.control.confirm, on_counted)
        follower = Follower(core.log, counts, counts.checkpoint, lambda damage: None)  # the core's own halts its lane
        board = Board(core, metrics, stream, counts, live, follower, wall_ms)
        hub = Hub(board, live, metrics, core.log, core.control)
        console = cls(core, auth, board, hub, counts, Surroundings(stream, scrapes, follower, config, metrics))
        core.offers.append(follower.offer)
        loop = asyncio.get_running_loop()
        console._tasks = [
            loop.create_task(console._follow(follower)),
            loop.create_task(hub.run(lambda: wall_ms() // 1000)),
        ]
        return console

    async def _follow(self, follower: Follower) -> None:
        try:
            await follower.run()
        except (sqlite3.Error, LogFailed) as error:
            self._around.counting = f"the counts stand still: {error}. Restart the gateway once that is mended"

    def dismiss(self) -> None:
        """Send the viewers away, and let none in any more."""
        self._hub.close("this gateway is leaving")

    async def close(self) -> None:
        """Stop counting and save the counts."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        try:
            await self._counts.close()
        except sqlite3.Error as error:  # they are counted again from the log
            self._around.counting = str(error)

    def routes(self) -> list[web.RouteDef]:
        """What to mount, errors as problems."""
        api = "/console/api"
        routes = [
            *self._files.routes(),
            web.get(f"{api}/me", self.me),
            web.get(f"{api}/now", self.now),
            web.get(f"{api}/stores", self.stores),
            web.get(f"{api}/stores/{{store}}", self.store),
            web.get(f"{api}/campaigns", self.campaigns),
            web.get(f"{api}/campaigns/{{slug}}", self.campaign),
            web.post(f"{api}/vouchers", self.voucher),
            web.post(f"{api}/vouchers/attempts", self.attempts),
            web.get(f"{api}/log/{{partition}}/{{seq}}", self.page),
            web.get(f"{api}/system", self.system),
            web.get(f"{api}/load", self.load),
            web.get(f"{api}/stream", self.stream),
        ]
        return [web.RouteDef(r.method, r.path, problems(_fresh(r.handler)), r.kwargs) for r in routes]

    # --- who asks ---

    def _asker(self, request: web.Request, screen: str = "") -> tuple[Asker, View]:
        """Who asks, if their role has this screen (any, without one). Raises Problem 401, 403, 503."""
        asker = self._gate.asker(request, *(SCREENS[screen] if screen else EVERY_ACTION))
        return asker, View(asker.principal, self._core.control.directory)

    async def me(self, request: web.Request) -> web.Response:
        """GET /console/api/me."""
        asker, _ = self._asker(request)
        principal, deployment = asker.principal, self._core.control.directory.deployment
        body = b.Me(
            actor=asker.actor,
            role=principal.role,
            scope=principal.scope,
            screens=screens_of(principal),
            deeds=deeds_of(principal),
            version=self._around.metrics.version,
            deployment=deployment.deployment_id if deployment else "",
            live_since_ms=self._live_since_ms,
        )
        return json_response(body)

    # --- screens ---

    async def now(self, request: web.Request) -> web.Response:
        """GET /console/api/now."""
        return json_response(self._board.now(self._asker(request, "now")[1]))

    async def stores(self, request: web.Request) -> web.Response:
        """GET /console/api/stores."""
        return json_response(self._board.stores(self._asker(request, "stores")[1]))

    async def store(self, request: web.Request) -> web.Response:
        """GET /console/api/stores/{store}?hours=."""
        _, view = self._asker(request, "stores")
        name = request.match_info["store"]
        if name not in view.directory.stores or not view.sees_store(name):
            raise absent(f"store {name[:64]!r}")
        return json_response(await self._counted(self._board.store(view, name, _hours(request))))

    async def campaigns(self, request: web.Request) -> web.Response:
        """GET /console/api/campaigns."""
        return json_response(self._board.campaigns(self._asker(request, "campaigns")[1]))

    async def campaign(self, request: web.Request) -> web.Response:
        """GET /console/api/campaigns/{slug}?hours=."""
        _, view = self._asker(request, "campaigns")
        slug = request.match_info["slug"][:64]
        found = view.directory.campaign(slug)
        if found is None or not view.sees_campaign(found):
            raise absent(f"campaign {slug!r}")
        return json_response(await self._counted(self._board.campaign(view, found, _hours(request))))

    async def _counted(self, asked: Awaitable[object]) -> object:
        try:
            return await asked
        except sqlite3.Error:
            raise unknown_yet("the counts cannot be read") from None

    # --- vouchers ---

    async def voucher(self, request: web.Request) -> web.Response:
        """POST /console/api/vouchers."""
        self._asker(request, "vouchers")
        body = await read_body(request, _asked)
        _, view = self._asker(request, "vouchers")
        campaign, serial, kind = await self._named(request, view, body)
        life = await self._lives.life(view, campaign, serial, kind)
        if not (life.events or view.sees_all):
            raise absent("redemption like this one")
        return json_response(life)

    async def _named(self, request: web.Request, view: View, body: Asked) -> tuple[Campaign, int, str]:
        if body.redemption_id is None:
            self._gate.asker(request, Action.VOUCHER_READ)
            return await self._vouchers.named(VoucherNamed(body.voucher_id, body.code))
        if body.voucher_id is not None or body.code is not None:
            raise bad("redemption_id", "give one of voucher_id, code and redemption_id")
        self._gate.asker(request, Action.REDEMPTION_READ)
        found = await self._core.ledger.find(id_of(body.redemption_id, "redemption_id"))
        till = view.directory.terminals.get(found.record.terminal) if found else None
        if found is None or not found.record.campaign or not view.sees_store(till.store if till else ""):
            raise absent("redemption like this one")
        return await self._vouchers.named(VoucherNamed(f"{found.record.campaign}-{found.record.serial}"))

    async def attempts(self, request: web.Request) -> web.Response:
        """POST /console/api/vouchers/attempts: for those who may read any voucher."""
        asker, body = await self._gate.read(request, _asked_attempts, Action.VOUCHER_READ)
        view = View(asker.principal, self._core.control.directory)
        if not 0 <= body.before_seq < 2**SEQ_BITS:
            raise bad("before_seq", f"must be a whole number below {2**SEQ_BITS}")
        campaign, serial, _ = await self._vouchers.named(VoucherNamed(body.voucher_id))
        return json_response(await self._lives.attempts(view, campaign.number, serial, body.before_seq))

    # --- log and system ---

    async def page(self, request: web.Request) -> web.Response:
        """GET /console/api/log/{partition}/{seq}."""
        _, view = self._asker(request, "events")
        name, seq = request.match_info["partition"], request.match_info["seq"]
        good = name.isascii() and name.isdigit() and len(name) <= 4 and int(name) < len(self._core.lanes)
        control = name == "control" and view.reads_log
        if not (good or control) or not (seq.isascii() and seq.isdigit() and 1 <= int(seq[:13]) < 2**SEQ_BITS):
            raise absent("position like this one in the log")
        partition = CONTROL if control else int(name)
        head_seq = (await self._core.log.head(partition)).seq
        try:
            page = await self._lives.page(view, partition, int(seq[:13]), head_seq)
        except BadPayload as error:
            raise Problem(HTTPStatus.CONFLICT, f"this batch cannot be read: {error}") from None
        if page is None:
            raise absent("batch at this position: the log is shorter")
        return json_response(page)

    async def load(self, request: web.Request) -> web.Response:
        """GET /console/api/load."""
        self._asker(request, "load")
        return json_response(list(self._hub.loads))

    async def system(self, request: web.Request) -> web.Response:
        """GET /console/api/system."""
        self._asker(request, "system")
        return json_response(self._around.system(self._core, len(self._hub.viewers)))

    # --- live ---

    async def stream(self, request: web.Request) -> web.StreamResponse:
        """GET /console/api/stream?topics=now,tail: server-sent events until the viewer leaves or must."""
        asker, view = self._asker(request)
        topics = tuple(dict.fromkeys(filter(None, request.query.get("topics", "now").split(","))))
        allowed = screens_of(asker.principal)
        for topic in topics:
            if TOPIC_SCREENS.get(topic) not in allowed:
                raise bad("topics", f"{topic[:16]!r} is none of {', '.join(TOPICS)}, or not for your role")
        if self._hub.is_closed or len(self._hub.viewers) >= VIEWERS_MAX:
            raise unknown_yet(f"this gateway is leaving, or {VIEWERS_MAX} consoles are open on it")
        filters = Filters(*(request.query.get(name, "")[:64] for name in Filters.__struct_fields__))
        viewer = Viewer(view, topics, filters, lambda: self._is_welcome(request))
        response = web.StreamResponse()
        response.headers["Content-Type"] = "text/event-stream; charset=utf-8"
        response.headers["Cache-Control"] = "no-store"
        response.headers["X-Accel-Buffering"] = "no"  # nginx would gather a page of events first
        await response.prepare(request)
        viewer.offer(frame_of("hello", {"role": asker.principal.role}, self._hub.position()))
        self._hub.viewers.add(viewer)
        try:
            if (last_id := request.headers.get("Last-Event-ID")) and "tail" in topics:
                await self._hub.replay(viewer, last_id)
            await viewer.pump(response)
        except (ConnectionError, TimeoutError):
            pass  # the viewer is gone
        finally:
            self._hub.viewers.discard(viewer)
        return response

    def _is_welcome(self, request: web.Request) -> bool:
        try:
            self._gate.asker(request, *EVERY_ACTION, stale_ok=True)
        except Problem:
            return False
        return True


def _hours(request: web.Request) -> int:
    return whole_number(request, "hours", HOURS_MIN, HOURS_MAX, HOURS_DEFAULT)


def _fresh(handler: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> Callable[..., Any]:
    """The handler, its answer kept by no cache unless it says otherwise."""

    async def answer(request: web.Request) -> web.StreamResponse:
        response = await handler(request)
        response.headers.setdefault("Cache-Control", "no-store")
        response.headers.setdefault("X-Content-Type-Options", "nosniff")
        return response

    return answer
