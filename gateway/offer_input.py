"""How people write an Offer: the same mapping in a TOML or JSON file and in an HTTP body.

    title = "Autumn noodles"            kind = "prepaid"               value = "12.50 CNY"
    starts = "2025-11-01"               ends = "2025-11-30"            time_zone = "Asia/Shanghai"
    hours = ["mon-fri 11:00-14:00", "sat,sun 10:00-22:00"]
    stores = ["noodle-bar-1"]           alliance = "east-side"
    funder = "City of Example"          channel = "app"
    reversal_window = "15m"             dispute = "90d"
    offline = { count = 20, value = "500.00 CNY", minutes = 240 }

A moment is ISO 8601. Without an offset it is wall time in `time_zone`, and is refused if the clocks skip or
repeat it. A date alone is the whole day: as `starts` its first instant, as `ends` the first of the day after.
"""

import difflib
import re
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import msgspec

from eventstore.events import Hours, Offer
from eventstore.offline_events import OfflinePolicy
from gateway.directory import Rejected
from gateway.money import Money, parse_money
from gateway.offer_rules import DAY_MINUTES, check_offer, is_time_zone

_FIELDS = (
    *(
        "title",
        "kind",
        "value",
        "starts",
        "ends",
        "time_zone",
        "hours",
        "stores",
        "alliance",
        "funder",
        "channel",
    ),
    *("reversal_window", "dispute", "offline"),
)
_OFFLINE_FIELDS = ("count", "value", "minutes")
_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_UNITS_MS = {"s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_DURATION = re.compile(r"(\d{1,6})([smhd])", re.ASCII)
_HOURS = re.compile(r"([a-z,-]+) (\d\d):(\d\d)-(\d\d):(\d\d)", re.ASCII)
_MOMENT = re.compile(r"\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d(\.\d{1,6})?)?(Z|[+-]\d\d:\d\d)?)?", re.ASCII)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DEFAULT = {field.name: field.default for field in msgspec.structs.fields(Offer)}


def offer_from_mapping(mapping: Mapping[str, object]) -> Offer | Rejected:
    """The offer a mapping describes, or the first field that is wrong and why. Any mapping may be given."""
    fields = _Fields(mapping)
    fields.refuse_unknown(_FIELDS)
    zone = fields.read("time_zone", _time_zone, ZoneInfo(_DEFAULT["time_zone"]))
    value = fields.read("value", _money)
    return fields.rejected or _read_offer(fields, zone, value)


def _read_offer(fields: "_Fields", zone: ZoneInfo, value: Money) -> Offer | Rejected:
    fields_of_offer = {
        "title": fields.read("title", _text),
        "kind": fields.read("kind", _text),
        "value_minor": value.minor,
        "currency": value.currency,
        "starts_ms": fields.read("starts", lambda given: _moment_ms(given, zone, last_day=False)),
        "ends_ms": fields.read("ends", lambda given: _moment_ms(given, zone, last_day=True)),
        "time_zone": zone.key,
        "hours": fields.read("hours", _hours, ()),
        "stores": fields.read("stores", _texts, ()),
        "alliance": fields.read("alliance", _text, None),
        "funder": fields.read("funder", _text, ""),
        "channel": fields.read("channel", _text, ""),
        "reversal_window_ms": fields.read("reversal_window", _duration_ms, _DEFAULT["reversal_window_ms"]),
        "dispute_ms": fields.read("dispute", _duration_ms, _DEFAULT["dispute_ms"]),
        "offline": fields.read("offline", lambda given: _offline(given, value.currency), None),
    }
    if fields.rejected is not None:
        return fields.rejected
    offer = Offer(**fields_of_offer)
    rejected = check_offer(offer)
    return offer if rejected is None else msgspec.structs.replace(rejected, field=_as_written(rejected.field))


def _as_written(field: str) -> str:
    """The name of an Offer's field (`stores[2]`, `offline.count_max`) as the mapping calls it."""
    if field == "currency":
        return "value"
    return re.sub(r"_minor|_ms|_max", "", field)


class _Fields:
    """Reads fields out of a mapping, keeps the first refusal; after one, what it returns has no meaning."""

    def __init__(self, mapping: Mapping[str, object]) -> None:
        self.mapping = mapping
        self.rejected: Rejected | None = None

    def refuse_unknown(self, known: tuple[str, ...]) -> None:
        for name in self.mapping:
            if name not in known:
                close = difflib.get_close_matches(str(name), known, n=1)
                self._reject(str(name), f"unknown field{f'; did you mean {close[0]}?' if close else ''}")

    def read(self, name: str, parse: Callable[[object], Any], default: Any = msgspec.NODEFAULT) -> Any:
        """`parse` returns what it made of the value, or a Rejected whose field is the place inside it."""
        if name not in self.mapping:
            if default is msgspec.NODEFAULT:
                self._reject(name, "is missing")
            return default
        parsed = parse(self.mapping[name])
        if isinstance(parsed, Rejected):
            self._reject(name + parsed.field, parsed.why)
        return parsed

    def _reject(self, field: str, why: str) -> None:
        self.rejected = self.rejected or Rejected(field, why)


def _text(given: object) -> str | Rejected:
    return given if isinstance(given, str) else Rejected("", "must be text")


def _texts(given: object) -> tuple[str, ...] | Rejected:
    if not isinstance(given, list):
        return Rejected("", "must be a list of texts")
    for index, text in enumerate(given):
        if not isinstance(text, str):
            return Rejected(f"[{index}]", "must be text")
    return tuple(given)


def _count(given: object) -> int | Rejected:
    if isinstance(given, int) and not isinstance(given, bool):
        return given
    return Rejected("", "must be a whole number")


def _money(given: object) -> Money | Rejected:
    parsed = parse_money(given) if isinstance(given, str) else 'must be text like "12.50 CNY"'
    return Rejected("", parsed) if isinstance(parsed, str) else parsed


def _time_zone(given: object) -> ZoneInfo | Rejected:
    if isinstance(given, str) and is_time_zone(given):
        return ZoneInfo(given)
    return Rejected("", 'must be an IANA time zone such as "Asia/Shanghai"')


def _duration_ms(given: object) -> int | Rejected:
    found = _DURATION.fullmatch(given) if isinstance(given, str) else None
    if found is None:
        return Rejected("", 'must be a number and a unit: "30s", "15m", "12h" or "90d"')
    return int(found[1]) * _UNITS_MS[found[2]]


def _offline(given: object, currency: str) -> OfflinePolicy | Rejected:
    if not isinstance(given, Mapping):
        return Rejected("", "must hold count, value and minutes")
    fields = _Fields(given)
    fields.refuse_unknown(_OFFLINE_FIELDS)
    count, value = fields.read("count", _count), fields.read("value", _money)
    minutes = fields.read("minutes", _count)
    if fields.rejected is not None:
        return Rejected(f".{fields.rejected.field}", fields.rejected.why)
    if value.currency != currency:
        return Rejected(".value", f"must be in {currency}, as the offer's value")
    return OfflinePolicy(count, value.minor, minutes)


# --- moments and hours --------------------------------------------------------------------------------------


def _moment_ms(given: object, zone: ZoneInfo, *, last_day: bool) -> int | Rejected:
    """UTC milliseconds of an ISO 8601 text, or of the date or time a TOML reader made of one."""
    if isinstance(given, str):
        given = _moment_of_text(given)
    if isinstance(given, datetime):
        return _moment_of_datetime_ms(given, zone)
    if not isinstance(given, date):
        return Rejected("", 'must be like "2025-11-01", "2025-11-01T09:30" or "2025-11-01T09:30:00+08:00"')
    if given == date.max:
        return Rejected("", "is too far away")
    day = given + timedelta(days=int(last_day))
    return _epoch_ms(datetime(day.year, day.month, day.day, tzinfo=zone))


def _moment_of_text(text: str) -> date | None:
    if not _MOMENT.fullmatch(text):
        return None
    try:
        return datetime.fromisoformat(text) if len(text) > len("2025-11-01") else date.fromisoformat(text)
    except ValueError:  # the form is right, but there is no such day or hour
        return None


def _moment_of_datetime_ms(given: datetime, zone: ZoneInfo) -> int | Rejected:
    if given.tzinfo is not None:
        return _epoch_ms(given)
    wall = given.replace(tzinfo=zone)
    if wall.utcoffset() != wall.replace(fold=1).utcoffset():
        return Rejected("", f'the clocks of {zone.key} skip or repeat this time; add an offset such as "+02:00"')
    return _epoch_ms(wall)


def _epoch_ms(moment: datetime) -> int:
    return (moment - _EPOCH) // timedelta(milliseconds=1)


def _hours(given: object) -> tuple[Hours, ...] | Rejected:
    rules = _texts(given)
    if isinstance(rules, Rejected):
        return rules
    hours: list[Hours] = []
    for index, rule in enumerate(rules):
        parsed = _hours_of_rule(rule)
        if isinstance(parsed, str):
            return Rejected(f"[{index}]", parsed)
        hours += parsed
    return tuple(hours)


def _hours_of_rule(rule: str) -> list[Hours] | str:
    """The hours of `"mon-fri 11:00-14:00"`, or why not. Hours past midnight become two, each on its day."""
    found = _HOURS.fullmatch(rule)
    weekdays = _weekdays(found[1]) if found else None
    if found is None or weekdays is None:
        return 'must be like "mon-fri 11:00-14:00", "sat,sun 10:00-22:00" or "daily 22:00-02:00"'
    from_hour, from_minute, to_hour, to_minute = map(int, found.groups()[1:])
    opens, closes = from_hour * 60 + from_minute, to_hour * 60 + to_minute
    if max(from_minute, to_minute) > 59 or opens >= DAY_MINUTES or closes > DAY_MINUTES or opens == closes:
        return "the hours must be between 00:00 and 24:00, and the first must not be the last"
    if opens < closes:
        return [Hours(weekdays, opens, closes)]
    evening = Hours(weekdays, opens, DAY_MINUTES)
    morning = Hours(tuple(sorted(day % 7 + 1 for day in weekdays)), 0, closes)
    return [evening, morning] if closes else [evening]


def _weekdays(text: str) -> tuple[int, ...] | None:
    """ISO weekdays of `"mon-fri"`, `"sat,sun"`, `"fri-mon"`, `"daily"`, sorted; None if it is none."""
    if text == "daily":
        return tuple(range(1, 8))
    days: set[int] = set()
    for part in text.split(","):
        first, _, last = part.partition("-")
        last = last or first
        if first not in _DAYS or last not in _DAYS or part.endswith("-"):
            return None
        start = _DAYS.index(first)
        days |= {(start + n) % 7 + 1 for n in range((_DAYS.index(last) - start) % 7 + 1)}
    return tuple(sorted(days))
