"""One till's WebSocket inside gevent: the greeting, questions under a `ref`, answers to whoever asked; again if lost.

Theory of operation. A question is one id, sent as often as it takes; each send has a `ref` of its own, and every answer
to any of them reaches the question, a late one too. The reader is a greenlet for each connection. When the connection
goes, whoever waits on it is woken and asks again; the first of them connects, the others wait for it, and a gateway
that cannot be reached is not tried more often than every RECONNECT_S. A drained line is asked nothing new: it is left
when its last answer has come, as a till does it.
"""

import socket
import time
from ssl import create_default_context

import gevent
import msgspec
import websocket
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from gevent.event import Event
from gevent.lock import BoundedSemaphore

from gateway.messages import (
    HELLO_CONTEXT,
    SUBPROTOCOL,
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
    Verdict,
    Verdicts,
    Welcome,
)

SOFTWARE = "tillgate-locust 1"
GREETING_S = 5.0  # each step of it; as a till waits
RECONNECT_S = 0.2  # a gateway that is restarted is often back within a second
_LINK_ERRORS = (websocket.WebSocketException, OSError, EOFError)
_UNDECODABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(FromGateway).decode


class LineDown(Exception):
    """The gateway could not be reached, or the connection went before the answer came; says why."""


class Told(msgspec.Struct, frozen=True, gc=False):
    """One answer to one question, through either door."""

    verdict: Verdict  # the public one
    position: tuple[int, int, int] | None  # partition, seq, index

    @property
    def is_final(self) -> bool:
        return self.verdict is not Verdict.UNRESOLVED


class Question:
    """What is asked under one id, over as many sends as it takes."""

    def __init__(self) -> None:
        self.told: list[Told] = []  # final answers in the order they came; more than one after a retry
        self.told_s = 0.0  # when the first of them came, by time.monotonic
        self.sends = 0
        self.open = 0  # sends whose answer may still come
        self._woken = Event()

    def take(self, told: Told) -> None:
        """One answer to one of its sends."""
        self.open -= 1
        if told.is_final:
            if not self.told:
                self.told_s = time.monotonic()
            self.told.append(told)
        self._woken.set()

    def lost(self) -> None:
        """The line one of its sends went over is gone."""
        self.open -= 1
        self._woken.set()

    def wait(self, seconds: float) -> None:
        """Until an answer comes, a line is lost, or the time is over."""
        self._woken.wait(seconds)
        self._woken.clear()


class _Connection:
    """One WebSocket past its greeting."""

    def __init__(self, ws: websocket.WebSocket) -> None:
        self._ws = ws
        self._asked: dict[int, Question] = {}
        self.is_open, self._draining = True, False
        self._reader = gevent.spawn(self._read)

    @property
    def takes_questions(self) -> bool:
        return self.is_open and not self._draining

    def ask(self, ref: int, body: Redeem | Reverse, question: Question) -> None:
        """Send it. Raises LineDown."""
        message = RedeemMany(ref, [body]) if isinstance(body, Redeem) else ReverseMany(ref, [body])
        self._asked[ref] = question
        question.open += 1
        question.sends += 1
        try:
            self._ws.send_binary(_encode(message))
        except _LINK_ERRORS as error:
            self._end()
            raise LineDown(str(error)) from error

    def close(self) -> None:
        """Hang up; whoever waits is told."""
        self._end()
        self._reader.kill(block=False)

    def _read(self) -> None:
        try:
            while self._take(_received(self._ws)):
                pass
        except (*_LINK_ERRORS, LineDown):
            pass
        self._end()

    def _take(self, message: FromGateway) -> bool:
        """Whether there is more to wait for."""
        if isinstance(message, Verdicts):
            question = self._asked.pop(message.ref, None)
            if question is not None:
                question.take(_told(message))
        elif isinstance(message, Drain):
            self._draining = True
        elif not isinstance(message, Notice):
            raise LineDown("the gateway began the greeting again")
        return not self._draining or bool(self._asked)

    def _end(self) -> None:
        if self.is_open:
            self.is_open = False
            self._ws.shutdown()
            for question in self._asked.values():
                question.lost()
            self._asked.clear()


