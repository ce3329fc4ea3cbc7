"""One WebSocket to a gateway: prove who we are, send what is due, hand over the answers, come back when lost."""

import asyncio
import itertools
import random
import ssl
import time
from collections.abc import Callable
from typing import NoReturn, Protocol

import aiohttp
import msgspec

from devices.config import TerminalConfig, stream_url
from devices.outbox import Answer, Outbox, PeerFault, backoff_ms
from gateway.messages import (
    HELLO_CONTEXT,
    SUBPROTOCOL,
    Challenge,
    Drain,
    FromGateway,
    Grant,
    Hello,
    Notice,
    Proof,
    Verdicts,
    Welcome,
)

SOFTWARE = "tillgate-terminal 1"
CONNECT_S = 5.0  # TCP, TLS and the upgrade; then the same again for each step of the greeting
HEARTBEAT_S = 10.0  # a pulled cable is noticed within 15 s even when nobody scans
MESSAGE_BYTES_MAX = 1 << 18  # 256 verdicts, each with a winner and a note of 500 bytes
RECONNECT_MS_FIRST = 200  # a gateway that is restarted is often back within a second
STEADY_MS = 5000  # a connection that lived this long was a good one: come back quickly
RECONNECT_MS_MAX = 5000  # full jitter below this spreads 10,000 tills over seconds instead of one instant
UNDECODABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)  # what msgspec raises on a peer's bytes
LINK_ERRORS = (aiohttp.ClientError, OSError, TimeoutError, PeerFault)

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(FromGateway).decode


class _Leaving(Exception):
    """The gateway asked us to go: no fault of the link."""


class UplinkListener(Protocol):
    """What the uplink tells the till. `on_answers` is waited for: the next message is read only after it."""

    async def on_answers(self, answers: list[Answer]) -> None: ...

    def on_welcome(self, welcome: Welcome) -> None: ...

    def on_link_lost(self, reason: str) -> None: ...

    async def on_grant(self, grant: Grant) -> None: ...

    def on_notice(self, notice: Notice) -> None: ...


