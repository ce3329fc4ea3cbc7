"""What Locust can make of a scenario, and what its exit code says of a run. Needs no Locust."""

from loadtest.arrivals import busiest_second
from loadtest.run_files import Run
from loadtest.scenario import Race, Scenario, ScenarioRefused, Search
from loadtest.scenario_rules import check

FAILED, REFUSED, VOID, MISSED, BROKEN = 1, 2, 3, 4, 5  # the first four are those of `tillgate load run`
PER_WORKER = 2_000.0  # arrivals a second: one that is given more is late, and its run void
OWN_GATEWAY = "http://own-gateway.invalid"  # what Locust's page shows where no host is given; nobody's (RFC 6761)
NATIVE = "only `tillgate load run` does this"


def number(text: float | str | None, field: str) -> float | None:
    """A number from Locust's web page, where a field that was left empty is text. Raises ScenarioRefused."""
    try:
        return None if text in (None, "", "None") else float(text or 0)
    except ValueError:
        raise ScenarioRefused(field, f"{text!r} is no number") from None


def whole(text: float | str | None, field: str) -> int | None:
    """The same of whole numbers."""
    found = number(text, field)
    if found is not None and not found.is_integer():
        raise ScenarioRefused(field, f"{text!r} is no whole number")
    return None if found is None else int(found)


def check_for_locust(scenario: Scenario) -> None:
    """Raises ScenarioRefused where a scenario is impossible, or is one for the native generator only."""
    beyond = {
        "arrivals.shape": isinstance(scenario.arrivals, Search),
        "terminals.scans": scenario.terminals.scans > 1,
        "outage": scenario.outage is not None,
        "imports": scenario.imports is not None,
        "replay": scenario.replay is not None,
        "faults": bool(scenario.faults),
    }
    for field, is_in_it in beyond.items():
        if is_in_it:
            raise ScenarioRefused(field, NATIVE)
    check(scenario, ())
    rate, most = busiest_second(scenario), PER_WORKER * scenario.generators
    if rate > most and not isinstance(scenario.arrivals, Race):
        why = f"{rate:,.0f} arrivals a second are beyond Locust's {most:,.0f} with {scenario.generators} worker(s)"
        raise ScenarioRefused("arrivals", f"{why}: give it more (--processes), or use `tillgate load run`")


def exit_code(run: Run, *, invariants_hold: bool) -> int:
    """The gravest of what can be said."""
    if not invariants_hold:
        return BROKEN
    if run.void:
        return VOID
    return 0 if all(mark.met for mark in run.marks) else MISSED


def verdict_lines(run: Run) -> list[str]:
    """What came of a run, for reading."""
    counts = run.counts
    lines = [f"{counts.offered:,} offered, {counts.started:,} started, {counts.completed:,} answered"]
    lines += [f"void: {why}" for why in run.void]
    for mark in run.marks:
        word = "not judged" if mark.met is None else "met" if mark.met else "missed"
        lines.append(f"{mark.name}: {mark.measured:,.1f}, at most {mark.most:g}: {word}")
    return lines
