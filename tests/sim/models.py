"""What lies between a gateway and the world, as models: delays, Valkey's host and connections, the log, the index.

Each operation takes effect at one random moment and is answered at a later one; the operations of one connection take
effect in order, and their answers come in order. That, and the faults, is where all chance of a run lies.
"""

import asyncio
import random
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import hiredis
from redis.exceptions import ConnectionError as ConnectionLost
from redis.exceptions import RedisError
from sim.chance import Pace
from sim.log_store import LogStore
from sim.loop import Owner, SimLoop
from sim.valkey_model import ModelValkey

from eventstore.events import (
    REDEEM,
    REVERSE,
    IdReused,
    iter_records,
)
from eventstore.log import EMPTY_HEAD, AppendRefused, Batch, Head, LogFailed


class Note(Protocol):
    """Told of every event: what took effect on somebody. A request a gateway took, a function that Valkey carried out,
    an append that landed, the answer to either at its gateway, a verdict at its till, a fault, a deed. What changes
    nothing is none: a request sent away at the door, a look-up, a poll, an answer without a verdict."""

    def __call__(self, kind: str, particulars: object, who: Owner | None, times: int = 1) -> None:
        """Its kind, particulars for the trace, whose doing it was (None: the caller's), how many of it."""
        ...


class ValkeyHost:
    """Where a Valkey runs, with the connections to it; what can go wrong with a server goes wrong here."""

    def __init__(self, loop: SimLoop, pace: Pace, server: ModelValkey, note: Note) -> None:
        self.loop, self.pace, self.server, self.note = loop, pace, server, note
        self.up, self.paused = True, False
        self.under_way = 0  # commands that were sent and have not arrived, also of connections that were cut since
        self.lines: list[Line] = []
        self._waiting: list[tuple[Line, list[bytes]]] = []

    def arrive(self, line: "Line", args: list[bytes]) -> None:
        if self.paused:
            self._waiting.append((line, args))
        elif self.up and line in self.lines:
            line.answer(self._execute(args, line.owner), args[0])

    def _execute(self, args: list[bytes], owner: Owner) -> Any:
        try:
            reply = self.server.execute(args)
        except RedisError as error:
            reply = error
        if args[0] == b"FCALL":
            self.note(args[1].decode().removeprefix("tillgate_"), (args[3].decode(), reply), owner)
        return reply

    def crash(self, lost_writes: int) -> None:
        """The server dies with the newest of its writes; it is down until `start`."""
        self.up = self.paused = False
        self._waiting.clear()
        for line in self.lines:
            line.cut(0)
        self.lines.clear()
        self.server.roll_back(max(0, self.server.writes - lost_writes))
        self.server.restarted()

    def start(self) -> None:
        self.up = True

    def resume(self) -> None:
        self.paused = False
        waiting, self._waiting = self._waiting, []
        for line, args in waiting:
            self.arrive(line, args)


class Line:
    """One TCP connection: commands arrive in order, replies come back in order, until it is cut."""

    def __init__(self, host: ValkeyHost, owner: Owner, connection: "ModelConnection") -> None:
        self._host, self.owner, self._connection = host, owner, connection
        self._parser = hiredis.Reader()
        self._arrives_s = self._replies_s = 0.0
        self._arriving: int | None = None  # how many of the commands under way still arrive, once it is cut
        self.under_way = 0  # commands sent that have not arrived
        self.broken = False
        self.black = False  # nothing goes either way, and nobody is told

    def send(self, command: bytes) -> None:
        if self.broken:
            return  # into a socket whose other end is gone: the reader will hear of it
        loop = self._host.loop
        self._parser.feed(command)
        self._arrives_s = max(self._arrives_s, loop.now_s + self._host.pace.delay_s())
        self.under_way += 1
        self._host.under_way += 1
        loop.at(self._arrives_s, loop.world, self._arrive, self._parser.gets())

    def _arrive(self, args: list[bytes]) -> None:
        self.under_way -= 1
        self._host.under_way -= 1
        if self.black:
            return
        if self._arriving is not None:
            self._arriving -= 1
            if self._arriving < 0:
                return
        self._host.arrive(self, args)

    def answer(self, reply: Any, kind: bytes) -> None:
        if self.broken or self.black:
            return
        loop = self._host.loop
        self._replies_s = max(self._replies_s, loop.now_s + self._host.pace.delay_s())
        loop.at(self._replies_s, self.owner, self._deliver, reply, kind)

    def _deliver(self, reply: Any, kind: bytes) -> None:
        if not (self.broken or self.black):
            if kind == b"FCALL":
                self._host.note("reply", (), self.owner)
            self._connection.take(self, reply)

    def cut(self, arriving: int) -> None:
        """Break it; the first `arriving` commands on their way still reach the server."""
        if not self.broken:
            self.broken, self._arriving = True, arriving
            loop = self._host.loop
            loop.at(loop.now_s, self.owner, self._connection.take, self, ConnectionLost("connection reset"))


