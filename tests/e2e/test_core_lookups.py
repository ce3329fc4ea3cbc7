"""What a gateway says of a code that Valkey does not have, while another gateway works on the same log and Valkey."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from pathlib import Path

import pytest
import redis
from core_world import World, connector, until, wall_ms, world

from eventstore.events import encode_records
from eventstore.log import Batch, Head
from eventstore.vouchers import registry_key
from gateway.claims import Claimed, Keyed, ValkeyArbiter
from gateway.codes import Refused
from gateway.core import mint_tip
from gateway.identity import Spot
from gateway.imports import Chunk, Imports
from gateway.lane import Lane, LaneState
from gateway.lookup import ValkeyReader
from gateway.messages import Verdict
from gateway.recovery import Branch, Recovered, fold_log

CODE, NO_CODE = "GROUPON-77/8", "nobody has this"


@pytest.fixture
async def w(tmp_path: Path, valkey_endpoint: str) -> AsyncIterator[World]:
    async with world(tmp_path, valkey_endpoint) as made:
        yield made


@pytest.fixture
async def other(w: World, valkey_endpoint: str) -> AsyncIterator[Lane]:
    """The lane of another gateway: it claims and appends, and the lane of ours hears nothing of it."""
    fatal: list[BaseException] = []
    arbiter = ValkeyArbiter(lambda: connector(valkey_endpoint), lambda partition: lane.recover("it was lost"))
    lane = Lane(
        0,
        arbiter,
        w.core.log,
        now_ms=wall_ms,
        mint_tip=mint_tip,
        judged_by=w.core.control.judged_by,
        fold=partial(fold_log, w.core.log, purged=w.core.control.purged_now),
        on_batch=lambda batch, seconds: None,
        on_fatal=fatal.append,
        on_recovered=lambda partition, outcome: None,
    )
    lane.recover("starting")
    await until(lambda: lane.state is LaneState.ADMITTING)
    yield lane
    await lane.close()
    await arbiter.close()
    assert not fatal


class Meanwhile:
    """The log of ours, except that something happens while it is asked."""

    def __init__(self, w: World, happens: Callable[[], Awaitable[None]], *, at_head: bool) -> None:
        self._log, self._happens, self._at_head = w.core.log, happens, at_head
        self.partitions = w.core.log.partitions

    async def head(self, partition: int) -> Head:
        if self._at_head:
            await self._happens()
        return await self._log.head(partition)

    async def read(self, partition: int, first_seq: int, limit: int) -> list[Batch]:
        if not self._at_head:
            await self._happens()
        return await self._log.read(partition, first_seq, limit)

    async def close(self) -> None: ...


async def register(w: World, lane: Lane, code: str) -> None:
    """As if an operator had come to the other gateway."""
    chunk = Chunk()
    assert chunk.take(w.core.ring, 0, code) is None
    (came,) = await Imports(w.core.control, [lane]).register("op", "cake", "i1", chunk)
    assert came.codes == bytes([Verdict.ACCEPTED])


async def claimed_only(w: World) -> Batch:
    """A batch that a gateway has claimed, and has not appended yet (or never will)."""
    payload, tip = encode_records([], {}, received_ms=wall_ms()), mint_tip()
    claimed = await w.core.arbiter.claim(0, payload, Keyed([], b""), tip=tip, at_ms=wall_ms(), durable_seq=0)
    assert isinstance(claimed, Claimed)
    return Batch(0, claimed.seq, claimed.prev, tip, payload, claimed.verdicts)


async def on_another_chain(w: World, other: Lane, valkey_endpoint: str) -> None:
    """A replica that was promoted has lost a code, and has claimed something else in its place."""
    await register(w, other, CODE)
    with redis.Redis.from_url(valkey_endpoint) as client:
        client.flushall()
    for seq in range(1, other.durable_seq + 1):
        assert (await claimed_only(w)).seq == seq


def branches(w: World) -> set[Branch]:
    return {branch for outcome in w.seen.outcomes if isinstance(outcome, Recovered) for branch in outcome.branches}


async def test_a_gateway_that_was_idle_believes_no_emptied_valkey(w: World, other: Lane, valkey_endpoint: str) -> None:
    """All it knows of the log may be that it was empty once, and that is what an emptied Valkey says, too."""
    assert w.core.lanes[0].durable_seq == 0
    await register(w, other, CODE)
    with redis.Redis.from_url(valkey_endpoint) as client:
        client.flushall()
    assert await w.core.desk.identify(CODE) is None
    assert w.core.lanes[0].state is LaneState.RECOVERING, "or it would stay empty where every code is looked up"
    await w.ready()
    assert isinstance(await w.core.desk.identify(CODE), Spot)
    assert isinstance(await w.core.desk.identify(NO_CODE), Refused)


async def test_what_a_valkey_on_another_chain_does_not_have_may_exist(
    w: World, other: Lane, valkey_endpoint: str
) -> None:
    await on_another_chain(w, other, valkey_endpoint)
    assert await w.core.desk.identify(CODE) is None
    await w.ready()
    assert Branch.FORKED in branches(w)
    assert isinstance(await w.core.desk.identify(CODE), Spot)


async def test_an_absence_waits_for_what_was_claimed_before_it_to_be_logged(w: World) -> None:
    batch, looks = await claimed_only(w), itertools.count(1)

    async def logged_at_the_third_look() -> None:
        if next(looks) == 3:
            await w.core.log.append([batch])

    reader = ValkeyReader(w.core.lanes, w.core.arbiter, Meanwhile(w, logged_at_the_third_look, at_head=False))
    assert await reader.read(0, []) == []
    assert next(looks) == 4, "it looked until it was logged, and no longer"
    assert isinstance(await w.core.desk.identify(NO_CODE), Refused)
    assert branches(w) == {Branch.READY}, "nobody had to recover"


async def test_what_another_gateway_claimed_and_never_logs_is_logged_for_it(w: World) -> None:
    batch = await claimed_only(w)
    assert await w.core.desk.identify(NO_CODE) is None
    await w.ready()
    assert (await w.core.log.head(0)).tip == batch.tip
    assert isinstance(await w.core.desk.identify(NO_CODE), Refused)


async def test_what_the_lane_itself_is_logging_is_left_to_it(w: World) -> None:
    """Its disk may be slow: to recover would fail all that waits there."""
    (lane,) = w.core.lanes
    await claimed_only(w)
    busy = asyncio.ensure_future(asyncio.sleep(60))
    lane.under_way.add(busy)
    try:
        assert await w.core.desk.identify(NO_CODE) is None
        assert lane.state is LaneState.ADMITTING
    finally:
        lane.under_way.discard(busy)
        busy.cancel()


async def test_a_valkey_that_is_mended_meanwhile_is_not_mended_again(
    w: World, other: Lane, valkey_endpoint: str
) -> None:
    await on_another_chain(w, other, valkey_endpoint)

    async def mended() -> None:
        other.recover("the test says so")
        await until(lambda: other.state is LaneState.ADMITTING)

    reader = ValkeyReader(w.core.lanes, w.core.arbiter, Meanwhile(w, mended, at_head=False))
    assert await reader.read(0, []) is None
    assert w.core.lanes[0].state is LaneState.ADMITTING


async def test_a_code_that_comes_between_two_looks_is_found(w: World, other: Lane) -> None:
    wanted = [(registry_key(0, name), name) for name in (w.core.ring.identity(NO_CODE), w.core.ring.identity(CODE))]
    reader = ValkeyReader(w.core.lanes, w.core.arbiter, Meanwhile(w, partial(register, w, other, CODE), at_head=True))
    (nobodys, found), is_fact = await reader.find(0, wanted)
    assert (nobodys, found is not None, is_fact) == (None, True, True)


async def test_nothing_is_believed_of_a_valkey_whose_lane_recovers_meanwhile(w: World) -> None:
    """It may have come back from a file that is not to be believed, and its head looks as it always did."""

    async def recovers() -> None:
        w.core.lanes[0].recover("the test says so")

    log = Meanwhile(w, recovers, at_head=True)
    assert await ValkeyReader(w.core.lanes, w.core.arbiter, log).read(0, []) is None
    assert w.core.lanes[0].state is LaneState.RECOVERING
    await w.ready()
    await register(w, w.core.lanes[0], CODE)
    reader, name = ValkeyReader(w.core.lanes, w.core.arbiter, w.core.log), w.core.ring.identity(CODE)
    assert (await reader.find(0, [(registry_key(0, name), name)]))[0] != [None]
    w.core.lanes[0].recover("the test says so")
    assert await reader.find(0, [(registry_key(0, name), name)]) == ([None], False)
