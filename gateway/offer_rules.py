"""What an Offer must fulfil before a campaign may be created with it, and the form of names everywhere."""

import functools
import re
import zoneinfo

from eventstore.events import Hours, Offer
from eventstore.offline_events import OfflinePolicy
from gateway.campaign import next_legal_ms
from gateway.directory import Rejected
from gateway.money import EXPONENTS, MINOR_MAX

OFFER_KINDS = ("prepaid", "discount", "gift")
TITLE_CHARS_MAX = 120  # two lines on a till's display
DAY_MINUTES = 24 * 60
MOMENT_MS_MAX = 4_102_444_800_000  # the year 2100: beyond it someone mistyped a year or gave microseconds
DISPUTE_MS_MAX = 3650 * 86_400_000  # ten years, the longest that bookkeeping laws keep receipts
HOURS_MAX = 64  # nine different stretches on every weekday
STORES_MAX = 10_000  # longer lists are alliances, and would make the event of a campaign larger than a batch
OFFLINE_COUNT_MAX = 100_000  # more than one till can scan in a week
OFFLINE_MINUTES_MAX = 7 * DAY_MINUTES  # a till a week without the gateway is broken, not offline

_TEXT_ID = re.compile(r"[a-z0-9-]{1,32}", re.ASCII)


def check_text_id(field: str, text: str) -> Rejected | None:
    """The form of the ids of merchants, stores, alliances, channels, tokens, and of slugs."""
    if _TEXT_ID.fullmatch(text):
        return None
    return Rejected(field, "must be 1 to 32 lower-case letters, digits or dashes")


def check_title(field: str, text: str) -> Rejected | None:
    """A name for people: one printable line, without blanks around it."""
    if 0 < len(text) <= TITLE_CHARS_MAX and text.isprintable() and text == text.strip():
        return None
    return Rejected(field, f"must be one line of 1 to {TITLE_CHARS_MAX} printable characters, no blanks around it")


def check_range(field: str, number: int, low: int, high: int) -> Rejected | None:
    return None if low <= number <= high else Rejected(field, f"must be between {low} and {high}, is {number}")


@functools.cache
def _time_zones() -> frozenset[str]:
    """IANA names; not those that mean another zone on every machine."""
    return frozenset(zoneinfo.available_timezones() - {"localtime", "Factory"})


def is_time_zone(name: str) -> bool:
    return name in _time_zones()


def check_offer(offer: Offer) -> Rejected | None:
    """What is wrong with an offer in itself. Whether its stores exist is for the directory to say."""
    return (
        check_title("title", offer.title)
        or _check_value(offer)
        or _check_window(offer)
        or _check_hours(offer)
        or _check_eligibility(offer)
        or _check_parties(offer)
        or check_range("dispute_ms", offer.dispute_ms, 0, DISPUTE_MS_MAX)
        or _check_reversal_window(offer)
        or (_check_offline(offer.offline) if offer.offline else None)
    )


def _check_value(offer: Offer) -> Rejected | None:
    if offer.kind not in OFFER_KINDS:
        return Rejected("kind", f"must be one of {', '.join(OFFER_KINDS)}")
    if offer.currency not in EXPONENTS:
        return Rejected("currency", "must be a known ISO 4217 currency, three capital letters")
    return check_range("value_minor", offer.value_minor, 0 if offer.kind == "gift" else 1, MINOR_MAX)


def _check_window(offer: Offer) -> Rejected | None:
    rejected = check_range("starts_ms", offer.starts_ms, 0, MOMENT_MS_MAX) or check_range(
        "ends_ms", offer.ends_ms, 0, MOMENT_MS_MAX
    )
    if rejected is None and offer.ends_ms <= offer.starts_ms:
        return Rejected("ends_ms", "must be later than the start")
    if rejected is None and not is_time_zone(offer.time_zone):
        return Rejected("time_zone", 'must be an IANA time zone such as "Asia/Shanghai"')
    return rejected


def _check_hours(offer: Offer) -> Rejected | None:
    if len(offer.hours) > HOURS_MAX:
        return Rejected("hours", f"at most {HOURS_MAX} rules, not {len(offer.hours)}")
    for index, rule in enumerate(offer.hours):
        if why := _why_no_hours(rule):
            return Rejected(f"hours[{index}]", why)
    if next_legal_ms(offer, offer.starts_ms) is None:
        return Rejected("hours", "never open between the start and the end")
    return None


def _why_no_hours(rule: Hours) -> str | None:
    if not rule.weekdays or not set(rule.weekdays) <= set(range(1, 8)):
        return "weekdays are 1 (Monday) to 7 (Sunday), at least one"
    if len(set(rule.weekdays)) < len(rule.weekdays):
        return "a weekday is named twice"
    if not 0 <= rule.from_minute < rule.to_minute <= DAY_MINUTES:
        return "the hours must begin before they end, between 00:00 and 24:00"
    return None


def _check_eligibility(offer: Offer) -> Rejected | None:
    if not offer.stores and offer.alliance is None:
        return Rejected("stores", "name stores, an alliance, or both: nobody could redeem this")
    if len(offer.stores) > STORES_MAX:
        return Rejected("stores", f"at most {STORES_MAX} stores, not {len(offer.stores)}; use an alliance")
    if len(set(offer.stores)) < len(offer.stores):
        return Rejected("stores", "a store is named twice")
    for index, store in enumerate(offer.stores):
        if rejected := check_text_id(f"stores[{index}]", store):
            return rejected
    return None if offer.alliance is None else check_text_id("alliance", offer.alliance)


def _check_parties(offer: Offer) -> Rejected | None:
    return (check_title("funder", offer.funder) if offer.funder else None) or (
        check_text_id("channel", offer.channel) if offer.channel else None
    )


def _check_reversal_window(offer: Offer) -> Rejected | None:
    """A purge after the dispute period forgets who redeemed what: no reversal may still be open then."""
    if 0 <= offer.reversal_window_ms <= offer.dispute_ms:
        return None
    return Rejected("reversal_window_ms", "must not be negative, nor longer than the dispute period")


def _check_offline(offline: OfflinePolicy) -> Rejected | None:
    return (
        check_range("offline.count_max", offline.count_max, 0, OFFLINE_COUNT_MAX)
        or check_range("offline.value_minor_max", offline.value_minor_max, 0, MINOR_MAX)
        or check_range("offline.minutes_max", offline.minutes_max, 0, OFFLINE_MINUTES_MAX)
    )
