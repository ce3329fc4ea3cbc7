"""What the console computes: seconds, shares and quantiles, forecasts, the tail's sampling, and who sees what."""

import struct
from collections import Counter
from collections.abc import Mapping

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from log_batches import id16, record, redeemed

from eventstore import events as e
from eventstore.events import REDEEM, REVERSE
from eventstore.log import EMPTY_HEAD
from eventstore.outcomes import HOUR_MS, Cell, counted, kind_of, outcome_of
from gateway.console_bodies import CampaignRow, Hour
from gateway.console_events import LOOKED_AT_MAX, TAIL_EVENTS_MAX, Filters, tail_of
from gateway.console_forecast import forecast
from gateway.console_hub import parsed_position
from gateway.console_live import LATE_S_MAX, Latencies, Live, bad_beyond, quantile, reason_of
from gateway.console_lives import indexes_of
from gateway.console_scope import View
from gateway.directory import Directory
from gateway.messages import Verdict
from gateway.roles import Principal

ACCEPTED, FORGED, ALREADY = (kind_of(REDEEM, v) for v in (Verdict.ACCEPTED, Verdict.FORGED, Verdict.ALREADY_REDEEMED))
REVERSED = kind_of(REVERSE, Verdict.ACCEPTED)
NOW_MS = 1_800_000_000_000
NOW_S = NOW_MS // 1000


def everyone(store: str, campaign: int) -> bool:
    return True


def cells(**by_store: dict[int, int]) -> Mapping[Cell, int]:
    return {(store, 1, kind): n for store, kinds in by_store.items() for kind, n in kinds.items()}


def test_seconds_have_no_gaps_and_hold_only_what_the_asker_sees() -> None:
    live = Live(NOW_MS - 10_000)
    live.counted(NOW_S - 3, cells(a={ACCEPTED: 5, ALREADY: 1}, b={ACCEPTED: 2}), NOW_S - 3)
    live.counted(NOW_S, cells(a={REVERSED: 1}), NOW_S)
    all_of_it = live.seconds(everyone, NOW_S, 5)
    assert [(s.at_s - NOW_S, s.redeemed, s.refused, s.reversed) for s in all_of_it] == [
        (-4, 0, 0, 0), (-3, 7, 1, 0), (-2, 0, 0, 0), (-1, 0, 0, 0), (0, 0, 0, 1)
    ]  # fmt: skip
    own = live.seconds(lambda store, campaign: store == "b", NOW_S, 5)
    assert sum(s.redeemed + s.refused + s.reversed for s in own) == 2
    assert live.per_minute(NOW_S) == {"a": 6, "b": 2}
    assert live.mix(everyone, NOW_S) == {"redeemed": 7, "already_redeemed": 1, "reversed": 1}


def test_what_is_read_from_long_ago_is_not_the_present() -> None:
    live = Live(NOW_MS - 10_000)
    live.counted(NOW_S - LATE_S_MAX - 1, cells(a={ACCEPTED: 5}), NOW_S)
    assert live.mix(everyone, NOW_S) == {}


def test_a_refusal_is_counted_under_its_public_reason() -> None:
    assert reason_of(FORGED) == reason_of(kind_of(REDEEM, Verdict.NOT_ISSUED)) == "unknown_code"
    assert reason_of(ALREADY) == "already_redeemed"


@given(st.lists(st.integers(0, 50), min_size=4, max_size=4), st.sampled_from((0.5, 0.99)))
def test_a_quantile_lies_in_the_bucket_that_holds_its_rank(counts: list[int], share: float) -> None:
    bounds, total = (0.01, 0.1, 1.0), sum(counts)
    found = quantile(bounds, counts, share)
    if total == 0:
        assert found == 0
        return
    below = sum(n for n, bound in zip(counts, bounds, strict=False) if bound <= found)
    strictly_below = sum(n for n, bound in zip(counts, bounds, strict=False) if bound < found)
    assert strictly_below <= share * total + 1e-9
    assert below >= share * total - 1e-9 or found == bounds[-1] or below + max(counts) >= share * total - 1e-9


def test_a_quantile_is_interpolated_as_prometheus_does() -> None:
    assert quantile((0.1, 0.2), (10, 10, 0), 0.5) == pytest.approx(0.1)
    assert quantile((0.1, 0.2), (10, 10, 0), 0.75) == pytest.approx(0.15)
    assert quantile((0.1, 0.2), (0, 0, 5), 0.99) == 0.2
    assert bad_beyond((0.05, 0.25), (90, 7, 3), 0.05) == 10


def test_latencies_are_differences_of_counters() -> None:
    live, bounds = Live(NOW_MS), (0.01, 0.1)
    verdicts = [0] * 256
    live.answered(NOW_S, Latencies(bounds, (100, 0, 0), verdicts))
    verdicts = [*verdicts]
    verdicts[Verdict.UNRESOLVED] = 3
    live.answered(NOW_S + 1, Latencies(bounds, (100, 20, 0), verdicts))
    assert live.told_at(NOW_S).answers == 0
    assert 10 < live.told_at(NOW_S + 1).p50_ms < 100
    assert live.unresolved(NOW_S + 1) == 3


# --- forecast ---


def row(**changes: object) -> CampaignRow:
    base = CampaignRow(
        campaign=1, slug="c", title="C", state="open", starts_ms=NOW_MS - 240 * HOUR_MS, ends_ms=NOW_MS + 240 * HOUR_MS,
        value_minor=100, currency="CNY", issued=1000, redeemed=500, reversed=0, voided=0, refused=0,
    )  # fmt: skip
    return msgspec.structs.replace(base, **changes)


