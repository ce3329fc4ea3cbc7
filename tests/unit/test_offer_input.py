"""Offers as people write them: what is understood, and which field is named when it is not."""

import tomllib
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventstore.events import Hours, Offer
from eventstore.offline_events import OfflinePolicy
from gateway import offer_input
from gateway.directory import Rejected
from gateway.money import EXPONENTS, Money, money_text, parse_money
from gateway.offer_input import offer_from_mapping

PLAIN: dict[str, Any] = {
    "title": "Autumn noodles",
    "kind": "prepaid",
    "value": "12.50 CNY",
    "starts": "2025-11-01",
    "ends": "2025-11-30",
    "stores": ["bar-1"],
}


def utc_ms(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp()) * 1000


def offer(**changes: Any) -> Offer:
    made = offer_from_mapping(PLAIN | changes)
    assert isinstance(made, Offer), made
    return made


def documented_example() -> str:
    """The example in the module's docstring, with each `name = value` on a line of its own."""
    text = offer_input.__doc__ or ""
    example = [line.strip() for line in text.splitlines() if line.startswith("    ")]
    return "\n".join(part.strip() for line in example for part in line.split("      "))


def test_the_documented_example_means_what_it_says() -> None:
    assert offer_from_mapping(tomllib.loads(documented_example())) == Offer(
        title="Autumn noodles",
        kind="prepaid",
        value_minor=1250,
        currency="CNY",
        starts_ms=utc_ms("2025-11-01T00:00:00+08:00"),
        ends_ms=utc_ms("2025-12-01T00:00:00+08:00"),
        time_zone="Asia/Shanghai",
        hours=(Hours((1, 2, 3, 4, 5), 660, 840), Hours((6, 7), 600, 1320)),
        stores=("noodle-bar-1",),
        alliance="east-side",
        funder="City of Example",
        channel="app",
        reversal_window_ms=15 * 60_000,
        dispute_ms=90 * 86_400_000,
        offline=OfflinePolicy(20, 50_000, 240),
    )


def test_what_is_not_said_is_the_events_default() -> None:
    made = offer()
    assert (made.time_zone, made.hours, made.alliance, made.offline) == ("Asia/Shanghai", (), None, None)
    assert (made.reversal_window_ms, made.dispute_ms) == (15 * 60_000, 90 * 86_400_000)


REJECTED: tuple[tuple[dict[str, Any], str], ...] = (
    ({"valeu": "1.00 CNY"}, "valeu"),
    ({"title": 5}, "title"),
    ({"title": ""}, "title"),
    ({"kind": "loan"}, "kind"),
    ({"value": 12.5}, "value"),
    ({"value": "12.50"}, "value"),
    ({"value": "12.505 CNY"}, "value"),
    ({"value": "0.00 CNY"}, "value"),
    ({"value": "1.00 XXX"}, "value"),
    ({"value": "-1.00 CNY"}, "value"),
    ({"starts": 5}, "starts"),
    ({"starts": "tomorrow"}, "starts"),
    ({"starts": "2025-13-01"}, "starts"),
    ({"starts": "20251101"}, "starts"),
    ({"starts": "2025-11-01T25:00"}, "starts"),
    ({"starts": "2026-03-08T02:30", "time_zone": "America/New_York"}, "starts"),  # skipped
    ({"starts": "2025-11-02T01:30", "time_zone": "America/New_York"}, "starts"),  # comes twice
    ({"starts": "0001-01-01"}, "starts"),
    ({"ends": "2025-10-31"}, "ends"),
    ({"ends": "9999-12-31"}, "ends"),
    ({"ends": "9999-12-30"}, "ends"),
    ({"time_zone": "China"}, "time_zone"),
    ({"time_zone": None}, "time_zone"),
    ({"hours": "mon 11:00-14:00"}, "hours"),
    ({"hours": ["mon 11:00-14:00", 5]}, "hours[1]"),
    ({"hours": ["mon 11:00-14:00", "mon 11-14"]}, "hours[1]"),
    ({"hours": ["mo 11:00-14:00"]}, "hours[0]"),
    ({"hours": ["mon- 11:00-14:00"]}, "hours[0]"),
    ({"hours": ["mon,, 11:00-14:00"]}, "hours[0]"),
    ({"hours": ["mon 11:60-14:00"]}, "hours[0]"),
    ({"hours": ["mon 11:00-24:01"]}, "hours[0]"),
    ({"hours": ["mon 24:00-11:00"]}, "hours[0]"),
    ({"hours": ["mon 11:00-11:00"]}, "hours[0]"),
    ({"hours": ["daily 11:00-12:00"] * 65}, "hours"),
    ({"stores": "bar-1"}, "stores"),
    ({"stores": ["bar-1", 2]}, "stores[1]"),
    ({"stores": ["bar-1", "Bar"]}, "stores[1]"),
    ({"stores": []}, "stores"),
    ({"alliance": 5}, "alliance"),
    ({"channel": "The App"}, "channel"),
    ({"reversal_window": 15}, "reversal_window"),
    ({"reversal_window": "15 minutes"}, "reversal_window"),
    ({"reversal_window": "91d"}, "reversal_window"),
    ({"dispute": "9999d"}, "dispute"),
    ({"offline": True}, "offline"),
    ({"offline": {"count": 1, "value": "1.00 CNY"}}, "offline.minutes"),
    ({"offline": {"count": 1, "value": "1.00 USD", "minutes": 5}}, "offline.value"),
    ({"offline": {"count": True, "value": "1.00 CNY", "minutes": 5}}, "offline.count"),
    ({"offline": {"count": -1, "value": "1.00 CNY", "minutes": 5}}, "offline.count"),
    ({"offline": {"count": 1, "value": "1.00 CNY", "minutes": 5, "secs": 1}}, "offline.secs"),
)


