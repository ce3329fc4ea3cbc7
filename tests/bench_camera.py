"""`make bench-camera`: how many drawn phone screens are read, by which rung, at what cost, and that none is misread.

`plain` is the control on the same pictures: one call of zxing as its makers ship it, all symbologies. A misread is a
text that is not in view: one of them, by ladder or rung, ends the run with 1. So does one of two clear vouchers in view
that is taken as if it stood alone; where one of the two is hardly to be seen, such a guess is counted.
"""

import argparse
import os
import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from functools import partial

import msgspec
import numpy as np
import phone_screens
import zxingcpp
from phone_screens import CONDITIONS, NOTHING, TWO_IN_VIEW, TWO_UNLIKE, Condition

from devices.camera_ladder import Ladder, Rung

PICTURES = 24  # of each condition
LADDER = Ladder(("qr",))
PLAIN, AS_SHIPPED, HELD = "plain", "ladder", "held"


class Outcome(msgspec.Struct):
    """What came of the pictures of one condition."""

    name: str
    codes_in_view: int
    pictures: int = 0
    read: int = 0  # the one code, taken
    plain: int = 0  # ... by the control
    told_apart: int = 0  # not taken, because another code is, or may be, in view
    guessed: int = 0  # one of two, taken
    misread: int = 0
    rungs: Counter[str] = msgspec.field(default_factory=Counter)  # that gave the code
    took_ms: dict[str, list[float]] = msgspec.field(default_factory=dict)


def played(condition: Condition, pictures: int) -> Outcome:
    outcome = Outcome(condition.name, len(phone_screens.picture(condition, 0).codes))
    for seed in range(pictures):
        picture = phone_screens.picture(condition, seed)
        in_view = set(picture.codes)
        outcome.pictures += 1
        began_s = time.thread_time()
        seen = LADDER.read(picture.luma)
        _note(outcome, AS_SHIPPED, began_s)
        if seen.codes:
            began_s = time.thread_time()
            LADDER.read(picture.luma, known=frozenset(seen.codes))
            _note(outcome, HELD, began_s)
        texts = {frame.octets.decode() for frame in seen.codes}
        outcome.misread += bool(texts - in_view)
        outcome.told_apart += bool(texts) and not seen.is_one
        outcome.read += seen.is_one and texts == in_view
        outcome.guessed += seen.is_one and texts < in_view
        if seen.rung:
            outcome.rungs[seen.rung.value] += 1
        began_s = time.thread_time()
        plain = {symbol.text for symbol in zxingcpp.read_barcodes(picture.luma)}
        _note(outcome, PLAIN, began_s)
        outcome.plain += bool(plain) and plain == in_view
        for rung in Rung:
            began_s = time.thread_time()
            alone = {frame.octets.decode() for frame in LADDER.read_rung(picture.luma, rung)}
            _note(outcome, rung.value, began_s)
            outcome.misread += bool(alone - in_view)
    return outcome


def _note(outcome: Outcome, what: str, began_s: float) -> None:
    outcome.took_ms.setdefault(what, []).append((time.thread_time() - began_s) * 1000)


def print_shares(outcomes: list[Outcome]) -> None:
    rungs = [rung.value for rung in Rung]
    print(f"{'condition':32}{'pictures':>9}{'ladder':>8}{'plain':>7}  {'first read by':^35}{'misread':>9}")
    print(f"{'':32}{'':9}{'':8}{'':7}  " + "".join(f"{rung:>7}" for rung in rungs))
    for one in outcomes:
        by_rung = "".join(f"{one.rungs[rung] or '':>7}" for rung in rungs)
        shares = f"{one.read / one.pictures:>8.0%}{one.plain / one.pictures:>7.0%}"
        print(f"{one.name:32}{one.pictures:>9}{shares}  {by_rung}{one.misread:>9}")
    every, read, plain = (sum(getattr(one, field) for one in outcomes) for field in ("pictures", "read", "plain"))
    print(f"{'all of them':32}{every:>9}{read / every:>8.0%}{plain / every:>7.0%}\n")


def print_refusals(outcomes: list[Outcome]) -> None:
    print(f"{'not one code in view':32}{'pictures':>9}{'refused':>8}{'nothing read':>14}{'guessed':>9}{'misread':>9}")
    for one in outcomes:
        nothing = one.pictures - one.told_apart - one.guessed - (one.misread > 0)
        print(f"{one.name:32}{one.pictures:>9}{one.told_apart:>8}{nothing:>14}{one.guessed:>9}{one.misread:>9}")
    print()


def print_times(outcomes: list[Outcome]) -> None:
    print(f"{'one picture of 1280x720, CPU ms':32}{'p50':>9}{'p99':>8}")
    words = {AS_SHIPPED: "ladder", HELD: "ladder, a code it knows", PLAIN: "plain: one call of zxing"}
    for what in (AS_SHIPPED, HELD, *(rung.value for rung in Rung), PLAIN):
        took_ms = [ms for one in outcomes for ms in one.took_ms.get(what, ())]
        print(
            f"{words.get(what, 'rung ' + what):32}{np.percentile(took_ms, 50):>9.1f}{np.percentile(took_ms, 99):>8.1f}"
        )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=int, default=PICTURES, help="of each condition")
    pictures = parser.parse_args().pictures
    with ProcessPoolExecutor(os.cpu_count()) as processes:
        every = (*CONDITIONS, TWO_IN_VIEW, TWO_UNLIKE, NOTHING)
        outcomes = list(processes.map(partial(_played_by_name, pictures=pictures), [one.name for one in every]))
    print_shares(outcomes[: len(CONDITIONS)])
    print_refusals(outcomes[len(CONDITIONS) :])
    print_times(outcomes)
    misread = sum(one.misread for one in outcomes)
    guessed = next(one.guessed for one in outcomes if one.name == TWO_IN_VIEW.name)
    print(f"\nmisreads: {misread}; of two clear vouchers, one was taken {guessed} times")
    return 1 if misread or guessed else 0


def _played_by_name(name: str, pictures: int) -> Outcome:
    condition = next(one for one in (*CONDITIONS, *phone_screens.WITHOUT_ONE_CODE) if one.name == name)
    return played(condition, pictures)


if __name__ == "__main__":
    sys.exit(main())
