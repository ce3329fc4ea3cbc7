"""What a report says in words: numbers as people read them, the verdict on a run, what it ran on."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Literal

import msgspec

from loadtest.report_model import Percentiles, Report
from loadtest.run_files import HIGHEST_US, Environment, Mark

Mood = Literal["good", "bad", "open", "void"]
TOOLS = {
    "native": "Tillgate's own generator, open model",
    "locust": "Locust, open model",
    "closed": "a closed loop, for comparison only",
}


IN_MS, IN_S = ", ms", ", s"  # how marks are named (loadtest/judge.py)


class Line(msgspec.Struct, frozen=True):
    """One finding: whether it is good, and a sentence."""

    mood: Mood
    text: str


class Verdict(msgspec.Struct, frozen=True):
    """The whole run in one word, one sentence, and the findings it rests on."""

    mood: Mood
    word: str
    sentence: str
    lines: list[Line]


class Figure(msgspec.Struct, frozen=True):
    """One number at the top of a report."""

    label: str
    value: str
    note: str
    timed: bool = False  # by a clock, so that a void run's is not to be believed


def number(value: float) -> str:
    """Three figures, thousands separated."""
    if value == 0 or abs(value) >= 999.5:
        return f"{value:,.0f}"
    places = 0 if abs(value) >= 99.95 else 1 if abs(value) >= 9.995 else 2 if abs(value) >= 0.995 else 3
    return f"{value:.{places}f}".rstrip("0").rstrip(".") if places else f"{value:.0f}"


def ms(value: float | None) -> str:
    """A length of time in milliseconds, in the unit that reads best; None: among attempts without an answer."""
    if value is None:
        return "no answer"
    if value >= 60_000:
        return f"{number(value / 60_000)} min"
    return f"{number(value / 1000)} s" if value >= 1000 else f"{number(value)} ms"


def wait(value: float | None, among: Percentiles) -> str:
    """One of some percentiles; what lies among attempts without an answer is longer than all that was measured."""
    if value is None and among.largest is not None:
        return f"> {ms(among.largest)}"
    return "-" if value is None else ms(value)


def a_second(value: float) -> str:
    return f"{number(value)}/s"


def percent(share: float) -> str:
    """With as many nines as it takes to be told from everything."""
    if share >= 1 or share <= 0:
        return "100 %" if share >= 1 else "0 %"
    places = next((places for places in range(4) if abs(round(share, places + 2)) not in (0, 1)), 4)
    return f"{share * 100:.{max(places, 1)}f} %"


def with_unit(value: float | None, unit: str) -> str:
    """A value of a comparison (loadtest/compare_rows.py)."""
    if value is None:
        return "none" if unit != "ms" else ms(None)
    match unit:
        case "ms":
            return ms(value)
        case "us":
            return f"{number(value)} µs"
        case "/s":
            return a_second(value)
        case "MiB":
            return f"{number(value)} MiB"
        case _:
            return f"{value:,.0f}"


def moment(at_ms: int) -> str:
    return f"{datetime.fromtimestamp(at_ms / 1000, UTC):%Y-%m-%d %H:%M:%S} UTC"


def clock(at_s: float) -> str:
    """Seconds after the first intended start: 42 s, 12:30, 3 h 05 min."""
    if at_s < 120:
        return f"{number(at_s)} s"
    minutes, seconds = divmod(round(at_s), 60)
    return f"{minutes}:{seconds:02}" if minutes < 120 else f"{minutes // 60} h {minutes % 60:02} min"


def minutes(at_s: float) -> str:
    """For an axis longer than two minutes: 2:30, and 4 h 05 min where it is a day's."""
    return f"{round(at_s) // 60}:{round(at_s) % 60:02}" if at_s < 7200 else clock(at_s)


def some(names: Sequence[str], most: int = 6) -> str:
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")


def verdict_of(report: Report) -> Verdict:
    """A broken invariant is a failure whatever else is said: a void run's figures mean nothing, its answers do."""
    lines = [_validity(report), _correctness(report), _marks(report)]
    moods = [line.mood for line in lines]
    if moods[1] == "bad":
        return Verdict("bad", "Failed", "Answers were wrong: an invariant is broken.", lines)
    if report.void:
        return Verdict("void", "Void", "The run does not count: its figures must not be believed.", lines)
    if "bad" in moods:
        return Verdict("bad", "Failed", "The run counts, and it missed a mark.", lines)
    if "open" in moods:
        return Verdict("open", "Open", "Nothing failed, but not everything was judged.", lines)
    return Verdict("good", "Passed", "A valid run: every invariant holds and every mark is met.", lines)


def _validity(report: Report) -> Line:
    if report.void:
        return Line("void", "Void: " + "; ".join(report.void))
    lag = report.latencies["lag"].percentiles
    if report.tool == "closed":
        return Line("open", "A closed loop waits for its answers, so it cannot tell what shoppers wait in a queue")
    told = f"lag p99 {wait(lag.p99, lag)}, largest {wait(lag.largest, lag)}"
    return Line("good", f"Valid: the generator kept its schedule ({told})")


def _correctness(report: Report) -> Line:
    if report.invariants is None:
        return Line("open", "Invariants not checked yet: tillgate load verify compares journals, log and Valkey")
    broken = [one for one in report.invariants if one.holds is False]
    unjudged = [one.name for one in report.invariants if one.holds is None]
    if broken:
        told = "; ".join(f"{one.name}, {one.counterexample or one.says}" for one in broken)
        return Line("bad", f"{len(broken)} of {len(report.invariants)} invariants broken: {told}")
    if unjudged:
        held = len(report.invariants) - len(unjudged)
        return Line("open", f"{held} of {len(report.invariants)} invariants hold, not judged: {some(unjudged, 10)}")
    return Line("good", f"All {len(report.invariants)} invariants hold: journals, log and Valkey agree")


