"""The static rules against a second, slower statement of them."""

import itertools
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventstore.events import Hours, Offer
from gateway.campaign import (
    CODE_KINDS,
    Campaign,
    Made,
    Outlet,
    Spans,
    compose,
    decide,
    decide_reversal,
    is_eligible,
    standing,
)
from gateway.messages import Verdict
from gateway.roles import ROLES, Bound, Principal

MINUTE_MS, HOUR_MS, DAY_MS = 60_000, 3_600_000, 86_400_000
START_MS = int(datetime(2025, 11, 3, tzinfo=UTC).timestamp()) * 1000  # a Monday
EVERY_DAY = tuple(range(1, 8))


def offer(**changes: Any) -> Offer:
    plain = Offer(
        title="Noodles",
        kind="prepaid",
        value_minor=1250,
        currency="CNY",
        starts_ms=START_MS,
        ends_ms=START_MS + 30 * DAY_MS,
        time_zone="UTC",
        stores=("bar-1",),
        alliance="east",
    )
    return msgspec.structs.replace(plain, **changes)


def campaign(the_offer: Offer | None = None, **changes: Any) -> Campaign:
    the_offer = the_offer or offer()
    plain = Campaign(
        number=7,
        slug="noodles",
        offer=the_offer,
        stores=frozenset(the_offer.stores),
        signed=Spans((1,), (101,)),
        typed=Spans((200,), (201,)),
    )
    return msgspec.structs.replace(plain, **changes)


HERE = Outlet("bar-1", "bar")


@pytest.mark.parametrize(
    ("changes", "now_ms", "verdict"),
    (
        ({}, START_MS, Verdict.ACCEPTED),
        ({}, START_MS - 1, Verdict.NOT_YET_VALID),
        ({}, START_MS + 30 * DAY_MS - 1, Verdict.ACCEPTED),
        ({}, START_MS + 30 * DAY_MS, Verdict.EXPIRED),
        ({"paused": True}, START_MS, Verdict.PAUSED),
        ({"paused": True}, START_MS - 1, Verdict.PAUSED),
        ({"closed_ms": START_MS}, START_MS, Verdict.CLOSED),
        ({"closed_ms": START_MS, "paused": True}, START_MS, Verdict.CLOSED),
        ({"closed_ms": START_MS, "purged": True}, START_MS + 90 * DAY_MS, Verdict.CLOSED),
        ({"stores": frozenset()}, START_MS, Verdict.NOT_ELIGIBLE),
        ({"stores": frozenset(), "closed_ms": START_MS}, START_MS, Verdict.NOT_ELIGIBLE),
    ),
)
def test_standing_of_a_campaign_in_a_store(changes: dict[str, Any], now_ms: int, verdict: Verdict) -> None:
    assert standing(campaign(**changes), HERE, now_ms) is verdict


@pytest.mark.parametrize(
    ("serial", "kind", "locked_until_ms", "verdict"),
    (
        (1, "signed", 0, Verdict.ACCEPTED),
        (100, "signed", START_MS, Verdict.ACCEPTED),  # a lock ends at its instant
        (100, "signed", START_MS + 1, Verdict.TERMINAL_LOCKED),
        (101, "signed", 0, Verdict.NOT_ISSUED),
        (0, "signed", 0, Verdict.NOT_ISSUED),
        (200, "signed", 0, Verdict.NOT_ISSUED),  # issued, but as a typed code
        (200, "typed", 0, Verdict.ACCEPTED),
        (1, "typed", 0, Verdict.NOT_ISSUED),
        (1, "foreign", 0, Verdict.NOT_ISSUED),
        (999, "signed", START_MS + 1, Verdict.TERMINAL_LOCKED),
    ),
)
def test_what_is_particular_to_a_scan(serial: int, kind: str, locked_until_ms: int, verdict: Verdict) -> None:
    told = decide(campaign(), HERE, serial=serial, kind=kind, locked_until_ms=locked_until_ms, now_ms=START_MS)
    assert told is verdict


def test_a_campaign_that_does_not_exist_never_issued_anything() -> None:
    told = decide(None, HERE, serial=1, kind="signed", locked_until_ms=0, now_ms=START_MS)
    assert told is Verdict.NOT_ISSUED


