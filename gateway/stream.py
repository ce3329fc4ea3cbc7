"""The tills' door: `/v1/stream`, one WebSocket for each terminal. Who is let in, who may stay, and how all leave.

Nobody is welcome before a signature over our nonce; a terminal that connects again replaces its older connection. Who
may stay is looked up whenever the control partition has something new; and every message looks its terminal up again.
"""

import asyncio
import os
import socket
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping, Sequence, Set
from http import HTTPStatus
from typing import Any

from aiohttp import WSCloseCode, web

from eventstore.log import LogLost
from gateway.auth import NONCE_BYTES, Auth, Stranger
from gateway.core import Core
from gateway.directory import Terminal
from gateway.grants import Grants
from gateway.lane import Asked
from gateway.messages import (
    SUBPROTOCOL,
    SUBPROTOCOL_JSON,
    Challenge,
    Drain,
    FromTill,
    Hello,
    Notice,
    Proof,
    Reverse,
    Welcome,
)
from gateway.metrics import Metrics
from gateway.pipe import ArbiterLost, ArbiterRefused
from gateway.roles import Principal
from gateway.stream_frames import Frames, frames_of
from gateway.stream_till import Till
from gateway.stream_wire import UNDECODABLE, WIRES, Wire, fault_text

CONNECTIONS_MAX = 20_000  # 15 KiB each: 300 MB; a city has fewer tills, and more gateways
MESSAGE_BYTES_MAX = 1 << 18  # 256 scans of 1,000 bytes, or one of the longest code with room to spare
GREETING_S = 5.0  # three messages; a slow mobile line takes one second
FAREWELL_S = 2.0  # how long a till may take to say goodbye before the line is cut
SWEEP_S = 0.25  # with the control partition's own 0.25 s: a revoked terminal is gone within half a second
SILENCE_S = 30  # a dead line is noticed by the kernel after this long, without a single message of ours
IN_FLIGHT_S_MAX = 10.0  # an answer takes milliseconds, behind a recovery seconds
LANGUAGE = "zh"  # of the stores this field began with; a till's own setting wins


