"""What every log backend promises; the one in memory is the model the others are compared with."""

import asyncio
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from log_batches import chain, head_of, id16

from eventstore.events import Control, KeyAdded, encode_control
from eventstore.log import CONTROL, EMPTY_HEAD, ZERO_TIP, AppendRefused, Batch, EventLog, Head
from eventstore.memory_log import MemoryLog
from eventstore.sqlite_log import SqliteLog
from eventstore.verify import verify

if TYPE_CHECKING:
    from private_nats import NatsServers
    from private_postgres import PostgresServer

PARTITIONS = 3


def sqlite_log(directory: Path) -> SqliteLog:
    SqliteLog.create(directory / "log.db", PARTITIONS, "contract", 1)
    return SqliteLog.open(directory / "log.db")


async def postgres_log(url: str) -> EventLog:
    from eventstore.postgres_log import PostgresLog
    from eventstore.postgres_server import connector

    await PostgresLog.create(connector(url, None), PARTITIONS, "contract", 1)
    return await PostgresLog.open(connector(url, None))


async def jetstream_log(servers: "NatsServers") -> EventLog:
    from eventstore.jetstream_log import JetStreamLog

    place = servers.place()
    await JetStreamLog.create(place, None, PARTITIONS, "contract", 1)
    return await JetStreamLog.open(place, None)


