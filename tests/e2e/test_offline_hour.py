"""Five hundred terminals without a line for an hour, then all at once: reordered, doubled, cut off and told again.

Virtual time: what they tell happened during the last hour by their ids, clocks and last contacts. Every fact is logged
once, and the conflicts are the planted ones, no more and no less.
"""

import asyncio
import os
import random
import time
from collections import Counter
from pathlib import Path

from core_world import DAY_MS, KEYS, World, offer, wall_ms, world

from eventstore.events import (
    CampaignCreated,
    ControlEvent,
    StoreOpened,
    TerminalEnrolled,
    TerminalOffered,
    extras_of,
    iter_records,
)
from eventstore.offline_events import OfflinePolicy
from gateway.messages import Fact, Redeem, Reverse, Verdict
from gateway.offline_codes import OfflineKeys
from gateway.offline_rules import Outage

TERMINALS, FACTS_EACH = 500, 10
PLANTED = 200  # vouchers that a second till accepted, too
HOT_TILLS = 40  # that all accepted one and the same
OVERTAKEN = 50  # reversals told before the fact they undo
HOUR_MS = 3_600_000
SECONDS_MAX = 60.0  # about 8 on a quiet machine


def uuid7(at_ms: int) -> bytes:
    raw = bytearray(at_ms.to_bytes(6, "big") + os.urandom(10))
    raw[6] = raw[6] & 15 | 0x70
    return bytes(raw)


class Plan:
    """Who accepted what, and what must come of it."""

    def __init__(self, codes: list[str], choose: random.Random) -> None:
        self.begin_ms, self.choose = wall_ms() - HOUR_MS, choose
        self.facts: dict[int, list[Fact]] = {n: [] for n in range(10, 10 + TERMINALS)}
        self.holders: Counter[str] = Counter()  # facts by code
        fresh = iter(codes)
        for number in self.facts:
            for _ in range(FACTS_EACH):
                self._accept(number, next(fresh))
        every = [(number, fact) for number, facts in self.facts.items() for fact in facts]
        for number, fact in choose.sample(every, PLANTED):
            self._accept(choose.choice([n for n in self.facts if n != number]), fact.redeem.code)
        hot = next(fresh)
        for number in choose.sample(list(self.facts), HOT_TILLS):
            self._accept(number, hot)
        self.undone = choose.sample(
            [f for n in self.facts for f in self.facts[n] if self.holders[f.redeem.code] == 1], OVERTAKEN
        )

    def _accept(self, number: int, code: str) -> None:
        accepted_ms = self.begin_ms + self.choose.randrange(HOUR_MS)
        redeem = Redeem(uuid7(accepted_ms), code, accepted_ms)
        self.facts[number].append(Fact(redeem, accepted_ms, self.begin_ms - self.choose.randrange(60_000)))
        self.holders[code] += 1

    def conflicts(self) -> int:
        return sum(count - 1 for count in self.holders.values())


async def deployment(w: World) -> list[str]:
    """Its terminals and codes."""
    events: list[ControlEvent] = [StoreOpened(store=f"o{n}", merchant="m1", title=f"O{n}") for n in range(20)]
    for n in range(10, 10 + TERMINALS):
        token = n.to_bytes(16, "big")
        events.append(
            TerminalOffered(
                terminal=n, store=f"o{n % 20}", label=f"o-{n}", token_hash=token, expires_ms=wall_ms() + DAY_MS
            )
        )
        events.append(TerminalEnrolled(terminal=n, public_key=token * 2))
    policy = OfflinePolicy(count_max=100, value_minor_max=1_000_000, minutes_max=180)
    stores = tuple(f"o{n}" for n in range(20))
    events.append(CampaignCreated(campaign=2, slug="tea", offer=offer(offline=policy, stores=stores)))
    for start in range(0, len(events), 100):
        await w.write(*events[start : start + 100])
    signer = OfflineKeys(KEYS)
    return [signer.signed(code) for code in await w.codes(TERMINALS * FACTS_EACH + 1, "tea")]


