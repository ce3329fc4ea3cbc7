"""All chance of a run: one seeded generator, and how long things take."""

import math
import random
from collections.abc import Sequence
from typing import Any, TypeVar

Choice = TypeVar("Choice")

QUANTILES = 4000  # of the time something takes, drawn evenly
SLOW_ONE_IN = 40
SLOW_TIMES = 30


def _waits() -> tuple[float, ...]:
    """Exponential around 1, with a slow one now and then: looked up, because a run draws thousands."""
    even = (-math.log(1.0 - (number + 0.5) / QUANTILES) for number in range(QUANTILES))
    return tuple(wait * SLOW_TIMES if number % SLOW_ONE_IN == 0 else wait for number, wait in enumerate(even))


WAITS = _waits()


class Chance(random.Random):
    """The standard generator; its two most used draws take a third of the time."""

    def choice(self, seq: Sequence[Choice]) -> Choice:  # type: ignore[override]
        return seq[int(self.random() * len(seq))]

    def randint(self, a: int, b: int) -> int:
        return a + int(self.random() * (b - a + 1))


class Pace:
    """How long things take: exponential around `typical_s`, with a slow one now and then."""

    __slots__ = ("_random", "typical_s")

    def __init__(self, choose: random.Random, typical_s: float) -> None:
        self._random: Any = choose.random
        self.typical_s = typical_s

    def delay_s(self) -> float:
        wait: float = WAITS[int(self._random() * QUANTILES)]
        return wait * self.typical_s
