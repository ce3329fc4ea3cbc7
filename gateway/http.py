"""The HTTP door: all routes together, and the two that tell whether this gateway is alive and ready.

Every handler is wrapped in `problems`, and the last route takes every path that no other has, so the application needs
no middleware.
"""

from http import HTTPStatus

import msgspec
from aiohttp import web

from gateway.auth import Auth
from gateway.core import Core
from gateway.http_access import Access
from gateway.http_admin import Parties, Terminals
from gateway.http_campaigns import Campaigns
from gateway.http_gate import JSON, RETRY_AFTER_S, Gate, no_route, problems
from gateway.http_log import LogRoutes
from gateway.http_redeem import Redemptions
from gateway.http_vouchers import Vouchers
from gateway.keyfile import KeyFile
from gateway.metrics import Metrics

__all__ = ["problems", "routes"]


def routes(core: Core, auth: Auth, keys: KeyFile, metrics: Metrics) -> list[web.AbstractRouteDef]:
    """Everything under /v1, /livez and /readyz."""
    gate = Gate(core.control, auth)
    doors = (
        Redemptions(core, gate, metrics),
        Parties(core, gate),
        Terminals(core, gate, auth),
        Campaigns(core, gate, keys),
        Vouchers(core, gate),
        Access(core, gate, auth, keys),
        LogRoutes(core, gate),
    )
    health = [web.get("/livez", _livez), web.get("/readyz", _Readiness(core).told)]
    behind_problems = [
        web.RouteDef(route.method, route.path, problems(route.handler), route.kwargs)
        for door in doors
        for route in door.routes()
    ]
    return [*health, *behind_problems, web.route("*", "/{path:.*}", no_route)]


async def _livez(request: web.Request) -> web.Response:
    """The loop answers; no more is claimed."""
    return web.Response(body=b'{"alive":true}', content_type=JSON)


class ReadinessBody(msgspec.Struct, frozen=True, omit_defaults=True):
    """Whether scans can be answered now; why not, when asked with `?verbose`."""

    ready: bool
    troubles: list[str] | None = None


class _Readiness:
    """GET /readyz: 200 when scans can be answered, else 503; `?verbose` says why not."""

    def __init__(self, core: Core) -> None:
        self._core = core

    async def told(self, request: web.Request) -> web.Response:
        troubles = self._core.troubles()
        body = ReadinessBody(not troubles, list(troubles) if "verbose" in request.query else None)
        headers = {"Cache-Control": "no-store"}
        if troubles:
            headers["Retry-After"] = RETRY_AFTER_S
        code = HTTPStatus.SERVICE_UNAVAILABLE if troubles else HTTPStatus.OK
        return web.Response(body=msgspec.json.encode(body), status=code, content_type=JSON, headers=headers)
