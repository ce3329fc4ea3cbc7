"""A fault at every step: a short plain run is cut after each of its callbacks, and there each fault is done in turn.

The long runs meet rare combinations by chance; here nothing is left to chance that a short run can show. What stands
between two callbacks is all there is: messages, claims and appends on their way, and what each process knows. One fault
a run: a second one during a recovery, and one after the last step, is for the long runs.
"""

from collections.abc import Callable
from functools import cache

import msgspec
from sim.gateways import Gateway
from sim.limits import limits_put_back
from sim.loop import collector_held_back
from sim.world import Outcome, World

SEEDS = (
    9,
    10,
    14,
)  # between them: repeats, reversals, facts, conflicts, imports, voids, pauses, one and two partitions
EVENTS = 60
DOWN_S = 0.05  # for so long Valkey is away
ASLEEP_S = 2.0  # long enough that the other gateway appends what the sleeper had claimed
COLLECT_EVERY = 50  # runs


class Strike(msgspec.Struct, frozen=True):
    """A fault with a name."""

    name: str
    harm: Callable[[World], None]


class Broken(msgspec.Struct, frozen=True):
    """A run that broke an invariant."""

    seed: int
    at_step: int
    strike: str
    violation: str


def _kill(*numbers: int) -> Callable[[World], None]:
    def harm(world: World) -> None:
        for number in numbers:
            world.gateways[number].end("killed")

    return harm


def _sleep(number: int) -> Callable[[World], None]:
    def harm(world: World) -> None:
        gateway: Gateway = world.gateways[number]
        gateway.owner.stop()
        world.loop.at(world.loop.now_s + ASLEEP_S, world.loop.world, world.loop.resume, gateway.owner)

    return harm


def _disk(when: str) -> Callable[[World], None]:
    """The next append of either gateway fails, before it took effect or after; the process ends."""

    def harm(world: World) -> None:
        for gateway in world.gateways:
            gateway.log.fails_next = when

    return harm


def _valkey(lost_writes: int, *, wiped: bool = False) -> Callable[[World], None]:
    def harm(world: World) -> None:
        world.host.crash(lost_writes)
        if wiped:
            world.host.server.wipe(functions=True)
        world.loop.at(world.loop.now_s + DOWN_S, world.loop.world, world.host.start)

    return harm


def _cut(*, arriving: bool) -> Callable[[World], None]:
    """Every connection to Valkey; what was on its way arrives without an answer, or never."""

    def harm(world: World) -> None:
        for line in world.host.lines:
            line.cut(line.under_way if arriving else 0)

    return harm


def _all(*harms: Callable[[World], None]) -> Callable[[World], None]:
    def harm(world: World) -> None:
        for one in harms:
            one(world)

    return harm


STRIKES = (
    Strike("a gateway is killed", _kill(0)),
    Strike("the other gateway is killed", _kill(1)),
    Strike("both gateways are killed", _kill(0, 1)),
    Strike("a gateway sleeps", _sleep(0)),
    Strike("the other gateway sleeps", _sleep(1)),
    Strike("the disk fails before an append", _disk("before")),
    Strike("the disk fails after an append", _disk("after")),
    Strike("Valkey is killed", _valkey(0)),
    Strike("Valkey loses its newest write", _valkey(1)),
    Strike("Valkey loses three writes", _valkey(3)),
    Strike("Valkey loses everything", _valkey(0, wiped=True)),
    Strike("connections are cut, what was sent arrives", _cut(arriving=True)),
    Strike("connections are cut, what was sent is lost", _cut(arriving=False)),
    Strike("power fails, and Valkey loses a write", _all(_kill(0, 1), _valkey(1))),
    Strike("power fails, and Valkey loses everything", _all(_kill(0, 1), _valkey(0, wiped=True))),
    Strike("a gateway sleeps, and Valkey loses a write", _all(_sleep(0), _valkey(1))),
)


def run_cut(seed: int, at_step: int = -1, strike: Callable[[World], None] | None = None) -> Outcome:
    """A run in which nothing goes wrong but `strike`, after so many callbacks."""
    with limits_put_back():
        return World(seed, traced=False, focus="", is_plain=True).run(EVENTS, at_step, strike)


@cache
def steps_of(seed: int) -> int:
    """How many callbacks its run has before the calm."""
    whole = run_cut(seed)
    assert not whole.violations, whole.violations
    return whole.steps


def run_cuts(seed: int, name: str, stride: int = 1) -> list[Broken]:
    """One run for each step, with the fault of this name there; those that broke an invariant.

    With a stride, each fault begins at another step.
    """
    ((number, harm),) = [(number, strike.harm) for number, strike in enumerate(STRIKES) if strike.name == name]
    broken, steps = [], range(number % stride, steps_of(seed), stride)
    with collector_held_back() as collect:
        for at_step in steps:
            outcome = run_cut(seed, at_step, harm)
            if outcome.violations:
                broken.append(Broken(seed, at_step, name, outcome.violations[0]))
            if at_step // stride % COLLECT_EVERY == 0:
                collect()
    return broken
