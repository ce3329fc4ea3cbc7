"""A generator's tills and what is under way at them: who asks, who waits, who asks again, and what is taken down.

Theory of operation. The load is open: an arrival is launched at its intended time whatever became of the ones before
it. A till sends at once, or keeps what it has while its line is down. An attempt without an answer is sent again with
the same id; its waiting time runs on from the intended start. It is taken down once nothing more can come of it: it
has its answer, and no further send of the same id is unanswered or planned. No attempt has a timer of its own:
time-outs of first sends are a queue in the order of the sends, those of retries a heap.
"""

import asyncio
import heapq
import time
from collections import deque
from collections.abc import Callable, Coroutine, Iterator
from itertools import count
from random import Random
from typing import Any

from loadtest.generator_deeds import ACCEPTED, UNRESOLVED, Asked, Deeds
from loadtest.generator_http import HttpDoor
from loadtest.generator_lines import StreamLine
from loadtest.generator_plan import Plan
from loadtest.recorder import Recorder
from loadtest.run_files import Attempt
from loadtest.scenario import Scenario

NEVER_US = 1 << 62
DOUBLINGS_MAX = 3  # of the time a till waits for an answer: a gateway that is behind is not asked ever more
CONNECTING_AT_ONCE = 64  # greetings under way: each costs the gateway a signature check
REVERSED = "reversed"


