"""Load runs as a generator would write them, of a make-believe server: one queue, some lanes, and what befalls it."""

import heapq
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from loadtest.recorder import Gathering, Recorder, SampleFile
from loadtest.run_files import Attempt, Environment, Fault, Mark, Run, Sample, Tool

WAITS_MOST_S = 8.0  # then a till gives up


@dataclass(frozen=True)
class Story:
    """A run to be made up."""

    rate: Callable[[float], float]  # arrivals a second, at a second
    seconds: int = 60
    capacity: float = 600.0  # answers a second, by `lanes` at a time
    lanes: int = 4
    freezes: Sequence[tuple[float, float]] = ()
    faults: Sequence[Fault] = ()
    marks: Sequence[tuple[str, float, float]] = ()
    void: Sequence[str] = ()
    refused: float = 0.05  # share that was redeemed before
    late_ms: float = 0.05  # the generator's own lag, on average
    cpu_us: float = 40.0
    seed: int = 1
    tool: Tool = "native"
    commit: str = "f3a91c07"
    cpu: str = "Example CPU 3.1 GHz"
    same_machine: bool = True
    in_flight: int = 2_000
    scenario: dict[str, Any] = field(default_factory=dict)


def write_run(directory: Path, story: Story) -> Path:
    """Make it up, and write it with the recorder that generators write with."""
    directory.mkdir(parents=True, exist_ok=True)
    chance, gathering = Random(story.seed), Gathering()
    with Recorder(directory, 0) as recorder:
        ended = [_noted(recorder, attempt) for attempt in _attempts(story, chance)]
        for part in recorder.take(last=True):
            gathering.add(part)
    samples = SampleFile(directory)
    samples.note(_samples(story, ended))
    samples.close()
    gathering.write(directory, _run(story, gathering, max(ended, default=0.0)))
    return directory


def _noted(recorder: Recorder, attempt: Attempt) -> float:
    recorder.note(attempt)
    return (attempt.ended_us or attempt.intended_us) / 1e6


def _arrivals(story: Story, chance: Random) -> list[float]:
    most = max(story.rate(at / 4) for at in range(story.seconds * 4)) or 1.0
    found, at = [], 0.0
    while (at := at + chance.expovariate(most)) < story.seconds:
        if chance.random() * most < story.rate(at):
            found.append(at)
    return found


def _attempts(story: Story, chance: Random) -> list[Attempt]:
    """One queue and some lanes; a lane that would begin inside a freeze begins after it."""
    lanes, under_way, made = [0.0] * story.lanes, [], []
    mean_s = story.lanes / story.capacity
    for number, due in enumerate(_arrivals(story, chance)):
        sent = due + chance.expovariate(1000 / story.late_ms)
        while under_way and under_way[0] <= sent:
            heapq.heappop(under_way)
        if len(under_way) >= story.in_flight:
            made.append(_attempt(number, due, None, None, None))
            continue
        begun = _thawed(story, max(sent + 0.0004, heapq.heappop(lanes)))
        ended = _thawed(story, begun + chance.lognormvariate(math.log(mean_s) - 0.18, 0.6))
        heapq.heappush(lanes, ended)
        heapq.heappush(under_way, ended)
        answer = ended if ended - sent < WAITS_MOST_S else None
        verdict = "already_redeemed" if chance.random() < story.refused else "accepted"
        made.append(_attempt(number, due, sent, answer, verdict if answer else None))
    return made


def _thawed(story: Story, at: float) -> float:
    return next((end for start, end in story.freezes if start <= at < end), at)


def _attempt(number: int, due: float, sent: float | None, ended: float | None, verdict: str | None) -> Attempt:
    return Attempt(
        "redeem",
        number % 100,
        f"{number:032x}",
        f"1-{number}",
        int(due * 1e6),
        None if sent is None else int(sent * 1e6),
        None if ended is None else int(ended * 1e6),
        0 if sent is None else 1,
        verdict,
        (0, number, 0) if verdict else None,
    )


def _samples(story: Story, ended: Sequence[float]) -> list[Sample]:
    chance, found = Random(story.seed + 1), []
    spent = {"gateway": 1.0, "valkey": 0.5, "generator": 2.0}
    share = {"gateway": 1.0, "valkey": 0.4, "generator": 0.7}
    by_second = [0] * (story.seconds + int(WAITS_MOST_S) + 2)
    for at in ended:
        by_second[min(len(by_second) - 1, int(at))] += 1
    for at, answers in enumerate(by_second):
        frozen = any(start <= at < end for start, end in story.freezes)
        for name in spent:
            spent[name] += answers * story.cpu_us * share[name] / 1e6 * chance.uniform(0.95, 1.05) + 0.002
            ours = name == "gateway"
            found.append(
                Sample(
                    at_s=at + 0.9,
                    process=name,
                    cpu_s=spent[name],
                    rss_bytes=int((90 + 20 * share[name] + at * 0.1) * 2**20),
                    open_fds=120 + chance.randrange(4) if ours else None,
                    loop_lag_ms=(1000.0 if frozen else chance.uniform(0.2, 2)) if ours else None,
                    fsync_p99_ms=chance.uniform(0.8, 2.4) if ours else None,
                )
            )
    return found


def _run(story: Story, gathering: Gathering, end_s: float) -> Run:
    return Run(
        tool=story.tool,
        scenario={
            "name": "made-up",
            "title": "A made-up evening",
            "shows": "What a report looks like.",
            "seed": story.seed,
            "seconds": story.seconds,
            "arrivals": {"shape": "constant", "rate": story.rate(1.0)},
            **story.scenario,
        },
        started_ms=1_790_000_000_000,
        seconds=max(end_s, float(story.seconds)),
        generators=1,
        counts=gathering.counts,
        outcomes=gathering.outcomes,
        latencies=gathering.latencies(),
        faults=list(story.faults),
        marks=[Mark(name, measured, most, measured <= most) for name, measured, most in story.marks],
        void=list(story.void),
        environment=Environment(
            cpu=story.cpu,
            cores=2,
            same_machine=story.same_machine,
            kernel="Linux 6.1.0",
            python="3.11.7",
            tillgate="0.1.0",
            commit=story.commit,
            fsync_p50_ms=0.05,
            fsync_p99_ms=1.4,
            versions={"Valkey": "8.1.1", "SQLite": "3.46.1", "aiohttp": "3.14.5"},
        ),
    )