def test_eligible_by_name_or_by_alliance() -> None:
    by_name, by_alliance = Outlet("bar-1", "x"), Outlet("far", "bar", frozenset({"east", "west"}))
    neither = Outlet("far", "bar", frozenset({"west"}))
    assert [is_eligible(campaign(), outlet) for outlet in (by_name, by_alliance, neither)] == [
        True,
        True,
        False,
    ]
    no_alliance = campaign(offer(alliance=None, stores=("bar-1",)))
    assert not is_eligible(no_alliance, by_alliance)


# --- precedence: every true reason, then the smallest -----------------------------------------------------


def true_reasons(
    the_campaign: Campaign, outlet: Outlet, serial: int, kind: str, locked_until_ms: int, now_ms: int
) -> set[Verdict]:
    """Every reason against a redemption, each found without the others and without the split."""
    rules = the_campaign.offer
    span = {"signed": the_campaign.signed, "typed": the_campaign.typed, "foreign": the_campaign.foreign}[kind]
    wall = datetime.fromtimestamp(now_ms / 1000, ZoneInfo(rules.time_zone))
    seconds = wall.hour * 3600 + wall.minute * 60 + wall.second
    open_now = [
        rule
        for rule in rules.hours
        if wall.weekday() + 1 in rule.weekdays and rule.from_minute * 60 <= seconds < rule.to_minute * 60
    ]
    found = {
        Verdict.TERMINAL_LOCKED: locked_until_ms > now_ms,
        Verdict.NOT_ISSUED: not any(a <= serial < b for a, b in zip(span.starts, span.ends, strict=True)),
        Verdict.NOT_ELIGIBLE: outlet.store not in rules.stores
        and (rules.alliance is None or rules.alliance not in outlet.alliances),
        Verdict.CLOSED: the_campaign.closed_ms is not None or the_campaign.purged,
        Verdict.PAUSED: the_campaign.paused,
        Verdict.NOT_YET_VALID: now_ms < rules.starts_ms,
        Verdict.EXPIRED: now_ms >= rules.ends_ms,
        Verdict.OUTSIDE_HOURS: bool(rules.hours) and not open_now,
    }
    return {verdict for verdict, holds in found.items() if holds}


