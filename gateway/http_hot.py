"""The hot request past aiohttp's machinery: a whole `POST /v1/redemptions` on a connection where nothing is under way.

Theory. For a small request aiohttp makes a parsed message, a stream, a request, a response, two futures and a task, and
that is most of what a redemption cost (63 of 97 us). Here the head is recognised, the body decoded and the scan
admitted in the very call that brought the bytes, and the lane writes the answer. Nothing else is done: whatever is not
plain (an unknown bearer, a wrong field, another path) goes to aiohttp, which sees the same bytes as if we were not here
and gives the errors. A head is plain if RFC 9112 lets everybody read it one way only: no transfer coding, no name
twice, nothing about the connection but that it stays; so no proxy in front of us can find another end of the request.

Bytes given to aiohttp that were not whole plain requests leave its parser somewhere we cannot see, so from then on the
connection is aiohttp's for good. What comes while a hot request is under way is held back until it is answered.

Of aiohttp's connection this uses what is private there: `_waiter` (is it idle), `_next_keepalive_close_time` and, so
that a shutdown lets the answer out, `_request_in_progress` and `_handler_waiter`.
"""

import functools
import re
import time
from collections.abc import Callable
from email.utils import formatdate
from http import HTTPStatus
from typing import Any, Protocol, cast

import msgspec
from aiohttp import web

from gateway.http_gate import BODY_BYTES_MAX, JSON, RETRY_AFTER_S
from gateway.stream_frames import Frames

HEAD_BYTES_MAX = 4096  # a longer one is aiohttp's; usual ones have 250 bytes, with a proxy's additions 1,000
HEADS_KEPT_MAX = 1024  # a client sends the same one again and again: by body length, some ten a client
_METHODS = rb"(?:GET|HEAD|POST|PUT|PATCH|DELETE)"
_plain = re.compile(
    rb"(%b /[!-~]*) HTTP/1\.1\r\n((?:[!#-'*+.0-9A-Z^-z|~-]+:[\t -~\x80-\xff]*\r\n)+)\r\n" % _METHODS
).fullmatch
_fields = re.compile(rb"([^:\r\n]+):([^\r\n]*)\r\n").findall
_HOT = b"POST /v1/redemptions"
# Names that say where a request ends, or what becomes of the connection.
_SPECIAL = frozenset((b"transfer-encoding", b"content-encoding", b"te", b"trailer", b"upgrade", b"expect"))

Tell = Callable[[HTTPStatus, bytes, str], None]
"""Takes a response's code, body and media type."""


class Admit(Protocol):
    """Takes a hot request by its `Authorization` and its body. False: it is not plain, and nothing was done.

    Otherwise `tell` is called once, maybe at once.
    """

    def __call__(self, authorization: str, body: bytes, tell: Tell) -> bool: ...


class Head(msgspec.Struct, frozen=True):
    """A plain head: of the hot route, with this authorization, if there is one; and the length of its body."""

    authorization: str | None
    length: int


@functools.lru_cache(maxsize=HEADS_KEPT_MAX)
def read_head(head: bytes) -> Head | None:
    """A request's bytes to the empty line, that included; None if it is not plain."""
    plain = _plain(head)
    if plain is None:
        return None
    pairs = [(name.lower(), value.strip(b" \t")) for name, value in _fields(plain[2])]
    told = dict(pairs)
    length = told.get(b"content-length", b"0")
    if (
        len(told) != len(pairs)
        or b"host" not in told
        or not _SPECIAL.isdisjoint(told)
        or told.get(b"connection", b"keep-alive").lower() != b"keep-alive"
        or not length.isdigit()
        or len(length) > len(str(BODY_BYTES_MAX))
        or int(length) > BODY_BYTES_MAX
    ):
        return None
    is_hot = plain[1] == _HOT and told.get(b"content-type") == JSON.encode()
    authorization = told.get(b"authorization", b"").decode("latin-1") if is_hot else None
    return Head(authorization, int(length))


