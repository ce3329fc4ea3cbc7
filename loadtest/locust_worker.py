"""A Locust worker's side of a run: what it was given, the attempts it makes of it, what it tells the master.

Theory of operation. Before the first arrival the master sends each worker its Share, and the worker connects its tills
and says it is ready; then all are told one moment to start at. What is recorded is told with Locust's own reports,
every three seconds: histograms of whole seconds, which the master adds up, and the journal's new lines, as a worker may
be on another machine. When its last attempt has ended a worker sends the rest with a message of its own, so that a run
is whole before Locust stops.
"""

import gc
import tempfile
from collections.abc import Set
from itertools import chain
from pathlib import Path
from random import Random

import gevent
import msgspec
import psutil
from gevent.event import AsyncResult
from gevent.pool import Pool
from locust.contrib.fasthttp import FastHttpSession
from locust.env import Environment

from loadtest.arrivals import schedule
from loadtest.generator_deeds import Asked, Deeds
from loadtest.locust_asking import Asking
from loadtest.locust_http import HttpDoor
from loadtest.locust_open import Arrivals, RunClock
from loadtest.locust_share import READY, REST, Ready, Report, Share
from loadtest.locust_stream import LineDown, StreamLine
from loadtest.recorder import Recorder
from loadtest.run_files import Sample
from loadtest.scenario import Scenario

CONNECTING = 32  # greetings at a time: a signature each side, so more only wait for each other
CONNECT_S_MAX = 30.0  # a gateway with ten thousand greetings before it is slow to answer one
BESIDE_S = 0.2  # between two looks at seconds that are over; each histogram takes a millisecond
SAMPLE_S = 1.0


