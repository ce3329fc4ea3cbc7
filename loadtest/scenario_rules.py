"""What a scenario as a whole must keep to, and how one is bent on the command line. Every refusal names its field."""

from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import msgspec

from loadtest.arrivals import busiest_second, expected, rate_most
from loadtest.scenario import (
    Constant,
    Origin,
    Points,
    Race,
    Ramp,
    Scenario,
    ScenarioRefused,
    Search,
    Steps,
    read,
    refusal_of,
)

SCENARIOS = Path(__file__).parent / "scenarios"
SCANS_PER_GENERATOR = 12_000.0  # a second, of one process: two thirds of what one core of 2024 gave
SCANS_IN_MESSAGES_PER_GENERATOR = 40_000.0  # the same in messages of 64
TERMINALS_PER_GENERATOR = 10_000  # open connections of one process
BATCHED = 16  # scans a message from which the second limit holds
SPARE_SHARE, SPARE = 0.02, 100  # vouchers beyond the expected need: shares are drawn, not dealt


def named(name: str) -> Scenario:
    """One that comes with Tillgate, or the file of this name. Raises ScenarioRefused."""
    path = SCENARIOS / f"{name}.toml"
    if not path.exists():
        path = Path(name)
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError):
        close = get_close_matches(name, names(), n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"there is: {', '.join(names())}"
        raise ScenarioRefused("", f"there is no scenario {name!r}, and no such file; {hint}") from None
    return read(text, path.stem)


def names() -> list[str]:
    """Those that come with Tillgate."""
    return sorted(path.stem for path in SCENARIOS.glob("*.toml"))


def vouchers_needed(scenario: Scenario) -> int:
    """Vouchers that nobody redeemed before, as many as its redemptions will use up at most."""
    if isinstance(scenario.arrivals, Race):
        return scenario.arrivals.rounds
    mix = scenario.mix
    scans = expected(scenario) * scenario.terminals.scans
    fresh = scans * (1 - mix.used - mix.reverse - mix.lookup - mix.bad)
    spare = 0 if fresh == scans else fresh * SPARE_SHARE + SPARE
    return max(round(fresh + spare), 1)


def check(scenario: Scenario, faults: Sequence[str]) -> None:
    """Raises ScenarioRefused with the first thing about it that is impossible. `faults`: those there are."""
    _check_shape(scenario)
    _check_rate(scenario)
    _check_shares(scenario)
    _check_vouchers(scenario)
    _check_times(scenario, faults)


def _check_shape(scenario: Scenario) -> None:
    shape, terminals = scenario.arrivals, scenario.terminals
    if isinstance(shape, Points):
        times = [at_s for at_s, _ in shape.points]
        if times != sorted(times):
            raise ScenarioRefused("arrivals.points", "moments must rise")
    if isinstance(shape, Origin) and shape.peak_minutes is None and list(shape.days) != sorted(set(shape.days)):
        raise ScenarioRefused("arrivals.days", "must rise")
    if isinstance(shape, Search) and shape.last < shape.first:
        raise ScenarioRefused("arrivals.last", f"{shape.last:g} is below the first rate, {shape.first:g}")
    if isinstance(shape, Search) and scenario.marks.p99_ms is None:
        raise ScenarioRefused("marks.p99_ms", "is missing: a search must know which latency holds")
    if not isinstance(shape, Race) and expected(scenario) == 0:
        raise ScenarioRefused("arrivals", f"nobody comes within {scenario.length_s:g} s")
    if terminals.stores > terminals.count:
        why = f"{terminals.stores} stores for {terminals.count} terminals: each needs one"
        raise ScenarioRefused("terminals.stores", why)
    if terminals.scans > 1 and (terminals.http or scenario.mix != type(scenario.mix)() or isinstance(shape, Race)):
        raise ScenarioRefused("terminals.scans", "several in a message only where all tills redeem, over the stream")


def _check_rate(scenario: Scenario) -> None:
    scans = scenario.terminals.scans
    rate = busiest_second(scenario) * scans * (1 + scenario.repeats.share)
    each = SCANS_PER_GENERATOR if scans < BATCHED else SCANS_IN_MESSAGES_PER_GENERATOR
    if rate > each * scenario.generators:
        needed = int(-(-rate // each))
        why = f"{rate:,.0f} scans a second are beyond {scenario.generators} generator(s), {each:,.0f} each"
        raise ScenarioRefused(_rate_field(scenario), f"{why}: set generators = {needed}, and have the cores for them")
    open_lines = scenario.terminals.count
    if open_lines > TERMINALS_PER_GENERATOR * scenario.generators:
        why = f"{open_lines:,} are beyond {scenario.generators} generator(s), {TERMINALS_PER_GENERATOR:,} lines each"
        raise ScenarioRefused("terminals.count", why)
    if isinstance(scenario.arrivals, Race) and scenario.terminals.count > scenario.in_flight:
        raise ScenarioRefused("in_flight", f"{scenario.in_flight} is less than the tills that race")


def _rate_field(scenario: Scenario) -> str:
    field = {Constant: "rate", Ramp: "end", Steps: "rates", Points: "points", Origin: "scale", Search: "last"}
    return f"arrivals.{field.get(type(scenario.arrivals), 'every_s')}"


def _check_shares(scenario: Scenario) -> None:
    mix = scenario.mix
    total = mix.used + mix.reverse + mix.lookup + mix.bad
    if total > 1:
        raise ScenarioRefused("mix", f"the shares add up to {total:g}, more than 1")
    if total == 1:
        raise ScenarioRefused("mix", "the shares add up to 1: nothing is left to be redeemed")
    if isinstance(scenario.arrivals, Race) and (total or scenario.repeats.share):
        raise ScenarioRefused("mix" if total else "repeats.share", "in a race every till scans the one code, once")


def _check_vouchers(scenario: Scenario) -> None:
    issued, needed = scenario.vouchers.issued, vouchers_needed(scenario)
    if issued is not None and issued < needed:
        raise ScenarioRefused("vouchers.issued", f"{issued:,} vouchers cannot give {needed:,} redemptions")


def _check_times(scenario: Scenario, faults: Sequence[str]) -> None:
    shape = scenario.arrivals
    if isinstance(shape, Race) and shape.within_ms > shape.every_s * 1000:
        raise ScenarioRefused(
            "arrivals.within_ms", f"{shape.within_ms:g} ms reach into the next round, {shape.every_s:g} s later"
        )
    end_s = scenario.length_s
    for number, fault in enumerate(scenario.faults):
        field = f"faults[{number}]"
        if fault.name not in faults:
            close = get_close_matches(fault.name, faults, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"there is: {', '.join(faults) or 'none yet'}"
            raise ScenarioRefused(f"{field}.name", f"there is no fault {fault.name!r}; {hint}")
        if fault.at_s > end_s:
            raise ScenarioRefused(f"{field}.at_s", f"{fault.at_s:g} s is after the last arrival at {end_s:g} s")
    outage, imports = scenario.outage, scenario.imports
    if outage is not None:
        if outage.stores > scenario.terminals.stores:
            raise ScenarioRefused("outage.stores", f"{outage.stores} of {scenario.terminals.stores} stores")
        if outage.at_s + outage.for_s > end_s:
            why = f"the outage ends {outage.at_s + outage.for_s - end_s:g} s after the last arrival"
            raise ScenarioRefused("outage.for_s", why)
    if imports is not None and imports.at_s > end_s:
        raise ScenarioRefused("imports.at_s", f"{imports.at_s:g} s is after the last arrival at {end_s:g} s")


# --- bent on the command line -------------------------------------------------------------------------------------


def adjusted(scenario: Scenario, **asked: Any) -> Scenario:
    """The scenario with what the command line asks for; what is None stays.

    `seconds` stretches or shrinks the whole timeline, faults too (of a search: each step); `rate` is the highest
    rate, the others in proportion; `scale` is the origin's; `generators`, `terminals`, `seed` replace the file's.
    Raises ScenarioRefused where a shape has no such thing.
    """
    given = {name: value for name, value in asked.items() if value is not None}
    if "seed" in given:
        scenario = msgspec.structs.replace(scenario, seed=given["seed"])
    if "generators" in given:
        scenario = msgspec.structs.replace(scenario, generators=given["generators"])
    if "terminals" in given:
        count = given["terminals"]
        stores = min(scenario.terminals.stores, count)
        terminals = msgspec.structs.replace(scenario.terminals, count=count, stores=stores)
        scenario = msgspec.structs.replace(scenario, terminals=terminals)
    if "scale" in given:
        if not isinstance(scenario.arrivals, Origin):
            raise ScenarioRefused("scale", f"{scenario.name} is not made of the origin's days")
        scenario = _with_shape(scenario, scale=given["scale"])
    if "rate" in given:
        scenario = _at_rate(scenario, given["rate"])
    if "seconds" in given:
        scenario = _lasting(scenario, given["seconds"])
    return _checked_again(scenario)


def _checked_again(scenario: Scenario) -> Scenario:
    """Once more through the types: their limits hold for the command line, too."""
    try:
        return msgspec.convert(msgspec.to_builtins(scenario), Scenario)
    except msgspec.ValidationError as error:
        raise refusal_of(str(error)) from None


def _with_shape(scenario: Scenario, **changes: Any) -> Scenario:
    shape = msgspec.structs.replace(scenario.arrivals, **changes)
    return msgspec.structs.replace(scenario, arrivals=shape)


def _at_rate(scenario: Scenario, rate: float) -> Scenario:
    factor = rate / rate_most(scenario)
    match scenario.arrivals:
        case Constant():
            return _with_shape(scenario, rate=rate)
        case Ramp(start=start, end=end):
            return _with_shape(scenario, start=start * factor, end=end * factor)
        case Steps(rates=rates):
            return _with_shape(scenario, rates=tuple(each * factor for each in rates))
        case Points(points=points):
            return _with_shape(scenario, points=tuple((at_s, each * factor) for at_s, each in points))
        case Search():
            return _with_shape(scenario, last=rate, first=min(scenario.arrivals.first, rate))
    raise ScenarioRefused("rate", f"{scenario.name} has no rate of its own; use --scale or --terminals")


def _lasting(scenario: Scenario, seconds: float) -> Scenario:
    if seconds <= 0:
        raise ScenarioRefused("seconds", "must be more than 0")
    factor, shape = seconds / scenario.length_s, scenario.arrivals
    match shape:
        case Search():
            return _with_shape(scenario, step_seconds=seconds)
        case Origin(peak_minutes=None):
            scenario = _with_shape(scenario, day_seconds=seconds / len(shape.days))
        case Origin():
            scenario = _with_shape(scenario, day_seconds=shape.day_seconds * factor, scale=shape.scale * factor)
        case Race():
            scenario = _with_shape(scenario, every_s=shape.every_s * factor, within_ms=shape.within_ms * factor)
        case Ramp():
            scenario = _with_shape(scenario, over_s=shape.over_s * factor)
        case Points():
            scenario = _with_shape(scenario, points=tuple((at_s * factor, rate) for at_s, rate in shape.points))
    if scenario.seconds is not None:
        scenario = msgspec.structs.replace(scenario, seconds=seconds)
    return msgspec.structs.replace(
        scenario,
        faults=tuple(_shrunk(fault, factor) for fault in scenario.faults),
        outage=None if scenario.outage is None else _shrunk(scenario.outage, factor),
        imports=None
        if scenario.imports is None
        else msgspec.structs.replace(scenario.imports, at_s=scenario.imports.at_s * factor),
    )


def _shrunk(planned: Any, factor: float) -> Any:
    return msgspec.structs.replace(planned, at_s=planned.at_s * factor, for_s=planned.for_s * factor)
