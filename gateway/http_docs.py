"""The API's own documents over HTTP, for anybody: OpenAPI, AsyncAPI, and a page for people."""

from collections.abc import Awaitable, Callable

import msgspec
from aiohttp import web

from gateway.api_page import CSP, api_page
from gateway.asyncapi import asyncapi
from gateway.http_gate import JSON
from gateway.openapi import openapi

Route = Callable[[web.Request], Awaitable[web.Response]]


def documents(version: str) -> list[web.RouteDef]:
    """Routes /docs, /v1/openapi.json and /v1/asyncapi.json. The documents are made once, here."""
    http_api = openapi(version)
    page = {"Content-Security-Policy": CSP, "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"}
    return [
        web.get("/docs", _fixed(api_page(http_api).encode(), "text/html", page)),
        web.get("/v1/openapi.json", _fixed(msgspec.json.encode(http_api), JSON, {})),
        web.get("/v1/asyncapi.json", _fixed(msgspec.json.encode(asyncapi(version)), JSON, {})),
    ]


def _fixed(body: bytes, content_type: str, headers: dict[str, str]) -> Route:
    async def told(request: web.Request) -> web.Response:
        charset = "utf-8" if content_type == "text/html" else None
        return web.Response(body=body, content_type=content_type, charset=charset, headers=headers)

    return told
