"""The lines of JSON a gateway says: what is in them, how many there are, and what is never in them."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgspec

from gateway.diary import LINES_A_MINUTE, MINUTE_MS, Diary, say_so, to_stderr
from gateway.messages import Verdict
from gateway.settings import MessagesConfig

ACCEPTED, PAUSED = bytes([Verdict.ACCEPTED]), bytes([Verdict.PAUSED])


class Said:
    """A diary on a clock of its own."""

    def __init__(self, slow_ms: int = 250) -> None:
        self.now_ms = 10 * MINUTE_MS
        self._raw: list[bytes] = []
        self.diary = Diary(MessagesConfig("json", slow_ms), lambda: self.now_ms, self._raw.append)

    def answered(self, codes: bytes, seconds: float = 0.001) -> None:
        self.diary.answered("redeem", "stream", "s1", codes, seconds)

    @property
    def lines(self) -> list[dict[str, Any]]:
        assert all(line.endswith(b"\n") and line.count(b"\n") == 1 for line in self._raw)
        return [msgspec.json.decode(line) for line in self._raw]


def test_nothing_is_said_of_accepted_scans_in_time() -> None:
    said = Said()
    said.answered(ACCEPTED * 64, 0.2)
    assert said.lines == []


def test_a_slow_answer_and_a_refusal_are_told_without_codes_and_terminals() -> None:
    said = Said()
    said.answered(ACCEPTED + PAUSED * 2, 0.5)
    what = {"ts_ms": said.now_ms, "op": "redeem", "transport": "stream", "store": "s1", "scans": 3}
    assert said.lines == [
        what | {"level": "warn", "event": "slow", "duration_ms": 500.0},
        what | {"level": "info", "event": "refused", "outcomes": {"paused": 2}},
    ]


def test_a_bad_minute_is_sampled_and_the_next_one_says_how_much_was_left_out() -> None:
    said = Said(slow_ms=0)
    for _ in range(LINES_A_MINUTE + 12):
        said.answered(PAUSED, 60.0)
    assert len(said.lines) == LINES_A_MINUTE
    said.now_ms += MINUTE_MS
    said.answered(PAUSED)
    assert said.lines[-1]["omitted"] == 12
    said.answered(PAUSED)
    assert "omitted" not in said.lines[-1]


def test_a_text_of_several_lines_is_one_object() -> None:
    said = Said()
    said.diary.tell("one\ntwo")
    assert [line["text"] for line in said.lines] == ["one\ntwo"]


@contextmanager
def stderr_into_a_pipe() -> Iterator[int]:
    """The end that nobody reads yet."""
    reading, writing = os.pipe()
    before = os.dup(2)
    os.dup2(writing, 2)
    os.close(writing)
    try:
        yield reading
    finally:
        os.dup2(before, 2)
        os.close(before)


def test_a_reader_that_is_stuck_loses_lines_and_stops_nobody() -> None:
    line, told = b"x" * 4000 + b"\n", 200  # a pipe takes 64 KiB
    with stderr_into_a_pipe() as reading:
        for _ in range(told):
            to_stderr(line)
    with open(reading, "rb") as pipe:
        held = pipe.read()
    assert held
    assert len(held) < told * len(line)


def test_a_reader_that_is_gone_is_no_failure() -> None:
    with stderr_into_a_pipe() as reading:
        os.close(reading)
        say_so("anybody there?")
