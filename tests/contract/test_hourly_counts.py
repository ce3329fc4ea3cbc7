"""Counts by hour: the same as adding the log up by hand, after any crash, and told with the position they stand for."""

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from log_batches import AT_MS, head_of, id16, record, redeemed

from eventstore.events import REDEEM, REVERSE
from eventstore.hourly import EVERYWHERE, HourlyCounts
from eventstore.log import EMPTY_HEAD, Batch
from eventstore.outcomes import HOUR_MS, OUTCOMES, Cell

STORES = {3: "a", 4: "a", 5: "b"}
OWNER = (1, "d")


class Told:
    def __init__(self) -> None:
        self.cells: Counter[Cell] = Counter()
        self.asked = 0

    def counted(self, batches: Sequence[Batch], seconds: Mapping[int, Mapping[Cell, int]]) -> None:
        assert batches
        for at_s, cells in seconds.items():
            assert at_s == AT_MS // 1000
            self.cells.update(cells)

    async def learn(self) -> None:
        self.asked += 1
        STORES[9] = "new"


def opened(path: Path, told: Told | None = None) -> HourlyCounts:
    told = told or Told()
    return HourlyCounts.open(path, *OWNER, lambda t: STORES.get(t) if t else "", told.learn, told.counted)


def batches(count: int) -> list[Batch]:
    made: list[Batch] = []
    for n in range(count):
        rows = [
            (record(serial=n, claim_id=id16(n), terminal=3 + n % 3), 0),
            (record(serial=n, claim_id=id16(n, 2), terminal=3), 21),
            (record(REVERSE, serial=n, claim_id=id16(n), terminal=5), 0),
            (record(3, serial=n, claim_id=id16(n), terminal=0), 0),  # an operator's void
        ]
        made.append(redeemed(0, head_of(made[-1]) if made else EMPTY_HEAD, rows))
    return made


def by_outcome(counts: HourlyCounts, store: str) -> dict[str, int]:
    found: Counter[str] = Counter()
    for (where, _, kind), n in counts.totals.items():
        if where == store:
            found[OUTCOMES[kind]] += n
    return dict(found)


async def close(counts: HourlyCounts, *, save: bool) -> None:
    if save:
        await counts.close()
    else:  # as a crash leaves it
        counts._connection.close()
        counts._thread.shutdown()


async def apply(counts: HourlyCounts, made: Sequence[Batch]) -> None:
    first = counts.checkpoint[0].seq
    await counts.apply(0, made[first:])


async def test_counts_are_what_the_log_adds_up_to(tmp_path: Path) -> None:
    told = Told()
    counts = opened(tmp_path / "c.db", told)
    await apply(counts, batches(9))
    assert by_outcome(counts, EVERYWHERE) == {"redeemed": 9, "refused": 9, "reversed": 9, "voided": 9}
    assert by_outcome(counts, "a") == {"redeemed": 6, "refused": 9}
    assert by_outcome(counts, "b") == {"redeemed": 3, "reversed": 9}
    rows = await counts.hours("a", [7], AT_MS // HOUR_MS)
    assert {hour for hour, _, _ in rows} == {AT_MS // HOUR_MS}
    assert sum(n for _, _, n in rows) == 15
    assert await counts.hours("a", [8], 0) == []
    assert await counts.hours("a", [7], AT_MS // HOUR_MS + 1) == []
    assert counts.tills[3].refused == 9
    assert counts.tills[5].undone == 9
    assert counts.tills[3].last_ms == AT_MS
    assert sum(told.cells.values()) == 36
    assert counts.day[AT_MS // HOUR_MS]["a", REDEEM << 8] == 6
    await close(counts, save=True)


async def test_a_crash_counts_nothing_twice_and_loses_nothing(tmp_path: Path) -> None:
    path, made = tmp_path / "c.db", batches(12)
    counts = opened(path)
    await counts.apply(0, made[:4])
    await counts.save()
    await counts.apply(0, made[4:9])
    await close(counts, save=False)
    counts = opened(path)
    assert counts.checkpoint[0] == head_of(made[3])
    await apply(counts, made)
    whole = by_outcome(counts, EVERYWHERE)
    assert whole == {"redeemed": 12, "refused": 12, "reversed": 12, "voided": 12}
    await close(counts, save=True)
    counts = opened(path)
    assert counts.checkpoint[0] == head_of(made[-1])
    assert by_outcome(counts, EVERYWHERE) == whole
    assert counts.tills[3].refused == 12
    assert counts.day[AT_MS // HOUR_MS]["b", REVERSE << 8] == 12
    await counts.reset()
    assert await counts.hours(EVERYWHERE, [7], 0) == []
    await counts.apply(0, made)
    assert by_outcome(counts, EVERYWHERE) == whole
    await close(counts, save=True)


async def test_readers_beside_the_follower_save_only_whole_batches(tmp_path: Path) -> None:
    path, made = tmp_path / "c.db", batches(60)
    counts = opened(path)

    async def follow() -> None:
        for batch in made:
            await counts.apply(0, [batch])
            await asyncio.sleep(0)

    async def look() -> None:
        for _ in range(20):
            rows = await counts.hours(EVERYWHERE, [7], 0)
            assert len({n for _, _, n in rows}) <= 1, "each batch adds one of each kind"
            await asyncio.sleep(0)

    await asyncio.gather(follow(), look())
    await close(counts, save=False)
    counts = opened(path)
    seq = counts.checkpoint[0].seq
    assert by_outcome(counts, EVERYWHERE).get("redeemed", 0) == seq
    await close(counts, save=True)


async def test_a_file_of_another_deployment_is_begun_again(tmp_path: Path) -> None:
    path = tmp_path / "c.db"
    counts = opened(path)
    await apply(counts, batches(2))
    await close(counts, save=True)
    told = Told()
    other = HourlyCounts.open(path, 1, "other", STORES.get, told.learn, told.counted)
    assert other.checkpoint[0] == EMPTY_HEAD
    assert not other.totals
    await close(other, save=True)


async def test_a_terminal_that_another_gateway_let_in_is_asked_for(tmp_path: Path) -> None:
    STORES.pop(9, None)
    told = Told()
    counts = opened(tmp_path / "c.db", told)
    await counts.apply(0, [redeemed(0, EMPTY_HEAD, [(record(terminal=9), 0)])])
    assert told.asked == 1
    assert by_outcome(counts, "new") == {"redeemed": 1}
    await close(counts, save=True)


async def test_a_file_with_a_damaged_page_is_begun_again(tmp_path: Path) -> None:
    path = tmp_path / "counts"
    counts = opened(path)
    await apply(counts, batches(5))
    whole = dict(counts.totals)
    await close(counts, save=True)
    content = path.read_bytes()
    path.write_bytes(content[:8192] + b"\xff" * (len(content) - 8192))  # after the schema and who it belongs to
    counts = opened(path)
    assert counts.checkpoint == {0: EMPTY_HEAD}
    await apply(counts, batches(5))
    assert dict(counts.totals) == whole
    await close(counts, save=True)
