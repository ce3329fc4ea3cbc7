"""What may be lost by accepting offline, over HTTP."""

from aiohttp import web

from gateway.core import Core, wall_ms
from gateway.exposure import exposure_of
from gateway.http_gate import Gate, json_response
from gateway.roles import Action


class ExposureRoutes:
    """GET /v1/exposure."""

    def __init__(self, core: Core, gate: Gate) -> None:
        self._core, self._gate = core, gate

    def routes(self) -> list[web.RouteDef]:
        """What to mount."""
        return [web.get("/v1/exposure", self.read)]

    async def read(self, request: web.Request) -> web.Response:
        """The worst loss, and which terminals are out of contact with this gateway."""
        self._gate.asker(request, Action.VOUCHER_READ)
        contacts = self._core.contacts
        directory = self._core.control.directory
        return json_response(
            exposure_of(directory, contacts.here, contacts.left_ms, since_ms=contacts.since_ms, now_ms=wall_ms())
        )