class ModelConnection:
    """What gateway.pipe uses of the client library's connection, and its habit of connecting anew by itself."""

    def __init__(self, loop: SimLoop, host: Callable[[], ValkeyHost], owner: Owner) -> None:
        self._loop, self._host, self._owner = loop, host, owner
        self._line: Line | None = None
        self._replies: deque[Any] = deque()
        self._reader: asyncio.Future[None] | None = None
        self.socket_timeout: float | None = None

    @property
    def is_connected(self) -> bool:
        return self._line is not None

    async def connect(self) -> None:
        host = self._host()
        await host.loop.sleep(host.pace.delay_s())
        if not host.up or host is not self._host():
            raise ConnectionLost("connection refused")
        self._line = Line(host, self._owner, self)
        host.lines.append(self._line)

    async def send_packed_command(self, command: list[bytes], check_health: bool) -> None:
        if self._line is None:
            await self.connect()
        assert self._line is not None
        self._line.send(command[0])

    def take(self, line: Line, reply: Any) -> None:
        if line is self._line:
            self._replies.append(reply)
            if self._reader is not None and not self._reader.done():
                self._reader.set_result(None)

    async def read_response(self, disable_decoding: bool) -> Any:
        while not self._replies:
            self._reader = asyncio.Future(loop=self._loop)
            await self._reader
        reply = self._replies.popleft()
        if isinstance(reply, ConnectionLost):
            self._line = None
        if isinstance(reply, RedisError):
            raise reply
        return reply

    async def disconnect(self, nowait: bool) -> None:
        line, self._line = self._line, None
        if line is not None:
            line.cut(line.under_way)


