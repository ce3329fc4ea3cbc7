"""One connection of a chaos till: what a store's daemon says on the wire, and what it hears."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

import msgspec

from gateway.messages import (
    HELLO_CONTEXT,
    Challenge,
    Drain,
    FromGateway,
    Hello,
    Notice,
    Proof,
    Redeem,
    RedeemMany,
    Reverse,
    ReverseMany,
    Verdicts,
    Welcome,
)
from loadtest.bench_frames import BINARY, CLOSE, PING, PONG, client_frame, take_frames, upgrade_request

if TYPE_CHECKING:
    from chaos_tills import Till

ANSWER_S = 2.5  # then the line is as good as lost
ANSWERED_MAX = 48  # how far back a message may be that is answered a second time

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(FromGateway).decode


class Ask:
    """One id and what it is for; `sent` from the first send on."""

    __slots__ = ("asked_id", "body", "put_off", "sent", "serial", "settled")

    def __init__(self, asked_id: bytes, body: Redeem | Reverse, serial: int) -> None:
        self.asked_id, self.body, self.serial = asked_id, body, serial
        self.sent = self.settled = False
        self.put_off = 0  # how often it was UNRESOLVED


class Line(asyncio.Protocol):
    """One connection of a till."""

    def __init__(self, till: "Till") -> None:
        self._till = till
        self.flying: dict[int, tuple[float, Sequence[Ask]]] = {}
        self.answered: OrderedDict[int, tuple[float, Sequence[Ask]]] = (
            OrderedDict()
        )  # a message that came twice is answered twice
        self._rest, self._upgraded, self.is_welcome = b"", False, False
        self._transport: asyncio.Transport | None = None
        self._since_s = time.monotonic()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._till.opened(self)
        self._transport.write(upgrade_request())
        asyncio.get_running_loop().call_later(ANSWER_S, self._check_welcome)

    def _check_welcome(self) -> None:
        if not self.is_welcome:
            self.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._till.lost(self)

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def is_silent(self, now_s: float) -> bool:
        """Whether the oldest message has waited too long."""
        return bool(self.flying) and now_s - next(iter(self.flying.values()))[0] > ANSWER_S

    def ask(self, message: RedeemMany | ReverseMany, asks: Sequence[Ask], now_s: float) -> None:
        self.flying[message.ref] = now_s, asks
        self._say(message)

    def _say(self, message: object) -> None:
        assert self._transport is not None
        self._transport.write(client_frame(BINARY, _encode(message)))

    def data_received(self, received: bytes) -> None:
        self._rest += received
        if not self._upgraded:
            head, blank, rest = self._rest.partition(b"\r\n\r\n")
            if not blank:
                return
            if b" 101 " not in head.partition(b"\r\n")[0]:
                self.abort()
                return
            self._upgraded, self._rest = True, rest
            self._say(Hello(self._till.number, "chaos"))
        frames, self._rest = take_frames(self._rest)
        for opcode, payload in frames:
            if opcode == BINARY:
                self._take(_decode(payload))
            elif opcode == PING:
                assert self._transport is not None
                self._transport.write(client_frame(PONG, payload))
            elif opcode == CLOSE:
                self.abort()

    def _take(self, message: FromGateway) -> None:
        if isinstance(message, Verdicts):
            self._answer(message)
        elif isinstance(message, Challenge):
            self._say(Proof(self._till.key.sign(HELLO_CONTEXT + message.nonce)))
        elif isinstance(message, Welcome):
            self.is_welcome = True
            self._till.welcomed(self)
        else:
            assert isinstance(message, Notice | Drain), message

    def _answer(self, verdicts: Verdicts) -> None:
        flown = self.flying.pop(verdicts.ref, None) or self.answered.get(verdicts.ref)
        assert flown is not None, "an answer to nothing that was asked lately"
        self.answered[verdicts.ref] = flown
        while len(self.answered) > ANSWERED_MAX:
            self.answered.popitem(last=False)
        asked_s, asks = flown
        self._till.answered(asks, verdicts, asked_s)
