"""A lane that is halted, and a damaged log under a running gateway: one partition stops, the process does not."""

import asyncio
import sqlite3
from pathlib import Path

import pytest
import redis
from core_world import KEYS, Seen, connector, new_id, until, wall_ms, world
from stream_world import site

from eventstore.sqlite_file import row_id
from gateway.core import LOG_FILE, open_core
from gateway.lane import LaneState
from gateway.ledger import looked_up
from gateway.messages import Reverse, Verdict
from gateway.recovery import PartitionHalted


async def test_a_halted_lane_answers_nobody_and_says_why(tmp_path: Path, valkey_endpoint: str) -> None:
    async with world(tmp_path, valkey_endpoint) as w:
        (code,) = await w.codes(1)
        asked = asyncio.ensure_future(w.verdict(1, w.scan(code)))
        await asyncio.sleep(0)  # taken, and not yet sent: batches leave at the end of the turn
        w.core.lanes[0].halt("the test says so")
        assert await asked is Verdict.UNRESOLVED
        assert await w.verdict(1, w.scan(code)) is Verdict.UNRESOLVED
        assert w.core.troubles() == ["partition 0 is halted: the test says so"]
        assert isinstance(w.seen.outcomes[-1], PartitionHalted)
        w.core.lanes[0].halt("again")
        w.core.lanes[0].recover("again")
        assert w.core.lanes[0].why == "the test says so"
        assert len(w.seen.outcomes) == 2


async def test_a_recovery_under_way_does_not_undo_a_halt(tmp_path: Path, valkey_endpoint: str) -> None:
    async with world(tmp_path, valkey_endpoint) as w:
        lane = w.core.lanes[0]
        with redis.Redis.from_url(valkey_endpoint) as client:
            client.execute_command("CLIENT", "PAUSE", 300, "ALL")
        lane.recover("the test says so")
        recovery = lane._recovery
        assert recovery is not None
        await asyncio.sleep(0)
        lane.halt("somebody looked up a damaged row")
        await until(recovery.done)
        assert lane.state is LaneState.HALTED
        assert lane.why == "somebody looked up a damaged row"


def damage(directory: Path, seq: int) -> None:
    """Let batch `seq` of partition 0 fail its checksum."""
    with sqlite3.connect(directory / LOG_FILE) as connection:
        assert connection.execute("UPDATE batch SET crc = crc + 1 WHERE id = ?", (seq,)).rowcount == 1
    connection.close()


async def test_a_damaged_newest_batch_halts_the_lane_that_recovers(tmp_path: Path, valkey_endpoint: str) -> None:
    async with world(tmp_path, valkey_endpoint) as w:
        (code,) = await w.codes(1)
        assert await w.verdict(1, w.scan(code)) is Verdict.ACCEPTED
        damage(tmp_path, (await w.core.log.head(0)).seq)
        with redis.Redis.from_url(valkey_endpoint) as client:
            client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        lane = w.core.lanes[0]
        await until(lambda: lane.state is LaneState.HALTED)
        assert "restore the log from its backup" in lane.why
        assert isinstance(w.seen.outcomes[-1], PartitionHalted)
        assert not w.core.fatal.done()


async def test_a_bug_in_a_recovery_is_told(tmp_path: Path, valkey_endpoint: str) -> None:
    async with world(tmp_path, valkey_endpoint) as w:
        lane = w.core.lanes[0]

        lane._agree = None  # type: ignore[assignment]
        lane.recover("the test says so")
        with pytest.raises(TypeError):
            await asyncio.wait_for(asyncio.shield(w.core.fatal), 5)


async def test_a_reversal_that_meets_a_damaged_batch_halts_its_partition(tmp_path: Path, valkey_endpoint: str) -> None:
    directory = tmp_path / "data"
    async with site(directory, valkey_endpoint) as here, here.till(1) as till:
        (code,) = await here.w.codes(1)
        scan = here.w.scan(code)
        assert (await till.verdict(scan))[0] is Verdict.ACCEPTED
        damage(directory, (await here.w.core.log.head(0)).seq)
        answer = await till.reverse(Reverse(new_id(), scan.redemption_id, wall_ms()))
        assert list(answer.codes) == [Verdict.UNRESOLVED]
        assert here.w.core.lanes[0].state is LaneState.HALTED
        assert (await till.verdict(here.w.scan(code)))[0] is Verdict.UNRESOLVED
        assert not here.w.core.fatal.done()


class Told(Seen):
    """Expects to be told of a violation."""

    def __init__(self) -> None:
        super().__init__()
        self.violations: list[str] = []

    def violated(self, invariant: str) -> None:
        self.violations.append(invariant)


async def test_a_partition_that_lost_its_tail_halts_and_the_others_look_their_ids_up(
    tmp_path: Path, valkey_endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log of one partition was put back to an older one; the index still knows of what it had."""
    monkeypatch.setattr("eventstore.follower.RETURN_SECONDS_MAX", 0.3)  # it will not come back
    places = {}
    async with world(tmp_path, valkey_endpoint, partitions=2) as w:
        for code in (await w.codes(640))[::40]:
            scan = w.scan(code)
            places[scan.redemption_id] = (await w.redeem(1, scan)).places[0][1:3]
        await looked_up(w.core.ledger, w.core.lanes, w.core.redeemer.recent, list(places))
    lost = [name for name, (partition, seq) in places.items() if partition == 1 and seq > 2]
    kept = [name for name, (partition, _) in places.items() if partition == 0]
    with sqlite3.connect(tmp_path / LOG_FILE) as connection:
        connection.execute("DELETE FROM batch WHERE id > ? AND id < ?", (row_id(1, 2), row_id(2, 0)))
    connection.close()
    with redis.Redis.from_url(valkey_endpoint) as client:
        client.flushall()
    seen = Told()
    core = await open_core(tmp_path, KEYS, connect=lambda: connector(valkey_endpoint), observer=seen)
    try:
        await until(lambda: seen.violations)
        await until(lambda: core.lanes[1].state is LaneState.HALTED and core.lanes[0].state is LaneState.ADMITTING)
        logged = await looked_up(core.ledger, core.lanes, core.redeemer.recent, [*lost[:1], *kept])
        assert [name for name in kept if logged.get(name)] == kept
        assert lost[0] not in logged
        assert not core.fatal.done()
    finally:
        await core.close()


async def test_a_damaged_batch_costs_the_ids_in_it_and_no_others(tmp_path: Path, valkey_endpoint: str) -> None:
    async with world(tmp_path, valkey_endpoint, partitions=2) as w:
        places = {}
        for code in (await w.codes(640))[::32]:  # neighbours share a partition
            scan = w.scan(code)
            asked = await w.redeem(1, scan)
            places[scan.redemption_id] = asked.places[0][1:3]
        lost = next(name for name, (partition, _) in places.items() if partition == 0)
        kept = [name for name in places if name != lost]
        assert {places[name][0] for name in kept} == {0, 1}
        damage(tmp_path, places[lost][1])
        never = new_id()
        logged = await looked_up(w.core.ledger, w.core.lanes, w.core.redeemer.recent, [lost, never, *kept])
        assert lost not in logged
        assert logged[never] is None
        assert [found and found.record.redemption_id for found in map(logged.get, kept)] == kept
        assert [lane.state for lane in w.core.lanes] == [LaneState.HALTED, LaneState.ADMITTING]
        assert set(await looked_up(w.core.ledger, w.core.lanes, w.core.redeemer.recent, kept)) == set(kept)
