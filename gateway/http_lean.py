"""A response for the hot route: status line, head and body as one write.

Why: building and serialising a `web.Response` with its header multidict takes an eighth of a request's CPU (measured),
and the head of an Answer never changes but for its length and the second in `Date`. Only for HTTP/1.1 requests that
keep the connection and want the body; every other one gets a `web.Response`. A HEAD is one of those: a body that the
client does not expect would be read as the beginning of the next answer (RFC 9110 section 9.3.2).
"""

import time
from email.utils import formatdate

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.hdrs import METH_HEAD
from aiohttp.http import HttpVersion11

from gateway.http_gate import JSON


class _Head:
    """The bytes before the length, made anew once a second."""

    def __init__(self) -> None:
        self._second, self._bytes = -1, b""

    def now(self) -> bytes:
        second = int(time.time())
        if second != self._second:
            date = formatdate(second, usegmt=True)
            self._bytes = f"HTTP/1.1 200 OK\r\nContent-Type: {JSON}\r\nDate: {date}\r\nContent-Length: ".encode()
            self._second = second
        return self._bytes


_head = _Head()


class LeanResponse(web.StreamResponse):
    """200 with a JSON body on a connection that stays open."""

    def __init__(self, body: bytes) -> None:
        super().__init__()
        self._content = body

    @property
    def keep_alive(self) -> bool:
        return True

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        """Writes all of it. Raises ConnectionResetError if nobody is there any more."""
        transport = request.transport
        if transport is None:
            raise ConnectionResetError("the client has gone")
        body = self._content
        transport.write(b"%b%d\r\n\r\n%b" % (_head.now(), len(body), body))
        await request.writer.drain()  # a client that sends on and on but reads nothing must wait
        return None

    async def write_eof(self, tail: bytes = b"") -> None:
        """Nothing is left to write."""
        assert not tail


def json_200(request: web.Request, body: bytes) -> web.StreamResponse:
    """200 with a JSON body, as cheap as this request allows."""
    if request.version == HttpVersion11 and request.keep_alive and request.method != METH_HEAD:
        return LeanResponse(body)
    return web.Response(body=body, content_type=JSON)
