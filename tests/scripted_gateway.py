"""A gateway for the tills' tests: speaks the wire contract on a real socket, and answers as the test has planned.

It shares no code with the real gateway: a dictionary from code to the first redemption_id stands for the claim.
"""

import asyncio
import socket
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Self

import msgspec
from aiohttp import WSMsgType, web
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from gateway.messages import (
    HELLO_CONTEXT,
    PUBLIC,
    SUBPROTOCOL,
    Challenge,
    Detail,
    Drain,
    FromTill,
    Grant,
    Hello,
    Place,
    Proof,
    Redeem,
    RedeemMany,
    Reverse,
    ReverseMany,
    Verdict,
    Verdicts,
    Welcome,
    Winner,
)

decode = msgspec.msgpack.Decoder(FromTill).decode
encode = msgspec.msgpack.encode
AT_MS = 1_790_000_000_000
ANSWER, UNRESOLVED, SILENT, CUT, LATE_CUT = "answer", "unresolved", "silent", "cut", "late cut"
GARBAGE, TEXT, MISCOUNT, GREETING = "garbage", "text", "miscount", "greeting"
NO_UTF8, NESTED = "no utf-8", "nested"  # msgspec has errors of its own for neither
NONSENSE = {
    GARBAGE: b"\xc1\x00\xff",
    NO_UTF8: b"\x93\xa6notice\xa1\xff\xa0",
    NESTED: b"\x94\xa6notice\xa0\xa0" + b"\x91" * 100_000 + b"\xc0",  # one field more than this till knows
}
Send = Callable[[object], Awaitable[None]]