class Uplink:
    def __init__(
        self,
        config: TerminalConfig,
        sign: Callable[[bytes], bytes],
        outbox: Outbox,
        listener: UplinkListener,
    ) -> None:
        self._urls = [stream_url(gateway) for gateway in config.gateways]
        self._terminal = config.terminal
        self._tls = ssl.create_default_context(cafile=config.ca_file) if config.ca_file else True
        self._sign = sign
        self._outbox = outbox
        self._listener = listener
        self._due = asyncio.Event()
        self._leaving = False  # drained: ask nothing new, wait for what was asked

    def wake(self) -> None:
        """The outbox has something new."""
        self._due.set()

    async def run(self) -> NoReturn:
        """Keep one connection, to the gateways in turn. Ends only by cancellation, or by what `on_answers` raises."""
        failures = 0
        async with aiohttp.ClientSession() as session:
            for url in itertools.cycle(self._urls):
                self._leaving = False
                began_ms = monotonic_ms()
                if fault := await self._stay_connected(session, url):
                    self._listener.on_link_lost(fault)
                self._outbox.connection_lost(monotonic_ms())
                failures = 1 if monotonic_ms() - began_ms >= STEADY_MS else failures + 1
                await asyncio.sleep(self._wait_ms(failures) / 1000)
        raise AssertionError("unreachable")

    def _wait_ms(self, failures: int) -> int:
        rounds = 1 + (failures - 1) // len(self._urls)  # try every gateway before waiting longer
        return backoff_ms(rounds, RECONNECT_MS_FIRST, RECONNECT_MS_MAX, spread())

    async def _stay_connected(self, session: aiohttp.ClientSession, url: str) -> str:
        """Why the connection ended; empty when the gateway asked us to reconnect."""
        reason = ""
        try:
            async with await self._connect(session, url) as ws, asyncio.TaskGroup() as tasks:
                tasks.create_task(self._send(ws))
                tasks.create_task(self._receive(ws))
        except* _Leaving:
            pass
        except* LINK_ERRORS as group:
            reason = "" if self._leaving else _root(group)
        return reason

    async def _connect(self, session: aiohttp.ClientSession, url: str) -> aiohttp.ClientWebSocketResponse:
        async with asyncio.timeout(CONNECT_S):
            ws = await session.ws_connect(
                url,
                protocols=[SUBPROTOCOL],
                compress=0,
                heartbeat=HEARTBEAT_S,
                max_msg_size=MESSAGE_BYTES_MAX,
                ssl=self._tls,
            )
        try:
            await self._greet(ws)
        except BaseException:
            await ws.close()
            raise
        return ws

    async def _greet(self, ws: aiohttp.ClientWebSocketResponse) -> None:
        if ws.protocol != SUBPROTOCOL:
            raise PeerFault(f"the gateway does not speak {SUBPROTOCOL}")
        async with asyncio.timeout(CONNECT_S):
            await ws.send_bytes(_encode(Hello(self._terminal, SOFTWARE, takes_grants=True)))
            challenge = await _message(ws)
            if not isinstance(challenge, Challenge):
                raise PeerFault("the gateway did not answer hello with a challenge")
            await ws.send_bytes(_encode(Proof(self._sign(HELLO_CONTEXT + challenge.nonce))))
            welcome = await _message(ws)
        if not isinstance(welcome, Welcome):
            raise PeerFault("the gateway did not welcome this terminal")
        self._listener.on_welcome(welcome)

    async def _send(self, ws: aiohttp.ClientWebSocketResponse) -> None:
        while not self._leaving:
            self._due.clear()
            for message in self._outbox.messages_due(monotonic_ms()):
                await ws.send_bytes(_encode(message))
            await self._until(self._outbox.next_due_ms())

    async def _until(self, due_ms: int | None) -> None:
        wait_s = None if due_ms is None else max(0, due_ms - monotonic_ms()) / 1000
        try:
            async with asyncio.timeout(wait_s):
                await self._due.wait()
        except TimeoutError:
            return

    async def _receive(self, ws: aiohttp.ClientWebSocketResponse) -> None:
        while True:
            message = await _message(ws)
            if isinstance(message, Verdicts):
                await self._tell(self._outbox.take(message, monotonic_ms(), spread()))
            elif isinstance(message, Notice):
                self._listener.on_notice(message)
            elif isinstance(message, Grant):
                await self._listener.on_grant(message)
            elif isinstance(message, Drain):
                self._leaving = True
            else:
                raise PeerFault("the gateway began the greeting again")
            if self._leaving and not self._outbox.flying():
                raise _Leaving
            self.wake()  # there is room for another message now, or a held scan is free, or nothing more to send

    async def _tell(self, answers: list[Answer]) -> None:
        """What was taken out of the outbox is journalled and told, also when the line goes away meanwhile.

        Otherwise a cashier would wait for ever for an answer that only the journal has.
        """
        telling = asyncio.ensure_future(self._listener.on_answers(answers))
        try:
            await asyncio.shield(telling)
        except asyncio.CancelledError:
            await telling
            raise


async def _message(ws: aiohttp.ClientWebSocketResponse) -> FromGateway:
    message = await ws.receive()
    if message.type is not aiohttp.WSMsgType.BINARY:
        if message.type is aiohttp.WSMsgType.TEXT:
            raise PeerFault("the gateway sent text where msgpack was agreed")
        raise PeerFault(f"the gateway closed the connection ({ws.close_code}) {message.extra or ''}".rstrip())
    try:
        decoded: FromGateway = _decode(message.data)
    except UNDECODABLE as error:
        raise PeerFault(f"the gateway sent a message outside the contract: {error}") from None
    return decoded


def _root(group: BaseExceptionGroup[BaseException]) -> str:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, TimeoutError) and not str(error):
        return "the gateway did not answer in time"
    return str(error) or type(error).__name__


def monotonic_ms() -> int:
    return time.monotonic_ns() // 1_000_000


def spread() -> float:
    return random.random()  # noqa: S311 - jitter, no secret
