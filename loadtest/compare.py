"""Compares load runs: what differs, whether by more than noise, and what forbids to compare them at all.

Two runs can be compared when they offered the same load: every field of their scenarios but those that only name or
judge it. A difference of machine or tool is a warning; one of Tillgate itself is what one wants to know about.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec

from loadtest.compare_noise import CONFIDENCE
from loadtest.compare_rows import LEAST, Row, rows_of
from loadtest.report_times import Reading

NAMING = {"name", "title", "description", "about", "shows", "tags", "marks", "seed", "generators"}
MACHINE = ("cpu", "cores", "same_machine", "kernel", "python")
RULE = (
    f"More than noise: the {CONFIDENCE:.0%} interval of the ratio, from drawing blocks of seconds anew, lies wholly "
    f"beyond {LEAST['latency']:.0%} for waiting times and {LEAST['cpu']:.0%} for rates and CPU. It knows the noise "
    "within a run, not that from run to run: repeat both before you believe a small difference."
)


class NotComparable(Exception):
    """The runs did not offer the same load; says in which field."""


class Comparison(msgspec.Struct, frozen=True):
    """Another run against the base."""

    base: str
    other: str
    base_void: list[str]
    other_void: list[str]
    warnings: list[str]
    changed: list[str]  # of Tillgate and what it uses
    rows: list[Row]
    seconds: int  # that both runs have
    rule: str = RULE


def compare(base: Reading, other: Reading, names: tuple[str, str], draw: Callable[[int], int]) -> Comparison:
    """`other` against `base`; `draw(n)` gives a number below n. Raises NotComparable."""
    _same_load(base.run.scenario, other.run.scenario, names[1])
    seconds = min(_end_s(base), _end_s(other))
    voided = bool(base.run.void or other.run.void)
    return Comparison(
        base=names[0],
        other=names[1],
        base_void=base.run.void,
        other_void=other.run.void,
        warnings=_warnings(base, other),
        changed=_changed(base, other),
        rows=[_voided(row) if voided else row for row in rows_of(base, other, seconds, draw)],
        seconds=seconds,
    )


def _voided(row: Row) -> Row:
    return msgspec.structs.replace(row, judgement="void", interval=None)


def _same_load(base: Mapping[str, Any], other: Mapping[str, Any], name: str) -> None:
    one, two = dict(_fields(base)), dict(_fields(other))
    different = [field for field in {**one, **two} if one.get(field) != two.get(field)]
    if different:
        told = "; ".join(
            f"{field} is {one.get(field, 'not set')}, here {two.get(field, 'not set')}" for field in different[:3]
        )
        raise NotComparable(f"{name} ran another load than the first: {told}")


def _fields(scenario: Any, path: str = "") -> Iterable[tuple[str, Any]]:
    """What makes the load, as dotted name and value."""
    if not isinstance(scenario, Mapping):
        yield path, scenario
        return
    for name, value in scenario.items():
        if path or name not in NAMING:
            yield from _fields(value, f"{path}.{name}" if path else str(name))


def _warnings(base: Reading, other: Reading) -> list[str]:
    one, two = base.run, other.run
    found = [
        f"{name.replace('_', ' ')}: {getattr(one.environment, name)}, then {getattr(two.environment, name)}"
        for name in MACHINE
        if getattr(one.environment, name) != getattr(two.environment, name)
    ]
    if one.tool != two.tool:
        found.append(f"made by another tool: {one.tool}, then {two.tool}")
    if one.generators != two.generators:
        found.append(f"generators: {one.generators}, then {two.generators}")
    if one.scenario.get("seed") != two.scenario.get("seed"):
        found.append(
            f"another seed: {one.scenario.get('seed')}, then {two.scenario.get('seed')}: same rates, other moments"
        )
    if one.environment.same_machine or two.environment.same_machine:
        found.append("generator and server shared their cores: compare CPU a verdict rather than rates and waiting")
    if _shape(one.scenario) == "search":
        found.append("a search chooses its loads by what it sees: compare the sustained load, not the waiting")
    if abs(_end_s(base) - _end_s(other)) > 1:
        found.append(f"lengths: {_end_s(base)} s, then {_end_s(other)} s; compared as far as both go")
    return found


def _end_s(one: Reading) -> int:
    return one.times[-1].at_s + one.times[-1].length_s if one.times else 0


def _shape(scenario: Mapping[str, Any]) -> Any:
    arrivals = scenario.get("arrivals")
    return arrivals.get("shape") if isinstance(arrivals, Mapping) else None


def _changed(base: Reading, other: Reading) -> list[str]:
    one, two = base.run.environment, other.run.environment
    pairs = {"Tillgate": (one.tillgate, two.tillgate), "commit": (one.commit, two.commit)}
    for name in {**one.versions, **two.versions}:
        pairs[name] = one.versions.get(name, "none"), two.versions.get(name, "none")
    return [f"{name}: {was or 'unknown'}, then {now or 'unknown'}" for name, (was, now) in pairs.items() if was != now]


def comparison_sentence(one: Comparison) -> str:
    """How many of the quantities are better or worse, in one sentence."""
    if one.base_void or one.other_void:
        return f"Not to be compared with {one.base}: a void run is neither better nor worse."
    counts = {word: sum(row.judgement == word for row in one.rows) for word in ("better", "worse", "differs")}
    told = [f"{count} {word if word != 'differs' else 'different'}" for word, count in counts.items() if count]
    return (
        f"Against {one.base}: {', '.join(told) or 'nothing differs'} by more than noise, of {len(one.rows)} quantities."
    )
