"""A festival written down: what is scanned when, at which tills, what goes wrong meanwhile, and what must come of it.

A scenario is one TOML file (loadtest/scenarios holds those that come with Tillgate), read into the types below by both
generators. Whatever cannot be done is refused here, by the name of the field, before any load starts; the rules that
look at several fields at once are in loadtest/scenario_rules.py. Times are seconds after the first intended start.
"""

import re
import tomllib
from difflib import get_close_matches
from typing import Annotated, Any

import msgspec
from msgspec import Meta

STORES_MAX, TERMINALS_MAX = 10_000, 50_000
RATE_MAX = 1_000_000.0
SECONDS_MAX = 7 * 86_400.0
SENDS = (8_000, 60_000, 70_000, 85_000, 95_000, 110_000, 132_000, 300_000, 340_000)  # vouchers, by day of the origin
REDEEMED_SHARE = 1 / 6  # 200,000 of these 1.2 million

Share = Annotated[float, Meta(ge=0, le=1)]
Rate = Annotated[float, Meta(gt=0, le=RATE_MAX)]
Seconds = Annotated[float, Meta(gt=0, le=SECONDS_MAX)]
Moment = Annotated[float, Meta(ge=0, le=SECONDS_MAX)]
Milliseconds = Annotated[float, Meta(gt=0)]
Count = Annotated[int, Meta(ge=1, le=100_000_000)]


class ScenarioRefused(Exception):
    """A scenario that cannot be run: `field` is its place in the file, such as `arrivals.rate`."""

    def __init__(self, field: str, why: str) -> None:
        super().__init__(f"{field}: {why}" if field else why)
        self.field, self.why = field, why


