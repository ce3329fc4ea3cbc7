"""Where a campaign will end, from its last day: a straight line, said as one, beside the planned one. Pure."""

from collections.abc import Sequence

from eventstore.outcomes import HOUR_MS
from gateway.console_bodies import CampaignRow, Forecast, Hour

PACE_HOURS = 24  # a whole day, because lunch and night differ by more than any two days do


def forecast(row: CampaignRow, hours: Sequence[Hour], now_ms: int) -> Forecast:
    """At the pace of its last day (or since it began, if that is less), net of reversals, never more than is left.

    `hours` must reach back PACE_HOURS; `row.issued` must be known. The plan is an even pace from the campaign's first
    hour to its last towards everything issued and not voided.
    """
    assert row.issued is not None
    since_ms = max(row.starts_ms, now_ms - PACE_HOURS * HOUR_MS)
    first_hour_ms = since_ms // HOUR_MS * HOUR_MS
    span_hours = max(1.0, (now_ms - first_hour_ms) / HOUR_MS)
    recent = sum(hour.redeemed - hour.reversed for hour in hours if hour.at_ms >= first_hour_ms)
    pace = max(0.0, recent / span_hours)
    there_are = row.issued - row.voided
    redeemed = row.redeemed - row.reversed
    left_hours = max(0, row.ends_ms - now_ms) / HOUR_MS
    by_end = min(there_are, redeemed + round(pace * left_hours))
    gone = (now_ms - row.starts_ms) / max(1, row.ends_ms - row.starts_ms)
    sold_out_ms = None
    if pace and redeemed + pace * left_hours >= there_are:
        sold_out_ms = now_ms + round((there_are - redeemed) / pace * HOUR_MS)
    return Forecast(round(pace, 2), by_end, round(there_are * min(1.0, max(0.0, gone))), sold_out_ms)
