"""The JetStream log under bad weather: rivals, killed clients and servers, lying settings, an older copy."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING

import pytest
from log_batches import chain, head_of, id16

pytest.importorskip("nats", reason="the package nats-py is not installed (extra `jetstream`)")

from eventstore.jetstream_log import JetStreamLog
from eventstore.jetstream_reader import JetStreamReader
from eventstore.jetstream_server import ask, connect
from eventstore.jetstream_url import place_of
from eventstore.jetstream_wire import stream_config, stream_of, subject_of
from eventstore.log import CONTROL, ZERO_TIP, AppendRefused, Batch, LogDamaged, LogFailed, LogLost, LogUnfit

if TYPE_CHECKING:
    from private_nats import NatsServers

WAIT_S = 30.0

# Claims the next place of partition 0 again and again; says `seq tip` for every append that returned.
RIVAL = """
import asyncio, os, sys
from eventstore.jetstream_log import JetStreamLog
from eventstore.jetstream_url import place_of
from eventstore.log import AppendRefused, Batch, LogLost

async def main(url, stop_at):
    log = await JetStreamLog.open(place_of(url), None)
    while (head := await log.head(0)).seq < stop_at:
        batch = Batch(0, head.seq + 1, head.tip, os.urandom(16), os.urandom(3000), b"")
        try:
            await log.append([batch])
        except AppendRefused:
            continue
        print(batch.seq, batch.tip.hex(), flush=True)
    await log.close()

