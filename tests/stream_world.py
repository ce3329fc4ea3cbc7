"""A whole gateway in this process, as `tillgate serve` runs it, and tills that talk to its stream."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import aiohttp
import msgspec
from core_world import Seen, World, offer
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from eventstore import events as e
from gateway.core import wall_ms
from gateway.deployment import initialise
from gateway.keyfile import KEY_FILE
from gateway.main import Gateway, running
from gateway.messages import (
    HELLO_CONTEXT,
    SUBPROTOCOL,
    SUBPROTOCOL_JSON,
    Challenge,
    Detail,
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
from gateway.settings import Config, MetricsConfig, ServerConfig

TILLS = 8  # terminal n stands in store s<n>
ANSWER_S = 10.0
_CODECS: dict[str, Any] = {SUBPROTOCOL: msgspec.msgpack, SUBPROTOCOL_JSON: msgspec.json}
T = TypeVar("T")


def device(number: int) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32)


class Closed(Exception):
    """The gateway closed the connection."""

    def __init__(self, code: int | None, notices: list[Notice]) -> None:
        super().__init__(f"{code}: {notices}")
        self.code, self.notices = code, notices


class TillClient:
    """What a store's daemon says on the wire, without its journal."""

    def __init__(self, ws: aiohttp.ClientWebSocketResponse, protocol: str) -> None:
        self.ws, self.protocol = ws, protocol
        codec = _CODECS[protocol]
        self.encode = codec.Encoder().encode
        self._decode = codec.Decoder(FromGateway).decode
        self.notices: list[Notice] = []
        self.drained = False
        self._ref = 0

    async def send(self, message: object) -> None:
        await self.raw(self.encode(message))

    async def raw(self, content: bytes) -> None:
        if self.protocol == SUBPROTOCOL:
            await self.ws.send_bytes(content)
        else:
            await self.ws.send_str(content.decode())

    def stop_reading(self) -> None:
        """Let the gateway's answers pile up, first in the kernel's buffers, then in its own."""
        transport = self.ws.get_extra_info("socket")
        transport.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection = self.ws._response.connection
        assert connection is not None
        assert connection.transport is not None
        connection.transport.pause_reading()

    async def next(self, kind: type[T]) -> T:
        """The next message of a kind; notices are put aside. Raises Closed."""
        async with asyncio.timeout(ANSWER_S):
            while True:
                message = await self.ws.receive()
                if message.type not in (aiohttp.WSMsgType.BINARY, aiohttp.WSMsgType.TEXT):
                    raise Closed(self.ws.close_code, self.notices)
                decoded = self._decode(message.data)
                if isinstance(decoded, Notice):
                    self.notices.append(decoded)
                elif isinstance(decoded, Drain) and kind is not Drain:
                    self.drained = True
                else:
                    assert isinstance(decoded, kind), decoded
                    return decoded

    async def ended(self) -> Closed:
        """Waits for the gateway to close the connection."""
        try:
            found = await self.next(Verdicts)
        except Closed as closed:
            return closed
        raise AssertionError(f"still connected: {found}")

    async def greet(self, number: int, key: Ed25519PrivateKey | None = None) -> Welcome:
        await self.send(Hello(number, "test"))
        challenge = await self.next(Challenge)
        await self.send(Proof((key or device(number)).sign(HELLO_CONTEXT + challenge.nonce)))
        return await self.next(Welcome)

    async def redeem(self, *scans: Redeem) -> Verdicts:
        self._ref += 1
        await self.send(RedeemMany(self._ref, list(scans)))
        answer = await self.next(Verdicts)
        assert answer.ref == self._ref
        return answer

    async def verdict(self, scan: Redeem) -> tuple[Verdict, Detail]:
        answer = await self.redeem(scan)
        return Verdict(answer.codes[0]), answer.details.get(0, Detail())

    async def reverse(self, *reversals: Reverse) -> Verdicts:
        self._ref += 1
        await self.send(ReverseMany(self._ref, list(reversals)))
        answer = await self.next(Verdicts)
        assert answer.ref == self._ref
        return answer


class Site:
    """A running gateway with TILLS enrolled terminals and the campaign `cake`."""

    def __init__(self, gateway: Gateway, session: aiohttp.ClientSession) -> None:
        self.gateway, self.session = gateway, session
        self.w = World(gateway.core, Seen())

    @asynccontextmanager
    async def open(self, protocol: str = SUBPROTOCOL) -> AsyncIterator[TillClient]:
        """A connection that has not said hello."""
        url = self.gateway.url + "/v1/stream"
        async with self.session.ws_connect(url, protocols=[protocol], compress=0, max_msg_size=1 << 24) as ws:
            yield TillClient(ws, protocol)

    @asynccontextmanager
    async def till(self, number: int, protocol: str = SUBPROTOCOL) -> AsyncIterator[TillClient]:
        async with self.open(protocol) as till:
            await till.greet(number)
            yield till

    def shrink_buffers(self) -> None:
        """Small kernel buffers on the gateway's side, so that they fill at once."""
        for till in self.gateway.stream._tills.values():
            line = till._transport.get_extra_info("socket")
            line.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)

    async def get(self, path: str) -> tuple[int, bytes]:
        url = path if path.startswith("http") else self.gateway.url + path
        async with self.session.get(url) as response:
            return response.status, await response.read()


def config_for(directory: Path, valkey_url: str = "", **changes: Any) -> Config:
    config = Config(
        data_dir=str(directory), server=ServerConfig(port=0), metrics=MetricsConfig(port=0), drain_seconds=0.0
    )
    if valkey_url:
        config = msgspec.structs.replace(config, valkey=msgspec.structs.replace(config.valkey, url=valkey_url))
    return msgspec.structs.replace(config, **changes)


async def furnish(w: World) -> None:
    stores = [f"s{n}" for n in range(1, TILLS + 1)]
    await w.write(e.MerchantAdded(merchant="m1", title="M"))
    await w.write(*(e.StoreOpened(store=store, merchant="m1", title=store) for store in stores))
    for n in range(1, TILLS + 1):
        token, ends_ms = bytes([n]) * 32, wall_ms() + 60_000
        await w.write(
            e.TerminalOffered(terminal=n, store=f"s{n}", label=f"t-{n}", token_hash=token, expires_ms=ends_ms)
        )
        await w.write(e.TerminalEnrolled(terminal=n, public_key=device(n).public_key().public_bytes_raw()))
    await w.write(e.CampaignCreated(campaign=1, slug="cake", offer=offer(stores=tuple(stores))))


async def prepared(directory: Path) -> None:
    """Initialise a deployment, unless there is one."""
    if not (directory / KEY_FILE).exists():
        await initialise(directory, 1, wall_ms())


@asynccontextmanager
async def site(directory: Path, valkey_url: str = "", **changes: Any) -> AsyncIterator[Site]:
    """A gateway on loopback in `directory`, initialised and furnished on first use."""
    await prepared(directory)
    async with (
        running(config_for(directory, valkey_url, **changes)) as gateway,
        aiohttp.ClientSession() as session,
    ):
        made = Site(gateway, session)
        await made.w.ready()
        if not made.w.directory.merchants:
            await furnish(made.w)
        yield made
