"""When an offer is open, and when it is next: clock changes included, against a walk minute by minute."""

import itertools
from datetime import UTC, datetime

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from eventstore.events import Hours, Offer
from gateway.campaign import is_open, next_legal_ms

MINUTE_MS, HOUR_MS, DAY_MS = 60_000, 3_600_000, 86_400_000
START_MS = int(datetime(2025, 11, 3, tzinfo=UTC).timestamp()) * 1000  # a Monday
EVERY_DAY = tuple(range(1, 8))


def offer(
    *hours: Hours, time_zone: str = "UTC", starts_ms: int = START_MS, ends_ms: int = START_MS + 30 * DAY_MS
) -> Offer:
    return Offer(
        title="Noodles",
        kind="prepaid",
        value_minor=1250,
        currency="CNY",
        starts_ms=starts_ms,
        ends_ms=ends_ms,
        time_zone=time_zone,
        hours=hours,
        stores=("bar-1",),
    )


@st.composite
def hours(draw: st.DrawFn) -> Hours:
    opens = draw(st.integers(0, 1439))
    days = draw(st.sets(st.integers(1, 7), min_size=1))
    return Hours(tuple(sorted(days)), opens, draw(st.integers(opens + 1, 1440)))


def utc_ms(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp()) * 1000


@pytest.mark.parametrize(
    ("at", "is_it"),
    (
        ("2025-11-03T10:59:59+08:00", False),  # Monday
        ("2025-11-03T11:00:00+08:00", True),
        ("2025-11-03T13:59:59+08:00", True),
        ("2025-11-03T14:00:00+08:00", False),
        ("2025-11-08T11:00:00+08:00", False),  # Saturday
        ("2025-11-02T18:00:00+00:00", False),  # Monday 02:00 in Shanghai
    ),
)
def test_hours_are_half_open_and_in_the_campaigns_zone(at: str, is_it: bool) -> None:
    weekdays = offer(Hours((1, 2, 3, 4, 5), 660, 840), time_zone="Asia/Shanghai")
    assert is_open(weekdays, utc_ms(at)) is is_it


def test_a_repeated_hour_is_open_twice_and_a_skipped_hour_never_comes() -> None:
    early, late = Hours(EVERY_DAY, 90, 105), Hours(EVERY_DAY, 150, 165)  # 01:30-01:45, 02:30-02:45
    night = offer(early, late, time_zone="America/New_York")
    assert is_open(night, utc_ms("2025-11-02T01:30:00-04:00"))
    assert is_open(night, utc_ms("2025-11-02T01:30:00-05:00"))
    spring = range(utc_ms("2026-03-08T00:00:00-05:00"), utc_ms("2026-03-08T06:00:00-04:00"), MINUTE_MS)
    assert sum(is_open(night, at) for at in spring) == 15


CHANGES = (  # zones and days around which their clocks change, at midnight or by odd amounts too
    ("America/New_York", "2025-11-02"),
    ("America/New_York", "2026-03-08"),
    ("Australia/Lord_Howe", "2026-04-05"),
    ("America/Sao_Paulo", "2018-11-04"),
    ("America/Sao_Paulo", "2018-02-18"),
    ("America/St_Johns", "2010-11-07"),
    ("Asia/Beirut", "2022-03-27"),
    ("Africa/Cairo", "2024-10-31"),
    ("Asia/Shanghai", "2025-11-21"),
)


@given(
    st.sampled_from(CHANGES),
    st.lists(hours(), min_size=1, max_size=2),
    st.integers(-36 * 60, 36 * 60),
    st.integers(0, 59_999),
)
@example(CHANGES[0], [Hours(EVERY_DAY, 90, 105)], 350, 0)  # at 01:50: it opens again at the second 01:30
@example(CHANGES[0], [Hours(EVERY_DAY, 30, 90)], 340, 0)  # at 01:40: open again when 02:00 becomes 01:00
@example(CHANGES[5], [Hours((6,), 1410, 1420)], 150, 30_000)  # Sunday 00:00:30 is followed by Saturday 23:01
def test_the_next_legal_instant_is_the_first_open_one(
    change: tuple[str, str], rules: list[Hours], minutes: int, part_ms: int
) -> None:
    zone, day = change
    now_ms = utc_ms(f"{day}T00:00:00+00:00") + minutes * MINUTE_MS + part_ms
    ends_ms = now_ms + 3 * DAY_MS
    rule = offer(*rules, starts_ms=0, ends_ms=ends_ms, time_zone=zone)
    first_minute = now_ms - part_ms + MINUTE_MS
    by_minute = itertools.chain((now_ms,), range(first_minute, ends_ms, MINUTE_MS))
    assert next_legal_ms(rule, now_ms) == next((at for at in by_minute if is_open(rule, at)), None)


def test_next_legal_instant_without_hours_or_outside_the_window() -> None:
    ends_ms = START_MS + 30 * DAY_MS
    assert next_legal_ms(offer(), START_MS - DAY_MS) == START_MS
    assert next_legal_ms(offer(), START_MS + 5) == START_MS + 5
    assert next_legal_ms(offer(), ends_ms) is None
    mondays = offer(Hours((1,), 600, 660))
    assert next_legal_ms(mondays, START_MS - DAY_MS) == START_MS + 10 * HOUR_MS
    assert next_legal_ms(mondays, ends_ms - DAY_MS) is None  # the 2nd of December is a Tuesday


def test_a_weekly_hour_that_the_clocks_skip_comes_a_week_later() -> None:
    sunday_night = offer(Hours((7,), 150, 165), starts_ms=0, ends_ms=2**42, time_zone="America/New_York")
    after = utc_ms("2026-03-01T03:00:00-05:00")
    assert next_legal_ms(sunday_night, after) == utc_ms("2026-03-15T02:30:00-04:00")