asyncio.run(main(sys.argv[1], int(sys.argv[2])))
"""


async def made(url: str, partitions: int = 2) -> JetStreamLog:
    await JetStreamLog.create(place_of(url), None, partitions, "faults", 1)
    return await JetStreamLog.open(place_of(url), None)


@pytest.fixture
def url(nats: "NatsServers") -> str:
    return nats.url()


@pytest.fixture
async def log(url: str) -> AsyncIterator[JetStreamLog]:
    opened = await made(url)
    yield opened
    await opened.close()


@pytest.fixture(scope="module")
def three() -> "Iterator[NatsServers]":
    from private_nats import nats_servers

    with nats_servers(3) as servers:
        yield servers


def rival(url: str, stop_at: int) -> subprocess.Popen[str]:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}
    command = [sys.executable, "-c", RIVAL, url, str(stop_at)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)


def said(rivals: list[subprocess.Popen[str]]) -> list[str]:
    lines: list[str] = []
    for each in rivals:
        with each:
            assert each.stdout is not None
            lines += each.stdout.readlines()
    return lines


async def places(log: JetStreamLog) -> dict[str, str]:
    """seq -> tip of partition 0, every chain and checksum checked."""
    head = await log.head(0)
    batches = await log.read(0, 1, head.seq)
    assert head_of(batches[-1]) == head
    return {str(batch.seq): batch.tip.hex() for batch in batches}


async def appended(log: JetStreamLog, run: list[Batch]) -> None:
    """As a gateway does: again, until it is told."""
    async with asyncio.timeout(WAIT_S):
        while True:
            try:
                return await log.append(run)
            except LogLost:
                await asyncio.sleep(0.05)


async def test_a_reader_that_is_cancelled_ends_whatever_it_waits_for(log: JetStreamLog) -> None:
    """Up to CPython 3.11 asyncio.wait_for, on which the client rests, loses most of these."""

    async def poll() -> None:
        while True:
            await log.read(0, 1, 10)

    for _ in range(10):
        polling = [asyncio.create_task(poll()) for _ in range(4)]
        await log.head(0)  # they are in different places now
        for task in polling:
            task.cancel()
        _, lost = await asyncio.wait(polling, timeout=5.0)
        for task in lost:
            while not task.done():
                task.cancel()
                await asyncio.wait([task], timeout=0.1)
        assert not lost, "a cancelled reader reads on"


async def test_processes_that_append_at_once_make_one_chain_and_each_yes_is_in_it_once(
    url: str, log: JetStreamLog
) -> None:
    rivals = [rival(url, 100) for _ in range(3)]
    lines = await asyncio.to_thread(said, rivals)
    assert [each.returncode for each in rivals] == [0, 0, 0]
    acknowledged = dict(line.split() for line in lines)
    assert len(lines) == len(acknowledged) >= 100, "no place was given twice"
    assert await places(log) == acknowledged


async def test_a_client_killed_inside_an_append_leaves_a_whole_chain(url: str, log: JetStreamLog) -> None:
    doomed = rival(url, 1 << 30)
    assert doomed.stdout is not None
    first = [await asyncio.to_thread(doomed.stdout.readline) for _ in range(20)]
    doomed.kill()
    lines = first + await asyncio.to_thread(said, [doomed])
    held = await places(log)
    assert all(held[seq] == tip for seq, tip in (line.split() for line in lines))
    assert len(held) in (len(lines), len(lines) + 1), "one may have got in whose yes was never heard"
    head = await log.head(0)
    await log.append([Batch(0, head.seq + 1, head.tip, id16("next"), b"", b"")])


async def test_of_two_logs_that_think_they_are_alone_one_is_refused(url: str, log: JetStreamLog) -> None:
    other = await JetStreamLog.open(place_of(url), None)
    await log.append(chain(0, 3))
    await other.append(chain(0, 3))  # the very same
    ours = Batch(0, 4, chain(0, 3)[-1].tip, id16("ours"), b"", b"")
    theirs = Batch(0, 4, chain(0, 3)[-1].tip, id16("theirs"), b"", b"")
    outcomes = await asyncio.gather(log.append([ours]), other.append([theirs]), return_exceptions=True)
    assert sorted(map(type, outcomes), key=str) == sorted([type(None), AppendRefused], key=str)
    await other.close()


async def test_a_run_longer_than_an_atomic_publish_is_taken(log: JetStreamLog) -> None:
    run = chain(1, 1100)
    await log.append(run)
    assert await log.read(1, 995, 10) == run[994:1004]
    assert await log.head(1) == head_of(run[-1])


async def test_a_log_of_this_name_is_not_made_twice(url: str, log: JetStreamLog) -> None:
    await log.append(chain(CONTROL, 1))
    other = Batch(CONTROL, 1, ZERO_TIP, id16("other"), b"", b"")
    with pytest.raises(FileExistsError):
        await JetStreamLog.create(place_of(url), None, 2, "faults", 1, [other])
    with pytest.raises(FileExistsError):
        await JetStreamLog.create(place_of(url), None, 3, "someone else", 2)
    assert await log.read(CONTROL, 1, 10) == chain(CONTROL, 1)


async def test_a_log_that_is_half_made_is_none_and_is_finished_by_the_same_call(nats: "NatsServers") -> None:
    place, first = nats.place(), chain(CONTROL, 1)
    with pytest.raises(FileNotFoundError):
        await JetStreamLog.open(place, None)
    client = await connect(place, None)
    await ask(client, f"STREAM.CREATE.{stream_of(place, 0)}", stream_config(place, 0, {}))
    known = {"tillgate": '{"format":1,"partitions":1,"deployment_id":"whole","created_ms":1}', "tillgate-first": "1"}
    await ask(client, f"STREAM.CREATE.{stream_of(place, CONTROL)}", stream_config(place, CONTROL, known))
    await client.close()
    with pytest.raises(FileNotFoundError, match="half made"):
        await JetStreamLog.open(place, None)
    await JetStreamLog.create(place, None, 1, "whole", 1, first)
    log = await JetStreamLog.open(place, None)
    assert await log.head(CONTROL) == head_of(first[0])
    await log.close()


async def test_a_server_that_answers_before_it_syncs_is_refused() -> None:
    from private_nats import nats_servers

    with nats_servers(sync_interval='"2m"') as servers, pytest.raises(LogUnfit, match="sync_interval: always"):
        await JetStreamLog.create(servers.place(), None, 1, "faults", 1)


async def test_streams_that_may_forget_are_refused(nats: "NatsServers", url: str, log: JetStreamLog) -> None:
    place = place_of(url)
    client = await connect(place, None)
    body = stream_config(place, CONTROL, {}) | {"max_age": 10**12}
    assert (await ask(client, f"STREAM.UPDATE.{stream_of(place, CONTROL)}", body)).error is None
    await client.close()
    with pytest.raises(LogUnfit, match="deleted"):
        await JetStreamLog.open(place, None)


async def test_no_monitoring_port_is_no_yes(nats: "NatsServers") -> None:
    blind = place_of(nats.url().replace(f"monitor={nats.monitors[0]}", "monitor=1"))
    with pytest.raises(LogLost, match="monitoring port"):
        await JetStreamLog.open(blind, None)


async def test_what_is_no_batch_is_named(url: str, log: JetStreamLog) -> None:
    await log.append(chain(0, 2))
    client = await connect(place_of(url), None)
    await client.request(subject_of(place_of(url), 0), b"scribble" * 9)
    await client.close()
    with pytest.raises(LogDamaged, match="batch 3"):
        await log.read(0, 1, 10)
    with pytest.raises(LogDamaged, match="batch 3"):
        await log.head(0)


async def test_a_stream_that_was_made_anew_ends_the_gateway(url: str, log: JetStreamLog) -> None:
    await log.append(chain(0, 2))
    place = place_of(url)
    client = await connect(place, None)
    await client.jetstream().delete_stream(stream_of(place, 0))
    with pytest.raises(LogFailed, match="gone"):
        await log.head(0)
    await ask(client, f"STREAM.CREATE.{stream_of(place, 0)}", stream_config(place, 0, {}))
    await client.close()
    with pytest.raises(LogFailed, match="no longer has batch 2"):
        await log.head(0)


async def test_a_leader_killed_under_load_costs_no_yes(three: "NatsServers") -> None:
    url = three.url()
    log = await made(url, 1)
    told: list[Batch] = []
    head = await log.head(0)
    tip, seq = head.tip, head.seq
    for number in range(60):
        if number == 20:
            three.kill(0)
        if number == 40:
            three.start(0)
        batch = Batch(0, seq + 1, tip, os.urandom(16), b"payload", b"")
        await appended(log, [batch])
        told.append(batch)
        seq, tip = batch.seq, batch.tip
    assert await log.read(0, 1, 100) == told
    assert await log.head(0) == head_of(told[-1])
    await log.close()
    await asyncio.to_thread(three.ready)


async def test_without_a_quorum_nothing_is_told_and_afterwards_it_goes_on(three: "NatsServers") -> None:
    url = three.url()
    log = await made(url, 1)
    await log.append(chain(0, 1))
    for number in (0, 1):
        three.signal(number, signal.SIGSTOP)
    try:
        with pytest.raises(LogLost):
            await log.append(chain(0, 2)[1:])
    finally:
        for number in (0, 1):
            three.signal(number, signal.SIGCONT)
    await appended(log, chain(0, 3)[1:])
    assert await log.read(0, 1, 10) == chain(0, 3)
    await log.close()
    reader = await JetStreamReader.open(place_of(url), None)
    assert await reader.head(0) == head_of(chain(0, 3)[-1])
    await reader.close()
