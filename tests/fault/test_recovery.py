"""Recovery on a real log and a real Valkey: ahead, forked, halted, and a Valkey that must not be used."""

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path

import pytest
import redis
from core_world import KEYS, Seen, World, connector, until, wall_ms, world

from eventstore.events import RECORD, REDEEM, encode_records
from eventstore.log import LOG_FORMAT, ZERO_TIP, AppendRefused, Batch, Head, Meta
from eventstore.memory_log import MemoryLog
from eventstore.sqlite_log import SqliteLog
from eventstore.vouchers import apply_batch, empty_state
from gateway.claims import Claimed, ValkeyArbiter, keyed_of
from gateway.codes import typed_code
from gateway.core import LOG_FILE, open_core
from gateway.directory import Rejected
from gateway.guesses import GUESSES_MAX
from gateway.lane import LaneState
from gateway.messages import Verdict
from gateway.recovery import Branch, PartitionHalted, Recovered


async def claim_behind_its_back(url: str, serial: int, claim_id: bytes) -> None:
    """What a gateway does that dies between claim and append."""
    arbiter = ValkeyArbiter(lambda: connector(url), lambda partition: None)
    await arbiter.check(0)
    at_ms = wall_ms()
    record = RECORD.pack(REDEEM, 0, 1, 0, 1, serial, os.urandom(16), claim_id, 1, at_ms, 1)
    payload = encode_records([record], {}, received_ms=at_ms)
    keyed = keyed_of(0, payload)
    reply = await arbiter.claim(0, payload, keyed, tip=os.urandom(16), at_ms=at_ms, durable_seq=0)
    assert isinstance(reply, Claimed)
    await arbiter.close()


def branches(w: World) -> set[Branch]:
    return {branch for outcome in w.seen.outcomes if isinstance(outcome, Recovered) for branch in outcome.branches}


async def state_equals_fold(w: World, url: str) -> bool:
    state = empty_state(1)
    for batch in await w.core.log.read(0, 1, (await w.core.log.head(0)).seq):
        apply_batch(state, batch)
    with redis.Redis.from_url(url) as client:
        keys = [key for key in client.keys(b"*") if b"}v" in key or b"}r" in key]
        return state.hashes == {key: client.hgetall(key) for key in keys}


async def test_claims_that_never_reached_the_log_are_appended(tmp_path: Path, valkey_endpoint: str) -> None:
    async with world(tmp_path, valkey_endpoint) as w:
        codes = await w.codes(3)
        assert await w.verdict(1, w.scan(codes[0])) is Verdict.ACCEPTED
    await claim_behind_its_back(valkey_endpoint, 2, b"c" * 16)
    await claim_behind_its_back(valkey_endpoint, 3, b"d" * 16)
    async with world(tmp_path, valkey_endpoint) as w:
        assert branches(w) == {Branch.AHEAD}
        assert await w.verdict(1, w.scan(codes[1])) is Verdict.ALREADY_REDEEMED
        assert await state_equals_fold(w, valkey_endpoint)


async def test_a_valkey_on_another_chain_is_thrown_away(tmp_path: Path, valkey_endpoint: str) -> None:
    async with world(tmp_path, valkey_endpoint) as w:
        codes = await w.codes(3)
        for code in codes[:2]:
            assert await w.verdict(1, w.scan(code)) is Verdict.ACCEPTED
    with redis.Redis.from_url(valkey_endpoint) as client:
        client.flushall()
    for n in range(2):
        await claim_behind_its_back(valkey_endpoint, 3, bytes([n]) * 16)
    async with world(tmp_path, valkey_endpoint) as w:
        assert branches(w) == {Branch.FORKED}
        assert await w.verdict(1, w.scan(codes[0])) is Verdict.ALREADY_REDEEMED
        assert await w.verdict(1, w.scan(codes[2])) is Verdict.ACCEPTED
        assert await state_equals_fold(w, valkey_endpoint)


async def test_valkey_ahead_without_the_joining_batches_halts_that_partition(
    tmp_path: Path, valkey_endpoint: str
) -> None:
    async with world(tmp_path, valkey_endpoint) as w:
        (code,) = await w.codes(1)
    with redis.Redis.from_url(valkey_endpoint) as client:
        client.set("{0}head", b"t" * 16 + b"9")
    seen = Seen()
    core = await open_core(tmp_path, KEYS, connect=lambda: connector(valkey_endpoint), observer=seen)
    try:
        w = World(core, seen)
        await until(lambda: core.lanes[0].state is LaneState.HALTED)
        assert isinstance(seen.outcomes[0], PartitionHalted)
        assert "tillgate rebuild" in core.troubles()[0]
        await until(core.control.is_confirmed)
        assert await w.verdict(1, w.scan(code)) is Verdict.UNRESOLVED
    finally:
        await core.close()


