"""The HTTP door: all routes together.

Every handler is wrapped in `problems`, and the last route takes every path that no other has, so the application needs
no middleware.
"""

from aiohttp import web

from gateway.auth import Auth
from gateway.core import Core
from gateway.http_access import Access
from gateway.http_admin import Parties, Terminals
from gateway.http_campaigns import Campaigns
from gateway.http_docs import documents
from gateway.http_gate import Gate, no_route, problems
from gateway.http_health import Health
from gateway.http_log import LogRoutes
from gateway.http_redeem import Redemptions
from gateway.http_vouchers import Vouchers
from gateway.keyfile import KeyFile
from gateway.metrics import Metrics

__all__ = ["problems", "routes"]


def routes(core: Core, auth: Auth, keys: KeyFile, metrics: Metrics, version: str) -> list[web.AbstractRouteDef]:
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
    behind_problems = [
        web.RouteDef(route.method, route.path, problems(route.handler), route.kwargs)
        for door in doors
        for route in door.routes()
    ]
    return [*Health(core).routes(), *documents(version), *behind_problems, web.route("*", "/{path:.*}", no_route)]
