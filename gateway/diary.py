"""What a gateway says on standard error: lines for people, or, for machines, one JSON object a line.

What is told: that it serves, leaves, reloads, what is wrong; in JSON also answers that took long and a sample of
refusals. Nothing is told of an accepted scan, because the log is its record, and no line has a code, a voucher, a
terminal or an id in it. A bad day tells no more than a good one: a minute has at most LINES_A_MINUTE of each kind, and
the next line says how many were left out.
"""

import os
import select
from collections.abc import Callable
from contextlib import suppress

import msgspec

from gateway.messages import Verdict
from gateway.settings import MessagesConfig

LINES_A_MINUTE = 30  # enough to see which store it is; a gateway answers a million scans in that time
MINUTE_MS = 60_000
STDERR = 2


class _Sample:
    """At most LINES_A_MINUTE a minute."""

    def __init__(self) -> None:
        self._minute, self._told, self._omitted = 0, 0, 0

    def admits(self, now_ms: int) -> int | None:
        """How many were left out since the last one, or None: leave this one out, too."""
        minute = now_ms // MINUTE_MS
        if minute != self._minute:
            self._minute, self._told = minute, 0
        if self._told >= LINES_A_MINUTE:
            self._omitted += 1
            return None
        omitted, self._omitted = self._omitted, 0
        self._told += 1
        return omitted


class Diary:
    """Says it in JSON. `now_ms` is the clock, `write` takes a line."""

    def __init__(self, config: MessagesConfig, now_ms: Callable[[], int], write: Callable[[bytes], None]) -> None:
        self.slow_s = config.slow_ms / 1000 if config.slow_ms else float("inf")
        self._now_ms, self._write = now_ms, write
        self._slow, self._refused = _Sample(), _Sample()

    def tell(self, text: str) -> None:
        """Something about the gateway itself."""
        self._line({"level": "info", "event": "gateway", "text": text})

    def answered(self, op: str, transport: str, store: str, codes: bytes | bytearray, seconds: float) -> None:
        """A message was answered slowly, or not only with `accepted`. Must not raise."""
        now_ms, what = self._now_ms(), {"op": op, "transport": transport, "store": store, "scans": len(codes)}
        if seconds >= self.slow_s and (omitted := self._slow.admits(now_ms)) is not None:
            told = {"level": "warn", "event": "slow", **what, "duration_ms": round(seconds * 1000, 1)}
            self._line(told | ({"omitted": omitted} if omitted else {}))
        refused = codes.translate(None, b"\0")
        if refused and (omitted := self._refused.admits(now_ms)) is not None:
            outcomes = {Verdict(code).name.lower(): refused.count(code) for code in set(refused)}
            told = {"level": "info", "event": "refused", **what, "outcomes": outcomes}
            self._line(told | ({"omitted": omitted} if omitted else {}))

    def _line(self, fields: dict[str, object]) -> None:
        self._write(msgspec.json.encode({"ts_ms": self._now_ms(), **fields}) + b"\n")


def to_stderr(line: bytes) -> None:
    """One line, at once, if there is room for it. A reader that is gone or stuck costs its lines, never an answer."""
    with suppress(OSError):
        _, room, _ = select.select((), (STDERR,), (), 0)
        if room:
            os.write(STDERR, line)


def say_so(text: str) -> None:
    """A line for people, in the same way."""
    to_stderr(text.encode(errors="replace") + b"\n")
