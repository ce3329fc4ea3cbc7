"""Tills that never give up: they race for the same codes, repeat themselves, take back, and write down all they hear.

Each till keeps one connection and up to MESSAGES_UNDER_WAY messages on it. An id without an answer is sent again, the
same, for ever: after UNRESOLVED, after a lost connection, and when an answer takes longer than ANSWER_S.
"""

import asyncio
import heapq
import random
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import chaos_history
from chaos_lines import Ask, Line
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gateway.messages import Place, Redeem, RedeemMany, Reverse, ReverseMany, Verdict, Verdicts
from loadtest.bench_frames import mint_id

TICK_S = 0.02
MESSAGES_UNDER_WAY = 8  # reversals are small messages of their own, and each waits for a slow network
OPEN_MAX = 2000  # without an answer, at which a till scans nothing new: all of them together are a second's work
WINDOW = 120  # vouchers that all tills scan at about the same time
AGAIN_S = (0.03, 0.25)  # after UNRESOLVED; then more and more, or a gateway that recovers hears nothing else
PATIENCE = (1, 2, 4)
TYPED_ODDS, OLD_ODDS, REVERSE_ODDS, OVERTAKE_ODDS, REPEAT_ODDS = 0.04, 0.02, 0.05, 0.01, 0.04
REMEMBERED = 200  # settled ids a till may ask about once more


@dataclass(frozen=True)
class Stage:
    """What was set up: a device key by terminal number (terminal n stands in store s<n>), and codes by serial."""

    keys: dict[int, Ed25519PrivateKey]
    signed: list[str]
    first_signed: int
    typed: list[str]
    first_typed: int


@dataclass
class Counts:
    answers: int = 0
    unresolved: int = 0
    by_code: dict[int, int] = field(default_factory=dict)
    connections: int = 0
    retries: int = 0

    def add(self, other: "Counts") -> None:
        """Count another chapter's in."""
        self.answers += other.answers
        self.unresolved += other.unresolved
        self.connections += other.connections
        self.retries += other.retries
        for code, count in other.by_code.items():
            self.by_code[code] = self.by_code.get(code, 0) + count


class Fleet:
    """All tills, and the codes they share."""

    def __init__(self, stage: Stage, histories: Path, port: int, seed: int, rate: float, scans_max: int) -> None:
        """`rate`: new scans a second, all tills together; what must be repeated comes on top."""
        self.stage, self.port, self._rate, self.scans_max = stage, port, rate, scans_max
        self.counts = Counts()
        self.stopping = False
        self._front = 0
        self._began_s, self._made = time.monotonic(), 0
        self.paths = [histories / f"{number}.history" for number in stage.keys]
        self._tills = [
            Till(self, number, key, chaos_history.Writer(path), random.Random(f"{seed}-{number}"))
            for (number, key), path in zip(stage.keys.items(), self.paths, strict=True)
        ]

    def start(self) -> None:
        for till in self._tills:
            till.tick()

    def allowed(self, count: int) -> int:
        """How many of so many new scans the rate leaves room for."""
        room = int((time.monotonic() - self._began_s) * self._rate) - self._made
        if room < -self._rate or room > self._rate / 4:  # after a stop there is no second rush on top of the repeats
            self._made = int((time.monotonic() - self._began_s) * self._rate)
            room = count
        count = max(0, min(count, room))
        self._made += count
        return count

    def code(self, rng: random.Random) -> tuple[int, str]:
        """A voucher to try, by serial, and its code."""
        stage, draw = self.stage, rng.random()
        if draw < TYPED_ODDS:
            number = rng.randrange(len(stage.typed))
            return stage.first_typed + number, stage.typed[number]
        if draw < TYPED_ODDS + OLD_ODDS or self._front >= len(stage.signed):
            number = rng.randrange(min(self._front, len(stage.signed)) or 1)
        elif draw < 0.6:
            number = self._front
            self._front += 1
        else:
            number = max(0, self._front - 1 - int(rng.expovariate(4 / WINDOW)))
        return stage.first_signed + number, stage.signed[number]

    @property
    def open_asks(self) -> int:
        """Ids that were sent and have no answer yet."""
        return sum(len(till.open) for till in self._tills)

    def connect_again(self) -> None:
        """Every till opens a second connection while it has the first."""
        for till in self._tills:
            till.connect()

    def close(self) -> None:
        for till in self._tills:
            till.close()


