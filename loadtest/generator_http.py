"""What a generator asks over HTTP: as an integrator's server does, with keep-alive connections that tills share."""

import asyncio
from collections import deque
from typing import TYPE_CHECKING, cast

import msgspec

from gateway.messages import RedemptionRequest, ReversalRequest
from loadtest.bench_frames import take_response
from loadtest.bench_plan import Till
from loadtest.generator_deeds import UNRESOLVED, Asked

if TYPE_CHECKING:
    from loadtest.generator_crew import Crew

CONNECT_SECONDS_MAX = 10.0
POOL_MAX = 512  # connections of an integrator's server; what finds none waits
_encode_json = msgspec.json.Encoder().encode


class _Position(msgspec.Struct, gc=False):
    partition: int
    seq: int
    index: int


class _Answer(msgspec.Struct, gc=False):
    verdict: str
    position: _Position | None = None


_answer = msgspec.json.Decoder(_Answer)


class HttpDoor:
    """An integrator's server: keep-alive connections, one request at a time on each."""

    def __init__(self, crew: "Crew", tills: list[Till], token: str) -> None:
        self._crew, self._tills = crew, tills
        self._head = (
            " HTTP/1.1\r\nHost: localhost\r\n"
            f"Authorization: Bearer {token}\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
        ).encode()
        self._idle: list[_HttpLine] = []
        self._open = 0
        self._waiting: deque[Asked] = deque()

    def send(self, asked: Asked) -> None:
        """Send it over an idle connection; open one if there is none."""
        if self._idle:
            self._idle.pop().ask(asked, self._request(asked))
            return
        if not asked.queued:
            asked.queued = True
            self._waiting.append(asked)
        if self._open < POOL_MAX:
            self._open += 1
            self._crew.spawn(self._connect())

    async def _connect(self) -> None:
        crew = self._crew
        try:
            async with asyncio.timeout(CONNECT_SECONDS_MAX):
                _, line = await crew.loop.create_connection(
                    lambda: _HttpLine(crew, self), crew.plan.host, crew.plan.port
                )
        except (OSError, TimeoutError):
            self._open -= 1
            crew.loop.call_later(crew.scenario.patience.again_s, self._try_again)
            return
        self.free(line)

    def _try_again(self) -> None:
        if self._waiting and not self._crew.is_over:
            asked = self._waiting.popleft()
            asked.queued = False
            self.send(asked)

    def free(self, line: "_HttpLine") -> None:
        """A connection may take the next request."""
        if self._waiting:
            asked = self._waiting.popleft()
            line.ask(asked, self._request(asked))
        else:
            self._idle.append(line)

    def gone(self, line: "_HttpLine", asked: Asked | None) -> None:
        """A connection was closed, perhaps while a request was under way."""
        self._open -= 1
        if line in self._idle:
            self._idle.remove(line)
        if asked is not None and self._crew.lost(asked):
            self._crew.again(asked)
        elif self._waiting:
            self._try_again()

    def close(self) -> None:
        for line in list(self._idle):
            line.close()

    def _request(self, asked: Asked) -> bytes:
        if asked.kind == "lookup":
            return b"GET /v1/redemptions/" + asked.key.hex().encode() + self._head % 0
        terminal, at_ms = self._tills[asked.till].number, self._crew.zero_ms + asked.intended_us // 1000
        if asked.kind == "reverse":
            assert asked.target is not None
            path = f"/v1/redemptions/{asked.target}/reversal"
            body = _encode_json(ReversalRequest(asked.key.hex(), terminal, at_ms, "load"))
        else:
            path = "/v1/redemptions"
            body = _encode_json(RedemptionRequest(asked.key.hex(), asked.code, terminal, at_ms))
        return b"POST " + path.encode() + self._head % len(body) + body


class _HttpLine(asyncio.Protocol):
    """One connection."""

    def __init__(self, crew: "Crew", door: HttpDoor) -> None:
        self._crew, self._door = crew, door
        self._transport: asyncio.Transport | None = None
        self._rest = b""
        self._asked: Asked | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        asked, self._asked = self._asked, None
        self._door.gone(self, asked)

    def ask(self, asked: Asked, request: bytes) -> None:
        """Send one request."""
        assert self._transport is not None, "a closed connection is not among the idle ones"
        self._crew.writes(asked)
        self._asked = asked
        self._transport.write(request)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def data_received(self, received: bytes) -> None:
        self._rest += received
        response = take_response(self._rest)
        if response is None or self._asked is None:
            return
        code, body, self._rest = response
        asked, self._asked = self._asked, None
        if code == 404 and asked.kind == "lookup":
            self._crew.answered(asked, "not_found", None, None)
        elif code == 503:
            self._crew.answered(asked, UNRESOLVED, None, None)
        elif code == 200:
            answer = _answer.decode(body)
            place = answer.position
            position = None if place is None else (place.partition, place.seq, place.index)
            self._crew.answered(asked, answer.verdict, position, body)
        else:
            self._crew.fail(f"HTTP {code} to a {asked.kind}: {body[:300].decode(errors='replace')}")
        self._door.free(self)
