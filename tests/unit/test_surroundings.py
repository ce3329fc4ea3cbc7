"""What the gateway says of its surroundings: lags, ends, what Valkey told, vouchers by where they stand."""

import os
import sqlite3
from collections.abc import Sequence
from pathlib import Path

import pytest
from core_world import offer
from log_batches import record, redeemed

from eventstore.events import REDEEM, REVERSE, VOID
from eventstore.log import EMPTY_HEAD, Batch, LogFailed
from eventstore.projections import CampaignCounters, CampaignTally
from gateway.campaign import Campaign, Spans
from gateway.ends import ENDS_FILE, Ends, cause_of
from gateway.lag import MARKS_MAX, Lag
from gateway.sampler import differences, seen
from gateway.scrape import voucher_states
from gateway.slots import fields_of


def test_a_projection_that_stands_still_lags_since_the_log_moved() -> None:
    lag = Lag()
    assert lag.seconds(0.0, 10, 10) == 0
    assert lag.seconds(1.0, 11, 10) == 0
    assert lag.seconds(9.0, 15, 10) == 8
    assert lag.seconds(10.0, 15, 11) == 1, "batch 12 was first seen at 9"
    assert lag.seconds(11.0, 15, 15) == 0


def test_a_projection_that_follows_at_a_distance_lags_by_that_distance() -> None:
    lag = Lag()
    told = [lag.seconds(float(now), now, now - 60) for now in range(200)]
    assert set(told[100:]) == {59.0}


def test_a_long_lag_is_told_though_few_marks_are_kept() -> None:
    lag = Lag()
    for now in range(10 * MARKS_MAX):
        told = lag.seconds(float(now), now + 1, 0)
    assert told == 10 * MARKS_MAX - 1
    assert len(lag._marks) <= MARKS_MAX


def test_ends_are_counted_over_restarts_in_place(tmp_path: Path) -> None:
    path = tmp_path / ENDS_FILE
    first = Ends(path)
    assert first.counts == {"log": 0, "index": 0, "bug": 0}
    size = path.stat().st_size
    first.count(cause_of(LogFailed("no space")))
    first.count(cause_of(sqlite3.OperationalError("full")))
    first.close()
    second = Ends(path)
    second.count(cause_of(AssertionError()))
    assert second.counts == {"log": 1, "index": 1, "bug": 1}
    assert path.stat().st_size == size, "it never grows: it is written on full disks"
    assert os.stat(path).st_mode & 0o777 == 0o600
    second.close()


@pytest.mark.parametrize("text", (b"", b"\0" * 256, b'{"log": "x"}', b'{"log": 3, "other": 1}'))
def test_a_torn_file_of_ends_counts_from_what_it_says(tmp_path: Path, text: bytes) -> None:
    path = tmp_path / ENDS_FILE
    path.write_bytes(text)
    ends = Ends(path)
    assert ends.counts == {"log": 3 if b"other" in text else 0, "index": 0, "bug": 0}
    ends.count("log")
    ends.close()
    assert Ends(path).counts["log"] in (1, 4)


def test_what_valkey_told_is_read() -> None:
    text = b"# Memory\r\nused_memory:12\r\nmaxmemory:0\r\n\r\nrole:slave\r\n"
    text += b"aof_last_write_status:err\r\nevicted_keys:3\r\n"
    told = seen(fields_of(text), 0.5, {0: 0})
    assert (told.used_memory_bytes, told.evicted_keys, told.is_primary, told.aof_is_failing) == (12, 3, False, True)
    assert not seen(fields_of(b"aof_last_write_status:ok\r\nrole:master\r\n"), 0.0, {}).aof_is_failing


def test_a_head_ahead_differs_only_when_the_log_has_not_followed_by_the_next_look() -> None:
    assert differences([5, 9, 9], [5, 12, 12], [5, 9, 10]) == {0: 0, 1: 0, 2: 1}
    assert differences([5], [0], [5]) == {0: -5}, "behind what is durable is wrong at once"


def campaign(**changes: object) -> Campaign:
    spans = {"signed": Spans((1,), (91,)), "typed": Spans((91,), (101,))}
    return Campaign(**{"number": 1, "slug": "c", "offer": offer(), "stores": frozenset(), **spans, **changes})  # type: ignore[arg-type]


def test_every_voucher_stands_somewhere() -> None:
    tally = CampaignTally(redeemed=30, reversed=2, voided=10)
    assert voucher_states(campaign(), tally, offer().starts_ms) == (60, 30, 10, 0)
    assert voucher_states(campaign(), tally, offer().ends_ms) == (0, 30, 10, 60)
    assert voucher_states(campaign(closed_ms=1), tally, offer().starts_ms) == (0, 30, 10, 60)


def batch_of(rows: Sequence[tuple[int, int, int]]) -> Batch:
    """Of (op, campaign, verdict)."""
    return redeemed(0, EMPTY_HEAD, [(record(op, campaign=number), verdict) for op, number, verdict in rows])


async def test_what_took_effect_is_counted_by_campaign() -> None:
    counters = CampaignCounters(share_max=1.0)
    await counters.apply(0, [batch_of([(REDEEM, 1, 0), (REDEEM, 1, 0), (REDEEM, 1, 21), (VOID, 2, 0)])])
    await counters.apply(1, [batch_of([(REVERSE, 1, 0), (REVERSE, 1, 1)])])
    assert counters.tallies() == {1: CampaignTally(1, 1, 0), 2: CampaignTally(0, 0, 1)}


async def test_counting_anew_leaves_most_of_the_time_to_others() -> None:
    rests: list[float] = []

    async def rest(seconds: float) -> None:
        rests.append(seconds)

    counters = CampaignCounters(rest, share_max=0.2)
    batches = [batch_of([(REDEEM, 1, 0)] * 1000)] * 16
    await counters.apply(0, batches)
    assert len(rests) == 2
    assert min(rests) > 0
    counters.has_caught_up = True
    await counters.apply(0, batches)
    assert rests[2:] == [0.0, 0.0]