class Till:
    """One terminal."""

    def __init__(
        self, fleet: Fleet, number: int, key: Ed25519PrivateKey, history: chaos_history.Writer, rng: random.Random
    ) -> None:
        self.fleet, self.number, self.key, self._history, self._rng = fleet, number, key, history, rng
        self.open: dict[bytes, Ask] = {}
        self._due: list[tuple[float, int, Ask]] = []
        self._settled: deque[Ask] = deque(maxlen=REMEMBERED)
        self._line: Line | None = None
        self._lines: set[Line] = set()
        self._connecting = False
        self._ref = self._turn = 0
        self._loop = asyncio.get_running_loop()
        self._ticking: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    # --- connections ---

    def tick(self) -> None:
        """What time asks for: connect, give up a silent line, send what is due."""
        self._ticking = self._loop.call_later(TICK_S, self.tick)
        line = self._line
        if line is None:
            if not self._connecting and not self._lines:
                self.connect()
        elif line.is_silent(time.monotonic()):
            line.abort()
        else:
            self.send()

    def connect(self) -> None:
        self._connecting = True
        task = self._loop.create_task(self._connect())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _connect(self) -> None:
        try:
            await asyncio.sleep(self._rng.uniform(0.0, 0.1))
            await self._loop.create_connection(lambda: Line(self), "127.0.0.1", self.fleet.port)
        except OSError:
            pass
        finally:
            self._connecting = False

    def opened(self, line: "Line") -> None:
        self._lines.add(line)

    def welcomed(self, line: "Line") -> None:
        """A new line counts from its welcome on; what was under way on the old one is asked again on this one."""
        self.fleet.counts.connections += 1
        earlier, self._line = self._line, line
        if earlier is not None:
            self._ask_again(earlier)
        self.send()

    def lost(self, line: "Line") -> None:
        self._lines.discard(line)
        self._ask_again(line)
        if self._line is line:
            self._line = None

    def _ask_again(self, line: "Line") -> None:
        for ref, flown in line.flying.items():
            line.answered[ref] = flown  # should it still answer, that counts
            for ask in flown[1]:
                self._later(ask, 0.0)
        line.flying.clear()

    def close(self) -> None:
        if self._ticking is not None:
            self._ticking.cancel()
        for line in list(self._lines):
            line.abort()
        self._history.close()

    # --- asking ---

    def _later(self, ask: Ask, seconds: float) -> None:
        if not ask.settled:
            self._turn += 1
            heapq.heappush(self._due, (time.monotonic() + seconds, self._turn, ask))

    def send(self) -> None:
        """Fill the line."""
        line = self._line
        while line is not None and len(line.flying) < MESSAGES_UNDER_WAY:
            asks = self._repeats()
            asks = list(dict.fromkeys(asks + self._new_scans(self.fleet.scans_max - len(asks))))
            if not asks:
                return
            redeems = [ask for ask in asks if isinstance(ask.body, Redeem)]
            reverses = [ask for ask in asks if isinstance(ask.body, Reverse)]
            for some in (redeems, reverses):
                if some:
                    self._send(line, some)

    def _repeats(self) -> list[Ask]:
        now_s, asks = time.monotonic(), []
        while self._due and self._due[0][0] <= now_s and len(asks) < self.fleet.scans_max:
            ask = heapq.heappop(self._due)[2]
            if not ask.settled:
                asks.append(ask)
        self.fleet.counts.retries += sum(ask.sent for ask in asks)
        return asks

    def _new_scans(self, count_max: int) -> list[Ask]:
        if self.fleet.stopping or not count_max or len(self.open) > OPEN_MAX:
            return []
        rng, asks = self._rng, []
        for _ in range(self.fleet.allowed(rng.randint(1, count_max))):
            if self._settled and rng.random() < REPEAT_ODDS:
                ask = rng.choice(self._settled)
                ask.settled, ask.put_off = False, 0
                self.open[ask.asked_id] = ask
            else:
                ask = self._scan()
            asks.append(ask)
        return asks

    def _scan(self) -> Ask:
        now_ms = time.time_ns() // 1_000_000
        serial, code = self.fleet.code(self._rng)
        redemption_id = mint_id(now_ms, self._rng)
        ask = Ask(redemption_id, Redeem(redemption_id, code, now_ms), serial)
        self.open[redemption_id] = ask
        if self._rng.random() < OVERTAKE_ODDS:
            self._reverse(ask, self._rng.choice((0.0, 0.002, 0.1)))
        return ask

    def _reverse(self, ask: Ask, seconds: float) -> None:
        """Take a redemption back, a little later or at once; there is always a copy of the original."""
        assert isinstance(ask.body, Redeem)
        now_ms = time.time_ns() // 1_000_000
        reversal_id = mint_id(now_ms, self._rng)
        reversal = Ask(reversal_id, Reverse(reversal_id, ask.asked_id, now_ms, ask.body), ask.serial)
        self.open[reversal_id] = reversal
        self._later(reversal, seconds)

    def _send(self, line: "Line", asks: Sequence[Ask]) -> None:
        now_s = time.monotonic()
        for ask in asks:
            if not ask.sent:
                ask.sent = True
                if isinstance(ask.body, Redeem):
                    self._history.redeem(now_s, ask.asked_id, ask.serial)
                else:
                    self._history.reverse(now_s, ask.asked_id, ask.body.redemption_id)
        self._ref += 1
        bodies = [ask.body for ask in asks]
        if isinstance(bodies[0], Redeem):
            line.ask(RedeemMany(self._ref, cast(list[Redeem], bodies)), asks, now_s)
        else:
            line.ask(ReverseMany(self._ref, cast(list[Reverse], bodies)), asks, now_s)

    # --- answers ---

    def answered(self, asks: Sequence[Ask], verdicts: Verdicts, asked_s: float) -> None:
        """Write down every answer, and do what a cashier would do next."""
        now_s, counts = time.monotonic(), self.fleet.counts
        places = _spread(verdicts.places)
        assert len(asks) == len(verdicts.codes) == len(places), "an answer for every scan"
        for index, (ask, code, place) in enumerate(zip(asks, verdicts.codes, places, strict=True)):
            counts.by_code[code] = counts.by_code.get(code, 0) + 1
            if code == Verdict.UNRESOLVED:
                counts.unresolved += 1
                self._later(ask, self._rng.uniform(*AGAIN_S) * PATIENCE[min(ask.put_off, len(PATIENCE) - 1)])
                ask.put_off += 1
                continue
            counts.answers += 1
            self._history.told(now_s, ask.asked_id, code, place, _winner(verdicts, index), asked_s)
            if not ask.settled:
                self._settle(ask, code)
        self.send()

    def _settle(self, ask: Ask, code: int) -> None:
        ask.settled = True
        self.open.pop(ask.asked_id, None)
        if not self.fleet.stopping:
            self._settled.append(ask)
            if code == Verdict.ACCEPTED and self._rng.random() < REVERSE_ODDS:
                self._reverse(ask, self._rng.choice((0.0, 0.05, 0.5)))


def _spread(places: Sequence[Place]) -> list[tuple[int, int, int]]:
    return [(run.partition, run.seq, run.index + offset) for run in places for offset in range(run.count)]


def _winner(verdicts: Verdicts, index: int) -> tuple[int, int]:
    detail = verdicts.details.get(index)
    if detail is None or detail.winner is None:
        return 0, 0
    return int(detail.winner.store[1:]), detail.winner.at_ms