def hours(each: int, back: int = 48) -> list[Hour]:
    return [Hour((NOW_MS // HOUR_MS - n) * HOUR_MS, each, 0, 0, 0) for n in range(back, -1, -1)]


def test_a_forecast_goes_on_at_the_pace_of_the_last_day_and_stops_at_what_there_is() -> None:
    slow = forecast(row(), hours(1), NOW_MS)
    assert slow.pace_per_hour == pytest.approx(1, abs=0.05)
    assert slow.by_end == pytest.approx(740, abs=12)
    assert slow.sold_out_ms is None
    assert slow.even_now == 500
    fast = forecast(row(voided=100), hours(20), NOW_MS)
    assert fast.by_end == 900
    assert fast.sold_out_ms == pytest.approx(NOW_MS + 20 * HOUR_MS, abs=HOUR_MS)


def test_a_campaign_that_began_an_hour_ago_is_not_judged_by_a_day() -> None:
    begun = forecast(row(starts_ms=NOW_MS - HOUR_MS, redeemed=30), hours(30, back=0), NOW_MS)
    assert begun.pace_per_hour > 14
    assert forecast(row(), [], NOW_MS).by_end == 500, "nobody comes: it stays where it is"


# --- the tail ---


def view(role: str = "auditor", scope: str = "") -> View:
    directory = Directory()
    directory.apply(
        e.Control(
            "test",
            (
                e.MerchantAdded(merchant="m", title="M"),
                e.MerchantAdded(merchant="n", title="N"),
                e.StoreOpened(store="s3", merchant="m", title="S"),
                e.StoreOpened(store="s4", merchant="n", title="S"),
                e.TerminalOffered(terminal=3, store="s3", label="t", token_hash=b"3" * 32, expires_ms=NOW_MS),
                e.TerminalOffered(terminal=4, store="s4", label="t", token_hash=b"4" * 32, expires_ms=NOW_MS),
            ),
        ),
        1,
        NOW_MS,
    )
    return View(Principal(role, scope), directory)


def batch(count: int, terminal: int = 3, verdict: int = 0, first: int = 1) -> object:
    rows = [(record(serial=n, claim_id=id16(n), terminal=terminal), verdict) for n in range(first, first + count)]
    return redeemed(0, EMPTY_HEAD, rows)


def test_the_tail_shows_the_newest_and_counts_what_it_leaves_out() -> None:
    told = tail_of(view(), Filters(), [batch(5), batch(30, first=100)])  # type: ignore[list-item]
    assert [event.voucher_id for event in told.events] == [f"7-{n}" for n in range(130 - TAIL_EVENTS_MAX, 130)]
    assert told.left_out == 35 - TAIL_EVENTS_MAX


def test_a_flood_is_not_looked_at_record_by_record() -> None:
    flood = [batch(1000) for _ in range(10)]
    told = tail_of(view(), Filters(verdict="voided"), flood)  # type: ignore[arg-type]
    assert told.events == []
    assert told.left_out == 10_000 - LOOKED_AT_MAX // 1000 * 1000, "what was looked at and did not fit is not missing"


def test_a_merchant_is_shown_its_own_stores_and_public_reasons() -> None:
    both = [batch(1, terminal=3, verdict=Verdict.FORGED), batch(1, terminal=4, verdict=Verdict.FORGED)]
    told = tail_of(view("merchant", "m"), Filters(), both)  # type: ignore[arg-type]
    assert [(event.store, event.verdict) for event in told.events] == [("s3", "unknown_code")]
    assert told.left_out == 0, "how much others do is not told either"
    assert [event.verdict for event in tail_of(view(), Filters(), both).events] == ["forged"] * 2  # type: ignore[arg-type]


def test_records_of_a_voucher_are_found_only_where_they_stand() -> None:
    look_alike = struct.pack(">IQ", 7, 2) + bytes(4)
    rows = [(record(serial=1, redemption_id=look_alike, claim_id=look_alike), 0), (record(serial=2), 0)]
    made = redeemed(0, EMPTY_HEAD, rows)
    assert indexes_of(made, 7, 2) == [1]
    assert indexes_of(made, 7, 3) == []


@given(st.text(max_size=60))
def test_any_text_is_a_position_or_nothing(text: str) -> None:
    for name, seq in parsed_position(text).items():
        assert name == "control" or 0 <= int(name) < 10_000
        assert seq >= 0


def test_outcomes_have_one_word_each() -> None:
    assert outcome_of(ACCEPTED) == "redeemed"
    assert outcome_of(kind_of(REDEEM, Verdict.TOMBSTONED)) == "refused"
    assert outcome_of(kind_of(REVERSE, Verdict.TOMBSTONED)) == "tombstoned"
    assert outcome_of(kind_of(e.VOID, Verdict.ACCEPTED)) == "voided"
    assert outcome_of(kind_of(e.VOID, Verdict.ALREADY_REDEEMED)) == "denied"


@given(
    st.lists(
        st.tuples(
            st.integers(1, 4),
            st.sampled_from((1, 2, 2**32 - 1)),
            st.integers(0, 2**32 - 1),
            st.sampled_from((0, 2, 21, 255)),
        ),
        max_size=20,
    )
)
def test_columns_count_what_unpacked_records_count(rows: list[tuple[int, int, int, int]]) -> None:
    made = redeemed(0, EMPTY_HEAD, [(record(op, campaign=c, terminal=t), v) for op, c, t, v in rows])
    assert counted(made, len(rows)) == Counter(rows)
