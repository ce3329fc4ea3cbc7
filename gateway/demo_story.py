"""The acts as they are played: a cashier at every till, two who meet at one voucher, and somebody who pulls plugs."""

import asyncio
from collections.abc import Callable, Mapping, Sequence

import msgspec

from gateway.demo_children import in_time, kill_valkey, until, valkey_pid
from gateway.demo_plan import Act, Deed, Step, Voucher
from gateway.demo_setup import Gateway
from gateway.demo_till import Reading, Till
from gateway.demo_wire import LossyLine

UNANSWERED_MAX = 3  # a cashier scans on while the gateway is away, but not for ever


class Outcome(msgspec.Struct, frozen=True):
    """A step, and how each of its tills took it."""

    act: str
    step: Step
    readings: list[Reading]


class Kill(msgspec.Struct, frozen=True):
    """One kill -9: how many scans were without an answer at that moment, and how long until a new process was ready."""

    what: str
    act: str
    answered_before: int
    unanswered: int
    back_ms: int


class Story:
    """Plays acts one after the other. `texts`: what a scanner sends (or a cashier types) for each voucher."""

    def __init__(
        self,
        tills: Sequence[Till],
        texts: Mapping[Voucher, str],
        gateway: Gateway,
        line: LossyLine,
        advance: Callable[[int], None],
    ) -> None:
        self.outcomes: list[Outcome] = []
        self.kills: list[Kill] = []
        self._tills, self._texts = tills, texts
        self._gateway, self._line, self._advance = gateway, line, advance

    async def play(self, act: Act) -> None:
        """Returns when every scan has its final answer. Raises DemoFailed, in a group."""
        played = _Played(act)
        async with asyncio.TaskGroup() as group:
            for till in self._tills:
                own = [(n, step) for n, step in enumerate(act.steps) if till.index in step.tills]
                group.create_task(self._serve(played, group, till, own))
            if act.kill:
                group.create_task(self._pull_plug(played))
        self.outcomes += [Outcome(act.name, step, played.readings[n]) for n, step in enumerate(act.steps)]

    async def _serve(
        self, played: "_Played", group: asyncio.TaskGroup, till: Till, steps: Sequence[tuple[int, Step]]
    ) -> None:
        """One cashier's work. Plain scans overlap, but for cashiers who listen to their scanner's verdict; anything
        special waits until the till is idle.
        """
        waiting: set[asyncio.Task[None]] = set()
        ahead = 1 if till.scanner.sounds_verdicts else UNANSWERED_MAX
        for n, step in steps:
            room_for = ahead if step.deed is Deed.SCAN else 1
            while len(waiting) >= room_for:
                _, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            reading = await self._do(played, till, n, step)
            played.readings[n].append(reading)
            played.unanswered += 1
            waiting.add(group.create_task(self._hear(played, till, reading, step)))

    async def _do(self, played: "_Played", till: Till, n: int, step: Step) -> Reading:
        text = self._texts[step.voucher]
        match step.deed:
            case Deed.SCAN_AT_BOTH:
                await played.meetings[n].wait()
            case Deed.TYPE | Deed.TYPE_WRONGLY:
                return await till.type(text)
            case Deed.SCAN_ANSWER_LOST | Deed.SCAN_TILL_KILLED:
                return await self._scan_unheard(till, text, step.deed)
        return await till.scan(text)

    async def _scan_unheard(self, till: Till, text: str, deed: Deed) -> Reading:
        """The gateway commits and answers; the answer does not reach the till, or not the one that asked."""
        lost = self._line.lose_next_answer()
        reading = await till.scan(text)
        await in_time(lost, "an answer to lose")
        if deed is Deed.SCAN_TILL_KILLED:
            await till.kill()
        self._line.cut()
        if deed is Deed.SCAN_TILL_KILLED:
            await till.start()
        return reading

    async def _hear(self, played: "_Played", till: Till, reading: Reading, step: Step) -> None:
        await till.answer(reading)
        played.heard_one()
        self._advance(1)
        if step.deed is Deed.TAKE_BACK:
            await till.reverse(reading)

    async def _pull_plug(self, played: "_Played") -> None:
        await played.time_to_kill.wait()
        act, loop = played.act, asyncio.get_running_loop()
        answered, unanswered, killed_s = played.answered, played.unanswered, loop.time()
        if act.kill == "gateway":
            await self._gateway.kill()
            await self._gateway.start()
        else:
            former = kill_valkey(self._gateway.directory)
            await until(lambda: valkey_pid(self._gateway.directory) not in (None, former), "another Valkey")
        back_ms = round((loop.time() - killed_s) * 1000)
        self.kills.append(Kill(act.kill, act.name, answered, unanswered, back_ms))


class _Played:
    """An act under way."""

    def __init__(self, act: Act) -> None:
        self.act = act
        self.readings: list[list[Reading]] = [[] for _ in act.steps]
        self.meetings = {n: asyncio.Barrier(2) for n, s in enumerate(act.steps) if s.deed is Deed.SCAN_AT_BOTH}
        self.answered = self.unanswered = 0
        self.time_to_kill = asyncio.Event()

    def heard_one(self) -> None:
        self.answered += 1
        self.unanswered -= 1
        if self.answered == self.act.kill_after:
            self.time_to_kill.set()
