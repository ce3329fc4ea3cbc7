"""What a load run leaves behind: one directory, written by every generator and read by verify, report and compare.

    run.json              one Run: what was asked, what came of it, whether its figures may be believed
    seconds.ndjson        a Second a line, in order: rates and latencies by the second of the intended start
    journal-<n>.ndjson    an Attempt a line, from generator n: every redemption, reversal and look-up it was asked for
    server.ndjson         a Sample a line: what the watched processes spent, once a second each
    verify.json           what `tillgate load verify` found (loadtest/evidence.py); nobody looked where there is none

Histograms are HdrHistogram V2 in base64 (github.com/HdrHistogram/HdrHistogram, "V2 compressed"), in microseconds, with
the range and precision below, so that any two can be added: percentiles are never averaged. No voucher code stands in
any of these files; vouchers are named by their public id.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, TypeVar

import msgspec

T = TypeVar("T")
FORMAT = 1
LOWEST_US, HIGHEST_US, DIGITS = 1, 3_600_000_000, 3  # an hour bounds every wait of a run; three digits are 0.1 %
RUN_FILE, SECONDS_FILE, SERVER_FILE, JOURNAL_FILES = "run.json", "seconds.ndjson", "server.ndjson", "journal-*.ndjson"
VERIFY_FILE = "verify.json"
DEPLOYMENT = "deployment"  # data of the gateway that was made for the run
SETTINGS_FILE = "deployment.env"  # its settings, a line each, as TILLGATE_ variables without that prefix

Kind = Literal["redeem", "reverse", "lookup", "preview"]
Tool = Literal["native", "locust", "closed"]


class RunUnreadable(Exception):
    """A file of a run is missing or is not what it must be; names file and line."""


class Latencies(msgspec.Struct, frozen=True):
    """Three series, each a histogram as text."""

    service: str  # first send to answer: what a closed loop would tell
    intended: str  # intended start to answer: what the shopper waits, retries and the generator's own delay included
    lag: str  # intended start to first send: what the generator itself adds


class Counts(msgspec.Struct, frozen=True):
    """Attempts. offered = started + dropped; started = completed + unresolved, once the run is over."""

    offered: int  # by the schedule
    started: int  # sent at least once
    completed: int  # got a final answer
    dropped: int  # never sent: more would have been under way than the generator allows
    unresolved: int  # sent, and no final answer until the run ended
    sends: int  # of messages, retries included


class Second(msgspec.Struct, frozen=True):
    """One second of intended starts, `at_s` seconds after the first."""

    at_s: int
    counts: Counts
    completed_in: int  # answers that arrived in this second, whenever they were due
    outcomes: dict[str, int]  # verdict's name to attempts
    latencies: Latencies


class Sample(msgspec.Struct, frozen=True):
    """One process at one moment; what it cannot tell is None."""

    at_s: float
    process: str  # gateway, valkey, generator; worker-2 where there are several
    cpu_s: float  # since it started, user and system
    rss_bytes: int
    open_fds: int | None = None
    loop_lag_ms: float | None = None  # the gateway's own gauge
    fsync_p99_ms: float | None = None  # of the log, over the last second


class Fault(msgspec.Struct, frozen=True):
    """Something done to the deployment on purpose, in seconds after the first intended start."""

    name: str
    at_s: float
    until_s: float | None  # None: a single moment


class Mark(msgspec.Struct, frozen=True):
    """A limit the scenario sets and what was measured; `met` is None where it could not be judged."""

    name: str
    measured: float
    most: float
    met: bool | None


class Environment(msgspec.Struct, frozen=True):
    """Where it ran."""

    cpu: str
    cores: int
    same_machine: bool  # generator and gateway share these cores
    kernel: str
    python: str
    tillgate: str
    commit: str  # empty outside a checkout
    fsync_p50_ms: float | None
    fsync_p99_ms: float | None
    versions: dict[str, str]  # Valkey, SQLite or PostgreSQL, and the libraries that matter


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """run.json."""

    format: int = FORMAT
    tool: Tool
    scenario: dict[str, Any]  # as it was run, every default filled in, the seed among them
    started_ms: int  # UTC, the first intended start
    seconds: float  # from there to the last answer or the end of waiting for it
    generators: int  # processes
    counts: Counts
    outcomes: dict[str, int]
    latencies: Latencies
    faults: list[Fault]
    marks: list[Mark]
    void: list[str]  # why the figures must not be believed; empty: they may
    environment: Environment


class Attempt(msgspec.Struct, frozen=True, array_like=True):
    """One line of a journal. Times are microseconds after the first intended start, on the generator's clock."""

    kind: Kind
    terminal: int
    redemption_id: str  # hex; a look-up's is the one it asks for
    voucher: str | None  # campaign-serial; None where the code names no voucher
    intended_us: int
    sent_us: int | None  # None: dropped
    ended_us: int | None  # None: unresolved
    sends: int
    verdict: str | None  # the name told to the till; None: none
    position: tuple[int, int, int] | None  # partition, seq, index, as told
    answers_differ: bool = False  # a later answer to the same id was another one than the first
    target: str | None = None  # a reversal's: the id it undoes


def read_run(directory: Path) -> Run:
    """run.json of a run. Raises RunUnreadable."""
    path = directory / RUN_FILE
    try:
        run = msgspec.json.decode(path.read_bytes(), type=Run)
    except (OSError, msgspec.DecodeError) as error:
        raise RunUnreadable(f"{path}: {error}") from error
    if run.format != FORMAT:
        raise RunUnreadable(f"{path}: format {run.format}; this version reads {FORMAT}")
    return run


def read_seconds(directory: Path) -> list[Second]:
    """Every second of a run, in order. Raises RunUnreadable."""
    return list(_lines(directory / SECONDS_FILE, Second))


def read_samples(directory: Path) -> list[Sample]:
    """What was seen of the server's processes; empty where nobody watched. Raises RunUnreadable."""
    path = directory / SERVER_FILE
    return list(_lines(path, Sample)) if path.exists() else []


def read_attempts(directory: Path) -> Iterator[Attempt]:
    """Every attempt of every generator. Raises RunUnreadable while it is read."""
    for path in sorted(directory.glob(JOURNAL_FILES)):
        yield from _lines(path, Attempt)


def _lines(path: Path, kind: type[T]) -> Iterator[T]:
    decode = msgspec.json.Decoder(kind).decode
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                try:
                    yield decode(line)
                except msgspec.DecodeError as error:
                    raise RunUnreadable(f"{path}, line {number}: {error}") from error
    except OSError as error:
        raise RunUnreadable(f"{path}: {error}") from error