class _Strict(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class _Shape(_Strict, frozen=True, kw_only=True, tag_field="shape"):
    pass


class Constant(_Shape, frozen=True, kw_only=True, tag="constant"):
    """The same rate all the time."""

    rate: Rate


class Ramp(_Shape, frozen=True, kw_only=True, tag="ramp"):
    """From one rate to another, evenly, and then on at the second."""

    start: Annotated[float, Meta(ge=0, le=RATE_MAX)] = 0
    end: Rate
    over_s: Seconds


class Steps(_Shape, frozen=True, kw_only=True, tag="steps"):
    """One rate after the other, each for the same time."""

    rates: Annotated[tuple[Rate, ...], Meta(min_length=1, max_length=1000)]


class Points(_Shape, frozen=True, kw_only=True, tag="points"):
    """Rates at moments, straight lines between them; the last holds until the end."""

    points: Annotated[tuple[tuple[Moment, Annotated[float, Meta(ge=0, le=RATE_MAX)]], ...], Meta(min_length=1)]


class Origin(_Shape, frozen=True, kw_only=True, tag="origin"):
    """The nine days this field began with: 1.2 million vouchers sent, a sixth redeemed, two humps a day.

    A day takes `day_seconds`. With `peak_minutes` only those around the peak of each of `days` are played.
    """

    scale: Annotated[float, Meta(gt=0, le=100_000)] = 1
    day_seconds: Annotated[float, Meta(ge=1, le=86_400)] = 86_400
    days: tuple[Annotated[int, Meta(ge=1, le=len(SENDS))], ...] = tuple(range(1, len(SENDS) + 1))
    peak_minutes: Annotated[float, Meta(gt=0, le=60)] | None = None


class Race(_Shape, frozen=True, kw_only=True, tag="race"):
    """Every till scans the same code at once, with a new id each; the next round has the next code."""

    rounds: Count = 1
    every_s: Seconds = 1
    within_ms: Annotated[float, Meta(ge=0, le=60_000)] = 5


class Search(_Shape, frozen=True, kw_only=True, tag="search"):
    """Steps that rise until the marks are missed, and then close in on the knee."""

    first: Rate
    factor: Annotated[float, Meta(ge=1.01, le=10)] = 1.5
    last: Rate
    step_seconds: Seconds
    refine: Annotated[int, Meta(ge=0, le=10)] = 2  # further steps between the last that held and the first that did not


Arrivals = Constant | Ramp | Steps | Points | Origin | Race | Search


class Terminals(_Strict, frozen=True, kw_only=True):
    count: Annotated[int, Meta(ge=1, le=TERMINALS_MAX)]
    stores: Annotated[int, Meta(ge=1, le=STORES_MAX)] = 1
    http: Share = 0  # that redeem over HTTP; the others hold a stream open
    scans: Annotated[int, Meta(ge=1, le=256)] = 1  # in a message: more than one is a till that hands over what it kept


class Vouchers(_Strict, frozen=True, kw_only=True):
    issued: Count | None = None  # None: as many as will be redeemed


class Mix(_Strict, frozen=True, kw_only=True):
    """Shares of all arrivals; the rest redeem vouchers that nobody has redeemed."""

    used: Share = 0  # a voucher that was redeemed before, with a new id
    reverse: Share = 0  # of a redemption made at the same till
    lookup: Share = 0  # what became of an id
    bad: Share = 0  # a code that is cut short, expired, of elsewhere, or nobody's


class Repeats(_Strict, frozen=True, kw_only=True):
    """Messages sent twice though the answer was not missing."""

    share: Share = 0  # of redemptions, with the same id
    within_s: Annotated[float, Meta(gt=0, le=60)] = 2  # of the first send, some before its answer


class Patience(_Strict, frozen=True, kw_only=True):
    """How a till waits."""

    answer_s: Annotated[float, Meta(gt=0, le=600)] = 3  # then it asks again, with the same id
    again_s: Annotated[float, Meta(gt=0, le=60)] = 0.25  # before it asks or connects again, at first
    again_most_s: Annotated[float, Meta(gt=0, le=600)] = 2  # doubling up to here
    settle_s: Annotated[float, Meta(gt=0, le=3600)] = (
        15  # after the last arrival; then what has no answer is unresolved
    )


class Outage(_Strict, frozen=True, kw_only=True):
    """Stores without a network: their tills keep what they scan and hand it over afterwards, all at once."""

    stores: Count
    at_s: Moment
    for_s: Seconds


class ImportBurst(_Strict, frozen=True, kw_only=True):
    """Foreign codes imported while others redeem."""

    count: Count
    at_s: Moment


class Replay(_Strict, frozen=True, kw_only=True):
    """After the load: Valkey's state is deleted and made again from the log."""

    rebuilds: Annotated[int, Meta(ge=1, le=10)] = 1


class FaultPlan(_Strict, frozen=True, kw_only=True):
    """Something done to the deployment on purpose; `name` is one of loadtest.faults."""

    name: str
    at_s: Moment
    for_s: Moment = 0


class Marks(_Strict, frozen=True, kw_only=True):
    """What the run is judged by; None: not at all. Latencies are from the intended start."""

    p50_ms: Milliseconds | None = None
    p99_ms: Milliseconds | None = None
    p999_ms: Milliseconds | None = None
    service_p99_ms: Milliseconds | None = None
    unresolved: Annotated[int, Meta(ge=0)] | None = 0
    dropped: Annotated[int, Meta(ge=0)] | None = 0
    accepted: Annotated[int, Meta(ge=0)] | None = None  # exactly
    rebuild_s: Seconds | None = None


class Scenario(_Strict, frozen=True, kw_only=True):
    """One file."""

    name: str = ""  # of the file, without `.toml`
    title: str
    shows: str
    tags: tuple[str, ...] = ()
    seed: int = 1
    seconds: Seconds | None = None  # of arrivals; None where the shape says it itself
    generators: Annotated[int, Meta(ge=1, le=64)] = 1  # processes
    in_flight: Annotated[int, Meta(ge=1, le=1_000_000)] = 20_000  # attempts under way in all; more are dropped and told
    arrivals: Arrivals
    terminals: Terminals
    vouchers: Vouchers = Vouchers()
    mix: Mix = Mix()
    repeats: Repeats = Repeats()
    patience: Patience = Patience()
    outage: Outage | None = None
    imports: ImportBurst | None = None
    replay: Replay | None = None
    faults: tuple[FaultPlan, ...] = ()
    marks: Marks = Marks()

    @property
    def length_s(self) -> float:
        """Seconds from the first possible arrival to the last. Of a search: as long as it may take."""
        match self.arrivals:
            case Origin(peak_minutes=None) as shape:
                return shape.day_seconds * len(shape.days)
            case Origin() as shape:
                return (shape.peak_minutes or 0) / 1440 * shape.day_seconds * len(shape.days)
            case Race() as shape:
                return shape.rounds * shape.every_s
            case Search() as shape:
                return shape.step_seconds * len(search_rates(shape)) + shape.step_seconds * shape.refine
        assert self.seconds is not None, "checked when it was read"
        return self.seconds


def search_rates(shape: Search) -> list[float]:
    """The rising steps, before it closes in."""
    rates = [shape.first]
    while rates[-1] < shape.last:
        rates.append(min(rates[-1] * shape.factor, shape.last))
    return rates


def read(text: str, name: str) -> Scenario:
    """A scenario from TOML; only its fields one by one are checked. Raises ScenarioRefused."""
    try:
        given: dict[str, Any] = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ScenarioRefused("", f"this is no TOML: {error}") from None
    try:
        scenario = msgspec.convert({"name": name, **given}, Scenario)
    except msgspec.ValidationError as error:
        raise refusal_of(str(error)) from None
    return _with_seconds(scenario)


def _with_seconds(scenario: Scenario) -> Scenario:
    tells_itself = isinstance(scenario.arrivals, Origin | Race | Search)
    if tells_itself and scenario.seconds is not None:
        raise ScenarioRefused(
            "seconds", f"the shape {scenario.arrivals.__struct_config__.tag!r} says how long it takes"
        )
    if not tells_itself and scenario.seconds is None:
        raise ScenarioRefused("seconds", "is missing: how long arrivals go on")
    return scenario


_UNKNOWN = re.compile(r"unknown field `(?P<name>[^`]*)`(?: - at `\$\.?(?P<at>[^`]*)`)?")
_AT = re.compile(r" - at `\$\.?(?P<at>[^`]*)`")
_MISSING = re.compile(r"missing required field `(?P<name>[^`]*)`")


def refusal_of(told: str) -> ScenarioRefused:
    """msgspec's message as a refusal: with the field first, and what was perhaps meant."""
    at = _AT.search(told)
    place = re.sub(r"\[(\.\.\.|\d+)\]", "", at["at"]) if at else ""
    if found := _UNKNOWN.search(told):
        close = get_close_matches(found["name"], _known(place), n=1)
        hint = f"; did you mean {close[0]!r}?" if close else f"; there is: {', '.join(sorted(_known(place)))}"
        return ScenarioRefused(_joined(place, found["name"]), "unknown field" + hint)
    if found := _MISSING.search(told):
        return ScenarioRefused(_joined(place, found["name"]), "is missing")
    if place == "arrivals.shape":
        return ScenarioRefused(place, f"must be one of {', '.join(sorted(_SHAPES))}")
    why = _AT.sub("", told)
    return ScenarioRefused(place, why[:1].lower() + why[1:])


_SHAPES = {str(kind.__struct_config__.tag): kind for kind in (Constant, Ramp, Steps, Points, Origin, Race, Search)}
_PARTS: dict[str, tuple[type[msgspec.Struct], ...]] = {
    "": (Scenario,),
    "arrivals": tuple(_SHAPES.values()),
    "terminals": (Terminals,),
    "vouchers": (Vouchers,),
    "mix": (Mix,),
    "repeats": (Repeats,),
    "patience": (Patience,),
    "outage": (Outage,),
    "imports": (ImportBurst,),
    "replay": (Replay,),
    "faults": (FaultPlan,),
    "marks": (Marks,),
}


def _known(place: str) -> set[str]:
    return {name for kind in _PARTS.get(place, ()) for name in kind.__struct_fields__}


def _joined(place: str, name: str) -> str:
    return f"{place}.{name}" if place else name
