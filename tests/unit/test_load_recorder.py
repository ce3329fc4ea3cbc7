"""The recorder and the gathering: what goes in comes out, however it is cut into parts and processes."""

from pathlib import Path
from random import Random

import msgspec
import pytest
from hdrh.histogram import HdrHistogram
from hypothesis import given, settings
from hypothesis import strategies as st

from loadtest import histograms
from loadtest.recorder import Gathering, Part, Recorder, SampleFile, histogram_text
from loadtest.run_files import (
    DIGITS,
    HIGHEST_US,
    LOWEST_US,
    RUN_FILE,
    Attempt,
    Counts,
    Environment,
    Run,
    Sample,
    read_attempts,
    read_run,
    read_samples,
    read_seconds,
)


def attempts(count: int, seed: int) -> list[Attempt]:
    rng, made = Random(seed), []
    for number in range(count):
        intended_us = rng.randrange(12_000_000)
        sent_us = None if rng.random() < 0.02 else intended_us + int(rng.expovariate(1 / 200))
        ended_us = None if sent_us is None or rng.random() < 0.02 else sent_us + int(rng.lognormvariate(8, 1))
        made.append(
            Attempt(
                "redeem",
                rng.randrange(9),
                f"{number:032x}",
                f"1-{number}",
                intended_us,
                sent_us,
                ended_us,
                0 if sent_us is None else 1 + (rng.random() < 0.1),
                None if ended_us is None else rng.choice(("accepted", "expired")),
                None if ended_us is None else (0, number, 3),
            )
        )
    return sorted(made, key=lambda attempt: attempt.ended_us or attempt.intended_us)


def run_of(told: Gathering) -> Run:
    environment = Environment("", 2, True, "", "", "", "", None, None, {})
    return Run(
        tool="native",
        scenario={"name": "x"},
        started_ms=1,
        seconds=12.0,
        generators=2,
        counts=told.counts,
        outcomes=told.outcomes,
        latencies=told.latencies(),
        faults=[],
        marks=[],
        void=[],
        environment=environment,
    )


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(-5, HIGHEST_US * 2) | st.integers(0, 5000), max_size=200))
def test_a_histogram_is_the_librarys_own(measured_us: list[int]) -> None:
    own = HdrHistogram(LOWEST_US, HIGHEST_US, DIGITS)
    for value_us in measured_us:
        own.record_value(min(max(value_us, 0), HIGHEST_US))
    made = HdrHistogram.decode(histogram_text(list(measured_us)))
    assert bytes(made.counts) == bytes(own.counts)
    assert made.get_total_count() == len(measured_us)
    shares = [0, 50, 99, 100]
    assert made.get_percentile_to_value_dict(shares) == own.get_percentile_to_value_dict(shares)


def test_what_processes_and_parts_saw_adds_up(tmp_path: Path) -> None:
    told, wanted = Gathering(), attempts(3000, 1)
    for generator in range(2):
        with Recorder(tmp_path, generator) as recorder:
            for number, attempt in enumerate(wanted[generator::2]):
                recorder.note(attempt)
                recorder.work((attempt.ended_us or 0) / 1e6)
                if number % 500 == 0:
                    for part in recorder.take():
                        told.add(msgspec.msgpack.decode(msgspec.msgpack.encode(part), type=Part))
            for part in recorder.take(last=True):
                told.add(part)
    told.write(tmp_path, run_of(told))

    assert sorted(read_attempts(tmp_path), key=msgspec.json.encode) == sorted(wanted, key=msgspec.json.encode)
    run, seconds = read_run(tmp_path), read_seconds(tmp_path)
    ended = [attempt for attempt in wanted if attempt.ended_us is not None]
    started = [attempt for attempt in wanted if attempt.sent_us is not None]
    assert run.counts == Counts(
        offered=len(wanted),
        started=len(started),
        completed=len(ended),
        dropped=len(wanted) - len(started),
        unresolved=len(started) - len(ended),
        sends=sum(attempt.sends for attempt in wanted),
    )
    assert sum(run.outcomes.values()) == len(ended) == sum(second.completed_in for second in seconds)
    assert [second.at_s for second in seconds] == list(range(len(seconds)))
    for name in ("service", "intended", "lag"):
        whole = histograms.read(getattr(run.latencies, name))
        assert whole == histograms.added(histograms.read(getattr(second.latencies, name)) for second in seconds)
    exact = sorted((attempt.ended_us or 0) - attempt.intended_us for attempt in ended)
    assert told.percentile_us("intended", 0.99) == pytest.approx(exact[int(0.99 * len(exact))], rel=0.01)
    third = [attempt for attempt in wanted if attempt.intended_us // 1_000_000 == 3]
    assert seconds[3].counts.offered == len(third)


def test_a_full_disk_is_told(tmp_path: Path) -> None:
    (tmp_path / "journal-0.ndjson").symlink_to("/dev/full")
    recorder = Recorder(tmp_path, 0)
    recorder.note(attempts(1, 1)[0])
    with pytest.raises(OSError, match="space"):
        recorder.close()


def test_a_run_that_is_not_whole_has_no_run_file(tmp_path: Path) -> None:
    told = Gathering()
    (tmp_path / "seconds.ndjson").mkdir()  # cannot be replaced by a file
    with pytest.raises(OSError, match="seconds"):
        told.write(tmp_path, run_of(told))
    assert not (tmp_path / RUN_FILE).exists()


def test_samples_are_read_back(tmp_path: Path) -> None:
    file, sample = SampleFile(tmp_path), Sample(1.5, "gateway", 0.25, 1 << 20, 12, 3.0, None)
    file.note([sample, sample])
    file.close()
    assert read_samples(tmp_path) == [sample, sample]
