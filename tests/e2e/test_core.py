"""The main job without doors: scans in, verdicts out, on a real log and a real Valkey."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import redis
from core_world import World, new_id, offer, until, wall_ms, world

from eventstore.events import CampaignClosed, CampaignCreated, CampaignPaused, TerminalRevoked
from eventstore.vouchers import apply_batch, empty_state
from gateway.codes import typed_code
from gateway.control import FRESH_S, HEARD_S
from gateway.directory import Rejected
from gateway.guesses import GUESSES_MAX
from gateway.messages import Redeem, Reverse, Verdict
from gateway.preview import Previewed, preview
from gateway.recovery import Branch, Recovered, fold_log

pytestmark = pytest.mark.parametrize("partitions", (1, 3))


@pytest.fixture
async def w(tmp_path: Path, valkey_endpoint: str, partitions: int) -> AsyncIterator[World]:
    async with world(tmp_path, valkey_endpoint, partitions=partitions) as made:
        yield made


def live_state(url: str) -> dict[bytes, dict[bytes, bytes]]:
    with redis.Redis.from_url(url) as client:
        keys = [key for key in client.keys(b"*") if b"}v" in key or b"}r" in key]
        return {key: client.hgetall(key) for key in keys}


async def folded_state(w: World) -> dict[bytes, dict[bytes, bytes]]:
    state = empty_state(w.core.log.partitions)
    for partition in range(w.core.log.partitions):
        head = await w.core.log.head(partition)
        for batch in await w.core.log.read(partition, 1, head.seq):
            apply_batch(state, batch)
    return state.hashes


async def test_a_voucher_is_accepted_once_and_a_retry_hears_the_same(w: World) -> None:
    code, other = await w.codes(2)
    scan = w.scan(code)
    first = await w.redeem(1, scan)
    again = await w.redeem(1, scan)
    assert (first.codes[0], again.codes[0]) == (Verdict.ACCEPTED, Verdict.REPEATED)
    late = await w.redeem(2, w.scan(code))
    assert late.codes[0] == Verdict.ALREADY_REDEEMED
    assert late.told[0][17:21] == (1).to_bytes(4, "big")
    assert await w.verdict(2, w.scan(other)) is Verdict.ACCEPTED


async def test_everyone_races_for_one_code_and_one_wins(w: World) -> None:
    (code,) = await w.codes(1)
    answers = await asyncio.gather(*(w.redeem(1 + n % 2, w.scan(code)) for n in range(100)))
    verdicts = [answer.codes[0] for answer in answers]
    assert sorted(set(verdicts)) == [Verdict.ACCEPTED, Verdict.ALREADY_REDEEMED]
    assert verdicts.count(Verdict.ACCEPTED) == 1
    winner = answers[verdicts.index(Verdict.ACCEPTED)]
    told = {answer.told[0] for answer in answers if answer is not winner}
    assert len(told) == 1
    assert told.pop()[21:27] == winner.at_ms.to_bytes(6, "big")


async def test_one_message_may_hold_the_same_code_twice(w: World) -> None:
    (code,) = await w.codes(1)
    answer = await w.redeem(1, w.scan(code), w.scan("T1garbage"), w.scan(code))
    assert list(answer.codes) == [Verdict.ACCEPTED, Verdict.UNREADABLE, Verdict.ALREADY_REDEEMED]
    assert "character" in answer.notes[1]


async def test_an_id_with_another_body_terminal_or_voucher_is_reused(w: World) -> None:
    one, two = await w.codes(2)
    scan = w.scan(one)
    assert await w.verdict(1, scan) is Verdict.ACCEPTED
    assert await w.verdict(1, w.scan(two, scan.redemption_id)) is Verdict.ID_REUSED
    assert await w.verdict(2, scan) is Verdict.ID_REUSED
    changed = Redeem(scan.redemption_id, one, scan.scanned_ms, 1, "receipt-1")
    assert await w.verdict(1, changed) is Verdict.ID_REUSED
    assert await w.verdict(1, scan) is Verdict.REPEATED


async def test_an_id_from_before_memory_is_looked_up(w: World) -> None:
    one, two = await w.codes(2)
    old_id = bytes(6) + b"\x70" + bytes(9)  # UUIDv7 of 1970: below every floor
    plain_id = b"\x11" * 16  # not a UUIDv7
    assert await w.verdict(1, w.scan(one, old_id)) is Verdict.ACCEPTED
    assert await w.verdict(1, w.scan(two, plain_id)) is Verdict.ACCEPTED
    w.core.redeemer.recent._young.clear()
    w.core.redeemer.recent._floor = new_id()
    assert await w.verdict(1, w.scan(two, old_id)) is Verdict.ID_REUSED
    assert await w.verdict(1, w.scan(one, plain_id)) is Verdict.ID_REUSED
    assert await w.verdict(1, w.scan(one, old_id)) is Verdict.REPEATED


async def test_rules_refuse_but_a_repeat_hears_its_first_answer(w: World) -> None:
    code, other = await w.codes(2)
    scan = w.scan(code)
    assert await w.verdict(3, w.scan(code)) is Verdict.NOT_ELIGIBLE
    assert await w.verdict(1, scan) is Verdict.ACCEPTED
    await w.write(CampaignPaused(campaign=1))
    assert await w.verdict(1, w.scan(other)) is Verdict.PAUSED
    assert await w.verdict(1, scan) is Verdict.REPEATED
    assert await w.verdict(1, w.scan(code)) is Verdict.ALREADY_REDEEMED


async def test_expired_and_unissued_and_forged(w: World) -> None:
    now_ms = wall_ms()
    await w.write(CampaignCreated(campaign=2, slug="old", offer=offer(ends_ms=now_ms - 1, starts_ms=now_ms - 9)))
    (expired,) = await w.codes(1, "old")
    await w.codes(1)
    unissued = next(w.core.ring.mint(1, 1, 77, 1))
    nowhere = next(w.core.ring.mint(1, 99, 1, 1))
    forged = unissued[:-1] + ("0" if unissued[-1] != "0" else "1")
    answer = await w.redeem(1, *(w.scan(code) for code in (expired, unissued, nowhere, forged, "", "foreign-7")))
    names = [Verdict(byte).name for byte in answer.codes]
    assert names == ["EXPIRED", "NOT_ISSUED", "NOT_ISSUED", "FORGED", "UNREADABLE", "UNKNOWN_CODE"]


async def test_a_reversal_frees_the_voucher_and_the_late_retry_stays_reversed(w: World) -> None:
    (code,) = await w.codes(1)
    scan = w.scan(code)
    assert await w.verdict(1, scan) is Verdict.ACCEPTED
    assert await w.reverse(2, Reverse(new_id(), scan.redemption_id, wall_ms(), scan)) is Verdict.NOT_YOURS
    undo = Reverse(new_id(), scan.redemption_id, wall_ms(), scan)
    assert await w.reverse(1, undo) is Verdict.ACCEPTED
    assert await w.reverse(1, undo) is Verdict.REPEATED
    assert await w.verdict(1, scan) is Verdict.REVERSED
    assert await w.verdict(2, w.scan(code)) is Verdict.ACCEPTED
    found = await w.core.desk.find(scan.redemption_id)
    assert found is not None
    assert found.undone is not None


async def test_a_reversal_that_overtakes_leaves_a_tombstone(w: World) -> None:
    (code,) = await w.codes(1)
    scan = w.scan(code)
    assert await w.reverse(1, Reverse(new_id(), scan.redemption_id, wall_ms(), None)) is Verdict.NOT_FOUND
    assert await w.reverse(1, Reverse(new_id(), scan.redemption_id, wall_ms(), scan)) is Verdict.TOMBSTONED
    assert await w.verdict(1, scan) is Verdict.REVERSED
    assert await w.verdict(1, w.scan(code)) is Verdict.ACCEPTED


async def test_ten_reversals_wear_a_voucher_out(w: World) -> None:
    (code,) = await w.codes(1)
    for _ in range(10):
        scan = w.scan(code)
        assert await w.verdict(1, scan) is Verdict.ACCEPTED
        assert await w.reverse(1, Reverse(new_id(), scan.redemption_id, wall_ms(), scan)) is Verdict.ACCEPTED
    assert await w.verdict(1, w.scan(code)) is Verdict.TOO_MANY_REVERSALS


async def test_void_ends_an_unredeemed_voucher_only(w: World) -> None:
    one, two = await w.codes(2)
    assert await w.core.desk.void("op", 1, 1, "lost", "v1") is Verdict.VOIDED
    assert await w.core.desk.void("op", 1, 1, "lost", "v1") is Verdict.VOIDED
    assert await w.verdict(1, w.scan(one)) is Verdict.VOIDED
    assert await w.verdict(1, w.scan(two)) is Verdict.ACCEPTED
    assert await w.core.desk.void("op", 1, 2, "lost", "v2") is Verdict.ALREADY_REDEEMED
    assert isinstance(await w.core.desk.void("op", 1, 3, "lost", "v3"), Rejected)


async def test_typed_and_foreign_codes_are_registered_and_redeemed(w: World) -> None:
    codes = [typed_code(123_456_789_012_345), "GROUPON-77/8", "T1notours", "1234567890123456"]
    results = await w.core.desk.import_codes("op", "cake", codes, "i1")
    assert not isinstance(results, Rejected)
    assert [r.verdict.name for r in results] == ["ACCEPTED", "ACCEPTED", "UNREADABLE", "UNREADABLE"]
    again = await w.core.desk.import_codes("op", "cake", codes, "i1")
    assert not isinstance(again, Rejected)
    assert [r.verdict.name for r in again][:2] == ["REPEATED", "REPEATED"]
    await w.write(CampaignCreated(campaign=2, slug="tea", offer=offer()))
    other = await w.core.desk.import_codes("op", "tea", codes[:1], "i1")
    assert not isinstance(other, Rejected)
    assert other[0].verdict is Verdict.DUPLICATE
    grouped = f"{codes[0][:4]}-{codes[0][4:8]} {codes[0][8:12]}-{codes[0][12:]}\r\n"
    answer = await w.redeem(1, w.scan(grouped), w.scan(codes[1]))
    assert [Verdict(byte).name for byte in answer.codes] == ["ACCEPTED", "ACCEPTED"]
    assert await w.verdict(2, w.scan(codes[1])) is Verdict.ALREADY_REDEEMED


async def test_guessing_locks_the_terminal(w: World) -> None:
    (code,) = await w.codes(1)
    for n in range(GUESSES_MAX):
        assert await w.verdict(1, w.scan(f"guess {n}")) is Verdict.UNKNOWN_CODE
    await until(lambda: w.directory.terminals[1].locked_until_ms > wall_ms())
    assert await w.verdict(1, w.scan(code)) is Verdict.TERMINAL_LOCKED
    assert await w.verdict(2, w.scan(code)) is Verdict.ACCEPTED


async def test_valkey_wiped_under_a_running_gateway_is_rebuilt(w: World, valkey_endpoint: str) -> None:
    codes = await w.codes(40)
    for code in codes[:20]:
        assert await w.verdict(1, w.scan(code)) is Verdict.ACCEPTED
    before = live_state(valkey_endpoint)
    with redis.Redis.from_url(valkey_endpoint) as client:
        client.flushall()
    outcomes = {await w.verdict(1, w.scan(code)) for code in codes[:20]}
    assert outcomes <= {Verdict.UNRESOLVED, Verdict.ALREADY_REDEEMED}
    for lane in w.core.lanes:
        lane.recover("the test says so")
    await w.ready()
    assert [await w.verdict(1, w.scan(code)) for code in codes[:20]] == [Verdict.ALREADY_REDEEMED] * 20
    assert live_state(valkey_endpoint) == before == await folded_state(w)


async def test_a_wiped_valkey_is_rebuilt_though_nobody_claims(w: World, valkey_endpoint: str) -> None:
    """Where every code is typed, what Valkey has forgotten is only ever looked up."""
    code = typed_code(123_456_789_012_345)
    await w.core.desk.import_codes("op", "cake", [code], "i1")
    with redis.Redis.from_url(valkey_endpoint) as client:
        client.flushall()
    scan, verdict = w.scan(code), Verdict.UNRESOLVED
    async with asyncio.timeout(10):
        while verdict is Verdict.UNRESOLVED:
            verdict = await w.verdict(1, scan)
    assert verdict is Verdict.ACCEPTED


async def test_valkey_that_lost_its_tail_is_replayed(w: World, valkey_endpoint: str) -> None:
    codes = await w.codes(30)
    assert await w.verdict(1, w.scan(codes[0])) is Verdict.ACCEPTED
    with redis.Redis.from_url(valkey_endpoint) as client:
        dumps = {key: client.dump(key) for key in client.keys(b"*")}
        for code in codes[1:]:
            assert await w.verdict(1, w.scan(code)) is Verdict.ACCEPTED
        w.seen.outcomes.clear()
        client.flushall()
        for key, dump in dumps.items():
            client.restore(key, 0, dump)
        client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")  # as a restart would
    await until(lambda: len(w.seen.outcomes) >= len(w.core.lanes))
    await w.ready()
    branches = {branch for outcome in w.seen.outcomes if isinstance(outcome, Recovered) for branch in outcome.branches}
    assert branches <= {Branch.BEHIND, Branch.READY}
    assert Branch.BEHIND in branches
    assert live_state(valkey_endpoint) == await folded_state(w)
    assert await w.verdict(2, w.scan(codes[-1])) is Verdict.ALREADY_REDEEMED


async def test_live_state_equals_the_fold_after_everything(w: World, valkey_endpoint: str) -> None:
    codes = await w.codes(50)
    scans = [w.scan(code) for code in codes]
    await w.redeem(1, *scans)
    for scan in scans[:5]:
        await w.reverse(1, Reverse(new_id(), scan.redemption_id, wall_ms(), scan))
    await w.redeem(2, *(w.scan(code) for code in codes[:3]))
    await w.core.desk.import_codes("op", "cake", [f"F-{n}" for n in range(100)], "i1")
    await w.core.desk.void("op", 1, 4, "lost", "v1")
    assert live_state(valkey_endpoint) == await folded_state(w)


async def test_a_revoked_terminal_is_nobody(w: World) -> None:
    await w.write(TerminalRevoked(terminal=1))
    assert w.directory.principal_of_terminal(1) is None


@pytest.mark.parametrize("few_records", (0, 50_000), ids=("in columns", "record by record"))
async def test_a_purged_campaign_is_forgotten_by_valkey_and_by_a_rebuild(
    w: World, valkey_endpoint: str, few_records: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.recovery.FEW_RECORDS", few_records)
    long_ago = wall_ms() - 9_000_000
    brief = offer(starts_ms=long_ago, ends_ms=wall_ms() + 1000, dispute_ms=0, reversal_window_ms=0)
    await w.write(CampaignCreated(campaign=2, slug="brief", offer=brief))
    gone, kept = await w.codes(2, "brief"), await w.codes(2)
    assert not isinstance(await w.core.desk.import_codes("op", "brief", ["B-1", "B-2"], "i1"), Rejected)
    for code in (*gone, *kept, "B-1"):
        assert await w.verdict(1, w.scan(code)) is Verdict.ACCEPTED
    assert isinstance(await w.core.desk.purge("op", "brief"), Rejected), "it is not closed"
    await w.write(CampaignClosed(campaign=2))
    closed_s = time.monotonic()
    assert await w.core.desk.purge("op", "brief") == 1
    assert HEARD_S > FRESH_S, "a gateway that has not heard of the close could still redeem"
    assert time.monotonic() - closed_s > 2 * HEARD_S - FRESH_S, "first the close is heard of, then the purge"
    assert await w.verdict(1, w.scan(gone[0])) is Verdict.CLOSED
    again = await w.core.desk.import_codes("op", "cake", ["B-1"], "i2")
    assert not isinstance(again, Rejected)
    assert [one.verdict for one in again] == [Verdict.ACCEPTED]

    async def purged() -> frozenset[int]:
        return w.core.control.purged()

    for lane in w.core.lanes:
        folded = await fold_log(w.core.log, lane.partition, purged)
        await w.core.arbiter.rebuild(lane.partition, folded.hashes, folded.head, b"t" * 16)
    assert not any(b"v2:" in key for key in live_state(valkey_endpoint))
    assert sum(len(fields) for fields in live_state(valkey_endpoint).values()) == 3, "two vouchers and a code"
    assert await w.verdict(2, w.scan(kept[0])) is Verdict.ALREADY_REDEEMED
    assert await w.verdict(2, w.scan("B-1")) is Verdict.ACCEPTED


async def previewing(w: World, code: str) -> Previewed:
    return await preview(w.core.desk, w.core.redeemer, w.directory.terminals[1], code)


async def test_guessing_by_preview_locks_the_terminal_as_well(w: World) -> None:
    for n in range(GUESSES_MAX):
        previewed = await previewing(w, f"guess {n}")
        assert previewed.verdict is Verdict.UNKNOWN_CODE
    await until(lambda: w.directory.terminals[1].locked_until_ms > wall_ms())
    assert (await previewing(w, "guess")).verdict is Verdict.TERMINAL_LOCKED


async def test_a_lookup_right_after_the_answer_finds_it(w: World) -> None:
    for code in await w.codes(5):
        scan = w.scan(code)
        assert await w.verdict(1, scan) is Verdict.ACCEPTED
        found = await w.core.desk.find(scan.redemption_id)
        assert found is not None
        assert found.verdict == Verdict.ACCEPTED
