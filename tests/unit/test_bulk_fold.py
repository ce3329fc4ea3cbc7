"""The fold for millions against the fold of one record at a time: the same hashes, whatever happened."""

import random
from collections.abc import Iterator, Sequence
from itertools import chain as chained

import numpy as np
import pytest
from log_batches import head_of, id16, record, redeemed

from eventstore.bulk_fold import BUCKETS, BulkFold, Slice, buckets_of
from eventstore.events import CONFLICT, IMPORT, REDEEM, REVERSE, VOID
from eventstore.finished import Fields, Finished, by_field, fields_in
from eventstore.log import EMPTY_HEAD, Batch, Head, LogDamaged
from eventstore.snapshot import apart, rows_in, rows_of
from eventstore.vouchers import FoldedState, apply_batch, empty_state, next_value, registry_key, voucher_key

APPLIED, TOMBSTONED, REFUSED = 0, 1, 21
CAMPAIGNS = (1, 2, 2, 70_000)
FAR = (1 << 63, 5 << 32)  # with the first, a campaign and a serial are more than one number of 64 bits
WAYS = (
    *[(REDEEM, APPLIED)] * 6,
    *[(REVERSE, APPLIED)] * 4,
    (REVERSE, TOMBSTONED),
    (VOID, APPLIED),
    (REDEEM, CONFLICT),
    (IMPORT, APPLIED),
)


def chain(seed: int, count: int, *, partition: int = 0, plain: bool = False) -> list[Batch]:
    """Batches as claims could have made them, over few vouchers (many if `plain`: then all are redeemed at once)."""
    draw, state, batches, head = random.Random(seed), empty_state(partition + 1), [], EMPTY_HEAD
    serials = (1, 2, 63, 64, 300, (1 << 32) + 1, FAR[seed % len(FAR)])
    fresh = iter(draw.sample(range(1 << 40), 40 * count))
    for _ in range(count):
        rows = []
        values: dict[tuple[int, int], bytes] = {}
        codes: set[bytes] = set()
        for _ in range(draw.randint(0, 30)):
            if plain:
                rows.append((record(serial=next(fresh), claim_id=draw.randbytes(16), terminal=4), APPLIED))
                continue
            op, verdict = draw.choice(WAYS)
            campaign, serial = draw.choice(CAMPAIGNS), draw.choice(serials)
            claim_id, code = id16("claim", draw.randint(1, 40)), id16("code", draw.randint(1, 60))
            if op == IMPORT:
                held = state.hashes.get(registry_key(partition, code), {})
                if code in held or code in codes:
                    verdict = 43
                codes.add(code)
            else:
                value = values.get((campaign, serial))
                if value is None:
                    value = state.hashes.get(voucher_key(partition, campaign, serial), {}).get(
                        b"%d" % (serial % 64), b""
                    )
                after = next_value(value, op, verdict, claim_id + bytes(4), bytes(11))
                if after is None:
                    verdict = REFUSED
                else:
                    values[campaign, serial] = after
            packed = record(op, campaign=campaign, serial=serial, redemption_id=code, claim_id=claim_id, terminal=9)
            rows.append((packed, verdict))
        batch = redeemed(partition, head, rows)
        head = head_of(batch)
        apply_batch(state, batch)
        batches.append(batch)
    return batches


def slowly(batches: list[Batch], purged: tuple[int, ...] = ()) -> FoldedState:
    state = empty_state(batches[0].partition + 1, purged)
    for batch in batches:
        apply_batch(state, batch)
    return state


def told(fold: BulkFold) -> Iterator[Finished]:
    return chained.from_iterable(fold.finished())


def taken_out(fold: BulkFold) -> dict[bytes, Fields]:
    return {key: by_field(held) for hashes in fold.finished() for key, held in hashes}


def put_back(rows: bytes, partition: int, mine: Slice, head: Head, purged: tuple[int, ...] = ()) -> BulkFold:
    fold = BulkFold(partition, mine, head, purged=purged)
    for key, held in rows_in(rows):
        fold.put(key, held)
    return fold


def put_behind(fold: BulkFold, rows: bytes) -> dict[bytes, Fields]:
    """Put in only what something happened in since; the rest."""
    found, others = apart(rows, fold.keys())
    for key, held in found:
        fold.put(key, held)
    return {key: by_field(held) for start, end in others for key, held in rows_in(rows[start:end])}


