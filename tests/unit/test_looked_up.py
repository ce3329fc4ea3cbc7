"""Ids that memory cannot tell of: what is said when they are looked up, and when nothing is."""

import asyncio
from collections.abc import Callable, Sequence

import pytest
from log_batches import id16, record

from eventstore.events import REDEEM, Extra, encode_records, record_at
from gateway import ledger
from gateway.ids import RecentIds
from gateway.ledger import LOOKED_UP_TOGETHER, Found, Lookup, looked_up

IDS = [id16(f"id {number}") for number in range(3 * LOOKED_UP_TOGETHER)]
LOGGED = IDS[::2]


def found(name: bytes) -> Found:
    payload = encode_records([record(REDEEM, redemption_id=name)], {}, received_ms=1)
    return Found(record_at(payload, 0), 0, 1, 0, 1, 0, Extra())


class Log:
    """Knows every second id; `meanwhile` happens with each question but the first."""

    def __init__(self, meanwhile: Callable[[], object]) -> None:
        self._meanwhile, self._asked = meanwhile, 0

    async def find_many(self, redemption_ids: Sequence[bytes]) -> Lookup:
        self._asked += 1
        if self._asked > 1:
            outcome = self._meanwhile()
            if asyncio.iscoroutine(outcome):
                await outcome
        return Lookup({name: found(name) for name in redemption_ids if name in LOGGED}, {})


async def test_every_id_has_its_answer_or_has_none_yet() -> None:
    told = await looked_up(Log(lambda: None), [], RecentIds(), IDS)
    assert [name for name, one in told.items() if one] == LOGGED
    assert list(told) == IDS


@pytest.mark.parametrize(("rotations", "is_told"), ((1, True), (2, False)))
async def test_what_may_have_been_used_and_forgotten_meanwhile_is_not_called_new(rotations: int, is_told: bool) -> None:
    recent = RecentIds()

    def rotate() -> None:
        recent.rotations += rotations // 2 or recent.rotations == 0

    told = await looked_up(Log(rotate), [], recent, IDS)
    assert recent.rotations == rotations
    assert [name for name, one in told.items() if one] == LOGGED
    assert (len(told) == len(IDS)) == is_told


def test_memory_counts_its_rotations(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.ids.GENERATION_IDS", 4)
    recent = RecentIds(0)
    for name in IDS[:8]:
        recent.put(name, name, 2**48 - 1)
    assert (recent.rotations, recent.get(IDS[0]), recent.get(IDS[7])) == (2, None, IDS[7])


async def test_of_a_slow_log_is_told_what_was_found_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "LOOK_UP_S_MAX", 0.05)
    told = await looked_up(Log(lambda: asyncio.sleep(60)), [], RecentIds(), IDS)
    assert list(told) == IDS[:LOOKED_UP_TOGETHER]