class Stream:
    """All tills of this gateway, by terminal."""

    def __init__(self, core: Core, auth: Auth, metrics: Metrics, now_ms: Callable[[], int]) -> None:
        self.loop = asyncio.get_running_loop()
        self.metrics = metrics
        self.redeemed, self.reversed = metrics.tally("redeem", "stream"), metrics.tally("reverse", "stream")
        self.core = core
        self._control, self._auth, self._now_ms = core.control, auth, now_ms
        self._tills: dict[int, Till] = {}
        self._grants = Grants(core, now_ms)
        self._open = 0
        self._draining = False
        self._empty = asyncio.Event()
        self._empty.set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._seen_seq = core.control.directory.control_seq
        self._sweeping = self.loop.call_later(SWEEP_S, self._sweep)

    def connected(self) -> Mapping[str, int]:
        """Terminals by store."""
        return Counter(till.terminal.store for till in self._tills.values())

    def connected_numbers(self) -> Set[int]:
        """Their numbers."""
        return self._tills.keys()

    async def connect(self, request: web.Request) -> web.StreamResponse:
        """`GET /v1/stream`: one till, from its hello to its goodbye."""
        offered = [name.strip() for name in request.headers.get("Sec-WebSocket-Protocol", "").split(",")]
        wire = next((WIRES[name] for name in offered if name in WIRES), None)
        if wire is None:
            raise web.HTTPBadRequest(reason=f"Sec-WebSocket-Protocol must offer {SUBPROTOCOL} or {SUBPROTOCOL_JSON}")
        if self._draining or self._open >= CONNECTIONS_MAX:
            self.metrics.shed("draining" if self._draining else "connections")
            return web.Response(status=HTTPStatus.SERVICE_UNAVAILABLE, headers={"Retry-After": "1"})
        ws = web.WebSocketResponse(
            protocols=tuple(WIRES), compress=False, max_msg_size=MESSAGE_BYTES_MAX, timeout=FAREWELL_S
        )
        self._open += 1
        try:
            await ws.prepare(request)
            transport = request.transport
            if transport is not None:
                watch_line(transport)
                await self._host(ws, transport, wire, frames_of(request))
        finally:
            self._open -= 1
        return ws

    async def _host(
        self, ws: web.WebSocketResponse, transport: asyncio.Transport, wire: Wire, frames: Frames | None
    ) -> None:
        greeted = await self._greet(ws, wire)
        if isinstance(greeted, Notice):
            if not ws.closed:
                await ws.send_frame(wire.encode(greeted), wire.kind)
                await ws.close(code=WSCloseCode.POLICY_VIOLATION, message=greeted.code.encode())
            return
        terminal, takes_grants = greeted
        till = Till(self, ws, transport, wire, terminal, frames)
        if (earlier := self._tills.get(terminal.number)) is not None:
            earlier.leave(WSCloseCode.POLICY_VIOLATION, "replaced", "this terminal has connected again")
        self._tills[terminal.number] = till
        self.core.contacts.came(terminal.number)
        self._empty.clear()
        till.send(Welcome(terminal.store, self._now_ms(), LANGUAGE))
        if takes_grants:
            self._grants.greet(till)
        if self._draining:
            till.finish()
        try:
            await till.run()
        finally:
            self._grants.forget(till)
            if self._tills.get(terminal.number) is till:
                del self._tills[terminal.number]
                self.core.contacts.left(terminal.number, self._now_ms())
            if not self._tills:
                self._empty.set()

    async def _greet(self, ws: web.WebSocketResponse, wire: Wire) -> tuple[Terminal, bool] | Notice:
        """The terminal that proved itself, and whether it takes grants; or why there is none."""
        nonce = os.urandom(NONCE_BYTES)
        try:
            async with asyncio.timeout(GREETING_S):
                hello = await _next(ws, wire)
                if not isinstance(hello, Hello):
                    return Notice("out_of_turn", "the first message must be hello")
                await ws.send_frame(wire.encode(Challenge(nonce)), wire.kind)
                proof = await _next(ws, wire)
                if not isinstance(proof, Proof):
                    return Notice("out_of_turn", "the answer to a challenge is a proof")
                proven = await self._proven(hello.terminal, nonce, proof.signature)
                return proven if isinstance(proven, Notice) else (proven, hello.takes_grants)
        except TimeoutError:
            return Notice("greeting_timeout", f"hello and proof did not come within {GREETING_S:g} s")
        except LogLost:
            return Notice("not_now", "the event log cannot be reached: connect again in a moment")
        except UNDECODABLE as error:
            return Notice("malformed", f"this is no message: {fault_text(error)}")

    async def _proven(self, number: int, nonce: bytes, signature: bytes) -> Terminal | Notice:
        terminal = self._auth.proven(number, nonce, signature)
        if isinstance(terminal, Stranger) or not self._control.is_confirmed():
            await self._control.confirm()  # no refusal rests on what another gateway may have written just now
            terminal = self._auth.proven(number, nonce, signature)
        return Notice("not_welcome", terminal.why) if isinstance(terminal, Stranger) else terminal

    def reverse(self, terminal: Terminal, reversals: Sequence[Reverse], done: Callable[[Asked], None]) -> None:
        """Undo redemptions; whatever cannot be found out now is UNRESOLVED."""
        asker = self._control.directory.principal_of_terminal(terminal.number)
        assert asker is not None, "a till is looked up before its message is taken"
        self.spawn(self._reverse(asker, terminal.number, reversals, done))

    async def _reverse(
        self, asker: Principal, terminal: int, reversals: Sequence[Reverse], done: Callable[[Asked], None]
    ) -> None:
        try:
            await self.core.reversals.reverse(asker, terminal, reversals, done)
        except (ArbiterLost, ArbiterRefused, LogLost):
            Asked(len(reversals), done).give_up(0, len(reversals))

    # --- who may stay ---

    def _sweep(self) -> None:
        seq = self._control.directory.control_seq
        seen, self._seen_seq = self._seen_seq, seq
        if seq != seen:
            for till in list(self._tills.values()):
                if not till.is_welcome():
                    self.dismiss(till)
        self._grants.renew(changed=seq != seen)
        self._sweeping = self.loop.call_later(SWEEP_S, self._sweep)

    def dismiss(self, till: Till) -> None:
        """Close a terminal that may not be here any more."""
        till.leave(WSCloseCode.POLICY_VIOLATION, "not_welcome", f"terminal {till.terminal.number} was revoked")

    def abort_all(self) -> None:
        """Cut every line: what waits unread in them is too old to be believed."""
        for till in list(self._tills.values()):
            till.abort()

    # --- leaving ---

    def drain(self, within_ms: int) -> None:
        """Take no new till, and ask the ones that are here to leave."""
        self._draining = True
        for till in list(self._tills.values()):
            till.send(Drain(within_ms))

    async def close(self) -> None:
        """Take no message any more, let what is under way be answered, and close every connection."""
        self._draining = True
        self._sweeping.cancel()
        for till in list(self._tills.values()):
            till.finish()
        try:
            async with asyncio.timeout(IN_FLIGHT_S_MAX):
                await self._empty.wait()
        except TimeoutError:
            for till in list(self._tills.values()):
                till.abort()
        while self._tasks:
            await asyncio.wait(self._tasks)

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Do this beside the receive loops."""
        task = self.loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._finished)
        return task

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            raise error  # a bug, or the log failed: the loop's exception handler ends the gateway


async def _next(ws: web.WebSocketResponse, wire: Wire) -> FromTill | None:
    message = await ws.receive()
    return wire.decode(message.data) if message.type is wire.kind else None


def watch_line(transport: asyncio.Transport) -> None:
    """Let the kernel notice a dead line (tcp(7)); pings of our own would cost every message a timer."""
    line = transport.get_extra_info("socket")
    if line is None or line.family not in (socket.AF_INET, socket.AF_INET6):
        return
    line.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, SILENCE_S // 3)
    line.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, SILENCE_S // 3)
    line.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 2)
    line.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, SILENCE_S * 1000)
