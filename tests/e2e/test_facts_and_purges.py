"""Facts that come when their campaign is purged, or while it is: Valkey knows nothing of their vouchers any more."""

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from core_world import World, new_id, offer, until, wall_ms, world
from facts_world import POLICY, SIGNER, fact_of, rows, tell

from eventstore.events import RECORD, REDEEM, CampaignClosed, CampaignCreated, Extra, encode_records
from eventstore.offline_events import Acceptance
from gateway.claims import Claimed, keyed_of
from gateway.identity import Spot, claim_id_of, partition_of
from gateway.messages import Fact, Reverse, Verdict

pytestmark = pytest.mark.parametrize("partitions", (1, 3))


@pytest.fixture
async def w(tmp_path: Path, valkey_endpoint: str, partitions: int) -> AsyncIterator[World]:
    async with world(tmp_path, valkey_endpoint, partitions=partitions) as made:
        yield made


async def claim_and_die(w: World, terminal: int, fact: Fact) -> None:
    """What a gateway does with a fact that is killed between claim and append."""
    spot, at_ms = await w.core.desk.identify(fact.redeem.code), wall_ms()
    assert isinstance(spot, Spot)
    claim_id = claim_id_of(terminal, fact.redeem, spot.campaign, spot.serial)
    ids = (spot.campaign, spot.serial, fact.redeem.redemption_id, claim_id)
    record = RECORD.pack(REDEEM, Verdict.CONFLICT, 1, 0, *ids, terminal, at_ms, 1)
    extra = Extra(offline=Acceptance(fact.accepted_ms, fact.contact_ms))
    payload = encode_records([record], {0: extra}, received_ms=at_ms)
    lane = w.core.lanes[partition_of(spot.campaign, spot.serial, len(w.core.lanes))]
    keyed = keyed_of(lane.partition, payload)
    made = await w.core.arbiter.claim(
        lane.partition, payload, keyed, tip=os.urandom(16), at_ms=at_ms, durable_seq=lane.durable_seq
    )
    assert isinstance(made, Claimed)


async def test_a_fact_that_comes_after_the_purge_claims_nothing(w: World) -> None:
    short = offer(offline=POLICY, dispute_ms=2000, reversal_window_ms=2000)
    await w.write(CampaignCreated(campaign=3, slug="short", offer=short))
    taken, late, undone = [SIGNER.signed(code) for code in await w.codes(3, "short")]
    assert await w.verdict(1, w.scan(taken)) is Verdict.ACCEPTED
    known, lost = fact_of(late), fact_of(taken)
    assert (await tell(w, 1, known)).codes == bytes([Verdict.ACCEPTED])
    assert (await tell(w, 2, lost)).codes == bytes([Verdict.CONFLICT])
    await w.write(CampaignClosed(campaign=3))
    given_back = fact_of(undone)
    assert await w.verdict(1, given_back.redeem) is Verdict.CLOSED
    reversal = Reverse(new_id(), given_back.redeem.redemption_id, wall_ms(), given_back.redeem)
    assert await w.reverse(1, reversal) is Verdict.TOMBSTONED
    purge = asyncio.create_task(w.core.desk.purge("op", "short"))
    await until(lambda: w.directory.campaigns[3].purged)
    unheard = fact_of(taken)
    soon = await tell(w, 2, unheard)
    assert soon.codes == bytes([Verdict.UNRESOLVED]), "a gateway that has not heard of the purge may claim it"
    assert await purge == 1
    before = len(await rows(w))
    assert (await tell(w, 1, known)).codes == bytes([Verdict.ACCEPTED])
    assert (await tell(w, 2, lost)).codes == bytes([Verdict.CONFLICT])
    assert len(await rows(w)) == before, "they are in the log"
    assert (await tell(w, 1, given_back)).codes == bytes([Verdict.REVERSED])
    assert (await tell(w, 2, unheard)).codes == bytes([Verdict.CONFLICT]), "it was redeemed, and who knows by whom"
    event = w.directory.conflicts[unheard.redeem.redemption_id]
    assert (event.first_kind, event.first_terminal, event.terminal) == ("unknown", 0, 2)
    assert (await tell(w, 2, unheard)).codes == bytes([Verdict.CONFLICT])
    assert len(await rows(w)) == before + 2
    claimed = fact_of(late)
    await claim_and_die(w, 2, claimed)
    assert (await tell(w, 2, claimed)).codes == bytes([Verdict.UNRESOLVED]), "its batch is on its way, for all we know"
    await w.ready()
    assert (await tell(w, 2, claimed)).codes == bytes([Verdict.ACCEPTED]), "the log has it now"
