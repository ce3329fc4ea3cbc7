"""Whether this gateway is alive and ready, for load balancers and supervisors."""

from http import HTTPStatus

import msgspec
from aiohttp import web

from gateway.core import Core
from gateway.http_gate import JSON, RETRY_AFTER_S


class Alive(msgspec.Struct, frozen=True):
    """The loop answers; no more is claimed."""

    alive: bool = True


class Readiness(msgspec.Struct, frozen=True, omit_defaults=True):
    """Whether scans can be answered now; and why not, when asked with `?verbose`."""

    ready: bool
    troubles: list[str] | None = None


class Health:
    """Routes /livez and /readyz, for anybody."""

    def __init__(self, core: Core) -> None:
        self._core = core

    def routes(self) -> list[web.RouteDef]:
        """What to mount."""
        return [web.get("/livez", self.livez), web.get("/readyz", self.readyz)]

    async def livez(self, request: web.Request) -> web.Response:
        return web.Response(body=msgspec.json.encode(Alive()), content_type=JSON)

    async def readyz(self, request: web.Request) -> web.Response:
        """GET /readyz: 200 when scans can be answered, else 503."""
        troubles = self._core.troubles()
        body = Readiness(not troubles, list(troubles) if "verbose" in request.query else None)
        headers = {"Cache-Control": "no-store"}
        if troubles:
            headers["Retry-After"] = RETRY_AFTER_S
        code = HTTPStatus.SERVICE_UNAVAILABLE if troubles else HTTPStatus.OK
        return web.Response(body=msgspec.json.encode(body), status=code, content_type=JSON, headers=headers)