@pytest.mark.parametrize("seed", range(18))
@pytest.mark.parametrize("slices", (1, 3))
def test_it_is_the_same_fold_also_when_it_was_written_down_in_between(
    seed: int, slices: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("eventstore.bulk_fold.LOOSE_RECORDS_MAX", (1, 98, 100_000)[seed % 3])
    batches = chain(seed, 60, partition=seed % 3, plain=seed % 4 == 3)
    partition, cut = batches[0].partition, 20 + seed
    purged = (2,) if seed % 2 else ()
    found: dict[bytes, Fields] = {}
    for number in range(slices):
        fold = BulkFold(partition, Slice(number, slices))
        for batch in batches[:cut]:
            fold.apply(batch)
        rows = b"".join(map(rows_of, fold.finished()))
        before, mine = rows if purged else b"", Slice(number, slices)
        fold = put_back(before, partition, mine, head_of(batches[cut - 1]), purged)
        for batch in batches[cut:]:
            fold.apply(batch)
        assert fold.head == head_of(batches[-1])
        untouched = put_behind(fold, rows) if not purged else {}
        part = taken_out(fold)
        assert not part.keys() & untouched.keys()
        part |= untouched
        assert not part.keys() & found.keys()
        found |= part
    assert found == slowly(batches, purged).hashes


def test_plain_redemptions_are_written_as_they_lie_and_others_are_worked_out() -> None:
    fold = BulkFold(0)
    for batch in chain(1, 30, plain=True):
        fold.apply(batch)
    assert all(isinstance(held, bytes) for _, held in told(fold))
    fold = BulkFold(0)
    for batch in chain(1, 60):
        fold.apply(batch)
    assert any(isinstance(held, dict) for key, held in told(fold) if b"v" in key)


def test_how_many_fields_there_are() -> None:
    fold = BulkFold(0)
    for batch in chain(5, 40):
        fold.apply(batch)
    for _, held in told(fold):
        assert fields_in(held) == len(by_field(held))


@pytest.mark.parametrize(
    ("rows", "why"),
    (
        ([(record(VOID), TOMBSTONED)], "op 3 cannot have had verdict 1"),
        ([(record(REVERSE), APPLIED)], "op 2 cannot have had verdict 0 on voucher 7-1"),
        ([(record(claim_id=id16("a")), APPLIED), (record(claim_id=id16("b")), APPLIED)], "on voucher 7-1"),
        ([(record(IMPORT), APPLIED), (record(IMPORT), APPLIED)], "a code that was known"),
        ([(record(9), APPLIED)], "op 9"),
    ),
)
def test_what_no_claim_would_have_said_is_damage(rows: list[tuple[bytes, int]], why: str) -> None:
    batch = redeemed(0, EMPTY_HEAD, rows)
    with pytest.raises(LogDamaged, match=why):  # noqa: PT012 - some is seen at once, some when all is known
        fold = BulkFold(0)
        fold.apply(batch)
        list(fold.finished())
    with pytest.raises(LogDamaged):
        apply_batch(empty_state(1), batch)


@pytest.mark.parametrize("loose", (1, 3, 100))
@pytest.mark.parametrize(
    "bad",
    (
        (record(VOID), TOMBSTONED),
        (record(REVERSE, claim_id=id16("nobody")), APPLIED),
        (record(IMPORT, redemption_id=id16("known")), APPLIED),
    ),
    ids=("impossible", "in its history", "import"),
)
def test_damage_names_its_batch(bad: tuple[bytes, int], loose: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eventstore.bulk_fold.LOOSE_RECORDS_MAX", loose)
    fine = [(record(serial=100 + n, claim_id=id16("fine", n)), APPLIED) for n in range(5)]
    known = (record(IMPORT, redemption_id=id16("known")), APPLIED)
    fold, head = BulkFold(0), EMPTY_HEAD
    with pytest.raises(LogDamaged) as damage:  # noqa: PT012 - some is seen at once, some when all is known
        for rows in ([fine[0], known], [], [fine[1], fine[2], bad], [fine[3]], [fine[4]]):
            batch = redeemed(0, head, rows)
            head = head_of(batch)
            fold.apply(batch)
        list(fold.finished())
    assert (damage.value.partition, damage.value.seq) == (0, 3)


def test_batches_of_all_sizes_lie_side_by_side() -> None:
    draw, batches, head = random.Random(1), [], EMPTY_HEAD
    serials = iter(draw.sample(range(1 << 12), 1 << 11))
    for size in (0, 1, 512, 0, 512, 1, 0):
        rows = [(record(serial=next(serials), claim_id=draw.randbytes(16)), APPLIED) for _ in range(size)]
        batches.append(redeemed(0, head, rows))
        head = head_of(batches[-1])
    fold = BulkFold(0)
    for batch in batches:
        fold.apply(batch)
    assert taken_out(fold) == slowly(batches).hashes


def test_a_code_that_was_known_before_is_damage_too() -> None:
    fold = BulkFold(0)
    fold.apply(redeemed(0, EMPTY_HEAD, [(record(IMPORT, redemption_id=id16("a")), APPLIED)]))
    with pytest.raises(LogDamaged, match="a code that was known"):
        fold.put(registry_key(0, id16("a")), {id16("a"): bytes(12)})


@pytest.mark.parametrize("loose", (1, 100))
@pytest.mark.parametrize("with_base", (False, True))
def test_codes_of_a_purged_campaign_may_be_imported_again(
    loose: int, with_base: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("eventstore.bulk_fold.LOOSE_RECORDS_MAX", loose)
    codes = [id16("code", n) for n in range(3)]
    imported = [(record(IMPORT, campaign=7, serial=n, redemption_id=code), APPLIED) for n, code in enumerate(codes)]
    used = [(record(campaign=7, serial=n, claim_id=id16(n)), APPLIED) for n in range(3)]
    first = redeemed(0, EMPTY_HEAD, [*imported, *used])
    again = [(record(IMPORT, campaign=8, serial=n, redemption_id=code), APPLIED) for n, code in enumerate(codes[:2])]
    second = redeemed(0, head_of(first), [*again, (record(campaign=8, serial=1, claim_id=id16("x")), APPLIED)])
    if with_base:
        fold = BulkFold(0, head=head_of(first), purged=(7,))
        fold.apply(second)
        before = BulkFold(0)
        before.apply(first)
        for key, held in told(before):
            fold.put(key, held)
    else:
        fold = BulkFold(0, purged=(7,))
        fold.apply(first)
        fold.apply(second)
    found = taken_out(fold)
    assert found == slowly([first, second], (7,)).hashes
    assert found[registry_key(0, codes[0])][codes[0]][:4] == (8).to_bytes(4, "big")
    assert not any(b"v7:" in key for key in found)
    assert codes[2] not in {field for fields in found.values() for field in fields}


@pytest.mark.parametrize(
    ("campaigns", "serials"),
    (
        ([7] * 4096, range(0, 4096 * 64, 64)),
        ([7] * 4096, [n << 16 | 5 << 8 for n in range(4096)]),
        (range(1, 4097), [0] * 4096),
        ([n >> 2 for n in range(4096)], [(n & 3) << 6 for n in range(4096)]),
    ),
    ids=("in a row", "one slice", "campaigns of 64", "campaigns of 256"),
)
def test_no_bucket_holds_much_more_than_others(campaigns: Sequence[int], serials: Sequence[int]) -> None:
    """A bucket is what is taken apart at once, in four times its memory."""
    buckets = buckets_of(np.array(campaigns, np.uint32), np.array(serials, np.uint64))
    assert np.bincount(buckets, minlength=BUCKETS).max() <= 3 * 4096 / BUCKETS
    neighbours = buckets_of(np.array(campaigns, np.uint32), np.array(serials, np.uint64) + np.uint64(63))
    assert (buckets == neighbours).all()


def test_a_batch_that_does_not_follow_is_damage() -> None:
    first, second, third = chain(2, 3)
    fold = BulkFold(0)
    fold.apply(first)
    with pytest.raises(LogDamaged, match="does not follow batch 1"):
        fold.apply(third)
    fold.apply(second)


def test_each_record_is_counted_once_over_all_slices() -> None:
    batches = chain(3, 40)
    counts = []
    for number in range(2):
        fold = BulkFold(0, Slice(number, 2))
        for batch in batches:
            fold.apply(batch)
        counts.append(sum(fold.counts.values()))
    assert counts == [sum(len(batch.verdicts) for batch in batches), 0]