ZONES = ("UTC", "Asia/Shanghai", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu")
outlets = st.builds(
    Outlet,
    st.sampled_from(("bar-1", "bar-2")),
    st.just("bar"),
    st.sets(st.sampled_from(("east", "west"))).map(frozenset),
)


@st.composite
def hours(draw: st.DrawFn) -> Hours:
    opens = draw(st.integers(0, 1439))
    days = draw(st.sets(st.integers(1, 7), min_size=1))
    return Hours(tuple(sorted(days)), opens, draw(st.integers(opens + 1, 1440)))


@st.composite
def campaigns(draw: st.DrawFn) -> Campaign:
    closed = draw(st.booleans())
    the_offer = offer(
        time_zone=draw(st.sampled_from(ZONES)),
        hours=tuple(draw(st.lists(hours(), max_size=3))),
        alliance=draw(st.sampled_from((None, "east"))),
    )
    return campaign(
        the_offer,
        paused=draw(st.booleans()),
        closed_ms=START_MS if closed else None,
        purged=closed and draw(st.booleans()),
    )


moments = st.one_of(
    st.integers(START_MS - DAY_MS, START_MS + 32 * DAY_MS),
    st.sampled_from((START_MS, START_MS - 1, START_MS + 30 * DAY_MS, START_MS + 30 * DAY_MS - 1)),
)
scans = {
    "serial": st.sampled_from((0, 1, 100, 101, 200)),
    "kind": st.sampled_from(CODE_KINDS),
    "locked_until_ms": st.sampled_from((0, START_MS, START_MS + 16 * DAY_MS)),
}


@given(campaigns(), outlets, moments, st.fixed_dictionaries(scans))
def test_of_all_true_reasons_the_smallest_is_told(
    the_campaign: Campaign, outlet: Outlet, now_ms: int, scan: dict[str, Any]
) -> None:
    reasons = true_reasons(the_campaign, outlet, now_ms=now_ms, **scan)
    told = decide(the_campaign, outlet, now_ms=now_ms, **scan)
    assert told is min(reasons, default=Verdict.ACCEPTED)


@given(campaigns(), outlets, moments, st.lists(st.fixed_dictionaries(scans), min_size=2, max_size=5))
def test_a_standing_kept_for_a_tick_serves_every_scan_of_it(
    the_campaign: Campaign, outlet: Outlet, now_ms: int, tick: list[dict[str, Any]]
) -> None:
    kept = standing(the_campaign, outlet, now_ms)
    for scan in tick:
        issued = the_campaign.issued(scan["kind"]).holds(scan["serial"])
        locked = scan["locked_until_ms"] > now_ms
        alone = decide(the_campaign, outlet, now_ms=now_ms, **scan)
        assert compose(kept, locked=locked, issued=issued) is alone


# --- issued serials ---------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(1, 12)), max_size=15))
def test_spans_are_a_set_of_serials(ranges: list[tuple[int, int]]) -> None:
    spans, model = Spans(), set[int]()
    for first, count in ranges:
        new = set(range(first, first + count))
        assert spans.overlaps(first, count) == bool(model & new)
        if not model & new:
            spans, model = spans.joined(first, count), model | new
    assert {serial for serial in range(80) if spans.holds(serial)} == model
    borders = [border for pair in zip(spans.starts, spans.ends, strict=True) for border in pair]
    assert all(a < b for a, b in itertools.pairwise(borders))  # sorted, disjoint, and neighbours are joined


# --- reversals --------------------------------------------------------------------------------------------

MADE = Made(terminal=5, merchant="bar", at_ms=START_MS)
SAME_TILL = Principal("terminal", "bar", 5, "bar-1")


@pytest.mark.parametrize(
    ("asker", "acting_terminal", "allowed"),
    (
        (SAME_TILL, 5, True),
        (Principal("terminal", "bar", 6, "bar-1"), 6, False),
        (Principal("terminal", "bar", 6, "bar-1"), 5, False),  # a till cannot speak for another
        (Principal("integrator", "bar"), 5, True),
        (Principal("integrator", "bar"), 6, False),
        (Principal("integrator", "other"), 5, False),
        (Principal("supervisor", "bar"), 0, True),
        (Principal("supervisor", "bar"), 6, True),
        (Principal("supervisor", "other"), 5, False),
        (Principal("admin"), 0, True),
        (Principal("merchant", "bar"), 5, False),
        (Principal("operator"), 5, False),
        (Principal("auditor"), 5, False),
        (Principal("channel", "bar"), 5, False),
    ),
)
def test_who_may_reverse(asker: Principal, acting_terminal: int, allowed: bool) -> None:
    told = decide_reversal(MADE, asker, acting_terminal=acting_terminal, offer=offer(), now_ms=START_MS)
    assert told is (Verdict.ACCEPTED if allowed else Verdict.NOT_YOURS)


def test_every_role_is_tried_for_reversal() -> None:
    assert {role for role, row in ROLES.items() if row.bound is Bound.MERCHANT} == {
        "integrator",
        "supervisor",
        "merchant",
    }


@pytest.mark.parametrize("asker", (SAME_TILL, Principal("supervisor", "bar"), Principal("admin")))
def test_the_window_binds_everybody(asker: Principal) -> None:
    rules = offer(reversal_window_ms=1000)
    told = [
        decide_reversal(MADE, asker, acting_terminal=5, offer=rules, now_ms=START_MS + late_ms)
        for late_ms in (-5, 1000, 1001)
    ]
    assert told == [Verdict.ACCEPTED, Verdict.ACCEPTED, Verdict.WINDOW_OVER]


def test_a_stranger_learns_nothing_about_the_window() -> None:
    stranger = Principal("terminal", "other", 9, "far")
    told = decide_reversal(MADE, stranger, acting_terminal=9, offer=offer(), now_ms=START_MS + DAY_MS)
    assert told is Verdict.NOT_YOURS