async def come_back(w: World, plan: Plan, number: int) -> Counter[bytes]:
    """One terminal tells everything, in pieces and out of order, some of it on two lines at once; then all again."""
    terminal, facts, choose = w.directory.terminals[number], list(plan.facts[number]), random.Random(number)
    told: Counter[bytes] = Counter()
    for fact in [fact for fact in facts if fact in plan.undone]:
        undo = Reverse(uuid7(wall_ms()), fact.redeem.redemption_id, wall_ms(), fact.redeem)
        while (verdict := await w.reverse(number, undo)) is Verdict.UNRESOLVED:  # noqa: ASYNC110 - it asks again
            await asyncio.sleep(0.05)
        assert verdict in (Verdict.TOMBSTONED, Verdict.REPEATED)
    pieces = []
    while facts:
        choose.shuffle(facts)
        size = choose.randint(1, 6)
        piece, facts = facts[:size], facts[size:]
        pieces += [piece] * choose.choice((1, 1, 2))
    pieces += [[choose.choice(plan.facts[number])]]  # a straggler
    outage = Outage()

    async def tell(piece: list[Fact]) -> bytes:
        while Verdict.UNRESOLVED in (codes := (await w.core.facts.take(terminal, piece, outage)).codes):  # noqa: ASYNC110
            await asyncio.sleep(0.05)  # a loop that is overrun says so; a till tells it again
        return bytes(codes)

    for piece, codes in zip(pieces, await asyncio.gather(*map(tell, pieces)), strict=True):
        for fact, code in zip(piece, codes, strict=True):
            told[fact.redeem.redemption_id + bytes([code])] += 1
    return told


async def test_five_hundred_tills_come_back_after_an_hour(tmp_path: Path, valkey_endpoint: str) -> None:
    began_s = time.monotonic()
    async with world(tmp_path, valkey_endpoint, partitions=2) as w:
        plan = Plan(await deployment(w), random.Random(7))
        numbers = list(plan.facts)
        plan.choose.shuffle(numbers)
        told: Counter[bytes] = Counter()
        for start in range(0, TERMINALS, 100):  # a hundred lines come up at a time
            for one in await asyncio.gather(*(come_back(w, plan, number) for number in numbers[start : start + 100])):
                told += one
        facts = {fact.redeem.redemption_id: fact for some in plan.facts.values() for fact in some}
        first, effects = Counter[bytes](), Counter[int]()
        for partition in range(w.core.log.partitions):
            head = await w.core.log.head(partition)
            for seq in range(1, head.seq + 1, 64):
                for batch in await w.core.log.read(partition, seq, 64):
                    extras = extras_of(batch.payload)
                    for index, record in enumerate(iter_records(batch.payload)):
                        verdict, extra = batch.verdicts[index], extras.get(index)
                        if (
                            extra is None
                            or extra.offline is None
                            or verdict in (Verdict.REPEATED, Verdict.CONFLICT_AGAIN)
                        ):
                            continue
                        assert extra.offline.breaches == ()
                        assert extra.offline.accepted_ms == facts[record.redemption_id].accepted_ms
                        if verdict != Verdict.REVERSED or not first[record.redemption_id]:
                            first[record.redemption_id] += 1
                            effects[verdict] += 1
        assert first == Counter(dict.fromkeys(facts, 1)), "each fact is logged once"
        assert effects[Verdict.CONFLICT] == plan.conflicts()
        assert effects[Verdict.REVERSED] == OVERTAKEN
        assert effects[Verdict.ACCEPTED] == len(facts) - plan.conflicts() - OVERTAKEN
        conflicts = w.directory.conflicts
        assert len(conflicts) == plan.conflicts()
        for event in conflicts.values():
            code = facts[event.redemption_id].redeem.code
            rivals = [n for n, some in plan.facts.items() for fact in some if fact.redeem.code == code]
            assert event.terminal in rivals
            assert event.first_terminal in rivals
            assert event.terminal != event.first_terminal or rivals.count(event.terminal) > 1
            assert event.store == w.directory.terminals[event.terminal].store
        lost = {key[:16] for key in told if key[16] in (Verdict.CONFLICT, Verdict.CONFLICT_AGAIN)}
        assert lost == set(conflicts), "every till that lost was told, and no other"
        won = {key[:16] for key in told if key[16] in (Verdict.ACCEPTED, Verdict.REPEATED)}
        assert not lost & won, "no fact was told two ends"
    assert time.monotonic() - began_s < SECONDS_MAX