class WorkerRun:
    """One run, from its share to the last report."""

    def __init__(self, environment: Environment, share: Share) -> None:
        plan, self._share, self._environment = share.plan, share, environment
        self._scenario = msgspec.convert(plan.scenario, Scenario)
        self._directory = tempfile.TemporaryDirectory(prefix="tillgate-load-")
        self._recorder = Recorder(Path(self._directory.name), plan.generator)
        self._journal = (Path(self._directory.name) / f"journal-{plan.generator}.ndjson").open("rb")
        self._lines = [StreamLine(share.url, till.number, till.seed) for till in plan.tills[: plan.streams]]
        self._deeds = Deeds(plan, self._scenario)
        self._deeds.supply.add(share.codes)
        due_us = schedule(self._scenario, plan.generator, plan.generators)
        self._due_us = chain(
            [first for first in (next(due_us, None),) if first is not None], due_us
        )  # drawn in advance
        self._clock: AsyncResult = AsyncResult()
        self._samples: list[Sample] = []
        self._random = Random(f"{self._scenario.seed} {plan.generator} users")  # noqa: S311 - load, no secret
        self._playing = 0  # users that are at it
        self._arrivals: Arrivals[Asked] | None = None
        self._beside: gevent.Greenlet | None = None
        self._over = self._is_whole = False

    @property
    def pause_s(self) -> float:
        """A closed user's, after an answer."""
        return self._share.pause_s

    def prepare(self) -> None:
        """Connect every till and tell the master."""
        faults: list[str] = []

        def connect(line: StreamLine) -> None:
            try:
                line.connect_within(CONNECT_S_MAX)
            except LineDown as error:
                faults.append(str(error))

        Pool(CONNECTING).map(connect, self._lines)
        gc.collect()
        gc.freeze()  # Locust brings half a million objects: looking through them takes as long as an answer
        self._send(READY, Ready(self._share.plan.generator, faults[0] if faults else ""))

    def start(self, starts_ms: int) -> None:
        """The first intended start is at this UTC time."""
        clock = RunClock(starts_ms)
        self._deeds.starts(starts_ms)
        self._beside = gevent.spawn(self._work_beside, clock)
        self._clock.set(clock)
        if self._share.model == "closed":
            gevent.spawn(self._close, clock)

    def play(self, session: FastHttpSession, wanted: Set[frozenset[str]]) -> None:
        """Make the arrivals of an open model whose {kind, door} is wanted. The first user that calls it does."""
        if self._playing:
            return
        self._playing += 1
        plan, scenario = self._share.plan, self._scenario
        clock = self._clock.get()
        asking = self._asking(session, clock)

        def draw(intended_us: int) -> Asked | None:
            asked = self._deeds.next(intended_us)
            return asked if {asked.kind, asking.door_of(asked)} in wanted else None

        arrivals = self._arrivals = Arrivals(
            clock, max(scenario.in_flight // plan.generators, 1), draw, asking.ask, asking.drop
        )
        try:
            arrivals.run(self._due_us)
            arrivals.finish(scenario.patience.settle_s)
            self._is_whole = True
        finally:
            self.finish()

    def ask_one(self, session: FastHttpSession) -> bool:
        """One question of a closed user, which starts when the user is free. Whether the run goes on."""
        clock = self._clock.get()
        if clock.now_us() < 0:  # users begin at different moments of their first pause, as they would be found later
            clock.wait_until(round(self._random.uniform(0, self.pause_s) * 1e6), lambda: self._over)
        if self._over or clock.now_us() >= self._scenario.length_s * 1e6:
            return False
        self._playing += 1
        try:
            self._asking(session, clock).ask(self._deeds.next(clock.now_us()))
        finally:
            self._playing -= 1
        return True

    def _close(self, clock: RunClock) -> None:
        """End a closed model: after its time, when nobody waits for an answer any more."""
        clock.wait_until(round(self._scenario.length_s * 1e6), lambda: self._over)
        until_us = clock.now_us() + self._scenario.patience.settle_s * 1e6
        while self._playing and clock.now_us() < until_us:
            gevent.sleep(BESIDE_S)
        self._is_whole = True
        self.finish()

    def report(self) -> Report | None:
        """What is new; None when everything has been told."""
        if self._over:
            return None
        self._recorder.flush()
        return self._report(last=False)

    def finish(self) -> None:
        """End what is under way, hang up and send what was not reported; once."""
        if self._over:
            return
        self._over = True
        if self._arrivals is not None:
            self._arrivals.stop()
            self._arrivals.finish(0)
        if self._beside is not None:
            self._beside.kill()
        for line in self._lines:
            line.close()
        self._recorder.close()
        self._send(REST, self._report(last=True))
        self._journal.close()
        self._directory.cleanup()

    def _report(self, *, last: bool) -> Report:
        samples, self._samples = self._samples, []
        parts, lines = self._recorder.take(last=last), self._journal.read()
        return Report(self._share.plan.generator, parts, lines, samples, self._is_whole)

    def _asking(self, session: FastHttpSession, clock: RunClock) -> Asking:
        plan = self._share.plan
        door = HttpDoor(session, plan.token)
        note = self._recorder.note
        return Asking(plan, self._scenario, clock, self._deeds, self._lines, door, note, self._environment)

    def _work_beside(self, clock: RunClock) -> None:
        """What is done while attempts are made: histograms of what is over, and what all this costs."""
        plan, process, due_s = self._share.plan, psutil.Process(), 0.0
        name = f"generator-{plan.generator}"
        while True:
            now_s = clock.now_us() / 1e6
            if now_s >= due_s:
                due_s = max(due_s + SAMPLE_S, now_s)
                spent = process.cpu_times()
                self._samples.append(Sample(now_s, name, spent.user + spent.system, process.memory_info().rss))
            while self._recorder.work(now_s):
                gevent.sleep(0)
            gevent.sleep(BESIDE_S)

    def _send(self, kind: str, message: Ready | Report) -> None:
        runner = self._environment.runner
        assert runner is not None, "a run has a runner"
        runner.send_message(kind, {"told": msgspec.msgpack.encode(message)})