def _marks(report: Report) -> Line:
    if not report.marks:
        return Line("open", "The scenario sets no marks, so there is nothing to pass")
    missed = [mark_words(one) for one in report.marks if one.met is False]
    unjudged = [mark_name(one) for one in report.marks if one.met is None]
    if missed:
        return Line("bad", f"{len(missed)} of {len(report.marks)} marks missed: {'; '.join(missed)}")
    if unjudged:
        return Line("open", f"Marks that could not be judged: {some(unjudged)}")
    return Line("good", f"Every mark is met ({len(report.marks)})")


def mark_name(mark: Mark) -> str:
    """Without its unit, which stands with its values."""
    return mark.name.replace(IN_MS, "").replace(IN_S, "")


def mark_value(mark: Mark, value: float) -> str:
    """A measurement, or the limit."""
    if IN_MS in mark.name:
        return "no answer" if value * 1000 >= HIGHEST_US else ms(value)
    return f"{number(value)} s" if IN_S in mark.name else number(value)


def mark_words(mark: Mark) -> str:
    return f"{mark_name(mark)} is {mark_value(mark, mark.measured)}, at most {mark_value(mark, mark.most)}"


def figures_of(report: Report) -> list[Figure]:
    """The numbers a reader looks for first."""
    counts, waited = report.counts, report.latencies["intended"].percentiles
    largest = f"p99.9; largest {wait(waited.largest, waited)}"
    most = max((one.offered for one in report.stretches), default=0.0)
    accepted = report.outcomes.get("accepted", 0)
    lost = counts.dropped + counts.unresolved
    costs = {one.process: one.us_per_verdict for one in report.cpu if one.us_per_verdict is not None}
    length = f"over {clock(report.seconds)}, up to {a_second(most)}"
    found = [
        Figure("Attempts offered", f"{counts.offered:,}", length),
        Figure("Accepted", f"{accepted:,}", f"of {counts.completed:,} answers"),
        Figure("No answer", f"{lost:,}", f"{counts.dropped:,} never sent, {counts.unresolved:,} unresolved"),
        Figure("Half waited at most", wait(waited.p50, waited), "p50 from the intended start", timed=True),
        Figure("99 of 100 at most", wait(waited.p99, waited), f"p99; in service {_service(report)}", timed=True),
        Figure("999 of 1,000 at most", wait(waited.p999, waited), largest, timed=True),
    ]
    served = [cost for name, cost in costs.items() if not name.startswith("generator")]
    if served:
        each = some([f"{name} {number(cost)}" for name, cost in costs.items()], 3)
        found.append(Figure("Server CPU a verdict", f"{number(sum(served))} µs", each, timed=True))
    return found


def _service(report: Report) -> str:
    service = report.latencies["service"].percentiles
    return wait(service.p99, service)


def sharing(environment: Environment) -> str:
    """Whether the two sides were in each other's way."""
    if environment.same_machine:
        return (
            f"Generator and server shared the same {environment.cores} cores. Each slowed the other down: on a machine "
            "of its own the server would answer faster. Compare CPU a verdict rather than rates between such runs."
        )
    return "The generator ran on another machine than the server, so it took none of the server's CPU."


def environment_lines(report: Report) -> list[tuple[str, str]]:
    """Where it ran, as label and value."""
    where = report.environment
    commit = f"commit {where.commit}" if where.commit else ""
    shared = "shared by generator and server" if where.same_machine else "the generator's own machine"
    fsync = (
        "not measured"
        if where.fsync_p99_ms is None
        else f"p50 {_fsync(where.fsync_p50_ms)}, p99 {_fsync(where.fsync_p99_ms)}"
    )
    return [
        ("Started", moment(report.started_ms)),
        ("Load by", f"{TOOLS.get(report.tool, report.tool)}; processes: {report.generators}"),
        ("Seed", str(report.scenario.get("seed", "-"))),
        ("CPU", f"{where.cpu}; {where.cores} cores, {shared}"),
        ("Kernel", where.kernel),
        ("Disk", f"fsync {fsync}"),
        ("Python", where.python),
        ("Tillgate", ", ".join(part for part in (where.tillgate, commit) if part) or "unknown"),
        *sorted(where.versions.items()),
    ]


def _fsync(value: float | None) -> str:
    return "-" if value is None else ms(value)


def load_sentence(report: Report) -> str:
    """What the curve of waiting over load says."""
    load = report.load
    if not load.varied:
        return "The load was much the same all the time, so this run cannot say how waiting depends on it."
    most = load.points[-1].offered
    judged = f"p99 within {ms(load.limit_ms)}, every attempt answered"
    rule = judged + ("" if load.limit_is_mark else f", {number(5)} times the p99 at the smallest load")
    told = ["The run is void, so none of this may be believed."] if report.void else []
    if load.sustained is None:
        told.append(f"Not even the smallest load was sustained ({rule}).")
    elif load.sustained == most:
        told.append(f"Every load up to {a_second(most)} was sustained ({rule}): the limit lies beyond this run.")
    else:
        told.append(f"Sustained up to {a_second(load.sustained)} ({rule}); tried up to {a_second(most)}.")
    if load.knee is not None:
        told.append(f"The curve bends at about {a_second(load.knee)} (the point farthest below its chord).")
    if load.left_out:
        told.append(f"{load.left_out} seconds of faults are left out.")
    return " ".join(told)