class HotConnection(web.RequestHandler):
    """aiohttp's connection, but hot requests are answered here."""

    __slots__ = ("_admit", "_held", "_is_answering", "_is_theirs", "frames")

    def __init__(self, server: web.Server, admit: Admit, **options: Any) -> None:
        super().__init__(server, **options)
        self._admit = admit
        self._held = b""  # a hot request that is not whole yet, or what came behind one that is under way
        self._is_answering = False
        self._is_theirs = False  # aiohttp's for good
        self.frames: Frames | None = None  # of a WebSocket

    def set_parser(self, parser: Any, data_received_cb: Callable[[], None] | None = None) -> None:
        """aiohttp's, for a WebSocket's frames."""
        assert self.transport is not None, "it has just been upgraded"
        self.frames = Frames(parser, self.transport)
        super().set_parser(cast(Any, self.frames), data_received_cb)

    def data_received(self, received: bytes) -> None:
        if self._is_theirs:
            super().data_received(received)
            return
        if self._held:
            received, self._held = self._held + received, b""
        if not self._is_answering:
            self._take(received)
            return
        self._held = received
        if self.transport is not None and not self.transport.is_closing():
            self.transport.pause_reading()

    def _take(self, received: bytes) -> None:
        end = received.find(b"\r\n\r\n", 0, HEAD_BYTES_MAX) + 4
        head = read_head(received[:end]) if end > 3 else None
        if head is None:
            if end > 3 or len(received) >= HEAD_BYTES_MAX or not received.startswith(_HOT[: len(received)]):
                self._give_up(received)
            else:
                self._held = received
            return
        whole = end + head.length
        if head.authorization is not None and len(received) < whole:
            self._held = received  # many clients send head and body in two packets
        elif head.authorization is None or not self._is_taken(head.authorization, received, end, whole):
            if len(received) == whole:
                super().data_received(received)
            else:
                self._give_up(received)

    def _is_taken(self, authorization: str, received: bytes, end: int, whole: int) -> bool:
        waiter = self._waiter
        if waiter is None or waiter.done() or self.writing_paused:  # aiohttp is still at work, or has a slow reader
            return False
        self._held = received[whole:]
        self._is_answering = self._request_in_progress = True
        if self._admit(authorization, received[end:whole], self._tell):
            return True
        self._held = b""
        self._is_answering = self._request_in_progress = False
        return False

    def _give_up(self, received: bytes) -> None:
        self._is_theirs = True
        super().data_received(received)

    def _tell(self, code: HTTPStatus, body: bytes, kind: str) -> None:
        self._is_answering = self._request_in_progress = False
        if self._handler_waiter is not None and not self._handler_waiter.done():
            self._handler_waiter.set_result(None)
        if self.transport is None:  # nobody is there any more
            return
        self._next_keepalive_close_time = self._loop.time() + self.keepalive_timeout
        self.transport.write(b"%b%d\r\n\r\n%b" % (_heads.of(code, kind), len(body), body))
        if self._held:
            self._loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        if self.transport is not None and not self.transport.is_closing():
            self.transport.resume_reading()
            self.data_received(b"")


class _Heads:
    """The bytes of a response before its length, made anew once a second."""

    def __init__(self) -> None:
        self._second = -1
        self._made: dict[tuple[HTTPStatus, str], bytes] = {}

    def of(self, code: HTTPStatus, kind: str) -> bytes:
        second = int(time.time())
        if second != self._second:
            self._second = second
            self._made.clear()
        made = self._made.get((code, kind))
        if made is None:
            retry = f"Retry-After: {RETRY_AFTER_S}\r\n" if code is HTTPStatus.SERVICE_UNAVAILABLE else ""
            date = formatdate(second, usegmt=True)
            head = f"HTTP/1.1 {code:d} {code.phrase}\r\nContent-Type: {kind}\r\nDate: {date}\r\n{retry}Content-Length: "
            made = self._made[code, kind] = head.encode()
        return made


_heads = _Heads()


class _HotServer(web.Server):
    def __init__(self, server: web.Server, admit: Admit) -> None:
        super().__init__(server.request_handler, request_factory=server.request_factory, **server._kwargs)
        self._admit = admit

    def __call__(self) -> web.RequestHandler:
        return HotConnection(self, self._admit, loop=self._loop, **self._kwargs)


class HotRunner(web.AppRunner):
    """Serves an application; `admit` is offered the hot requests."""

    __slots__ = ("_admit",)

    def __init__(self, app: web.Application, admit: Admit, **options: Any) -> None:
        super().__init__(app, **options)
        self._admit = admit

    async def _make_server(self) -> web.Server:
        return _HotServer(await super()._make_server(), self._admit)
