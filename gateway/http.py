"""The HTTP door: all routes together.

Every handler is wrapped in `problems`, and the last route takes every path that no other has, so the application needs
no middleware.
"""

import msgspec
from aiohttp import web

from gateway.auth import Auth
from gateway.core import Core
from gateway.http_access import Access
from gateway.http_admin import Parties, Terminals
from gateway.http_campaigns import Campaigns
from gateway.http_docs import documents
from gateway.http_exposure import ExposureRoutes
from gateway.http_gate import Gate, no_route, problems
from gateway.http_health import Health
from gateway.http_hot import Admit
from gateway.http_imports import ImportRoutes
from gateway.http_log import LogRoutes
from gateway.http_redeem import Redemptions
from gateway.http_vouchers import Vouchers
from gateway.keyfile import KeyFile
from gateway.metrics import Metrics

__all__ = ["Doors", "doors", "problems"]


class Doors(msgspec.Struct, frozen=True):
    """Everything under /v1, /livez and /readyz; and what takes hot requests past the routes."""

    routes: list[web.AbstractRouteDef]
    admit: Admit


def doors(core: Core, auth: Auth, keys: KeyFile, metrics: Metrics, version: str) -> Doors:
    """All of them, for HotRunner."""
    gate = Gate(core.control, auth)
    redemptions = Redemptions(core, gate, metrics)
    each = (
        redemptions,
        Parties(core, gate),
        Terminals(core, gate, auth),
        Campaigns(core, gate, keys),
        ImportRoutes(core, gate),
        Vouchers(core, gate),
        Access(core, gate, auth, keys),
        LogRoutes(core, gate),
        ExposureRoutes(core, gate),
    )
    behind_problems = [
        web.RouteDef(route.method, route.path, problems(route.handler), route.kwargs)
        for door in each
        for route in door.routes()
    ]
    last = web.route("*", "/{path:.*}", no_route)
    return Doors([*Health(core).routes(), *documents(version), *behind_problems, last], redemptions.admit)
