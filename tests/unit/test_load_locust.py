"""What of Locust's part needs no Locust: arrivals that wait for nobody, questions, refusals, exit codes, the table."""

import time

import gevent
import msgspec
import pytest

from gateway.messages import Verdict
from loadtest.closed_open import figures
from loadtest.locust_open import Arrivals, RunClock
from loadtest.locust_rules import BROKEN, MISSED, VOID, check_for_locust, exit_code, number, whole
from loadtest.locust_stream import Question, Told
from loadtest.recorder import histogram_text
from loadtest.run_files import Counts, Environment, Latencies, Mark, Run
from loadtest.scenario import ScenarioRefused, read
from loadtest.scenario_rules import named


class Stage:
    """Arrivals whose attempts take as long as they are told to."""

    def __init__(self, most: int, attempt_s: float) -> None:
        self.clock = RunClock(time.time_ns() // 1_000_000 + 20)
        self.started: list[tuple[int, int]] = []  # due, begun
        self.dropped: list[int] = []
        self.ended: list[int] = []
        self.attempt_s = attempt_s
        self.arrivals = Arrivals(self.clock, most, self.draw, self.ask, self.dropped.append)

    def draw(self, due_us: int) -> int | None:
        return None if due_us % 1000 else due_us

    def ask(self, due_us: int) -> None:
        self.started.append((due_us, self.clock.now_us()))
        try:
            gevent.sleep(self.attempt_s)
        finally:
            self.ended.append(due_us)


def test_nobody_waits_for_those_before() -> None:
    stage = Stage(most=100, attempt_s=0.3)
    stage.arrivals.run(range(0, 200_000, 10_000))
    stage.arrivals.finish(5)
    assert [due for due, _ in stage.started] == list(range(0, 200_000, 10_000))
    assert all(begun >= due for due, begun in stage.started)
    # Twenty attempts of 0.3 s one after the other would take six seconds.
    assert stage.started[-1][1] - stage.started[0][1] < 2_000_000
    assert sorted(stage.ended) == [due for due, _ in stage.started]


def test_an_arrival_without_room_is_dropped_and_told() -> None:
    stage = Stage(most=2, attempt_s=10)
    stage.arrivals.run([0, 1000, 2000, 3000, 4000])
    gevent.sleep(0)
    stage.arrivals.finish(0)
    assert (len(stage.started), stage.dropped) == (2, [2000, 3000, 4000])
    assert sorted(stage.ended) == [0, 1000], "what is ended from outside must still be able to take itself down"


def test_one_that_nobody_draws_is_neither_started_nor_dropped() -> None:
    stage = Stage(most=2, attempt_s=0)
    stage.arrivals.run([0, 1, 1000])
    stage.arrivals.finish(1)
    assert ([due for due, _ in stage.started], stage.dropped) == ([0, 1000], [])


def test_arrivals_that_are_stopped_start_nothing_more() -> None:
    stage = Stage(most=2, attempt_s=0)
    gevent.spawn_later(0.05, stage.arrivals.stop)
    begun_s = time.monotonic()
    stage.arrivals.run([3_600_000_000])
    assert time.monotonic() - begun_s < 5
    assert stage.started == []


def test_a_question_keeps_its_first_answer_and_those_that_come_late() -> None:
    question = Question()
    question.open = 3
    question.take(Told(Verdict.UNRESOLVED, None))
    assert question.told == []
    question.take(Told(Verdict.ACCEPTED, (0, 7, 1)))
    first_s = question.told_s
    question.take(Told(Verdict.ALREADY_REDEEMED, (0, 9, 0)))
    assert [told.verdict for told in question.told] == [Verdict.ACCEPTED, Verdict.ALREADY_REDEEMED]
    assert (question.told_s, question.open) == (first_s, 0)


def test_whoever_waits_is_woken_by_an_answer_or_a_lost_line() -> None:
    for wake in (lambda question: question.lost(), lambda question: question.take(Told(Verdict.ACCEPTED, None))):
        question = Question()
        question.open = 1
        gevent.spawn_later(0.01, wake, question)
        begun_s = time.monotonic()
        question.wait(30)
        assert time.monotonic() - begun_s < 10


@pytest.mark.parametrize(
    ("name", "field"),
    (
        ("saturation-search", "arrivals.shape"),
        ("store-outage", "outage"),
        ("issue-burst", "imports"),
        ("replay", "terminals.scans"),
        ("freeze-5s", "faults"),
        ("origin-x1000", "arrivals"),
    ),
)
def test_what_locust_cannot_make_is_refused_by_its_field(name: str, field: str) -> None:
    with pytest.raises(ScenarioRefused) as refused:
        check_for_locust(named(name))
    assert refused.value.field == field


@pytest.mark.parametrize("name", ("smoke", "mixed", "duplicate-storm", "hot-voucher", "origin-x100", "doors-open"))
def test_what_locust_can_make_is_not_refused(name: str) -> None:
    check_for_locust(named(name))


def test_scans_in_messages_are_for_the_native_generator() -> None:
    text = 'title = "t"\nshows = "s"\nseconds = 1\narrivals = {shape = "constant", rate = 1}\n'
    with pytest.raises(ScenarioRefused, match=r"^terminals\.scans"):
        check_for_locust(read(text + "terminals = {count = 1, scans = 64}", "many"))


def test_what_is_left_empty_on_the_web_page_is_not_asked_for() -> None:
    assert [number(text, "rate") for text in (None, "", "None", 20.5, "20.5", "0")] == [None, None, None, 20.5, 20.5, 0]
    assert [whole(text, "seed") for text in (None, "", 7, "7")] == [None, None, 7, 7]
    with pytest.raises(ScenarioRefused, match=r"^rate: 'fast' is no number"):
        number("fast", "rate")
    with pytest.raises(ScenarioRefused, match=r"^seed: '1.5' is no whole number"):
        whole("1.5", "seed")


def _run(*, void: list[str], marks: list[Mark]) -> Run:
    waited = histogram_text([5_000] * 900 + [2_500_000] * 60 + [4_000_000] * 20)
    return Run(
        tool="locust",
        scenario={},
        started_ms=0,
        seconds=1,
        generators=1,
        counts=Counts(offered=1000, started=990, completed=980, dropped=10, unresolved=10, sends=990),
        outcomes={},
        latencies=Latencies(waited, waited, histogram_text([200] * 990)),
        faults=[],
        marks=marks,
        void=void,
        environment=Environment("", 1, True, "", "", "", "", None, None, {}),
    )


def test_the_exit_code_tells_the_gravest() -> None:
    met, missed, unjudged = Mark("p99", 1, 2, True), Mark("p99", 3, 2, False), Mark("p99", 3, 2, None)
    assert exit_code(_run(void=[], marks=[met]), invariants_hold=True) == 0
    assert exit_code(_run(void=[], marks=[met, missed]), invariants_hold=True) == MISSED
    assert exit_code(_run(void=["late"], marks=[met, unjudged]), invariants_hold=True) == VOID
    assert exit_code(_run(void=["late"], marks=[missed]), invariants_hold=False) == BROKEN


def test_who_was_never_answered_waited_longest() -> None:
    row = figures("open", _run(void=[], marks=[]))
    assert (row.requests, row.slow) == (1000, 60 + 20 + 10 + 10)
    assert row.slow_share == pytest.approx(0.1)
    assert row.p95_ms == pytest.approx(2500, rel=0.001)
    assert row.p99_ms is None
    assert row.lag_p99_ms == pytest.approx(0.2, rel=0.01)
    assert msgspec.json.decode(msgspec.json.encode(row))["p999_ms"] is None