class StreamLine:
    """The stream of one terminal, connected again whenever it is asked something and is not."""

    def __init__(self, url: str, terminal: int, seed: bytes, ca_file: str | None = None) -> None:
        """`url` is the gateway's, http or https; `seed` the 32 bytes of the device's Ed25519 key."""
        self._url = "ws" + url.removeprefix("http").rstrip("/") + "/v1/stream"
        self._terminal, self._key = terminal, Ed25519PrivateKey.from_private_bytes(seed)
        self._tls = {"context": create_default_context(cafile=ca_file)} if url.startswith("https") else None
        self._one = BoundedSemaphore(1)  # who connects
        self._connection: _Connection | None = None
        self._not_before_s = 0.0
        self._ref = 0

    def connect_within(self, seconds: float) -> None:
        """Connect, and try again if it fails. Raises LineDown with the last reason."""
        until_s = time.monotonic() + seconds
        while True:
            try:
                self._connected()
                return
            except LineDown:
                if time.monotonic() > until_s:
                    raise
            gevent.sleep(2 * RECONNECT_S)

    def ask(self, body: Redeem | Reverse, question: Question) -> None:
        """Send `body`; its answer comes to `question`. Raises LineDown if it cannot be sent."""
        connection = self._connected()
        self._ref += 1
        connection.ask(self._ref, body, question)

    def close(self) -> None:
        """Hang up."""
        if self._connection is not None:
            self._connection.close()

    def _connected(self) -> _Connection:
        connection = self._connection
        if connection is not None and connection.takes_questions:
            return connection
        with self._one:
            connection = self._connection
            if connection is None or not connection.takes_questions:
                if connection is not None and connection.is_open:
                    raise LineDown("the gateway is leaving, and answers what it has been asked")
                self._connection = connection = self._greeted()
            return connection

    def _greeted(self) -> _Connection:
        if time.monotonic() < self._not_before_s:
            raise LineDown("tried a moment ago")
        self._not_before_s = time.monotonic() + RECONNECT_S
        ws = websocket.WebSocket(
            sslopt=self._tls, sockopt=[(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)], skip_utf8_validation=True
        )
        try:
            ws.connect(self._url, timeout=GREETING_S, subprotocols=[SUBPROTOCOL], suppress_origin=True)
            self._greet(ws)
        except _LINK_ERRORS as error:
            ws.shutdown()
            raise LineDown(str(error) or type(error).__name__) from error
        except BaseException:
            ws.shutdown()
            raise
        ws.settimeout(None)
        return _Connection(ws)

    def _greet(self, ws: websocket.WebSocket) -> None:
        ws.send_binary(_encode(Hello(self._terminal, SOFTWARE)))
        challenge = _received(ws)
        if not isinstance(challenge, Challenge):
            raise LineDown(f"the gateway answered hello with {challenge}")
        ws.send_binary(_encode(Proof(self._key.sign(HELLO_CONTEXT + challenge.nonce))))
        welcome = _received(ws)
        if not isinstance(welcome, Welcome):
            raise LineDown(f"terminal {self._terminal} was not welcomed: {welcome}")


def _received(ws: websocket.WebSocket) -> FromGateway:
    opcode, payload = ws.recv_data()
    if opcode != websocket.ABNF.OPCODE_BINARY:
        raise LineDown("the gateway closed the connection")
    try:
        message: FromGateway = _decode(payload)
    except _UNDECODABLE as error:
        raise LineDown(f"the gateway sent a message outside the contract: {error}") from None
    return message


def _told(message: Verdicts) -> Told:
    place = message.places[0] if message.places else None
    position = (place.partition, place.seq, place.index) if place is not None and place.seq else None
    return Told(Verdict(message.codes[0]), position)