class Crew:
    """All tills of one generator process."""

    def __init__(self, plan: Plan, scenario: Scenario, recorder: Recorder) -> None:
        self.plan, self.scenario = plan, scenario
        self.loop = asyncio.get_running_loop()
        self.deeds = Deeds(plan, scenario)
        self.zero_ns = self.zero_ms = 0
        self.started = self.completed = self.dropped = self.reconnects = 0
        self.under_way = 0  # without an answer
        self.due_us = NEVER_US  # when `ring` must be called, be the timer late
        self.ring: Callable[[], None] = lambda: None
        self.is_over = False
        self.broken: asyncio.Future[str] = self.loop.create_future()
        self._recorder = recorder
        self._door = HttpDoor(self, plan.tills, plan.token)
        self._lines = [StreamLine(self, till, number) for number, till in enumerate(plan.tills[: plan.streams])]
        self._open: set[Asked] = set()
        self._timeouts: deque[tuple[int, Asked]] = deque()  # of first sends
        self._retimeouts: list[tuple[int, int, Asked, int]] = []  # of further ones
        self._later: list[tuple[int, int, Asked]] = []
        self._order = count()
        self._rng = Random(plan.generator)  # noqa: S311 - jitter
        self._tasks: set[asyncio.Task[None]] = set()
        self._in_flight_max = max(scenario.in_flight // plan.generators, 1)
        self._scans = scenario.terminals.scans
        self._answer_us = int(scenario.patience.answer_s * 1e6)

    def starts(self, zero_ns: int) -> None:
        """Time 0 is this moment of the monotonic clock."""
        self.zero_ns = zero_ns
        self.zero_ms = (time.time_ns() - (time.monotonic_ns() - zero_ns)) // 1_000_000
        self.deeds.starts(self.zero_ms)

    def now_us(self) -> int:
        return (time.monotonic_ns() - self.zero_ns) // 1000

    # --- attempts ---

    def launch(self, intended_us: int) -> None:
        """One arrival."""
        if self.under_way + self._scans > self._in_flight_max:
            self._drop(intended_us)
            return
        if self._scans > 1:
            self._launch_many(intended_us)
            return
        asked = self.deeds.next(intended_us)
        now_us = self._take_up(asked)
        self._send(asked)
        if asked.kind == "redeem" and (after_us := self.deeds.repeats_after_us()) is not None:
            asked.later += 1
            heapq.heappush(self._later, (now_us + after_us, next(self._order), asked))

    def _launch_many(self, intended_us: int) -> None:
        till = next(self._order) % len(self._lines)
        many = [self.deeds.fresh(till, intended_us) for _ in range(self._scans)]
        for asked in many:
            self._take_up(asked)
        self._lines[till].send_many(many)

    def _take_up(self, asked: Asked) -> int:
        now_us = self.now_us()
        asked.sent_us = now_us
        asked.wait_s = self.scenario.patience.again_s
        self.started += 1
        self.under_way += 1
        self._open.add(asked)
        return now_us

    def _drop(self, intended_us: int) -> None:
        for _ in range(self._scans):
            self.dropped += 1
            asked = self.deeds.next(intended_us) if self._scans == 1 else self.deeds.fresh(0, intended_us)
            self._note(asked)

    def writes(self, asked: Asked) -> None:
        """A line sends it now."""
        asked.queued = False
        asked.sends += 1
        asked.open_sends += 1
        due_us = self.now_us() + (self._answer_us << min(asked.sends - 1, DOUBLINGS_MAX))
        if asked.sends == 1:
            self._timeouts.append((due_us, asked))
        else:
            heapq.heappush(self._retimeouts, (due_us, next(self._order), asked, asked.sends))

    def _send(self, asked: Asked) -> None:
        till = asked.till
        if till < len(self._lines) and asked.kind != "lookup":
            self._lines[till].send(asked)
        else:
            self._door.send(asked)

    def answered(self, asked: Asked, verdict: str, position: tuple[int, int, int] | None, body: bytes | None) -> None:
        """One of its sends was answered."""
        asked.open_sends -= 1
        if verdict == UNRESOLVED:
            if asked.ended_us is None:
                self.again(asked)
        elif asked.ended_us is None:
            asked.ended_us = self.now_us()
            asked.verdict, asked.position, asked.said = verdict, position, body
            self.under_way -= 1
            self.completed += 1
            if verdict == ACCEPTED:
                self.deeds.remember(asked)
            if asked.ended_us >= self.due_us:  # a flood of answers must not make arrivals late
                self.ring()
        elif verdict != asked.verdict or (verdict == ACCEPTED and body != asked.said):
            asked.differ = asked.differ or verdict != REVERSED  # somebody may have reversed it meanwhile
        self._finish(asked)

    def lost(self, asked: Asked) -> bool:
        """A send was cut off with its line; whether it must be sent again."""
        asked.open_sends -= 1
        if asked.ended_us is None:
            return not asked.open_sends
        self._finish(asked)
        return False

    def again(self, asked: Asked) -> None:
        """Ask once more, after a pause."""
        wait_s = asked.wait_s * (0.5 + self._rng.random())
        asked.wait_s = min(asked.wait_s * 2, self.scenario.patience.again_most_s)
        asked.later += 1
        heapq.heappush(self._later, (self.now_us() + int(wait_s * 1e6), next(self._order), asked))

    def tend(self) -> None:
        """Send what is due once more: planned repeats, pauses that are over, answers that did not come in time."""
        now_us = self.now_us()
        later, timeouts = self._later, self._timeouts
        while later and later[0][0] <= now_us:
            asked = heapq.heappop(later)[2]
            asked.later -= 1
            if asked in self._open:
                self._send(asked)
        while timeouts and timeouts[0][0] <= now_us:
            self._ask_again(timeouts.popleft()[1], 1)
        while self._retimeouts and self._retimeouts[0][0] <= now_us:
            self._ask_again(*heapq.heappop(self._retimeouts)[2:])

    def _ask_again(self, asked: Asked, sends: int) -> None:
        """The answer to this send did not come in time."""
        if asked.ended_us is None and asked.sends == sends and not asked.queued and asked in self._open:
            self._send(asked)

    def _finish(self, asked: Asked) -> None:
        if asked.ended_us is not None and not asked.open_sends and not asked.later:
            self._open.discard(asked)
            self._note(asked)

    def _note(self, asked: Asked) -> None:
        attempt = Attempt(
            asked.kind,
            self.plan.tills[asked.till].number,
            asked.key.hex(),
            asked.voucher,
            asked.intended_us,
            asked.sent_us,
            asked.ended_us,
            asked.sends,
            asked.verdict,
            asked.position,
            asked.differ,
            asked.target,
        )
        self._recorder.note(attempt)

    @property
    def is_quiet(self) -> bool:
        """Nothing more is due."""
        return not self._open

    def give_up(self) -> None:
        """Take down what is still open: unresolved, or answered and waiting for the answer to a repeat."""
        for asked in self._open:
            if asked.ended_us is None:
                self.under_way -= 1
            self._note(asked)
        self._open.clear()

    # --- lines ---

    async def connect(self) -> None:
        """Every till's stream. Raises OSError, TimeoutError."""
        turn = asyncio.Semaphore(CONNECTING_AT_ONCE)

        async def connect(line: StreamLine) -> None:
            async with turn:
                await line.connect()

        async with asyncio.TaskGroup() as group:
            for line in self._lines:
                group.create_task(connect(line))

    def reconnect(self, line: StreamLine) -> None:
        """Bring a line back; it tries until it has one."""
        self.reconnects += 1
        self.spawn(self._reconnect(line))

    async def _reconnect(self, line: StreamLine) -> None:
        wait_s = self.scenario.patience.again_s
        while not (self.is_over or line.is_down or line.is_open):
            await asyncio.sleep(wait_s * (0.5 + self._rng.random()))
            wait_s = min(wait_s * 2, self.scenario.patience.again_most_s)
            try:
                await line.connect()
            except (OSError, TimeoutError):
                continue

    def cut_off(self, for_s: float) -> None:
        """The stores of the outage lose the network."""
        lines = [self._lines[index] for index in self.plan.cut_off]
        for line in lines:
            line.cut()
        self.loop.call_later(for_s, self._restore, lines)

    def _restore(self, lines: list[StreamLine]) -> None:
        for line in lines:
            line.restore()

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = self.loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def fail(self, why: str) -> None:
        """End the run: what it measured would not be what was asked for."""
        if not self.broken.done():
            self.broken.set_result(why)

    def close(self) -> None:
        """Hang up everywhere."""
        self.is_over = True
        for line in self._lines:
            line.close()
        self._door.close()
        for task in self._tasks:
            task.cancel()


def launched_until(arrivals: Iterator[int], crew: Crew, pending: list[int]) -> int | None:
    """Launch every arrival that is due; when the next one is, or None after the last. `pending` holds it."""
    now_us = crew.now_us()
    while True:
        due_us = pending.pop() if pending else next(arrivals, None)
        if due_us is None:
            return None
        if due_us > now_us:
            now_us = crew.now_us()
            if due_us > now_us:
                pending.append(due_us)
                return due_us
        crew.launch(due_us)
