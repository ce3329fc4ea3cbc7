"""The load generator, a process of its own: `python -m loadtest.bench_generator` reads a Plan, answers a list of Loads.

It encodes every message first, then connects, and only then starts the clock. The targets of a plan are loaded in turns
by the same connections, so that whatever else the machine does in these seconds disturbs all of them alike. CPU is read
from the accounts of the very processes at both ends of a window.
"""

import asyncio
import gc
import itertools
import socket
import sys
import time
from collections.abc import Iterator
from functools import partial
from random import Random

import msgspec
import psutil
import uvloop
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gateway.messages import HELLO_CONTEXT, Challenge, Hello, Proof, Welcome
from loadtest.bench_frames import (
    BINARY,
    Message,
    client_frame,
    http_messages,
    stream_messages,
    take_frames,
    upgrade_request,
)
from loadtest.bench_lines import Crew, HttpLine, Line, LineBroken, StreamLine, Tally
from loadtest.bench_plan import HTTP, Load, Plan, Target, Till
from loadtest.bench_report import percentile

ANSWER_SECONDS_MAX = 10.0  # after the last message: an answer that takes longer will not come
ENDLESS_MESSAGES = 256  # what a target without a memory is sent in a circle, a connection; the caches hold it
READ_BYTES = 65536
QUIET_SECONDS, QUIET_CPU_SECONDS = 0.1, 0.015  # a server that spends less than this in that time is done
TRAILING_SECONDS_MAX = 5.0


class _Meter:
    """CPU seconds of named processes, of this one, and of everything else on the machine."""

    def __init__(self, pids: dict[str, int]) -> None:
        self._processes = {name: psutil.Process(pid) for name, pid in pids.items()} | {"generator": psutil.Process()}
        self._spent_s, self._machine_s = self._read()

    def _read(self) -> tuple[dict[str, float], float]:
        machine = psutil.cpu_times()
        busy_s = sum(machine) - machine.idle - getattr(machine, "iowait", 0.0) - getattr(machine, "guest", 0.0)
        spent_s = {}
        for name, process in self._processes.items():
            times = process.cpu_times()
            spent_s[name] = times.user + times.system
        return spent_s, busy_s

    def since_start(self) -> tuple[dict[str, float], float]:
        """(CPU seconds by process, CPU seconds of all others)."""
        spent_s, machine_s = self._read()
        ours = {name: spent - self._spent_s[name] for name, spent in spent_s.items()}
        return ours, machine_s - self._machine_s - sum(ours.values())


class _Round:
    """One target, its connections, and what they measured so far."""

    def __init__(self, plan: Plan, target: Target) -> None:
        self.target, self.crew = target, Crew()
        self.lines: list[Line] = []
        self.windows: list[Tally] = []
        self.seconds = self.elsewhere_s = 0.0
        self.cpu_s = dict.fromkeys((*target.pids, "generator"), 0.0)
        self.trailing_s = dict.fromkeys(target.pids, 0.0)
        self._plan = plan

    async def measure(self) -> None:
        """One turn: warm up, measure, let the answers come in. Raises LineBroken."""
        crew, plan = self.crew, self._plan
        crew.idle.clear()
        crew.stopping = False
        for line in self.lines:
            line.start()
        pacing = asyncio.create_task(self._pace()) if plan.shape.rate else None
        await asyncio.sleep(plan.warm_seconds)
        crew.window = Tally()
        meter, started_s = _Meter(self.target.pids), time.perf_counter()
        await _within(plan.seconds / plan.turns, crew.spent)
        cpu_s, elsewhere_s = meter.since_start()
        self.seconds += time.perf_counter() - started_s
        self.windows.append(crew.window)
        crew.window, crew.stopping = None, True
        if pacing is not None:
            pacing.cancel()
            if not crew.under_way:
                crew.idle.set()
        self.elsewhere_s += elsewhere_s
        for name, spent_s in cpu_s.items():
            self.cpu_s[name] += spent_s
        if crew.under_way and not await _within(ANSWER_SECONDS_MAX, crew.idle):
            raise LineBroken(f"{crew.under_way} messages were not answered within {ANSWER_SECONDS_MAX:.0f} s")
        if crew.broken is not None:
            raise crew.broken
        await self._quiet()

    async def _pace(self) -> None:
        """Send what is due, one connection after the other, until cancelled; what is late is sent at once."""
        gap_s, due_s = 1 / self._plan.shape.rate, time.perf_counter()
        for line in itertools.cycle(self.lines):
            if (wait_s := due_s - time.perf_counter()) > 0:
                await asyncio.sleep(wait_s)
            line.send_due(due_s)
            due_s += gap_s

    async def _quiet(self) -> None:
        """Wait until the target has done what it put off (an index it keeps up to date), and book it."""
        meter, until_s, spent_s = _Meter(self.target.pids), time.perf_counter() + TRAILING_SECONDS_MAX, 0.0
        while True:
            await asyncio.sleep(QUIET_SECONDS)
            cpu_s, _ = meter.since_start()
            earlier_s, spent_s = spent_s, sum(cpu_s[name] for name in self.target.pids)
            if spent_s - earlier_s < QUIET_CPU_SECONDS or time.perf_counter() > until_s:
                break
        for name in self.target.pids:
            self.trailing_s[name] += cpu_s[name]

    def load(self) -> Load:
        """What it did, all turns together."""
        ordered = sorted(second for window in self.windows for second in window.latencies)
        lags = sorted(second for window in self.windows for second in window.lags)
        total = self.crew.total
        return Load(
            target=self.target.name,
            seconds=self.seconds,
            messages=sum(window.messages for window in self.windows),
            scans=sum(window.scans for window in self.windows),
            p50_ms=percentile(ordered, 0.50) * 1e3,
            p99_ms=percentile(ordered, 0.99) * 1e3,
            p999_ms=percentile(ordered, 0.999) * 1e3,
            lag_p99_ms=percentile(lags, 0.99) * 1e3,
            batches=0 if self.target.endless else sum(window.batches for window in self.windows),
            cpu_seconds=self.cpu_s,
            trailing_seconds=self.trailing_s,
            elsewhere_seconds=self.elsewhere_s,
            answered=total.scans,
            accepted=total.accepted,
            accepted_expected=total.accepted_expected,
            unresolved=total.unresolved,
            wrong=total.wrong,
            distinct=total.distinct,
        )


