"""What the core must not do: be an oracle, believe a Valkey that lost something, let a burst outrun a lock."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import msgspec
import pytest
import redis
from core_world import World, new_id, offer, until, wall_ms, world

from eventstore.events import CampaignClosed, CampaignCreated, CampaignPaused, CampaignPurged
from eventstore.vouchers import voucher_field, voucher_key
from gateway.control import FRESH_S, HEARD_S
from gateway.desk import VoucherState
from gateway.directory import Rejected
from gateway.guesses import GUESSES_MAX
from gateway.identity import Spot, partition_of
from gateway.lane import Asked
from gateway.ledger import Lookup
from gateway.messages import Reverse, Verdict
from gateway.pipe import ArbiterRefused
from gateway.roles import Principal

pytestmark = pytest.mark.parametrize("partitions", (1, 3))


@pytest.fixture
async def w(tmp_path: Path, valkey_endpoint: str, partitions: int) -> AsyncIterator[World]:
    async with world(tmp_path, valkey_endpoint, partitions=partitions) as made:
        yield made


async def test_a_reversal_is_no_oracle_for_codes(w: World) -> None:
    scans = [w.scan(f"guess {n}") for n in range(GUESSES_MAX)]
    for scan in scans:
        assert await w.reverse(1, Reverse(new_id(), scan.redemption_id, wall_ms(), scan)) is Verdict.NOT_FOUND
    (code,) = await w.codes(1)
    scan = w.scan(code)
    assert await w.reverse(1, Reverse(new_id(), scan.redemption_id, wall_ms(), scan)) is Verdict.TERMINAL_LOCKED
    assert await w.verdict(2, w.scan(code)) is Verdict.ACCEPTED


async def test_a_store_the_campaign_is_not_for_cannot_settle_ids_on_its_vouchers(w: World) -> None:
    (code,) = await w.codes(1)
    scan = w.scan(code)
    assert await w.reverse(3, Reverse(new_id(), scan.redemption_id, wall_ms(), scan)) is Verdict.NOT_FOUND
    assert (await w.core.desk.voucher(1, 1)).settled == []


async def test_a_supervisor_leaves_no_tombstone_for_a_till(w: World) -> None:
    (code,) = await w.codes(1)
    scan = w.scan(code)
    answered: asyncio.Future[Asked] = asyncio.get_running_loop().create_future()
    supervisor = Principal("supervisor", "m1")
    undo = Reverse(new_id(), scan.redemption_id, wall_ms(), scan)
    await w.core.reversals.reverse(supervisor, 0, [undo], answered.set_result)
    assert (await answered).codes[0] == Verdict.NOT_FOUND
    assert await w.verdict(1, scan) is Verdict.ACCEPTED


async def test_what_valkey_lost_is_not_told_as_true(w: World, valkey_endpoint: str) -> None:
    (code,) = await w.codes(1)
    scan = w.scan(code)
    assert await w.verdict(1, scan) is Verdict.ACCEPTED
    assert await w.reverse(1, Reverse(new_id(), scan.redemption_id, wall_ms(), scan)) is Verdict.ACCEPTED
    with redis.Redis.from_url(valkey_endpoint) as client:
        client.flushall()
    with pytest.raises(ArbiterRefused):
        await w.core.desk.find(scan.redemption_id)


async def test_a_purge_does_not_make_a_reversed_redemption_stand(w: World) -> None:
    brief = offer(
        starts_ms=wall_ms() - 9_000_000, ends_ms=wall_ms() + 60_000, dispute_ms=60_000, reversal_window_ms=60_000
    )
    await w.write(CampaignCreated(campaign=2, slug="brief", offer=brief))
    one, two = [w.scan(code) for code in await w.codes(2, "brief")]
    for scan in (one, two):
        assert await w.verdict(1, scan) is Verdict.ACCEPTED
    assert await w.reverse(1, Reverse(new_id(), one.redemption_id, wall_ms(), one)) is Verdict.ACCEPTED
    campaign = w.directory.campaigns[2]
    w.directory.campaigns[2] = msgspec.structs.replace(campaign, purged=True)  # the dispute period is a long wait
    undone = [await w.core.desk.find(scan.redemption_id) for scan in (one, two)]
    assert [found is not None and found.undone is not None for found in undone] == [True, False]


async def test_nothing_of_a_purged_campaign_changes_any_more(w: World, valkey_endpoint: str) -> None:
    """Valkey has forgotten it all, and would take what was redeemed for unused and what was registered for new."""
    short = offer(dispute_ms=1000, reversal_window_ms=1000)
    await w.write(CampaignCreated(campaign=2, slug="short", offer=short))
    code, back = await w.codes(2, "short")
    await w.core.desk.import_codes("op", "short", ["S-1"], "i1")
    scan, unheard, undone = w.scan(code), w.scan("S-1"), w.scan(back)
    undo = Reverse(new_id(), undone.redemption_id, wall_ms(), undone)
    assert await w.verdict(1, scan) is await w.verdict(1, undone) is Verdict.ACCEPTED
    assert await w.reverse(1, undo) is Verdict.ACCEPTED
    await w.write(CampaignClosed(campaign=2))
    assert await w.core.desk.purge("op", "short") == 1
    rows = [(await w.core.log.head(lane.partition)).seq for lane in w.core.lanes]
    assert isinstance(await w.core.desk.import_codes("op", "short", ["S-1"], "i1"), Rejected)
    spot = await w.core.desk.identify(code)
    assert isinstance(spot, Spot)
    assert isinstance(await w.core.desk.void("op", 2, spot.serial, "why not", "v1"), Rejected)
    with redis.Redis.from_url(valkey_endpoint) as client:  # what a replay of its reversal makes of nothing
        key = voucher_key(partition_of(2, spot.serial, len(w.core.lanes)), 2, spot.serial)
        client.hset(key, voucher_field(spot.serial), b"r" + bytes(11))
    assert await w.core.desk.voucher(2, spot.serial) == VoucherState(None, [])
    assert rows == [(await w.core.log.head(lane.partition)).seq for lane in w.core.lanes], "nothing was logged"
    assert await w.reverse(1, undo) is Verdict.ACCEPTED, "as it was told before"
    campaign = w.directory.campaigns[2]
    slow_clock = msgspec.structs.replace(campaign.offer, reversal_window_ms=60_000)  # as good as one
    w.directory.campaigns[2] = msgspec.structs.replace(campaign, offer=slow_clock)
    assert await w.reverse(1, Reverse(new_id(), scan.redemption_id, wall_ms(), scan)) is Verdict.WINDOW_OVER
    assert await w.reverse(1, Reverse(new_id(), unheard.redemption_id, wall_ms(), unheard)) is Verdict.NOT_FOUND
    unseen = w.scan(code)
    assert await w.reverse(1, Reverse(new_id(), unseen.redemption_id, wall_ms(), unseen)) is Verdict.WINDOW_OVER


async def test_what_waited_for_another_batch_while_its_campaign_was_purged_is_not_claimed(
    w: World, valkey_endpoint: str
) -> None:
    """Valkey may have forgotten by then, however soon this gateway heard of the purge."""
    await w.write(CampaignCreated(campaign=2, slug="short", offer=offer(dispute_ms=0, reversal_window_ms=0)))
    (code,) = await w.codes(1, "short")
    spot = await w.core.desk.identify(code)
    assert isinstance(spot, Spot)
    await w.write(CampaignClosed(campaign=2))
    lane = w.core.lanes[partition_of(spot.campaign, spot.serial, len(w.core.lanes))]
    with redis.Redis.from_url(valkey_endpoint) as client:
        client.execute_command("CLIENT", "PAUSE", 60_000, "WRITE")
        first = asyncio.create_task(w.verdict(1, w.scan(code)))
        await until(lambda: bool(lane.under_way))
        voided = asyncio.create_task(w.core.desk.void("op", 2, spot.serial, "why not", "v1"))
        await until(lambda: bool(lane._waiting))
        await w.write(CampaignPurged(campaign=2))
        client.execute_command("CLIENT", "UNPAUSE")
    assert await first is Verdict.CLOSED
    assert await voided is Verdict.UNRESOLVED


async def test_a_rebuild_forgets_nothing_before_everybody_has_heard_of_a_purge(w: World, valkey_endpoint: str) -> None:
    await w.write(CampaignCreated(campaign=2, slug="short", offer=offer(dispute_ms=0, reversal_window_ms=0)))
    (code,) = await w.codes(1, "short")
    assert await w.verdict(1, w.scan(code)) is Verdict.ACCEPTED
    await w.write(CampaignClosed(campaign=2))
    await w.write(CampaignPurged(campaign=2))
    with redis.Redis.from_url(valkey_endpoint) as client:
        client.flushall()
    for lane in w.core.lanes:
        lane.recover("the test says so")
    await w.ready()
    assert w.core.control.purged_for_s(2) >= HEARD_S


async def test_what_was_taken_before_the_process_stood_still_is_not_claimed_after(w: World) -> None:
    (code,) = await w.codes(1)
    scan, answered = w.scan(code), asyncio.get_running_loop().create_future()
    w.core.redeemer.redeem(w.directory.terminals[1], [scan], answered.set_result)
    time.sleep(FRESH_S + 0.1)  # noqa: ASYNC251 - all of it stands still
    assert (await answered).codes == bytes([Verdict.UNRESOLVED])
    assert [(await w.core.arbiter.head(lane.partition)).seq for lane in w.core.lanes] == [0] * len(w.core.lanes)
    await until(w.core.control.is_confirmed)
    assert await w.verdict(1, scan) is Verdict.ACCEPTED


async def test_a_burst_of_guesses_does_not_outrun_the_lock(w: World) -> None:
    answers = await asyncio.gather(*(w.redeem(1, *(w.scan(f"guess {m}/{n}") for n in range(100))) for m in range(3)))
    verdicts = [Verdict(byte) for answer in answers for byte in answer.codes]
    assert verdicts.count(Verdict.UNKNOWN_CODE) == GUESSES_MAX
    assert verdicts.count(Verdict.TERMINAL_LOCKED) == 300 - GUESSES_MAX


async def test_a_retry_is_no_second_guess(w: World) -> None:
    scan = w.scan("guess")
    for _ in range(GUESSES_MAX * 2):
        assert await w.verdict(1, scan) is Verdict.UNKNOWN_CODE


async def test_the_slow_way_judges_after_its_last_wait(w: World) -> None:
    (code,) = await w.codes(1)
    gate, entered = asyncio.Event(), asyncio.Event()
    real = w.core.ledger.find_many

    async def held(redemption_ids: Sequence[bytes]) -> Lookup:
        entered.set()
        await gate.wait()
        return await real(redemption_ids)

    w.core.redeemer._used = type("Held", (), {"find_many": staticmethod(held)})()
    asked = asyncio.ensure_future(w.verdict(1, w.scan(code, b"\x11" * 16)))
    await entered.wait()
    await w.write(CampaignPaused(campaign=1))
    gate.set()
    assert await asked is Verdict.PAUSED


async def test_one_import_request_with_other_codes_shares_no_serials(w: World) -> None:
    for code in ("A-1", "B-1"):
        results = await w.core.desk.import_codes("op", "cake", [code], "same")
        assert not isinstance(results, Rejected)
        assert await w.verdict(1, w.scan(code)) is Verdict.ACCEPTED


async def test_an_id_dated_ahead_is_known_after_a_restart(
    tmp_path: Path, valkey_endpoint: str, partitions: int
) -> None:
    async with world(tmp_path, valkey_endpoint, partitions=partitions) as w:
        one, *rest = await w.codes(300)
        ahead = (wall_ms() + 5_000).to_bytes(6, "big") + b"\x70" + bytes(9)
        assert await w.verdict(1, w.scan(one, ahead)) is Verdict.ACCEPTED
        for code in rest:
            await w.redeem(1, w.scan(code))
    async with world(tmp_path, valkey_endpoint) as w:
        assert await w.verdict(1, w.scan(rest[-1], ahead)) is Verdict.ID_REUSED
        await until(lambda: w.core.redeemer.recent.get(ahead) is not None)
        fresh = new_id()
        await until(lambda: not w.core.redeemer.recent.is_strange(fresh))