@pytest.mark.parametrize(("changes", "field"), REJECTED, ids=str)
def test_the_wrong_field_is_named(changes: dict[str, Any], field: str) -> None:
    rejected = offer_from_mapping(PLAIN | changes)
    assert isinstance(rejected, Rejected)
    assert rejected.field == field
    assert rejected.why


@pytest.mark.parametrize("missing", ("title", "kind", "value", "starts", "ends"))
def test_a_missing_field_is_named(missing: str) -> None:
    rest = {name: value for name, value in PLAIN.items() if name != missing}
    assert offer_from_mapping(rest) == Rejected(missing, "is missing")


def test_a_mistyped_field_gets_a_suggestion() -> None:
    assert offer_from_mapping(PLAIN | {"valeu": ""}) == Rejected("valeu", "unknown field; did you mean value?")


@pytest.mark.parametrize(
    ("starts", "zone", "instant"),
    (
        ("2025-11-01T09:30", "Asia/Shanghai", "2025-11-01T01:30:00+00:00"),
        ("2025-11-01 09:30:05.250", "UTC", "2025-11-01T09:30:05.250+00:00"),
        ("2025-11-01T09:30:00Z", "Asia/Shanghai", "2025-11-01T09:30:00+00:00"),
        ("2025-11-02T01:30:00-05:00", "America/New_York", "2025-11-02T06:30:00+00:00"),
        ("2018-11-04", "America/Sao_Paulo", "2018-11-04T03:00:00+00:00"),  # a day without a midnight
        (datetime(2025, 11, 1, 9, 30, tzinfo=UTC), "Asia/Shanghai", "2025-11-01T09:30:00+00:00"),
        (datetime(2025, 11, 1).date(), "Asia/Shanghai", "2025-10-31T16:00:00+00:00"),  # noqa: DTZ001 - a date
    ),
)
def test_moments(starts: object, zone: str, instant: str) -> None:
    exact_ms = round(datetime.fromisoformat(instant).timestamp() * 1000)
    assert offer(starts=starts, time_zone=zone).starts_ms == exact_ms


@pytest.mark.parametrize(
    ("rule", "hours"),
    (
        ("daily 00:00-24:00", (Hours((1, 2, 3, 4, 5, 6, 7), 0, 1440),)),
        ("fri-mon 09:05-10:00", (Hours((1, 5, 6, 7), 545, 600),)),
        ("mon,wed-thu,mon 09:00-10:00", (Hours((1, 3, 4), 540, 600),)),
        ("sat,sun 22:00-02:00", (Hours((6, 7), 1320, 1440), Hours((1, 7), 0, 120))),
        ("sun 22:00-00:00", (Hours((7,), 1320, 1440),)),
    ),
)
def test_hours(rule: str, hours: tuple[Hours, ...]) -> None:
    assert offer(hours=[rule]).hours == hours


# --- money ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "money"),
    (
        ("12.50 CNY", Money(1250, "CNY")),
        ("12.5 CNY", Money(1250, "CNY")),
        ("12 CNY", Money(1200, "CNY")),
        ("0.01 USD", Money(1, "USD")),
        ("1250 JPY", Money(1250, "JPY")),
        ("1.250 KWD", Money(1250, "KWD")),
    ),
)
def test_money_is_read_exactly(text: str, money: Money) -> None:
    assert parse_money(text) == money


@pytest.mark.parametrize(
    "text",
    (
        "",
        "CNY",
        "12.50",
        "12,50 CNY",
        "12.505 CNY",
        "1.0 JPY",
        ".5 CNY",
        "5. CNY",
        "1 CNY ",
        "１ CNY",
        "9" * 15 + ".99 KWD",
        "9" * 16 + " VND",
    ),
)
def test_money_is_never_guessed(text: str) -> None:
    assert isinstance(parse_money(text), str)


@given(st.integers(0, 2**53 - 1), st.sampled_from(sorted(EXPONENTS)))
def test_money_survives_being_written(minor: int, currency: str) -> None:
    assert parse_money(money_text(minor, currency)) == Money(minor, currency)


# --- anything ---------------------------------------------------------------------------------------------

json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8), st.datetimes(), st.dates()),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
    max_leaves=5,
)
wild = st.one_of(
    json_values,
    st.sampled_from(("2025-11-01T00:00+23:59", "0001-01-01T00:00+23:59", "9999-12-31T23:59-23:59", "Asia", "1d")),
)


@given(st.dictionaries(st.sampled_from((*PLAIN, "time_zone", "hours", "dispute", "offline", "alliance")), wild))
def test_no_mapping_breaks_the_reader(changes: dict[str, Any]) -> None:
    made = offer_from_mapping(PLAIN | changes)
    assert isinstance(made, Offer | Rejected)
