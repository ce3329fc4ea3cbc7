"""A till's stream, as a generator holds it: lost with the gateway, found again, and then what has no answer yet is sent
once more with the id it had before."""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, cast

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gateway.messages import (
    HELLO_CONTEXT,
    Challenge,
    Drain,
    Hello,
    Notice,
    Place,
    Proof,
    Verdicts,
    Welcome,
)
from loadtest.bench_frames import (
    BINARY,
    CLOSE,
    PING,
    PONG,
    client_frame,
    take_frames,
    upgrade_request,
)
from loadtest.bench_plan import Till
from loadtest.generator_deeds import NAMES, Asked
from loadtest.generator_wire import REF_END, many_frame, redeem_frame, reverse_frame

if TYPE_CHECKING:
    from loadtest.generator_crew import Crew

FLUSH = 64  # scans in a message when a till hands over what it kept
GREETING_SECONDS_MAX = 10.0  # ours is longer than the gateway's, which says why
_from_gateway = msgspec.msgpack.Decoder(Verdicts | Drain | Notice | Challenge | Welcome)
_verdicts = msgspec.msgpack.Decoder(Verdicts)
_encode = msgspec.msgpack.Encoder().encode


class StreamLine(asyncio.Protocol):
    """One till's stream, through all its connections."""

    def __init__(self, crew: "Crew", till: Till, index: int) -> None:
        self._crew, self._till, self._index = crew, till, index
        self._transport: asyncio.Transport | None = None
        self._write: Callable[[bytes], None] = lambda raw: None
        self._rest, self._upgraded = b"", False
        self._refs: dict[int, Asked | list[Asked]] = {}
        self._next_ref = 0
        self._waiting: deque[Asked] = deque()
        self._greeted: asyncio.Future[None] | None = None
        self._gone = asyncio.Event()  # set while there is no connection: the next one must not find the last
        self._gone.set()
        self.is_open = self.is_down = self.is_closed = False

    # --- scans ---

    def send(self, asked: Asked) -> None:
        """Send it, or keep it until there is a line."""
        if not self.is_open:
            self._keep(asked)
            return
        ref = self._next_ref
        self._next_ref = (ref + 1) % REF_END
        self._refs[ref] = asked
        self._crew.writes(asked)
        self._write((redeem_frame if asked.kind == "redeem" else reverse_frame)(ref, asked.body))

    def send_many(self, many: list[Asked]) -> None:
        """Redemptions in one message, where there is a line."""
        if len(many) == 1 or not self.is_open:
            for asked in many:
                self.send(asked)
            return
        ref = self._next_ref
        self._next_ref = (ref + 1) % REF_END
        self._refs[ref] = many
        for asked in many:
            self._crew.writes(asked)
        self._write(many_frame(ref, [asked.body for asked in many]))

    def _keep(self, asked: Asked) -> None:
        if not asked.queued:
            asked.queued = True
            self._waiting.append(asked)

    def _flush(self) -> None:
        waiting, self._waiting = self._waiting, deque()
        kept: list[Asked] = []
        for asked in waiting:
            if asked.kind != "redeem":
                self.send(asked)
                continue
            kept.append(asked)
            if len(kept) == FLUSH:
                self.send_many(kept)
                kept = []
        if kept:
            self.send_many(kept)

    # --- the line ---

    async def connect(self) -> None:
        """Until it is welcome. Raises OSError, TimeoutError."""
        crew = self._crew
        self._rest, self._upgraded = b"", False
        self._greeted = crew.loop.create_future()
        try:
            async with asyncio.timeout(GREETING_SECONDS_MAX):
                await crew.loop.create_connection(lambda: self, crew.plan.host, crew.plan.port)
                self._write(upgrade_request())
                await self._greeted
        except (OSError, asyncio.CancelledError):  # TimeoutError is one: a gateway that greets nobody may yet answer
            self._abort()
            await self._gone.wait()
            raise
        finally:
            self._greeted = None

    def cut(self) -> None:
        """Its network is gone, until `restore`."""
        self.is_down = True
        if self._transport is not None:
            self._transport.abort()

    def restore(self) -> None:
        self.is_down = False
        self._crew.reconnect(self)

    def close(self) -> None:
        """Leave for good."""
        self.is_closed = True
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one in all but name
        self._write = self._transport.write
        self._gone.clear()

    def connection_lost(self, exc: Exception | None) -> None:
        was_open, self.is_open, self._transport = self.is_open, False, None
        self._gone.set()
        self._write = lambda raw: None
        refs, self._refs = self._refs, {}
        for sent in refs.values():
            for asked in sent if isinstance(sent, list) else (sent,):
                if self._crew.lost(asked):
                    self._keep(asked)
        if self._greeted is not None and not self._greeted.done():
            self._greeted.set_exception(ConnectionResetError("the gateway closed the connection"))
        elif was_open and not self.is_down and not self.is_closed:
            self._crew.reconnect(self)

    # --- what comes ---

    def data_received(self, received: bytes) -> None:
        if not self._upgraded:
            head, blank, received = (self._rest + received).partition(b"\r\n\r\n")
            self._rest = b"" if blank else head
            if not blank:
                return
            if b" 101 " not in head[:20]:
                self._abort()
                return
            self._upgraded = True
            self._write(client_frame(BINARY, _encode(Hello(self._till.number, "load"))))
        frames, self._rest = take_frames(self._rest + received if self._rest else received)
        for opcode, payload in frames:
            if opcode == BINARY:
                self._take(payload)
            elif opcode == PING:
                self._write(client_frame(PONG, payload))
            elif opcode == CLOSE:
                self._abort()

    def _abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def _take(self, payload: bytes) -> None:
        try:
            verdicts = _verdicts.decode(payload)
        except msgspec.ValidationError:
            self._take_other(_from_gateway.decode(payload))
            return
        sent = self._refs.pop(verdicts.ref)
        if isinstance(sent, list):
            self._take_many(sent, verdicts)
            return
        place = verdicts.places[0]
        position = (place.partition, place.seq, place.index) if place.seq else None
        self._crew.answered(sent, NAMES[verdicts.codes[0]], position, None)

    def _take_many(self, sent: list[Asked], verdicts: Verdicts) -> None:
        positions = (position for place in verdicts.places for position in _positions(place))
        for asked, code, position in zip(sent, verdicts.codes, positions, strict=True):
            self._crew.answered(asked, NAMES[code], position, None)

    def _take_other(self, message: Drain | Notice | Challenge | Welcome | Verdicts) -> None:
        if isinstance(message, Challenge):
            signature = Ed25519PrivateKey.from_private_bytes(self._till.seed).sign(HELLO_CONTEXT + message.nonce)
            self._write(client_frame(BINARY, _encode(Proof(signature))))
        elif isinstance(message, Welcome):
            self.is_open = True
            if self._greeted is not None and not self._greeted.done():
                self._greeted.set_result(None)
            self._flush()
        elif isinstance(message, Drain):
            self.is_open = False  # what comes now waits for the next line
            self._crew.loop.call_later(message.within_ms / 1000 / 2, self._abort_if, self._transport)
        elif isinstance(message, Notice) and message.code == "not_welcome":
            self._crew.fail(f"a till is not welcome: {message.text}")

    def _abort_if(self, transport: asyncio.Transport | None) -> None:
        if transport is not None and transport is self._transport:
            self.is_open = True  # so that its end is taken for one
            transport.abort()


def _positions(place: Place) -> list[tuple[int, int, int] | None]:
    if not place.seq:
        return [None] * place.count
    return [(place.partition, place.seq, place.index + number) for number in range(place.count)]