@pytest.fixture(params=["memory", "sqlite", "postgres", "jetstream"])
async def log(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[EventLog]:
    opened: EventLog
    match request.param:
        case "memory":
            opened = MemoryLog(PARTITIONS)
        case "sqlite":
            opened = sqlite_log(tmp_path)
        case "jetstream":
            opened = await jetstream_log(request.getfixturevalue("nats"))
        case _:
            opened = await postgres_log(await request.getfixturevalue("postgres").emptied())
    yield opened
    await opened.close()


async def test_a_new_log_is_empty(log: EventLog) -> None:
    assert log.partitions == PARTITIONS
    for partition in (*range(PARTITIONS), CONTROL):
        assert await log.head(partition) == EMPTY_HEAD
        assert await log.read(partition, 1, 10) == []


async def test_what_was_appended_is_read_back(log: EventLog) -> None:
    batches = chain(1, 5)
    await log.append(batches[:2])
    await log.append(batches[2:])
    assert await log.head(1) == head_of(batches[-1])
    assert await log.read(1, 1, 10) == batches
    assert await log.read(1, 2, 3) == batches[1:4]
    assert await log.read(1, 6, 3) == []


async def test_partitions_do_not_know_each_other(log: EventLog) -> None:
    for partition in (0, 2, CONTROL):
        await log.append(chain(partition, 2))
    assert await log.head(1) == EMPTY_HEAD
    assert await log.read(0, 1, 10) == chain(0, 2)
    assert await log.read(CONTROL, 1, 10) == chain(CONTROL, 2)


async def test_the_same_batch_again_is_success(log: EventLog) -> None:
    batches = chain(0, 4)
    await log.append(batches[:3])
    await log.append(batches[1:2])
    await log.append(batches)  # three held, one new
    await log.append([])
    assert await log.read(0, 1, 10) == batches


def spoiled(batch: Batch, **fields: object) -> Batch:
    named = {name: getattr(batch, name) for name in batch.__struct_fields__}
    return Batch(**(named | fields))


REFUSED = {
    "gap": [chain(0, 4)[3]],
    "other predecessor": [spoiled(chain(0, 3)[2], prev=id16("other"))],
    "fork at the head": [spoiled(chain(0, 2)[1], tip=id16("other"))],
    "fork before the head": [spoiled(chain(0, 1)[0], tip=id16("other"))],
    "first batch again, as another": [Batch(0, 1, ZERO_TIP, id16("other"), b"", b"")],
    "run with a gap": [chain(0, 3)[2], chain(0, 5)[4]],
    "run with a broken link": [chain(0, 3)[2], spoiled(chain(0, 4)[3], prev=id16("other"))],
    "held run with a foreign member": [spoiled(chain(0, 1)[0], tip=id16("other")), chain(0, 2)[1]],
    "the same batch twice in a run": [chain(0, 2)[1], chain(0, 2)[1]],
    "run backwards": [chain(0, 2)[1], chain(0, 1)[0]],
}


@pytest.mark.parametrize("name", REFUSED)
async def test_what_does_not_join_is_refused_and_changes_nothing(log: EventLog, name: str) -> None:
    held = chain(0, 2)
    await log.append(held)
    with pytest.raises(AppendRefused) as refused:
        await log.append(REFUSED[name])
    assert refused.value.head == head_of(held[-1])
    assert (refused.value.partition, refused.value.seq) == (0, REFUSED[name][0].seq)
    assert await log.read(0, 1, 10) == held
    await log.append(chain(0, 3))  # and the log still takes what joins
    assert await log.head(0) == head_of(chain(0, 3)[-1])


async def test_a_run_is_taken_whole_or_not_at_all(log: EventLog) -> None:
    good = chain(0, 3)
    with pytest.raises(AppendRefused):
        await log.append([*good[:2], spoiled(good[2], seq=4)])
    assert await log.head(0) == EMPTY_HEAD


async def test_calls_for_one_partition_take_effect_in_call_order(log: EventLog) -> None:
    batches = chain(0, 40)
    await asyncio.gather(*(log.append([batch]) for batch in batches))
    assert await log.read(0, 1, 100) == batches


async def test_a_refused_run_does_not_spoil_its_neighbours(log: EventLog) -> None:
    first, gap, second = chain(0, 1), [chain(0, 5)[4]], chain(0, 2)[1:]
    outcomes = await asyncio.gather(
        *(log.append(run) for run in (first, gap, second, chain(1, 2), gap, chain(CONTROL, 1))),
        return_exceptions=True,
    )
    assert [type(outcome) for outcome in outcomes] == [
        *(type(None), AppendRefused, type(None)),
        *(type(None), AppendRefused, type(None)),
    ]
    assert await log.read(0, 1, 10) == chain(0, 2)
    assert await log.read(1, 1, 10) == chain(1, 2)
    assert await log.read(CONTROL, 1, 10) == chain(CONTROL, 1)


async def test_rivals_for_one_place_are_told_apart(log: EventLog) -> None:
    first = chain(0, 1)
    rival = [spoiled(first[0], tip=id16("rival"))]
    calls = (log.append(run) for run in (first, first, rival, chain(0, 2), rival))
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [
        *(type(None), type(None), AppendRefused),
        *(type(None), AppendRefused),
    ]
    assert await log.read(0, 1, 10) == chain(0, 2)


async def test_a_run_longer_than_any_statement(log: EventLog) -> None:
    batches = chain(0, 1000)
    await log.append(batches)
    assert await log.read(0, 1, 2000) == batches


async def test_a_run_over_two_partitions_is_a_bug(log: EventLog) -> None:
    with pytest.raises(AssertionError):
        await log.append([chain(0, 1)[0], chain(1, 1)[0]])


async def test_verify_counts_everything(log: EventLog) -> None:
    event = encode_control(Control("tests", (KeyAdded(key_id=1), KeyAdded(key_id=2))), at_ms=1)
    control = Batch(CONTROL, 1, ZERO_TIP, id16("control"), event, b"")
    for run in (chain(0, 3), chain(2, 300), [control]):
        await log.append(run)
    told: list[tuple[int, int, int]] = []
    found = await verify(log, lambda *progress: told.append(progress))
    assert (found.batches, found.records, found.control_events) == (304, 303, 2)
    assert found.heads[1] == EMPTY_HEAD
    assert found.heads[CONTROL] == Head(1, id16("control"))
    assert told[0] == (0, 3, 3)
    assert told[-1] == (CONTROL, 1, 1)


tips = st.sampled_from([ZERO_TIP, *(id16(n) for n in range(3))])
small = st.builds(Batch, st.just(0), st.integers(1, 4), tips, tips, st.just(b"p"), st.just(b""))


@st.composite
def plausible_runs(draw: st.DrawFn) -> list[Batch]:
    """Runs that are chains more often than chance would make them."""
    run = [draw(small)]
    while draw(st.booleans()):
        last = run[-1]
        run.append(Batch(0, last.seq + 1, last.tip, draw(tips), b"p", b""))
    return run


async def outcomes_of(log: EventLog, runs: list[list[Batch]]) -> list[object]:
    told: list[object] = []
    for run in runs:
        try:
            await log.append(run)
            told.append("taken")
        except AppendRefused as refused:
            told.append((refused.seq, refused.head))
    return [*told, await log.head(0), await log.read(0, 1, 100)]


RUNS = st.lists(plausible_runs(), max_size=12)


@settings(max_examples=40)
@given(runs=RUNS)
def test_sqlite_does_what_the_model_does(runs: list[list[Batch]]) -> None:
    async def compared() -> tuple[list[object], list[object]]:
        with tempfile.TemporaryDirectory() as directory:
            durable = sqlite_log(Path(directory))
            told = await outcomes_of(durable, runs)
            await durable.close()
            return told, await outcomes_of(MemoryLog(1), runs)

    told, model = asyncio.run(compared())
    assert told == model


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(runs=RUNS)
def test_postgres_does_what_the_model_does(postgres: "PostgresServer", runs: list[list[Batch]]) -> None:
    async def compared() -> tuple[list[object], list[object]]:
        shared = await postgres_log(await postgres.emptied())
        told = await outcomes_of(shared, runs)
        await shared.close()
        return told, await outcomes_of(MemoryLog(1), runs)

    told, model = asyncio.run(compared())
    assert told == model


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(runs=RUNS)
def test_jetstream_does_what_the_model_does(nats: "NatsServers", runs: list[list[Batch]]) -> None:
    async def compared() -> tuple[list[object], list[object]]:
        shared = await jetstream_log(nats)
        told = await outcomes_of(shared, runs)
        await shared.close()
        return told, await outcomes_of(MemoryLog(1), runs)

    told, model = asyncio.run(compared())
    assert told == model
