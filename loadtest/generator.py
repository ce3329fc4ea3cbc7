"""A generator process, `python -m loadtest.generator`: hears over stdin what to do, tells over stdout how far it is."""

import asyncio
import contextlib
import gc
import os
import resource
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import uvloop

from loadtest.arrivals import poisson_us, schedule
from loadtest.generator_crew import NEVER_US, Crew, launched_until
from loadtest.generator_plan import (
    LENGTH_BYTES,
    Beat,
    Broken,
    Codes,
    Done,
    FromGenerator,
    Go,
    Plan,
    Ready,
    Step,
    StepDone,
    Stop,
    ToGenerator,
    framed,
    take_message,
    to_generator,
)
from loadtest.pacer import Pacer
from loadtest.recorder import Recorder
from loadtest.scenario import Scenario, Search

TEND_SECONDS = 0.02  # how late a retry may be
BEAT_SECONDS = 1.0
SPARE_FILES = 256
NICENESS = -10
FILES_MAX = 1 << 17


class Generator:
    """One process's run, from Go to Done."""

    def __init__(self, plan: Plan, scenario: Scenario, recorder: Recorder) -> None:
        self.crew = Crew(plan, scenario, recorder)
        self._plan, self._scenario, self._recorder = plan, scenario, recorder
        self._loop = asyncio.get_running_loop()
        self._pacer = Pacer(self._ring)
        self.crew.ring = self._ring
        self._arrivals: Iterator[int] = iter(())
        self._pending: list[int] = []
        self._all_launched = asyncio.Event()
        self._stopped, self._going = asyncio.Event(), asyncio.Event()
        self._steps: asyncio.Queue[Step | None] = asyncio.Queue()
        self._told: asyncio.WriteTransport | None = None

    async def run(self) -> None:
        """Connect, wait for Go, offer the load, tell what came of it."""
        crew, told = self.crew, await self._write_pipe()
        self._told = told
        self._loop.set_exception_handler(self._failed)
        began_s = self._loop.time()
        await crew.connect()
        reader = self._loop.create_task(self._listen())
        self._tell(Ready(self._loop.time() - began_s))
        await self._wait_for_go()
        gc.collect()
        gc.freeze()
        gc.disable()  # nothing here makes cycles by the second, and a collection would be lag
        tending = self._loop.create_task(self._tend())
        work = self._loop.create_task(self._search() if isinstance(self._scenario.arrivals, Search) else self._play())
        await asyncio.wait((work, crew.broken, tending, reader), return_when=asyncio.FIRST_COMPLETED)
        tending.cancel()
        reader.cancel()
        if crew.broken.done():
            self._tell(Broken(crew.broken.result()))
        else:
            await work
            crew.give_up()
            parts = self._recorder.take(last=True)
            supply = crew.deeds.supply
            self._tell(Done(crew.now_us() / 1e6, parts, supply.wanting, crew.reconnects))
        crew.close()
        self._pacer.close()
        told.close()

    async def _play(self) -> None:
        """The scenario's own schedule."""
        outage = self._scenario.outage
        if outage is not None and self._plan.cut_off:
            at_s = outage.at_s - self.crew.now_us() / 1e6
            self._loop.call_later(at_s, self.crew.cut_off, outage.for_s)
        await self._offer(schedule(self._scenario, self._plan.generator, self._plan.generators))
        await self._settle()

    async def _search(self) -> None:
        """Steps, one at a time, until there are no more."""
        while (step := await self._steps.get()) is not None:
            arrivals = poisson_us(step.pieces, step.count, step.seed, self._plan.generator, self._plan.generators)
            await self._offer(arrivals)
            await self._settle()
            self.crew.give_up()
            self._tell(StepDone(self._recorder.take(last=True)))

    async def _offer(self, arrivals: Iterator[int]) -> None:
        self._arrivals = arrivals
        self._all_launched.clear()
        self._ring()
        launched, stopped = (self._loop.create_task(event.wait()) for event in (self._all_launched, self._stopped))
        await asyncio.wait((launched, stopped), return_when=asyncio.FIRST_COMPLETED)
        for waiting in (launched, stopped):
            waiting.cancel()
        self._arrivals = iter(())
        self._pending.clear()
        self.crew.due_us = NEVER_US

    def _ring(self) -> None:
        self.crew.due_us = NEVER_US
        due_us = launched_until(self._arrivals, self.crew, self._pending)
        if due_us is None:
            self._all_launched.set()
        else:
            self.crew.due_us = due_us
            self._pacer.arm(self.crew.zero_ns + due_us * 1000)

    async def _settle(self) -> None:
        until_s = self._loop.time() + self._scenario.patience.settle_s
        while True:
            if self.crew.is_quiet or self._loop.time() >= until_s:
                return
            await asyncio.sleep(TEND_SECONDS)

    async def _tend(self) -> None:
        crew, recorder = self.crew, self._recorder
        beat_s = self._loop.time() + BEAT_SECONDS
        while True:
            await asyncio.sleep(TEND_SECONDS)
            crew.tend()
            recorder.work(crew.now_us() / 1e6)
            if self._loop.time() >= beat_s:
                beat_s += BEAT_SECONDS
                left = crew.deeds.supply.left
                self._tell(Beat(crew.started, crew.completed, crew.under_way, left, recorder.take()))

    def _failed(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """A bug, or a full disk, met in a callback: without this the load would just end."""
        error = context.get("exception")
        self.crew.fail(context["message"] if error is None else f"{type(error).__name__}: {error}")

    # --- the pipes ---

    async def _listen(self) -> None:
        reader = asyncio.StreamReader(limit=1 << 26)
        await self._loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        while True:
            try:
                size = int.from_bytes(await reader.readexactly(LENGTH_BYTES), "big")
                self._hear(to_generator.decode(await reader.readexactly(size)))
            except asyncio.IncompleteReadError:  # whoever started us is gone
                self._hear(Stop())
                return

    def _hear(self, message: ToGenerator) -> None:
        if isinstance(message, Codes):
            self.crew.deeds.supply.add(message)
        elif isinstance(message, Go):
            self.crew.starts(message.zero_ns)
            self._going.set()
        elif isinstance(message, Step):
            self._steps.put_nowait(message)
        elif isinstance(message, Stop):
            self._stopped.set()
            self._going.set()
            self._steps.put_nowait(None)

    async def _wait_for_go(self) -> None:
        await self._going.wait()
        left_us = -self.crew.now_us() if self.crew.zero_ns else 0
        await asyncio.sleep(max(left_us, 0) / 1e6)

    async def _write_pipe(self) -> asyncio.WriteTransport:
        transport, _ = await self._loop.connect_write_pipe(asyncio.BaseProtocol, sys.stdout)
        return transport

    def _tell(self, message: FromGenerator) -> None:
        assert self._told is not None
        self._told.write(framed(message))


async def _run(plan: Plan, scenario: Scenario) -> None:
    with Recorder(Path(plan.directory), plan.generator) as recorder:
        await Generator(plan, scenario, recorder).run()


def raise_file_limit(files: int) -> None:
    """Every till is a socket. Raises ValueError where the system allows fewer."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < files:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(max(files, soft), hard), hard))
    if resource.getrlimit(resource.RLIMIT_NOFILE)[0] < files:
        raise ValueError(f"{files} open files are needed, and this system allows {hard} (ulimit -Hn)")


def _go_first() -> None:
    """Be served before the gateway where both share cores and the system lets us: whoever is late measures itself."""
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, NICENESS)


def main() -> None:
    """Read a plan from stdin and carry it out; exit 1 with one line on stderr if that cannot be done."""
    plan = take_message(sys.stdin.fileno())
    assert isinstance(plan, Plan)
    scenario = msgspec.convert(plan.scenario, Scenario)
    _go_first()
    try:
        raise_file_limit(len(plan.tills) + SPARE_FILES)
        uvloop.run(_run(plan, scenario))
    except* (OSError, ValueError) as group:
        error = next(_leaves(group))
        sys.exit(f"{type(error).__name__}: {error}")


def _leaves(group: BaseException) -> Iterator[BaseException]:
    if isinstance(group, BaseExceptionGroup):
        for each in group.exceptions:
            yield from _leaves(each)
    else:
        yield group


if __name__ == "__main__":
    main()
