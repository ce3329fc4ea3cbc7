"""One run from its stage to its files: generators are started and fed, faults happen, processes are watched.

Theory of operation. The generators are processes of their own; this one only talks to them and to the gateway's desk,
so that nothing it does is lateness of theirs. All of them start from one moment of the machine's monotonic clock. What
they measured comes once a second as Parts and is added up here. Whatever blocks (requests at the desk, accounts of
processes) is done in threads. A run that is broken off is judged void and written all the same.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from http.client import HTTPException
from pathlib import Path

import msgspec

from loadtest import run_files
from loadtest.arrivals import Piece, count_of
from loadtest.crew_process import CrewLost, Process
from loadtest.faults import FAULTS
from loadtest.generator_plan import Beat, Done, Go, Ready, Step, StepDone, Stop
from loadtest.judge import StepFigures, judged, why_void
from loadtest.own_server import GatewayFailed
from loadtest.recorder import Gathering, Part, SampleFile
from loadtest.run_files import Mark, Run
from loadtest.run_plan import plans
from loadtest.sampler import Sampler
from loadtest.scenario import FaultPlan, Scenario, Search, search_rates
from loadtest.stage import Stage, import_codes
from loadtest.voucher_desk import VoucherDesk, days_of

START_SECONDS = 0.5  # from Go to time 0
SAMPLE_SECONDS = 1.0
STEP_PAUSE_SECONDS = 1.0  # between the steps of a search
KNEE = "largest rate that held, a second"
KNEE_BOUND = "largest rate that held, a second (then the generator was late, not the gateway)"
BROKEN_OFF = "broken off"


class _Rebuilt(msgspec.Struct):
    """What `tillgate rebuild` prints."""

    records: int
    seconds: float


class Conductor:
    """One run."""

    def __init__(self, scenario: Scenario, stage: Stage, directory: Path, tell: Callable[[str], None]) -> None:
        self._scenario, self._stage, self._directory, self._tell = scenario, stage, directory, tell
        self._told = Gathering()
        self._processes: list[Process] = []
        self._faults: list[run_files.Fault] = []
        self._marks: list[Mark] = []
        self._void: list[str] = []
        self._zero_ns = 0
        self._started_ms = 0
        self._seconds = 0.0
        self._vouchers = VoucherDesk(scenario, stage, self._processes)
        self._step = StepFigures()

    async def run(self, environment: run_files.Environment) -> Run:
        """Carry it out and write it. Raises GatewayFailed, CrewLost, OSError; cancelled, it writes what there is."""
        sampling: asyncio.Task[None] | None = None
        try:
            await self._open()
            sampling = asyncio.create_task(self._sample())
            await self._play()
            await self._rebuild()
        except asyncio.CancelledError:
            task = asyncio.current_task()
            assert task is not None
            task.uncancel()
            self._void.append(BROKEN_OFF)
            await self._stop()
        except (GatewayFailed, CrewLost, OSError, HTTPException) as error:
            self._void.append(f"{BROKEN_OFF}: {error}")
            await self._stop()
        finally:
            if sampling is not None:
                sampling.cancel()
            for process in self._processes:
                await process.close()
            self._vouchers.close()
        return self._written(environment)

    def _now_s(self) -> float:
        return (time.monotonic_ns() - self._zero_ns) / 1e9

    # --- from the start to the end ---

    async def _open(self) -> None:
        parts = plans(self._scenario, self._stage, self._directory)
        self._tell(f"{self._scenario.terminals.count:,} tills connect")
        for plan in parts:
            self._processes.append(await Process.start(plan))
        await self._vouchers.stock_all()
        ready = await asyncio.gather(*(process.expect(Ready) for process in self._processes))
        self._tell(f"connected after {max(each.seconds for each in ready):.1f} s")
        self._zero_ns = time.monotonic_ns() + int(START_SECONDS * 1e9)
        self._started_ms = (time.time_ns() + int(START_SECONDS * 1e9)) // 1_000_000
        for process in self._processes:
            process.send(Go(self._zero_ns))
        await asyncio.sleep(START_SECONDS)

    async def _play(self) -> None:
        beside = [self._after(fault.at_s, self._break(fault)) for fault in self._scenario.faults]
        if (imports := self._scenario.imports) is not None:
            beside.append(self._after(imports.at_s, self._import(imports.count)))
        # Each further day's vouchers are issued at its midnight, long before the stores open.
        beside += [self._after(day.at_s, self._vouchers.issue(day)) for day in days_of(self._scenario.arrivals)[1:]]
        tasks = [asyncio.create_task(work) for work in beside]
        hearing = [asyncio.create_task(self._hear(process)) for process in self._processes]
        if isinstance(self._scenario.arrivals, Search):
            tasks.append(asyncio.create_task(self._search(self._scenario.arrivals)))
        try:
            await asyncio.gather(*hearing)
            await asyncio.gather(*tasks)
        finally:
            for task in (*tasks, *hearing):
                task.cancel()

    async def _hear(self, process: Process) -> None:
        """Until it is done."""
        while True:
            message = await process.hear()
            match message:
                case Beat(parts=parts):
                    self._add(parts)
                    process.beat = message
                    self._show()
                    await self._vouchers.feed(message.codes_left)
                case StepDone(parts=parts):
                    self._add(parts)
                    process.step_done.set()
                case Done(seconds=seconds, parts=parts):
                    self._add(parts)
                    self._seconds = max(self._seconds, seconds)
                    if message.out_of_codes:
                        self._void.append(f"{message.out_of_codes} arrivals found no unused voucher left")
                    return
                case _:
                    raise CrewLost(f"a generator said {message} out of turn")

    def _add(self, parts: list[Part]) -> None:
        for part in parts:
            self._told.add(part)
            self._step.add(part)

    async def _stop(self) -> None:
        """Let the generators write what they have."""
        self._tell("breaking off")
        for process in self._processes:
            process.send(Stop())
        settle_s = self._scenario.patience.settle_s
        try:
            async with asyncio.timeout(settle_s + 10):
                await asyncio.gather(*(self._hear(process) for process in self._processes if not process.is_gone))
        except (OSError, CrewLost):  # a TimeoutError is an OSError
            return

    def _show(self) -> None:
        beats = [process.beat for process in self._processes if process.beat is not None]
        started, under_way = (sum(getattr(beat, name) for beat in beats) for name in ("started", "under_way"))
        p99, lag = (self._told.percentile_us(series, 0.99) / 1000 for series in ("intended", "lag"))
        told = f"{started:,} sent, {under_way:,} under way, p99 {p99:.1f} ms, lag p99 {lag:.2f} ms"
        self._tell(f"{self._now_s():.0f} of {self._scenario.length_s:.0f} s: {told}")

    # --- beside the load ---

    async def _import(self, count: int) -> None:
        begun_s = self._now_s()
        await self._vouchers.at_desk(lambda: import_codes(self._stage.desk, self._stage.imported, count))
        self._faults.append(run_files.Fault(f"import of {count:,} codes", begun_s, self._now_s()))

    # --- faults ---

    async def _break(self, planned: FaultPlan) -> None:
        fault, target = FAULTS[planned.name], self._stage.target
        begun_s = self._now_s()
        try:
            await fault.begin(target)
            await asyncio.sleep(max(planned.at_s + planned.for_s - self._now_s(), 0))
        finally:
            await fault.end(target)
            self._faults.append(run_files.Fault(planned.name, begun_s, self._now_s()))

    async def _after(self, at_s: float, work: Awaitable[None]) -> None:
        await asyncio.sleep(max(at_s - self._now_s(), 0))
        await work

    # --- a search ---

    async def _search(self, shape: Search) -> None:
        held, missed, late = 0.0, None, False
        for rate in search_rates(shape):
            fine, late = await self._try(rate, shape.step_seconds)
            if not fine:
                missed = rate
                break
            held = rate
        for _ in range(shape.refine if missed is not None and held else 0):
            assert missed is not None
            rate = (held * missed) ** 0.5
            fine, was_late = await self._try(rate, shape.step_seconds)
            held, missed, late = (rate, missed, late) if fine else (held, rate, was_late)
        if late and not held:
            self._void.append("the generator itself was late at the first step: no rate can be told")
        self._marks.append(
            Mark(KNEE_BOUND if late else KNEE, round(held, 1), shape.last, None if late and not held else held > 0)
        )
        for process in self._processes:
            process.send(Stop())

    async def _try(self, rate: float, seconds: float) -> tuple[bool, bool]:
        """Whether a rate holds; and whether the generator was late meanwhile."""
        await self._vouchers.supply(rate * seconds)
        self._step = StepFigures()
        piece = Piece(self._now_s() + STEP_PAUSE_SECONDS, seconds, rate, rate)
        step = Step([piece], count_of([piece]), self._scenario.seed + round(rate))
        for process in self._processes:
            process.step_done.clear()
            process.send(step)
        await asyncio.gather(*(process.step_done.wait() for process in self._processes))
        told, late = self._step, self._step.is_late(self._scenario)
        p99 = told.percentile_us("intended", 0.99) / 1000
        held = told.held(self._scenario) and not late
        word = "holds" if held else "the generator is late" if late else "does not hold"
        self._tell(f"{rate:,.0f}/s: p99 {p99:.1f} ms, {told.counts.unresolved} unresolved: {word}")
        return held, late

    # --- a rebuild ---

    async def _rebuild(self) -> None:
        """With the gateway stopped; then it serves again."""
        replay, server = self._scenario.replay, self._stage.target.server
        if replay is None:
            return
        assert server is not None, "refused before"
        self._tell("the gateway stops")
        await asyncio.to_thread(server.leave)
        for number in range(replay.rebuilds):
            self._tell(f"rebuild {number + 1} of {replay.rebuilds}")
            begun_s = self._now_s()
            told = await asyncio.to_thread(server.command, "rebuild", "--data", str(server.directory), "--json")
            made = msgspec.json.decode(told, type=_Rebuilt)
            name = f"rebuild: {made.records:,} records, {made.records / max(made.seconds, 0.1):,.0f} a second"
            self._faults.append(run_files.Fault(name, begun_s, self._now_s()))
            most_s = self._scenario.marks.rebuild_s
            if most_s is not None:
                self._marks.append(Mark("rebuild, s", made.seconds, most_s, made.seconds <= most_s))
        await asyncio.to_thread(server.start)
        self._stage.target.look_again()

    # --- watching and writing ---

    async def _sample(self) -> None:
        sampler = Sampler(self._stage.target.pids, self._stage.metrics_url)
        file = SampleFile(self._directory)
        try:
            while True:
                names = {f"generator-{number}": process.pid for number, process in enumerate(self._processes)}
                sampler.watch(self._stage.target.pids | names)
                file.note(await asyncio.to_thread(sampler.sample, round(self._now_s(), 3)))
                await asyncio.sleep(SAMPLE_SECONDS)
        finally:
            file.close()

    def _written(self, environment: run_files.Environment) -> Run:
        scenario, told = self._scenario, self._told
        void = [*self._void, *([] if isinstance(scenario.arrivals, Search) else why_void(scenario, told))]
        run = Run(
            tool="native",
            scenario=msgspec.to_builtins(scenario),
            started_ms=self._started_ms,
            seconds=round(self._seconds or (self._now_s() if self._zero_ns else 0.0), 3),
            generators=scenario.generators,
            counts=told.counts,
            outcomes=told.outcomes,
            latencies=told.latencies(),
            faults=sorted(self._faults, key=lambda fault: fault.at_s),
            marks=[*self._marks, *judged(scenario, told, void=bool(void))],
            void=void,
            environment=environment,
        )
        told.write(self._directory, run)
        return run
