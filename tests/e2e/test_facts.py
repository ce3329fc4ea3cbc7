"""Facts, on a real log and a real Valkey: each is logged once, and what lost is a conflict that names both."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
from core_world import World, new_id, offer, until, wall_ms, world
from facts_world import POLICY, SIGNER, codes, fact_of, places_of, rows, tell

from eventstore.events import (
    CampaignClosed,
    CampaignCreated,
    TerminalRevoked,
)
from eventstore.log import CONTROL
from eventstore.offline_events import OfflineConflict
from eventstore.sqlite_file import row_id
from gateway.codes import CodeKeys, KeyRing
from gateway.core import LOG_FILE
from gateway.directory import Rejected
from gateway.ids import RecentIds
from gateway.lane import LaneState
from gateway.messages import Fact, Reverse, Verdict
from gateway.offline_codes import OfflineKeys
from gateway.offline_rules import Outage
from gateway.pipe import ArbiterLost

pytestmark = pytest.mark.parametrize("partitions", (1, 3))


@pytest.fixture
async def w(tmp_path: Path, valkey_endpoint: str, partitions: int) -> AsyncIterator[World]:
    async with world(tmp_path, valkey_endpoint, partitions=partitions) as made:
        if 2 not in made.directory.campaigns:
            await made.write(CampaignCreated(campaign=2, slug="tea", offer=offer(offline=POLICY)))
        yield made


async def test_a_fact_holds_its_voucher_and_later_ones_are_conflicts_that_name_both(w: World) -> None:
    (code,) = await codes(w, 1)
    first, second = fact_of(code), fact_of(code)
    assert (await tell(w, 1, first)).codes == bytes([Verdict.ACCEPTED])
    lost = await tell(w, 2, second)
    assert lost.codes == bytes([Verdict.CONFLICT])
    assert lost.told[0][17:21] == (1).to_bytes(4, "big")
    (event,) = w.directory.conflicts.values()
    assert (event.redemption_id, event.terminal, event.store) == (second.redeem.redemption_id, 2, "s2")
    assert (event.accepted_ms, event.place) == (second.accepted_ms, lost.places[0][1:4])
    assert (event.first_kind, event.first_terminal, event.first_store) == ("redeemed", 1, "s1")
    assert await w.verdict(1, w.scan(code)) is Verdict.ALREADY_REDEEMED


async def test_replays_in_any_order_change_nothing_and_name_the_same(w: World) -> None:
    (code,) = await codes(w, 1)
    facts = [fact_of(code) for _ in range(3)]
    first = [(await tell(w, 1 + n % 2, fact)).codes[0] for n, fact in enumerate(facts)]
    assert first == [Verdict.ACCEPTED, Verdict.CONFLICT, Verdict.CONFLICT]
    before = await w.core.log.head(CONTROL)
    for n, fact in reversed(list(enumerate(facts))):
        again = await tell(w, 1 + n % 2, fact, fact)
        assert {bytes([code]) for code in again.codes} <= (
            {b"\x02"} if n == 0 else {bytes([Verdict.CONFLICT]), bytes([Verdict.CONFLICT_AGAIN])}
        )
        assert n == 0 or all(entry[17:21] == (1).to_bytes(4, "big") for entry in again.told.values())
    assert await w.core.log.head(CONTROL) == before
    logged = [(name, verdict) for name, verdict, offline in await rows(w) if offline and verdict != Verdict.REPEATED]
    assert len(logged) == 3


async def test_the_same_fact_on_many_lines_at_once_is_logged_once(w: World) -> None:
    (code,) = await codes(w, 1)
    await tell(w, 1, fact_of(code))
    fact = fact_of(code)
    answers = await asyncio.gather(*(tell(w, 2, fact) for _ in range(20)))
    told = [answer.codes[0] for answer in answers]
    assert set(told) <= {Verdict.CONFLICT, Verdict.CONFLICT_AGAIN}
    logged = [verdict for name, verdict, _ in await rows(w) if name == fact.redeem.redemption_id]
    assert logged.count(Verdict.CONFLICT) == 1
    assert len(w.directory.conflicts) == 1


async def test_a_scan_and_its_fact_are_one_redemption(w: World) -> None:
    code, other = await codes(w, 2)
    scan = w.scan(code)
    fact = Fact(scan, scan.scanned_ms, scan.scanned_ms - 1)
    assert await w.verdict(1, scan) is Verdict.ACCEPTED
    assert (await tell(w, 1, fact)).codes == bytes([Verdict.REPEATED])
    late = w.scan(other)
    assert await w.verdict(2, w.scan(other)) is Verdict.ACCEPTED
    assert await w.verdict(1, late) is Verdict.ALREADY_REDEEMED
    assert (await tell(w, 1, Fact(late, late.scanned_ms, late.scanned_ms))).codes == bytes([Verdict.CONFLICT])
    assert await w.verdict(1, late) is Verdict.CONFLICT_AGAIN


async def test_a_reversal_that_overtakes_its_fact_stands(w: World) -> None:
    (code,) = await codes(w, 1)
    fact = fact_of(code)
    undo = Reverse(new_id(), fact.redeem.redemption_id, wall_ms(), fact.redeem)
    assert await w.reverse(1, undo) is Verdict.TOMBSTONED
    assert (await tell(w, 1, fact)).codes == bytes([Verdict.REVERSED])
    assert await w.verdict(2, w.scan(code)) is Verdict.ACCEPTED


async def test_a_conflict_stays_one_when_the_winner_is_reversed(w: World) -> None:
    (code,) = await codes(w, 1)
    won, lost = w.scan(code), fact_of(code)
    assert await w.verdict(1, won) is Verdict.ACCEPTED
    assert (await tell(w, 2, lost)).codes == bytes([Verdict.CONFLICT])
    assert await w.reverse(1, Reverse(new_id(), won.redemption_id, wall_ms())) is Verdict.ACCEPTED
    assert (await tell(w, 2, lost)).codes[0] in (Verdict.CONFLICT, Verdict.CONFLICT_AGAIN)
    assert await w.verdict(2, w.scan(code)) is Verdict.ACCEPTED


async def test_a_conflict_told_late_names_who_held_the_voucher_then_though_all_of_it_was_one_batch(w: World) -> None:
    """Redeemed, lost against, reversed and accepted again within one batch; and the gateway died before the event."""
    (code,) = await codes(w, 1)
    won, lost, last = w.scan(code), fact_of(code), fact_of(code)
    busy = asyncio.ensure_future(asyncio.sleep(60))
    for lane in w.core.lanes:
        lane.under_way.add(busy)  # so that everything gathers
    w.core.facts._report, report = died, w.core.facts._report  # type: ignore[method-assign]
    asked = []
    for count, one in enumerate(
        (
            w.verdict(1, won),
            tell(w, 2, lost),
            w.reverse(1, Reverse(new_id(), won.redemption_id, wall_ms(), won)),
            tell(w, 2, last),
        ),
        1,
    ):
        asked.append(asyncio.ensure_future(one))
        await until(lambda count=count: sum(len(lane._forming.records) for lane in w.core.lanes) == count)
    for lane in w.core.lanes:
        lane.under_way.discard(busy)
        lane._flush()
    busy.cancel()
    await asyncio.gather(*asked)
    assert [verdict for name, verdict, _ in await rows(w) if name == lost.redeem.redemption_id] == [Verdict.CONFLICT]
    w.core.facts._report = report  # type: ignore[method-assign]
    assert (await tell(w, 2, lost)).codes == bytes([Verdict.CONFLICT_AGAIN])
    (event,) = w.directory.conflicts.values()
    assert (event.redemption_id, event.first_terminal) == (lost.redeem.redemption_id, 1)


async def died(*_: object) -> None:
    raise ArbiterLost("the gateway died here")


async def test_a_conflict_whose_winner_cannot_be_read_halts_its_partition(tmp_path: Path, w: World) -> None:
    (code,) = await codes(w, 1)
    won, lost = w.scan(code), fact_of(code)
    _, partition, seq, _, _ = (await w.redeem(1, won)).places[0]
    w.core.facts._report, report = died, w.core.facts._report  # type: ignore[method-assign]
    await tell(w, 2, lost)
    assert await w.reverse(1, Reverse(new_id(), won.redemption_id, wall_ms(), won)) is Verdict.ACCEPTED
    w.core.facts._report = report  # type: ignore[method-assign]
    with sqlite3.connect(tmp_path / LOG_FILE) as connection:
        connection.execute("UPDATE batch SET crc = crc + 1 WHERE id = ?", (row_id(partition, seq),))
    connection.close()
    assert (await tell(w, 2, lost)).codes == bytes([Verdict.UNRESOLVED])
    assert w.core.lanes[partition].state is LaneState.HALTED


async def test_a_fact_that_another_gateway_logged_is_remembered_here_too(w: World) -> None:
    code, other = await codes(w, 2)
    fact = fact_of(code, ago_ms=0)
    assert (await tell(w, 1, fact)).codes == bytes([Verdict.ACCEPTED])
    w.core.redeemer.recent = RecentIds(0)  # as in a gateway that has seen nothing of it, and trusts its memory
    assert (await tell(w, 1, fact)).codes[0] in (Verdict.ACCEPTED, Verdict.REPEATED)
    assert await w.verdict(1, w.scan(other, fact.redeem.redemption_id)) is Verdict.ID_REUSED


async def test_what_a_fact_broke_is_logged_with_it_and_takes_nothing_from_it(w: World) -> None:
    granted = await codes(w, 5)
    plain = (await w.codes(1, "tea", "more"))[0]
    outage = Outage()
    asked = await tell(w, 1, *(fact_of(code) for code in granted), outage=outage)
    assert set(asked.codes) == {Verdict.ACCEPTED}
    long_ago = fact_of(plain)
    assert (await tell(w, 1, msgspec.structs.replace(long_ago, contact_ms=0))).codes == bytes([Verdict.ACCEPTED])
    said = {name: offline.breaches for name, _, offline in await rows(w) if offline}  # type: ignore[attr-defined]
    assert sorted(said.values()) == [
        (),
        (),
        ("beyond_count", "beyond_value"),
        ("beyond_count", "beyond_value"),
        ("beyond_value",),
        ("not_signed", "beyond_minutes"),
    ]


async def test_not_allowed_closed_and_revoked_are_said(w: World) -> None:
    cake = SIGNER.signed((await w.codes(1))[0])
    (tea,) = await codes(w, 1)
    terminal = w.directory.terminals[3]  # of a store that no campaign is for
    assert (await w.core.facts.take(terminal, [fact_of(cake)], Outage())).codes == bytes([Verdict.ACCEPTED])
    await w.write(CampaignClosed(campaign=2), TerminalRevoked(terminal=3))
    fact = fact_of(tea, ago_ms=0)
    later = msgspec.structs.replace(fact, contact_ms=fact.accepted_ms)
    assert (await w.core.facts.take(terminal, [later], Outage())).codes == bytes([Verdict.ACCEPTED])
    said = [offline.breaches for _, _, offline in await rows(w) if offline]  # type: ignore[attr-defined]
    assert sorted(said) == sorted(
        [("not_allowed", "not_eligible"), ("terminal_revoked", "not_eligible", "outside_window")]
    )


async def test_what_names_no_voucher_is_logged_with_its_reason_once(w: World) -> None:
    strange = CodeKeys(keys={1: b"x" * 32}, active=1, pepper=b"p" * 32)
    forged = OfflineKeys(strange).signed(next(KeyRing(strange).mint(1, 2, 1, 1)))
    unissued = SIGNER.signed(next(w.core.ring.mint(1, 2, 999_999, 1)))
    facts = [fact_of(forged), fact_of(unissued), fact_of("1234567890123456"), fact_of("cut-short")]
    first = await tell(w, 1, *facts)
    assert [Verdict(code).name for code in first.codes] == ["FORGED", "NOT_ISSUED", "UNREADABLE", "UNKNOWN_CODE"]
    again = await tell(w, 1, *facts)
    assert (again.codes, places_of(again)) == (first.codes, places_of(first))
    assert len([1 for _, _, offline in await rows(w) if offline]) == 4


async def test_a_number_that_was_used_for_another_voucher_holds_nothing(w: World) -> None:
    code, other = await codes(w, 2)
    scan = w.scan(code)
    assert await w.verdict(1, scan) is Verdict.ACCEPTED
    assert (await tell(w, 1, fact_of(other, redemption_id=scan.redemption_id))).codes == bytes([Verdict.ID_REUSED])
    assert await w.verdict(2, w.scan(other)) is Verdict.ACCEPTED


async def test_conflicts_survive_a_restart(tmp_path: Path, valkey_endpoint: str, partitions: int) -> None:
    async with world(tmp_path, valkey_endpoint, partitions=partitions) as w:
        await w.write(CampaignCreated(campaign=2, slug="tea", offer=offer(offline=POLICY)))
        (code,) = await codes(w, 1)
        lost = fact_of(code)
        await tell(w, 1, fact_of(code))
        await tell(w, 2, lost)
    async with world(tmp_path, valkey_endpoint, partitions=partitions) as w:
        event = w.directory.conflicts[lost.redeem.redemption_id]
        assert isinstance(event, OfflineConflict)
        again = await tell(w, 2, lost)
        assert again.codes == bytes([Verdict.CONFLICT])
        assert again.told[0][17:27] == (1).to_bytes(4, "big") + event.first_ms.to_bytes(6, "big")


async def test_a_code_copied_to_more_tills_than_a_voucher_remembers_loses_every_time(w: World) -> None:
    (code,) = await codes(w, 1)
    await tell(w, 1, fact_of(code))
    lost = [fact_of(code) for _ in range(300)]
    for start in range(0, 300, 100):
        assert set((await tell(w, 2, *lost[start : start + 100])).codes) == {Verdict.CONFLICT}
    again = await tell(w, 2, lost[-1])
    assert again.codes == bytes([Verdict.CONFLICT])
    assert len(w.directory.conflicts) == 300


async def test_a_fact_that_was_told_before_its_voucher_was_issued_hears_what_it_became(w: World) -> None:
    issued = await w.core.desk.issue("op", "tea", 1, "first")
    assert not isinstance(issued, Rejected)
    early = SIGNER.signed(next(iter(w.core.ring.mint(1, 2, issued.first_serial + 1, 1))))
    lost = fact_of(early)
    assert [(await tell(w, 1, lost)).codes[0] for _ in range(2)] == [Verdict.NOT_ISSUED] * 2
    before = len(await rows(w))
    assert not isinstance(await w.core.desk.issue("op", "tea", 1, "second"), Rejected)
    assert (await tell(w, 2, fact_of(early))).codes == bytes([Verdict.ACCEPTED])
    assert (await tell(w, 1, lost)).codes == bytes([Verdict.CONFLICT])
    assert (await tell(w, 1, lost)).codes == bytes([Verdict.CONFLICT_AGAIN])
    assert len(await rows(w)) == before + 3
    assert len(w.directory.conflicts) == 1
