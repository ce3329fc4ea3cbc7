"""Many seeds over some worker processes, in their order, so that a run can be stopped and go on."""

import hashlib
import signal
import time
from collections import Counter, deque
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from pathlib import Path

import msgspec
from sim.world import Outcome, run_chunk

from gateway.recovery import Branch

CHUNK = 10  # seeds a worker takes at a time: about a second
CHUNKS_AHEAD = 3  # per worker, handed out before they are asked for: none of them waits for work
SEEDS_FOR_ALL_BRANCHES = 100  # with fewer a branch may be missed by chance
ROOT = Path(__file__).resolve().parents[2]


class Report(msgspec.Struct):
    """What many runs showed together; seeds `first` to `first + runs - 1`."""

    first: int = 0
    runs: int = 0
    events: int = 0
    virtual_s: float = 0.0
    seconds: float = 0.0  # of wall time
    branches: dict[str, int] = {}
    failures: list[tuple[int, str]] = []

    def add(self, outcome: Outcome) -> None:
        self.runs += 1
        self.events += outcome.events
        self.virtual_s += outcome.virtual_s
        self.branches = dict(Counter(self.branches) + outcome.branches)
        if outcome.violations:
            self.failures.append((outcome.seed, outcome.violations[0]))

    def unhit(self) -> list[str]:
        """Branches of recovery that so many runs should have gone through, and did not."""
        expected = Branch if self.runs >= SEEDS_FOR_ALL_BRANCHES else ()
        return [branch.value for branch in expected if not self.branches.get(branch.value)]


class Done(msgspec.Struct):
    """What a file of done seeds holds: `code` and `events` must be the same for the rest of them."""

    code: str
    events: int
    report: Report


def code_digest() -> str:
    """Of all that decides what a seed does: seeds of other code are other seeds."""
    files = [path for top in ("tests/sim", "gateway", "eventstore") for path in (ROOT / top).rglob("*")]
    text = b"".join(path.read_bytes() for path in sorted(files) if path.suffix in (".py", ".lua"))
    return hashlib.blake2b(text, digest_size=8).hexdigest()


def read_done(path: Path, first: int, events: int) -> Report | str:
    """How far an earlier run came, nothing if there was none; a text says why it cannot be continued."""
    if not path.exists():
        return Report(first)
    try:
        done = msgspec.json.decode(path.read_bytes(), type=Done)
    except msgspec.DecodeError as error:
        return f"{path} is no record of seeds that were run: {error}"
    if (done.code, done.events, done.report.first) != (code_digest(), events, first):
        return f"{path} tells of other code, other --events or another --first: remove it to begin again"
    return done.report


def write_done(path: Path, report: Report, events: int) -> None:
    """Put `report` in the place of what the file held."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(path.name + ".new")
    beside.write_bytes(msgspec.json.encode(Done(code_digest(), events, report)))
    beside.replace(path)


def run_many(
    report: Report,
    seeds: int,
    events: int,
    workers: int,
    seconds_max: float,
    on_progress: Callable[[Report], None] = lambda report: None,
) -> None:
    """Add runs to `report` until it has `seeds` of them or the time is spent; what was begun is finished."""
    began, before_s = time.monotonic(), report.seconds
    last = report.first + seeds
    upcoming = iter(range(report.first + report.runs, last, CHUNK))
    under_way: deque[Future[list[Outcome]]] = deque()
    pool = ProcessPoolExecutor(workers, initializer=signal.signal, initargs=(signal.SIGINT, signal.SIG_IGN))
    try:
        while True:
            while len(under_way) < workers * CHUNKS_AHEAD and time.monotonic() - began < seconds_max:
                start = next(upcoming, last)
                if start == last:
                    break
                under_way.append(pool.submit(run_chunk, range(start, min(start + CHUNK, last)), events))
            if not under_way:
                return
            for outcome in under_way.popleft().result():
                report.add(outcome)
            report.seconds = before_s + time.monotonic() - began
            on_progress(report)
    finally:
        pool.shutdown(cancel_futures=True)