@pytest.mark.parametrize(
    ("breakage", "named"),
    (
        (("CONFIG", "SET", "maxmemory-policy", "allkeys-lru"), "maxmemory-policy is allkeys-lru: set it to noeviction"),
        (("REPLICAOF", "127.0.0.1", "1"), "connect to the primary"),
        (
            ("FUNCTION", "LOAD", "REPLACE", "#!lua name=tillgate_1\nredis.register_function('x', function() end)"),
            "text",
        ),
    ),
)
async def test_an_unfit_valkey_is_refused_and_taken_once_it_is_mended(
    tmp_path: Path, valkey_endpoint: str, breakage: tuple[str, ...], named: str
) -> None:
    mend = {"CONFIG": ("CONFIG", "SET", "maxmemory-policy", "noeviction"), "REPLICAOF": ("REPLICAOF", "NO", "ONE")}
    SqliteLog.create(tmp_path / LOG_FILE, 1, "test", wall_ms())
    with redis.Redis.from_url(valkey_endpoint) as client:
        client.execute_command(*breakage)
        core = await open_core(tmp_path, KEYS, connect=lambda: connector(valkey_endpoint), observer=Seen())
        try:
            await until(lambda: any(named in trouble for trouble in core.troubles()))
            client.execute_command(*mend.get(breakage[0], ("FUNCTION", "FLUSH")))
            await until(lambda: not core.troubles())
        finally:
            client.execute_command(*mend["CONFIG"])
            client.execute_command(*mend["REPLICAOF"])
            await core.close()


async def test_a_valkey_that_would_load_a_part_of_a_claim_is_refused(tmp_path: Path, valkey_endpoint: str) -> None:
    SqliteLog.create(tmp_path / LOG_FILE, 1, "test", wall_ms())
    with redis.Redis.from_url(valkey_endpoint) as client:
        client.config_set("appendonly", "yes")
        core = await open_core(tmp_path, KEYS, connect=lambda: connector(valkey_endpoint), observer=Seen())
        try:
            await until(lambda: any("aof-load-truncated is yes" in trouble for trouble in core.troubles()))
            client.config_set("aof-load-truncated", "no")
            await until(lambda: not core.troubles())
        finally:
            client.config_set("appendonly", "no")
            client.config_set("aof-load-truncated", "yes")
            await core.close()


async def test_codes_that_an_unrecovered_valkey_lacks_count_as_no_guesses(tmp_path: Path, valkey_endpoint: str) -> None:
    code = typed_code(123_456_789_012_345)
    async with world(tmp_path, valkey_endpoint) as w:
        imported = await w.core.desk.import_codes("test", "cake", [code], "r1")
        assert not isinstance(imported, Rejected)
    with redis.Redis.from_url(valkey_endpoint) as client:
        client.flushall()
        client.set("{0}head", b"t" * 16 + b"999")  # so that it stays as it is: halted
    core = await open_core(tmp_path, KEYS, connect=lambda: connector(valkey_endpoint), observer=Seen())
    w = World(core, Seen())
    try:
        await until(lambda: core.lanes[0].state is LaneState.HALTED and core.control.is_confirmed())
        for _ in range(GUESSES_MAX + 1):
            assert await w.verdict(1, w.scan(code)) is Verdict.UNRESOLVED
        await core.redeemer.close()
        assert w.directory.terminals[1].locked_until_ms == 0
    finally:
        await core.close()


async def test_a_paused_valkey_answers_nobody_and_is_taken_again(tmp_path: Path, valkey_endpoint: str) -> None:
    async with world(tmp_path, valkey_endpoint) as w:
        codes = await w.codes(2)
        with redis.Redis.from_url(valkey_endpoint) as client:
            client.execute_command("CLIENT", "PAUSE", 60_000, "WRITE")
            scan = w.scan(codes[0])
            asked = asyncio.ensure_future(w.verdict(1, scan))
            assert await asked is Verdict.UNRESOLVED
            client.execute_command("CLIENT", "UNPAUSE")
        await w.ready()
        assert await w.verdict(1, scan) in (Verdict.ACCEPTED, Verdict.REPEATED)
        assert await state_equals_fold(w, valkey_endpoint)


async def test_the_fence_stands_in_the_log_after_a_loss(tmp_path: Path, valkey_endpoint: str) -> None:
    async with world(tmp_path, valkey_endpoint) as w:
        (code,) = await w.codes(1)
        assert await w.verdict(1, w.scan(code)) is Verdict.ACCEPTED
        before = await w.core.log.head(0)
        with redis.Redis.from_url(valkey_endpoint) as client:
            client.flushall()
        w.core.lanes[0].recover("the test says so")
        await w.ready()
        fence = (await w.core.log.read(0, before.seq + 1, 1))[0]
        assert fence.verdicts == b""
        assert fence.prev == before.tip
        assert await w.core.arbiter.head(0) == Head(fence.seq, fence.tip)


class Contested(MemoryLog):
    """A log whose voucher partition another gateway is always quicker to append to, for as long as the test says so."""

    meta = Meta(LOG_FORMAT, 1, "contested", 1)

    def __init__(self) -> None:
        super().__init__(1)
        self.contested = False

    async def append(self, batches: Sequence[Batch]) -> None:
        if self.contested and batches[0].partition == 0:
            raise AppendRefused(0, batches[0].seq, await self.head(0))
        await super().append(batches)


async def test_a_recovery_that_others_keep_from_agreeing_goes_on_trying_and_says_so(
    tmp_path: Path, valkey_endpoint: str
) -> None:
    log = Contested()
    payload = encode_records([], {}, received_ms=wall_ms())
    await log.append([Batch(0, 1, ZERO_TIP, b"t" * 16, payload, b"")])
    log.contested = True
    connect = lambda: connector(valkey_endpoint)  # noqa: E731
    core = await open_core(tmp_path, KEYS, connect=connect, observer=Seen(), shared=log)
    try:
        await until(lambda: any("Trying again" in trouble for trouble in core.troubles()))
        assert core.lanes[0].state is LaneState.RECOVERING
        log.contested = False
        await until(lambda: core.lanes[0].state is LaneState.ADMITTING)
    finally:
        await core.close()