class ScriptedGateway:
    """`plan` says what to do with the next messages, one word each; when it is empty, they are answered.

    unresolved: answer UNRESOLVED; silent: say nothing; cut: drop the connection without deciding;
    late cut: decide, and drop the connection instead of answering; the rest: say something outside the contract.
    """

    def __init__(self, public_key: bytes, terminal: int = 7) -> None:
        self._public_key = Ed25519PublicKey.from_public_bytes(public_key)
        self._terminal = terminal
        self.plan: deque[str] = deque()
        self.verdict_of: dict[str, Verdict] = {}  # by code, where it is not a good voucher
        self.grant: Grant | None = None  # what its tills may accept offline
        self.offers: dict[str, str] = {}  # by code: what an accepted voucher is worth
        self.place_of_winner = Winner("store-9", "**42", AT_MS)
        self.messages: list[RedeemMany | ReverseMany] = []
        self.greetings = 0
        self.winners: dict[str, bytes] = {}
        self.answered: dict[bytes, tuple[Verdict, int]] = {}  # id -> what was decided, and its seq
        self.reversed: set[bytes] = set()
        self.sockets: set[web.WebSocketResponse] = set()
        self._seq = 0
        self._changed = asyncio.Condition()
        self._runner: web.AppRunner | None = None
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def scans(self) -> list[Redeem]:
        return [scan for m in self.messages if isinstance(m, RedeemMany) for scan in m.scans]

    @property
    def reversals(self) -> list[Reverse]:
        return [one for m in self.messages if isinstance(m, ReverseMany) for one in m.reversals]

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.stop()

    async def start(self) -> None:
        app = web.Application()
        app.router.add_get("/v1/stream", self._stream)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", self.port))
        self.port = listener.getsockname()[1]
        await web.SockSite(self._runner, listener).start()

    async def stop(self) -> None:
        for ws in list(self.sockets):
            cut(ws)
        if self._runner:
            await self._runner.cleanup()
            self._runner = None

    async def drain(self) -> None:
        for ws in list(self.sockets):
            await ws.send_bytes(encode(Drain(1000)))

    async def until(self, condition: Callable[[], bool], timeout_s: float = 20) -> None:
        """Wait for something to be true of what has arrived here."""
        async with asyncio.timeout(timeout_s), self._changed:
            await self._changed.wait_for(condition)

    async def _stream(self, request: web.Request) -> web.WebSocketResponse:
        ws = web.WebSocketResponse(protocols=[SUBPROTOCOL], compress=False)
        await ws.prepare(request)
        self.sockets.add(ws)
        try:
            if await self._greet(ws):
                async for message in ws:
                    assert message.type is WSMsgType.BINARY
                    asked = decode(message.data)
                    assert isinstance(asked, RedeemMany | ReverseMany)
                    await self._answer(ws, asked)
        finally:
            self.sockets.discard(ws)
        return ws

    async def _greet(self, ws: web.WebSocketResponse) -> bool:
        hello = decode((await ws.receive()).data)
        assert isinstance(hello, Hello)
        nonce = f"nonce {self.greetings}".encode()
        await ws.send_bytes(encode(Challenge(nonce)))
        proof = decode((await ws.receive()).data)
        assert isinstance(proof, Proof)
        try:
            self._public_key.verify(proof.signature, HELLO_CONTEXT + nonce)
        except InvalidSignature:
            await ws.close(code=4401, message=b"this key is not known")
            return False
        assert hello.terminal == self._terminal
        await self._note(greeting=True)
        await ws.send_bytes(encode(Welcome("store-1", AT_MS, "en")))
        if self.grant is not None and hello.takes_grants:
            await ws.send_bytes(encode(self.grant))
        return True

    async def _answer(self, ws: web.WebSocketResponse, asked: RedeemMany | ReverseMany) -> None:
        step = self.plan.popleft() if self.plan else ANSWER
        if step == UNRESOLVED:
            count = len(asked.scans if isinstance(asked, RedeemMany) else asked.reversals)
            codes = bytes([Verdict.UNRESOLVED]) * count
            await ws.send_bytes(encode(Verdicts(asked.ref, codes, AT_MS, [Place(0, 0, 0, count)], {})))
        elif step in (ANSWER, LATE_CUT):
            verdicts = self._decide(asked)
            if step == ANSWER:
                await ws.send_bytes(encode(verdicts))
        elif step in (*NONSENSE, TEXT, MISCOUNT, GREETING):
            await _talk_nonsense(ws, step, asked.ref)
        if step in (CUT, LATE_CUT):
            cut(ws)
        self.messages.append(asked)
        await self._note()

    def _decide(self, asked: RedeemMany | ReverseMany) -> Verdicts:
        self._seq += 1
        details: dict[int, Detail] = {}
        codes = bytearray()
        if isinstance(asked, RedeemMany):
            for i, scan in enumerate(asked.scans):
                verdict = self._redeem(scan)
                if verdict is Verdict.ALREADY_REDEEMED:
                    details[i] = Detail(self.place_of_winner)
                elif scan.code in self.offers:
                    details[i] = Detail(offer=self.offers[scan.code])
                codes.append(verdict)
        else:
            codes += bytes(self._reverse(one) for one in asked.reversals)
        return Verdicts(asked.ref, bytes(codes), AT_MS, [Place(0, self._seq, 0, len(codes))], details)

    def _redeem(self, scan: Redeem) -> Verdict:
        if scan.redemption_id in self.reversed:
            return Verdict.REVERSED
        verdict = self.verdict_of.get(scan.code, Verdict.ACCEPTED)
        if verdict is Verdict.ACCEPTED and self.winners.setdefault(scan.code, scan.redemption_id) != scan.redemption_id:
            verdict = Verdict.ALREADY_REDEEMED
        public = PUBLIC[verdict]
        assert public is not None
        self.answered[scan.redemption_id] = (public, self._seq)
        return public

    def _reverse(self, reverse: Reverse) -> Verdict:
        held = [code for code, winner in self.winners.items() if winner == reverse.redemption_id]
        for code in held:
            del self.winners[code]
        first = reverse.redemption_id not in self.reversed
        self.reversed.add(reverse.redemption_id)
        return Verdict.ACCEPTED if held or not first else Verdict.REVERSED

    async def _note(self, *, greeting: bool = False) -> None:
        async with self._changed:
            self.greetings += greeting
            self._changed.notify_all()


def cut(ws: web.WebSocketResponse) -> None:
    """As a pulled cable: no close frame."""
    transport = ws._req.transport if ws._req else None
    if transport:
        transport.abort()


async def _talk_nonsense(ws: web.WebSocketResponse, step: str, ref: int) -> None:
    if step == TEXT:
        await ws.send_str("[]")
    elif step in NONSENSE:
        await ws.send_bytes(NONSENSE[step])
    elif step == MISCOUNT:
        await ws.send_bytes(encode(Verdicts(ref, bytes(3), AT_MS, [Place(0, 1, 0, 3)], {})))
    else:
        await ws.send_bytes(encode(Challenge(b"again")))
