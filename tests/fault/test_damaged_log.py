"""A lane that is halted, and a damaged log under a running gateway: one partition stops, the process does not."""

import asyncio
from pathlib import Path

import redis
from core_world import until, world

from gateway.lane import LaneState
from gateway.messages import Verdict
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
