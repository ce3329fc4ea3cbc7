"""Whether a run may be believed, and whether it met its marks. Pure."""

from loadtest.recorder import Gathering
from loadtest.run_files import HIGHEST_US, Mark
from loadtest.scenario import Marks, Scenario, Search

LAG_MOST_MS = 10.0  # of the generator's own lateness, p99: more, and the figures are its own
LAG_SHARE = 0.1  # and at most this part of the latency it judges by
SHARES = {"p50_ms": 0.50, "p99_ms": 0.99, "p999_ms": 0.999}
WORDS = {"p50_ms": "p50, ms", "p99_ms": "p99, ms", "p999_ms": "p99.9, ms"}


def lag_most_ms(marks: Marks) -> float:
    """How late the generator may be at its p99."""
    return min(
        LAG_MOST_MS, *(LAG_SHARE * mark for mark in (marks.p99_ms, marks.service_p99_ms) if mark is not None), 1e9
    )


def why_void(scenario: Scenario, told: Gathering) -> list[str]:
    """Reasons not to believe a run's figures; none: they may be believed."""
    reasons = []
    most_ms, lag_ms = lag_most_ms(scenario.marks), told.percentile_us("lag", 0.99) / 1000
    if lag_ms > most_ms:
        reasons.append(f"the generator itself was late: lag p99 {lag_ms:.1f} ms, at most {most_ms:g} ms")
    if not told.counts.started:
        reasons.append("nothing was sent")
    return reasons


def judged(scenario: Scenario, told: Gathering, *, void: bool) -> list[Mark]:
    """Every mark the scenario sets, with what was measured. A latency of a void run is not judged."""
    marks, counts, found = scenario.marks, told.counts, []
    if not isinstance(scenario.arrivals, Search):
        for name, share in SHARES.items():
            if (most := getattr(marks, name)) is not None:
                found.append(_latency(WORDS[name] + " from the intended start", told, "intended", share, most, void))
        if marks.service_p99_ms is not None:
            found.append(_latency("p99, ms from the first send", told, "service", 0.99, marks.service_p99_ms, void))
        found += [
            Mark(name, measured, most, measured <= most)
            for name, measured, most in (
                ("attempts without an answer", counts.unresolved, marks.unresolved),
                ("arrivals dropped by the generator", counts.dropped, marks.dropped),
            )
            if most is not None
        ]
    if marks.accepted is not None:
        measured = told.outcomes.get("accepted", 0)
        found.append(Mark("accepted, exactly", measured, marks.accepted, measured == marks.accepted))
    return found


def _latency(name: str, told: Gathering, series: str, share: float, most: float, void: bool) -> Mark:
    """An attempt without an answer counts as longer than any: as long as a run can tell."""
    counts = told.counts
    answered = share * (counts.started / counts.completed) if counts.completed else 2.0
    if answered > 1:
        return Mark(name, HIGHEST_US / 1000, most, None if void else False)
    measured_ms = told.percentile_us(series, answered) / 1000
    return Mark(name, measured_ms, most, None if void else measured_ms <= most)


class StepFigures(Gathering):
    """One step of a search."""

    def held(self, scenario: Scenario) -> bool:
        """Whether the step met its mark, every arrival answered."""
        counts, most_ms = self.counts, scenario.marks.p99_ms
        assert most_ms is not None, "checked before the run"
        whole = counts.started and not counts.unresolved and not counts.dropped
        return bool(whole) and self.percentile_us("intended", 0.99) / 1000 <= most_ms

    def is_late(self, scenario: Scenario) -> bool:
        """Whether the generator was late itself."""
        return self.percentile_us("lag", 0.99) / 1000 > lag_most_ms(scenario.marks)
