"""A generator's connections: closed loops that send encoded messages and count the answers.

Everything here runs once a message, on the same machine as what it measures, so it does as little as it can: a write, a
clock reading, one decode, one comparison of verdict bytes.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import cast

import msgspec

from gateway.messages import Drain, Notice, Verdict, Verdicts
from loadtest.bench_frames import BINARY, CLOSE, PING, PONG, Message, client_frame, take_frames, take_response

_UNRESOLVED = int(Verdict.UNRESOLVED)
_UNRESOLVED_BYTES = bytes((_UNRESOLVED,))
_BYTES = {verdict.name.lower(): bytes((verdict,)) for verdict in Verdict}
_verdicts = msgspec.msgpack.Decoder(Verdicts)
_other = msgspec.msgpack.Decoder(Drain | Notice)


class LineBroken(Exception):
    """A connection ended or an answer was none; says what came."""


class _Position(msgspec.Struct, gc=False):
    seq: int


class _Answer(msgspec.Struct, gc=False):
    verdict: str
    position: _Position | None = None


_answer = msgspec.json.Decoder(_Answer)


class Tally:
    """What came back."""

    def __init__(self) -> None:
        self.messages = self.scans = self.accepted = self.accepted_expected = 0
        self.unresolved = self.wrong = self.distinct = 0
        self.latencies: list[float] = []  # seconds, of a measured window only
        self.lags: list[float] = []  # the same: from when a message was due to when it was sent
        self.seqs: dict[int, tuple[int, int]] = {}  # partition -> lowest and highest seq seen

    def note_seq(self, partition: int, seq: int) -> None:
        """A batch these answers were in."""
        if seq:
            low, high = self.seqs.get(partition, (seq, seq))
            if seq >= high or seq <= low:
                self.seqs[partition] = (min(low, seq), max(high, seq))

    @property
    def batches(self) -> int:
        return sum(high - low + 1 for low, high in self.seqs.values())


class Crew:
    """What the connections to one target share."""

    def __init__(self) -> None:
        self.total = Tally()
        self.window: Tally | None = None  # set while a window is measured
        self.stopping = True
        self.under_way = 0
        self.idle = asyncio.Event()
        self.spent = asyncio.Event()  # a connection has no message left
        self.broken: LineBroken | None = None

    def answered(self, message: Message, codes: bytes, seconds: float) -> None:
        """Count one answer."""
        self.under_way -= 1
        if self.stopping and self.under_way == 0:
            self.idle.set()
        total, expected = self.total, message.expected
        total.messages += 1
        total.scans += len(expected)
        total.distinct += message.distinct
        total.accepted_expected += expected.count(0)
        total.accepted += codes.count(0)
        if codes != expected:
            unresolved = codes.count(_UNRESOLVED_BYTES)
            total.unresolved += unresolved
            differing = sum(told != meant for told, meant in zip(codes, expected, strict=False))
            total.wrong += differing - unresolved + abs(len(codes) - len(expected))
        if self.window is not None:
            self.window.messages += 1
            self.window.scans += len(expected)
            self.window.latencies.append(seconds)

    def fail(self, why: str) -> None:
        """End the row: a broken connection would make every figure a lie."""
        if self.broken is None:
            self.broken = LineBroken(why)
        self.spent.set()
        self.idle.set()


class Line(asyncio.Protocol):
    """One connection."""

    def __init__(self, crew: Crew, messages: Sequence[Message], window: int, endless: bool) -> None:
        """`window` 0: nothing is sent but by `send_due`."""
        assert messages, "a connection has something to send"
        self._crew, self._messages, self._endless = crew, messages, endless
        self._window = min(window, len(messages))
        self._next = 0
        self._rest = b""
        self._transport: asyncio.Transport | None = None
        self._write: Callable[[bytes], None] = lambda raw: None
        self._clock = time.perf_counter

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one in all but name
        self._write = self._transport.write

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._crew.stopping:
            self._crew.fail(f"the server closed a connection ({exc})")

    def start(self) -> None:
        """Send as much as may be under way."""
        for _ in range(self._window):
            self._send()

    def send_due(self, due_s: float) -> None:
        """Send the next message, which was due at `due_s` of time.perf_counter()."""
        if self._crew.window is not None:
            self._crew.window.lags.append(self._clock() - due_s)
        self._send(due_s)

    def close(self) -> None:
        """Let go of the connection."""
        if self._transport is not None:
            self._transport.abort()

    def _send(self, due_s: float | None = None) -> None:
        index = self._next
        if index == len(self._messages):
            if not self._endless:
                self._crew.spent.set()
                return
            index = 0
        self._next = index + 1
        self._crew.under_way += 1
        self._sent(index, self._clock() if due_s is None else due_s)
        self._write(self._messages[index].raw)

    def _sent(self, index: int, at_s: float) -> None:
        raise NotImplementedError


class StreamLine(Line):
    """A till's stream, past its handshake. Answers name their message, and may overtake each other."""

    def __init__(self, crew: Crew, messages: Sequence[Message], window: int, endless: bool) -> None:
        super().__init__(crew, messages, window, endless)
        self._sent_s: dict[int, float] = {}

    def _sent(self, index: int, at_s: float) -> None:
        self._sent_s[index] = at_s

    def data_received(self, received: bytes) -> None:
        frames, self._rest = take_frames(self._rest + received if self._rest else received)
        for opcode, payload in frames:
            if opcode == BINARY:
                self._take(payload)
            elif opcode == PING:
                self._write(client_frame(PONG, payload))
            elif opcode == CLOSE:
                self._crew.fail(f"the gateway closed a stream: {payload[2:].decode(errors='replace')}")

    def _take(self, payload: bytes) -> None:
        try:
            verdicts = _verdicts.decode(payload)
        except msgspec.ValidationError:
            self._crew.fail(f"the gateway sent {_other.decode(payload)}")
            return
        seconds = self._clock() - self._sent_s.pop(verdicts.ref)
        window = self._crew.window
        if window is not None:
            for place in verdicts.places:
                window.note_seq(place.partition, place.seq)
        self._crew.answered(self._messages[verdicts.ref], verdicts.codes, seconds)
        if self._window and not self._crew.stopping:
            self._send()


class HttpLine(Line):
    """A keep-alive connection of an integrator. Answers come in the order of the requests."""

    def __init__(self, crew: Crew, messages: Sequence[Message], window: int, endless: bool) -> None:
        super().__init__(crew, messages, window, endless)
        self._sent_s: deque[tuple[int, float]] = deque()

    def _sent(self, index: int, at_s: float) -> None:
        self._sent_s.append((index, at_s))

    def data_received(self, received: bytes) -> None:
        self._rest = self._rest + received if self._rest else received
        while self._rest and (response := take_response(self._rest)) is not None:
            code, body, self._rest = response
            if code not in (200, 503):
                self._crew.fail(f"HTTP {code}: {body[:300].decode(errors='replace')}")
                return
            self._take(body)

    def _take(self, body: bytes) -> None:
        index, at_s = self._sent_s.popleft()
        answer = _answer.decode(body)
        window = self._crew.window
        if window is not None and answer.position is not None:
            window.note_seq(0, answer.position.seq)
        self._crew.answered(self._messages[index], _BYTES[answer.verdict], self._clock() - at_s)
        if self._window and not self._crew.stopping:
            self._send()
