"""kill -9 of a real till daemon, unplugged scanners, full disks: no id is lost, none is minted twice."""

import asyncio
import os
import random
import resource
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from scripted_gateway import ANSWER, CUT, LATE_CUT, SILENT, UNRESOLVED, ScriptedGateway
from till_bench import TillBench, until

from devices.journal import JOURNAL_NAME
from gateway.messages import Redeem, Verdict


@pytest.fixture
def till(tmp_path: Path) -> Iterator[TillBench]:
    with TillBench(tmp_path) as bench:
        yield bench


@pytest.fixture
async def gateway(till: TillBench) -> AsyncIterator[ScriptedGateway]:
    async with ScriptedGateway(till.public_key) as scripted:
        till.configure(scripted.url)
        yield scripted


async def started(till: TillBench, times: int = 1) -> None:
    till.start()
    await till.until_shown("scanner ready", times)
    await till.until_shown("connected to the gateway", times)


async def test_a_killed_till_asks_again_with_the_same_ids(till: TillBench, gateway: ScriptedGateway) -> None:
    gateway.plan.extend([SILENT] * 3)
    await started(till)
    till.scanner.write(b"CODE1\rCODE2\rCODE3\r")
    await gateway.until(lambda: len(gateway.scans) >= 3)
    till.kill()
    first = set(gateway.scans)
    gateway.plan.clear()
    await started(till, times=2)
    await till.until_shown("ACCEPTED", times=3)
    assert till.stop() == 0
    assert set(gateway.scans) == first, "whole messages, not only the ids"
    assert {r.redemption_id for r in till.journal()} == {scan.redemption_id for scan in first}


async def test_an_answer_lost_by_the_kill_is_told_after_it(till: TillBench, gateway: ScriptedGateway) -> None:
    gateway.plan.append(LATE_CUT)
    await started(till)
    till.scanner.write(b"CODE\r")
    await gateway.until(lambda: len(gateway.answered) == 1)
    till.kill()
    await started(till, times=2)
    await till.until_shown("ACCEPTED")
    assert till.stop() == 0
    assert [r.verdict for r in till.journal()] == [Verdict.ACCEPTED]


async def test_a_reversal_is_asked_over_restarts(till: TillBench, gateway: ScriptedGateway) -> None:
    gateway.plan.extend([UNRESOLVED] * 20)
    await started(till)
    till.scanner.write(b"CODE\r")
    await till.until_shown("NO ANSWER YET")
    till.type("give-up last")
    await gateway.until(lambda: len(gateway.reversals) >= 1)
    for times in (2, 3):
        till.kill()
        seen = len(gateway.reversals)
        await started(till, times)
        await gateway.until(lambda seen=seen: len(gateway.reversals) > seen)  # type: ignore[misc]
    gateway.plan.clear()
    await till.until_shown("UNDONE")
    assert till.stop() == 0
    assert len(set(gateway.reversals)) == 1, "the same body every time, its original in it"
    assert isinstance(gateway.reversals[0].original, Redeem)
    assert gateway.winners == {}


@pytest.mark.parametrize("seed", range(3))
async def test_killed_at_random_moments_nothing_is_lost_or_doubled(
    till: TillBench, gateway: ScriptedGateway, seed: int
) -> None:
    choose = random.Random(seed)
    for life in range(4):
        gateway.plan.extend(choose.choices((ANSWER, UNRESOLVED, CUT, LATE_CUT, SILENT), (6, 2, 1, 1, 1), k=8))
        await started(till, life + 1)
        before = len(till.journal())
        till.scanner.write(b"".join(b"LIFE%d-%d\r" % (life, n) for n in range(8)))
        journalled = choose.randrange(9)
        await until(lambda n=before + journalled: len(till.journal()) >= n)  # type: ignore[misc]
        till.kill()
    gateway.plan.clear()
    await started(till, 5)
    await until(lambda: all(r.verdict is not None for r in till.journal()))
    assert till.stop() == 0
    told = {r.redemption_id: r.verdict for r in till.journal()}
    assert told == {i: verdict for i, (verdict, _) in gateway.answered.items()}
    assert {i for i, verdict in told.items() if verdict == Verdict.ACCEPTED} == set(gateway.winners.values())
    assert len(gateway.winners) == len(told), "no code was asked under two ids"
    assert len(set(gateway.scans)) == len({scan.redemption_id for scan in gateway.scans})


async def test_unplug_and_replug_under_the_same_path(till: TillBench, gateway: ScriptedGateway) -> None:
    await started(till)
    for n in range(1, 4):
        till.scanner.write(b"CODE%d\rHALF" % n)
        await till.until_shown("ACCEPTED", n)
        till.scanner.unplug()
        await till.until_shown("scanner not connected", n)
        await till.until_shown("NOT READ: the scan was cut off", n)
        till.scanner.plug()
        await till.until_shown("scanner ready", n + 1)
    till.scanner.write(b"CODE9\r")
    await till.until_shown("ACCEPTED", 4)
    assert [scan.code for scan in gateway.scans] == ["CODE1", "CODE2", "CODE3", "CODE9"]


async def test_a_scanner_that_is_not_there_yet(till: TillBench, gateway: ScriptedGateway) -> None:
    till.scanner.unplug()
    till.scanner.path.unlink()
    till.start()
    await till.until_shown("[lane1] scanner not connected (could not open port")
    till.scanner.plug()
    await till.until_shown("scanner ready")
    assert till.screen().count("scanner not connected") == 1, "said once, however often it is tried"


async def test_a_full_disk_is_shown_and_nothing_is_sent(till: TillBench, gateway: ScriptedGateway) -> None:
    await started(till)
    till.scanner.write(b"".join(b"CODE%d\r" % n for n in range(120)))
    await till.until_shown("ACCEPTED", 120)
    assert till.daemon
    size = os.stat(till.state / JOURNAL_NAME).st_size
    unlimited = resource.prlimit(till.daemon.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(till.daemon.pid, resource.RLIMIT_FSIZE, (size + 20, unlimited[1]))
    till.scanner.write(b"REFUSED\r")
    await till.until_shown("NOT TAKEN: this till's disk or journal is full")
    resource.prlimit(till.daemon.pid, resource.RLIMIT_FSIZE, unlimited)
    till.scanner.write(b"TAKEN\r")
    await till.until_shown("ACCEPTED", 121)
    assert till.stop() == 0
    assert len(till.journal()) == 121
    assert "REFUSED" not in [scan.code for scan in gateway.scans]


async def test_sigterm_in_a_burst_loses_nothing_that_was_heard(till: TillBench, gateway: ScriptedGateway) -> None:
    await started(till)
    till.scanner.write(b"".join(b"CODE%d\r" % n for n in range(100)))
    await till.until_shown("heard")
    assert await asyncio.to_thread(till.stop) == 0
    heard = till.screen().count("heard")
    assert len(till.journal()) == heard
    till.start()
    await until(lambda: all(r.verdict is not None for r in till.journal()))
    assert set(gateway.winners.values()) == {r.redemption_id for r in till.journal()}
