"""One attempt, from its intended start to its answer: sent, asked again under the same id, journalled, told to Locust.

A retry keeps the id and the intended start. A till asks again when it heard nothing for as long as the scenario's
patience says, and after a pause that grows when it was told "unresolved" or lost its line. Whatever comes of it is
noted once: in the recorder, where the figures of the run come from, and in Locust's statistics, which its web page
shows. There an attempt is one request, `from-intended`; `service` and `scheduler-lag` are rows of their own that the
row of sums leaves out, as rates would be told three times and percentiles would be of three things mixed.
"""

import time
from collections.abc import Callable
from contextlib import suppress
from random import Random
from typing import Literal

import gevent
from locust.env import Environment

from gateway.messages import Redeem, Reverse
from loadtest.generator_deeds import ACCEPTED, Asked, Deeds
from loadtest.generator_plan import Plan
from loadtest.locust_http import HttpDoor
from loadtest.locust_open import RunClock
from loadtest.locust_stream import LineDown, Question, StreamLine
from loadtest.run_files import Attempt
from loadtest.scenario import Scenario

Door = Literal["stream", "http"]
REASON = "load"  # of a reversal, as its till would tell it


class Unanswered(Exception):
    """What Locust shows as this attempt's failure."""


class Asking:
    """All tills of one process, and where their attempts are noted."""

    def __init__(
        self,
        plan: Plan,
        scenario: Scenario,
        clock: RunClock,
        deeds: Deeds,
        lines: list[StreamLine],
        door: HttpDoor,
        note: Callable[[Attempt], None],
        environment: Environment,
    ) -> None:
        """`lines` are those of the plan's first tills, in order."""
        self._plan, self._patience, self._clock, self._deeds = plan, scenario.patience, clock, deeds
        self._lines, self._door, self._note, self._environment = lines, door, note, environment
        self._random = Random(f"{scenario.seed} {plan.generator} pauses")  # noqa: S311 - load, no secret

    def door_of(self, asked: Asked) -> Door:
        """Which way it goes: look-ups have no message of the stream."""
        return "stream" if asked.till < len(self._lines) and asked.kind != "lookup" else "http"

    def ask(self, asked: Asked) -> None:
        """From the first send to the answer; ended from outside (GreenletExit) it is noted as unresolved."""
        question, again = Question(), None
        asked.sent_us = self._clock.now_us()
        after_us = self._deeds.repeats_after_us() if asked.kind == "redeem" else None
        if after_us is not None:
            again = gevent.spawn_later(after_us / 1e6, self._send_again, asked, question)
        try:
            self._until_told(asked, question)
            if again is not None:
                again.join()
            self._let_late_answers_in(question)
        finally:
            self._took(asked, question)
            self._tell(asked)

    def drop(self, asked: Asked) -> None:
        """Note an arrival that could not be started."""
        self._tell(asked)

    def _until_told(self, asked: Asked, question: Question) -> None:
        patience = self._patience
        pause_s = patience.again_s
        while not question.told:
            asked_s = time.monotonic()
            try:
                self._send(asked, question)
                question.wait(patience.answer_s)
            except LineDown:
                pass  # nobody was asked: pause, and try again
            if not question.told and time.monotonic() - asked_s < patience.answer_s:
                gevent.sleep(pause_s * self._random.uniform(0.5, 1.5))
                pause_s = min(2 * pause_s, patience.again_most_s)

    def _send_again(self, asked: Asked, question: Question) -> None:
        with suppress(LineDown):  # the first send is what matters
            self._send(asked, question)

    def _let_late_answers_in(self, question: Question) -> None:
        """Where two sends were open: their answers must be the same, so both are waited for."""
        until_s = time.monotonic() + self._patience.answer_s
        while question.open and (left_s := until_s - time.monotonic()) > 0:
            question.wait(left_s)

    def _send(self, asked: Asked, question: Question) -> None:
        now_ms = self._clock.wall_ms(asked.intended_us)
        terminal = self._plan.tills[asked.till].number
        if asked.kind == "lookup":
            self._door.look_up(asked.key, question)
            return
        body: Redeem | Reverse
        if asked.kind == "reverse":
            assert asked.target is not None, "a reversal undoes a named redemption"
            body = Reverse(asked.key, bytes.fromhex(asked.target), now_ms, reason=REASON)
        else:
            body = Redeem(asked.key, asked.code, now_ms)
        if asked.till < len(self._lines):
            self._lines[asked.till].ask(body, question)
        elif isinstance(body, Redeem):
            self._door.redeem(terminal, body, question)
        else:
            self._door.reverse(terminal, body, question)

    def _took(self, asked: Asked, question: Question) -> None:
        asked.sends = question.sends
        if not question.told:
            return
        first, *later = question.told
        asked.ended_us = self._clock.at_us(question.told_s)
        asked.verdict, asked.position = first.verdict.name.lower(), first.position
        asked.differ = any(told.verdict is not first.verdict for told in later)
        if asked.verdict == ACCEPTED:
            self._deeds.remember(asked)

    def _tell(self, asked: Asked) -> None:
        attempt = Attempt(
            kind=asked.kind,
            terminal=self._plan.tills[asked.till].number,
            redemption_id=asked.key.hex(),
            voucher=asked.voucher,
            intended_us=asked.intended_us,
            sent_us=asked.sent_us,
            ended_us=asked.ended_us,
            sends=asked.sends,
            verdict=asked.verdict,
            position=asked.position,
            answers_differ=asked.differ,
            target=asked.target,
        )
        self._note(attempt)
        self._tell_locust(self.door_of(asked), attempt)

    def _tell_locust(self, door: Door, attempt: Attempt) -> None:
        sent_us, ended_us = attempt.sent_us, attempt.ended_us
        stats, name = self._environment.stats, attempt.kind
        failure = None
        if sent_us is None:
            failure = Unanswered("dropped: as many attempts were under way as the scenario allows")
        elif ended_us is None:
            failure = Unanswered("unresolved when the run ended")
        if sent_us is not None:
            stats.get(f"{name} scheduler-lag", door).log(_ms(attempt.intended_us, sent_us), 0)  # type: ignore[arg-type]
            if ended_us is not None:
                stats.get(f"{name} service", door).log(_ms(sent_us, ended_us), 0)  # type: ignore[arg-type]
        self._environment.events.request.fire(
            request_type=door,
            name=f"{name} from-intended",
            response_time=None if ended_us is None else _ms(attempt.intended_us, ended_us),
            response_length=0,
            exception=failure,
            context={"verdict": attempt.verdict},
        )


def _ms(since_us: int, until_us: int) -> float:
    """With fractions, as Locust itself notes its own requests, whatever its types say."""
    return (until_us - since_us) / 1e3
