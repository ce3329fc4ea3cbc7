"""What `tillgate top` computes from two scrapes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.top_view import Labels, merged, view

Scrape = dict[tuple[str, Labels], float]


def sample(name: str, value: float, **labels: str) -> Scrape:
    return {(name, frozenset(labels.items())): value}


def histogram(name: str, *rows: tuple[str, float]) -> Scrape:
    return {key: value for le, count in rows for key, value in sample(f"{name}_bucket", count, le=le).items()}


def test_rates_are_growth_over_time() -> None:
    name = "tillgate_redeem_requests_total"
    before = sample(name, 10, outcome="accepted", reason="accepted", transport="stream")
    after = sample(name, 30, outcome="accepted", reason="accepted", transport="stream") | sample(
        name, 6, outcome="refused", reason="expired", transport="http"
    )
    seen = view(before, after, 2.0, 1)
    assert seen.verdicts == {"accepted": 10.0, "refused": 3.0}
    assert seen.reasons == {"expired": 3.0}


def test_a_counter_that_began_anew_counts_from_zero() -> None:
    name = "tillgate_events_appended_total"
    assert view(sample(name, 1000, kind="voucher"), sample(name, 4, kind="voucher"), 2.0, 1).records == 2.0


def test_quantiles_are_of_what_happened_in_between() -> None:
    name = "tillgate_redeem_duration_seconds"
    before = histogram(name, ("0.01", 100), ("0.05", 100), ("+Inf", 100))
    after = histogram(name, ("0.01", 150), ("0.05", 200), ("+Inf", 200))
    seen = view(before, after, 1.0, 1)
    assert seen.p50_s == pytest.approx(0.01)
    assert seen.p99_s == pytest.approx(0.01 + 0.04 * 49 / 50)
    assert view(after, after, 1.0, 1).p99_s is None


def test_what_lies_beyond_the_last_bound_is_told_as_that_bound() -> None:
    name = "tillgate_redeem_duration_seconds"
    assert view({}, histogram(name, ("2.5", 0), ("+Inf", 9)), 1.0, 1).p99_s == 2.5


def test_workers_are_summed_and_shared_things_are_not() -> None:
    one = sample("tillgate_ready", 1) | sample("tillgate_event_log_bytes", 100)
    seen = view({}, merged([one, one]), 1.0, 2)
    assert (seen.ready, seen.log_bytes) == (2, 100)


@given(st.lists(st.integers(0, 50), min_size=1, max_size=6), st.lists(st.integers(0, 50), min_size=6, max_size=6))
def test_any_histogram_has_its_quantiles_in_order(counts: list[int], grown: list[int]) -> None:
    name, bounds = "tillgate_event_loop_lag_seconds", [str(0.1 * 2**n) for n in range(len(counts))] + ["+Inf"]
    first, second, scrapes = 0, 0, []
    rows: list[list[tuple[str, float]]] = [[], []]
    for bound, count, more in zip(bounds, [*counts, 0], [*grown, 0], strict=False):
        first, second = first + count, second + count + more
        rows[0].append((bound, first))
        rows[1].append((bound, second))
    scrapes = [histogram(name, *row) for row in rows]
    seen = view(scrapes[0], scrapes[1], 1.0, 1)
    assert seen.loop_lag_p99_s is None or 0 <= seen.loop_lag_p99_s <= float(bounds[-2])