class ModelLog:
    """One gateway's way to the shared log."""

    def __init__(
        self, loop: SimLoop, pace: Pace, store: LogStore, owner: Owner, choose: random.Random, note: Note
    ) -> None:
        self._loop, self._pace, self._store, self._owner, self._note = loop, pace, store, owner, note
        self._random = choose.random
        self._lands_s: dict[int, float] = {}
        self.repeats = 0.0  # chance that an append's answer is lost and the client library asks again
        self.fails_next: str | None = None  # "before" or "after" the effect: what a failing disk leaves behind
        self.failed = False

    @property
    def partitions(self) -> int:
        return self._store.partitions

    async def head(self, partition: int) -> Head:
        early = await self._read_at(lambda: self._store.head(partition))
        assert isinstance(early, Head)
        return early

    async def read(self, partition: int, first_seq: int, limit: int) -> list[Batch]:
        found: list[Batch] = await self._read_at(
            lambda: self._store.chains[partition][first_seq - 1 : first_seq - 1 + limit]
        )
        return found

    async def _read_at(self, look: Callable[[], Any]) -> Any:
        """What `look` sees at the beginning or at the end of the time it takes."""
        if self.failed:
            raise LogFailed("the disk failed before")
        if self._random() < 0.5:
            found = look()
            await self._loop.sleep(self._pace.delay_s())
            return found
        await self._loop.sleep(self._pace.delay_s())
        return look()

    async def append(self, batches: Sequence[Batch]) -> None:
        if not batches:
            return
        if self.failed:
            raise LogFailed("the disk failed before")
        answered: asyncio.Future[None] = asyncio.Future(loop=self._loop)
        lands_s = max(self._lands_s.get(batches[0].partition, 0.0), self._loop.now_s + self._pace.delay_s())
        self._store.under_way += 1
        if self._random() < self.repeats:
            self._store.under_way += 1
            self._loop.at(lands_s, self._loop.world, self._land, batches, None)
            lands_s += self._pace.delay_s() * 3
        self._lands_s[batches[0].partition] = lands_s
        self._loop.at(lands_s, self._loop.world, self._land, batches, answered)
        await answered

    def _land(self, batches: Sequence[Batch], answered: asyncio.Future[None] | None) -> None:
        outcome: Exception | None = None
        self._store.under_way -= 1
        if self.fails_next is not None:
            self.failed = True
        if not self.failed or self.fails_next == "after":
            try:
                self._store.append(batches)
            except AppendRefused as refused:
                outcome = refused
            self._note("append", (batches[-1].partition, batches[-1].seq, outcome), self._owner)
        if self.failed:
            outcome, self.fails_next = LogFailed("input/output error"), None
        if answered is not None:
            self._loop.at(self._loop.now_s + self._pace.delay_s(), self._owner, self._settle, answered, outcome)

    def _settle(self, answered: asyncio.Future[None], outcome: Exception | None) -> None:
        self._note("appended", (), self._owner)
        if outcome is None:
            answered.set_result(None)
        else:
            answered.set_exception(outcome)

    async def close(self) -> None:
        pass


class ModelIndex:
    """The redemption index in memory; it outlives its gateway as a file would."""

    def __init__(self, loop: SimLoop, pace: Pace, partitions: int) -> None:
        self._loop, self._pace = loop, pace
        self.checkpoint: Mapping[int, Head] = dict.fromkeys(range(partitions), EMPTY_HEAD)
        self._applied = dict(self.checkpoint)
        self._places: dict[bytes, tuple[bool, tuple[int, int, int]]] = {}
        self.on_reused: Callable[[Sequence[IdReused]], None] = lambda reused: None

    def reopened(self) -> "ModelIndex":
        self.checkpoint = dict(self._applied)
        return self

    async def apply(self, partition: int, batches: Sequence[Batch]) -> None:
        await self._loop.sleep(self._pace.delay_s())
        reused = []
        for batch in batches:
            for index, record in enumerate(iter_records(batch.payload)):
                if record.op not in (REDEEM, REVERSE):
                    continue
                place, took_effect = (partition, batch.seq, index), batch.verdicts[index] < 2
                known = self._places.get(record.redemption_id)
                if known is None or (took_effect and not known[0]):
                    self._places[record.redemption_id] = (took_effect, place)
                elif took_effect:
                    reused.append(IdReused(redemption_id=record.redemption_id, first=known[1], second=place))
        self._applied[partition] = Head(batches[-1].seq, batches[-1].tip)
        if reused:
            self.on_reused(reused)

    async def reset(self) -> None:
        self._places.clear()
        self._applied = dict.fromkeys(self._applied, EMPTY_HEAD)

    async def ids_dated(self, after_ms: int, until_ms: int, limit: int) -> list[bytes]:
        await self._loop.sleep(self._pace.delay_s())
        dated = sorted(key for key in self._places if key[6] & 0xF0 == 0x70)
        return [key for key in dated if after_ms < int.from_bytes(key[:6], "big") <= until_ms][:limit]

    async def find_many(self, redemption_ids: Sequence[bytes]) -> dict[bytes, tuple[int, int, int]]:
        await self._loop.sleep(self._pace.delay_s())
        return {name: self._places[name][1] for name in redemption_ids if name in self._places}