async def _within(seconds: float, event: asyncio.Event) -> bool:
    try:
        await asyncio.wait_for(event.wait(), seconds)
    except TimeoutError:
        return False
    return True


def _conversations(plan: Plan) -> list[list[Message]]:
    """Each connection's messages."""
    shape, rng, made = plan.shape, Random(plan.seed), []  # noqa: S311 - load, not secrets
    at_ms = time.time_ns() // 1_000_000
    for number in range(shape.connections):
        codes = iter(plan.codes[number :: shape.connections])
        if shape.door == HTTP:
            till = plan.tills[number % len(plan.tills)]
            made.append(http_messages(codes, shape, at_ms, rng, token=plan.token, terminal=till.number))
        else:
            made.append(stream_messages(codes, shape, at_ms, rng))
    return made


def _connected(target: Target) -> socket.socket:
    connection = socket.create_connection((target.host, target.port), ANSWER_SECONDS_MAX)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def _shake_hands(connection: socket.socket, till: Till) -> None:
    """Upgrade and say hello; afterwards the connection is ready for scans. Raises LineBroken."""
    connection.sendall(upgrade_request())
    rest = b""
    while b"\r\n\r\n" not in rest:
        rest += _more(connection)
    head, _, rest = rest.partition(b"\r\n\r\n")
    if b" 101 " not in head.partition(b"\r\n")[0]:
        raise LineBroken(f"no stream: {head[:300].decode(errors='replace')}")
    frames = _frames(connection, rest)
    connection.sendall(client_frame(BINARY, msgspec.msgpack.encode(Hello(till.number, "bench"))))
    challenge = msgspec.msgpack.decode(next(frames), type=Challenge)
    signature = Ed25519PrivateKey.from_private_bytes(till.seed).sign(HELLO_CONTEXT + challenge.nonce)
    connection.sendall(client_frame(BINARY, msgspec.msgpack.encode(Proof(signature))))
    msgspec.msgpack.decode(next(frames), type=Welcome)


def _frames(connection: socket.socket, rest: bytes) -> Iterator[bytes]:
    while True:
        frames, rest = take_frames(rest)
        for opcode, payload in frames:
            if opcode != BINARY:
                raise LineBroken(f"in the handshake came a frame {opcode:#x}: {payload.decode(errors='replace')}")
            yield payload
        rest += _more(connection)


def _more(connection: socket.socket) -> bytes:
    got = connection.recv(READ_BYTES)
    if not got:
        raise LineBroken("the server closed a connection in the handshake")
    return got


def _same(line: Line) -> Line:
    return line


async def _run(plan: Plan, sockets: list[list[socket.socket]], conversations: list[list[Message]]) -> list[Load]:
    loop = asyncio.get_running_loop()
    kind = HttpLine if plan.shape.door == HTTP else StreamLine
    rounds = [_Round(plan, target) for target in plan.targets]
    for each, connections in zip(rounds, sockets, strict=True):
        endless = each.target.endless
        for connection, messages in zip(connections, conversations, strict=True):
            some = messages[:ENDLESS_MESSAGES] if endless else messages
            line: Line = kind(each.crew, some, 0 if plan.shape.rate else plan.shape.window, endless)
            connection.setblocking(False)
            await loop.create_connection(partial(_same, line), sock=connection)
            each.lines.append(line)
    gc.collect()
    gc.freeze()
    for _ in range(plan.turns):
        for each in rounds:
            if not each.crew.spent.is_set():
                await each.measure()
    for each in rounds:
        for line in each.lines:
            line.close()
    return [each.load() for each in rounds]


def main() -> None:
    """Read a plan from stdin, write what came of it to stdout; exit 1 with one line on stderr if it cannot be done."""
    plan = msgspec.msgpack.decode(sys.stdin.buffer.read(), type=Plan)
    conversations = _conversations(plan)
    try:
        sockets = [[_connected(target) for _ in conversations] for target in plan.targets]
        if plan.shape.door != HTTP:
            for connections in sockets:
                for number, connection in enumerate(connections):
                    _shake_hands(connection, plan.tills[number])
        loads = uvloop.run(_run(plan, sockets, conversations))
    except (LineBroken, OSError, msgspec.DecodeError) as error:
        sys.exit(f"{type(error).__name__}: {error}")
    sys.stdout.buffer.write(msgspec.msgpack.encode(loads))


if __name__ == "__main__":
    main()
