"""However many look things up in a Valkey that stands still, the lane's own calls find room."""

import asyncio
from pathlib import Path

import pytest
import redis
from core_world import World, connector, until, world

from gateway.claims import LOOKUPS_IN_FLIGHT_MAX, ValkeyArbiter
from gateway.lane import LaneState
from gateway.messages import Verdict
from gateway.pipe import CALLS_IN_FLIGHT_MAX, ArbiterRefused

ASKED = CALLS_IN_FLIGHT_MAX + 4
WANTED = [(b"{0}v1:0", b"1")]


def pause(url: str) -> None:
    with redis.Redis.from_url(url) as client:
        client.execute_command("CLIENT", "PAUSE", 600, "ALL")


def look_up(w: World) -> asyncio.Task[object]:
    return asyncio.create_task(w.core.arbiter.lookup(0, WANTED))


async def test_lookups_that_wait_do_not_throw_a_lane_into_recovery(tmp_path: Path, valkey_endpoint: str) -> None:
    async with world(tmp_path, valkey_endpoint) as w:
        (code,) = await w.codes(1)
        pause(valkey_endpoint)
        lookups = [look_up(w) for _ in range(ASKED)]
        await until(lambda: sum(task.done() for task in lookups) == ASKED - LOOKUPS_IN_FLIGHT_MAX)
        for task in lookups[:5]:  # their callers give up; Valkey still owes the replies
            task.cancel()
        assert await w.verdict(1, w.scan(code)) is Verdict.ACCEPTED
        assert w.core.lanes[0].state is LaneState.ADMITTING
        assert len(w.seen.outcomes) == 1, "it recovered at its start and never since"
        outcomes = await asyncio.gather(*lookups, return_exceptions=True)
        refused = [outcome for outcome in outcomes if isinstance(outcome, ArbiterRefused)]
        assert len(refused) == ASKED - LOOKUPS_IN_FLIGHT_MAX
        await w.core.arbiter.lookup(0, WANTED)


async def test_lookups_given_up_still_count(valkey_endpoint: str) -> None:
    arbiter = ValkeyArbiter(lambda: connector(valkey_endpoint), lambda partition: None)
    await arbiter.check(0)
    pause(valkey_endpoint)
    given_up = [asyncio.create_task(arbiter.lookup(0, WANTED)) for _ in range(LOOKUPS_IN_FLIGHT_MAX)]
    await asyncio.sleep(0)  # each is sent in its first step
    for task in given_up:
        task.cancel()
    await asyncio.gather(*given_up, return_exceptions=True)
    with pytest.raises(ArbiterRefused):
        await arbiter.lookup(0, WANTED)
    assert (await arbiter.head(0)).seq == 0, "the lane's own calls are not look-ups"
    await arbiter.close()
