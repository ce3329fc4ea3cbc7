"""Arrivals of an open model inside gevent: each starts when it is due, whatever became of those before it.

A closed user waits for its answer before it asks again, so a server that stands still is simply asked less, and the
shoppers who would have come meanwhile are in no figure (coordinated omission). Here one greenlet walks the schedule,
from intended start to intended start, and gives each arrival a greenlet of its own. There are at most `most` of these;
an arrival beyond that is dropped and counted, as a generator without end would only hide that it cannot keep up.
"""

import time
from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

import gevent
from gevent.pool import Pool

SPIN_S = 0.001  # gevent's timers are up to a millisecond late: sleep less than is wanted, then yield until it is time
STEP_S = 0.25  # of a long wait: how soon a run that is stopped ends

D = TypeVar("D")


class RunClock:
    """Microseconds after the first intended start, on this process's own clock."""

    def __init__(self, starts_ms: int) -> None:
        """`starts_ms` is UTC; between machines it is as exact as their clocks agree, within one it is exact."""
        self.starts_ms = starts_ms
        self._starts_s = time.monotonic() + starts_ms / 1000 - time.time()

    def now_us(self) -> int:
        return self.at_us(time.monotonic())

    def at_us(self, monotonic_s: float) -> int:
        """A reading of time.monotonic."""
        return round((monotonic_s - self._starts_s) * 1e6)

    def wall_ms(self, at_us: int) -> int:
        """UTC."""
        return self.starts_ms + at_us // 1000

    def wait_until(self, due_us: int, stopped: Callable[[], bool]) -> None:
        """Return as soon after `due_us` as gevent lets us, or when `stopped`."""
        due_s = self._starts_s + due_us / 1e6
        while (left_s := due_s - time.monotonic()) > 0 and not stopped():
            gevent.sleep(min(max(left_s - SPIN_S, 0), STEP_S))


class Arrivals(Generic[D]):
    """Walks a schedule. `ask` runs in a greenlet of its own; `drop` is told of an arrival there was no room for."""

    def __init__(
        self,
        clock: RunClock,
        most: int,
        draw: Callable[[int], D | None],
        ask: Callable[[D], None],
        drop: Callable[[D], None],
    ) -> None:
        """`draw` makes an arrival of its intended start; None: nobody comes after all."""
        self._clock, self._draw, self._ask, self._drop = clock, draw, ask, drop
        self._under_way = Pool(most)
        self._stopped = False

    def run(self, schedule: Iterable[int]) -> None:
        """Return after the last arrival has started, or soon after `stop`."""
        for due_us in schedule:
            self._clock.wait_until(due_us, lambda: self._stopped)
            if self._stopped:
                return
            drawn = self._draw(due_us)
            if drawn is None:
                continue
            if self._under_way.free_count():
                self._under_way.spawn(self._ask, drawn)
            else:
                self._drop(drawn)

    def stop(self) -> None:
        """Start nothing more."""
        self._stopped = True

    def finish(self, seconds: float) -> None:
        """Wait for what is under way, at most this long, and end the rest (GreenletExit inside its `ask`)."""
        self._under_way.join(timeout=seconds)
        self._under_way.kill()
