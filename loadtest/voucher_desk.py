"""Vouchers for a run: issued at the gateway's desk, and handed to the generators before they need them."""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import msgspec

from loadtest.arrivals import sends_of
from loadtest.crew_process import Process
from loadtest.generator_plan import Codes
from loadtest.run_plan import codes_for
from loadtest.scenario import REDEEMED_SHARE, Arrivals, Origin, Race, Scenario
from loadtest.stage import Stage, issue

T = TypeVar("T")
STOCK = 200_000  # vouchers each generator is kept supplied with; more than it uses up in ten seconds
CHUNK = 20_000  # vouchers in a message to a generator: a millisecond of its time


class Day(msgspec.Struct, frozen=True):
    """One of the origin's days."""

    number: int
    at_s: float
    sent: int
    redeemed: int  # at most


def days_of(shape: Arrivals) -> list[Day]:
    """The origin's days, where whole days are played; else none."""
    if not isinstance(shape, Origin) or shape.peak_minutes is not None:
        return []
    days = []
    for number, sent in enumerate(sends_of(shape)):
        redeemed = sent * REDEEMED_SHARE
        spare = 6 * redeemed**0.5 + 20  # how many come on which day is drawn
        days.append(Day(number, number * shape.day_seconds, sent, min(round(redeemed + spare), sent)))
    return days


class VoucherDesk:
    """Issues and hands out. What asks the gateway does so in one thread, because its connection takes one request."""

    def __init__(self, scenario: Scenario, stage: Stage, processes: Sequence[Process]) -> None:
        self._scenario, self._stage, self._processes = scenario, stage, processes
        self._given = 0  # handed out, of the main campaign, where they are handed out in order
        self._issued = stage.main.count
        self._thread = ThreadPoolExecutor(1, "desk")

    def close(self) -> None:
        """Ask for nothing more."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def at_desk(self, work: Callable[[], T]) -> T:
        """Do this in the thread, and send what it left for generators. Raises what it raises."""
        result = await asyncio.get_running_loop().run_in_executor(self._thread, work)
        for process in self._processes:
            process.flush()
        return result

    async def stock_all(self) -> None:
        """What the generators begin with."""
        await self.at_desk(self._stock_all)

    def _stock_all(self) -> None:
        shape = self._scenario.arrivals
        if isinstance(shape, Race):
            (codes,) = codes_for(self._stage, 0, self._issued, 1)
            for process in self._processes:
                process.send_later(codes)
        elif days := days_of(shape):
            self._hand_out(0, days[0].redeemed)
        else:
            self._stock(STOCK * len(self._processes))

    def _stock(self, count: int) -> None:
        count = min(count, self._issued - self._given)
        if count > 0:
            self._hand_out(self._given, count)
            self._given += count

    def _hand_out(self, first: int, count: int) -> None:
        shares = codes_for(self._stage, first, count, len(self._processes))
        for process, share in zip(self._processes, shares, strict=True):
            for start in range(0, len(share.codes), CHUNK):
                first_serial = share.first_serial + start * share.step
                process.send_later(Codes(first_serial, share.step, share.codes[start : start + CHUNK]))

    async def feed(self, left: int) -> None:
        """A generator has so many left: hand out more in time."""
        shape = self._scenario.arrivals
        if left < STOCK // 2 and self._given < self._issued and not isinstance(shape, Race) and not days_of(shape):
            await self.at_desk(lambda: self._stock(STOCK // 2 * len(self._processes)))

    async def issue(self, day: Day) -> None:
        """A day's vouchers, and those of them that will be redeemed."""

        def work() -> None:
            issue(self._stage.desk, self._stage.main.slug, day.sent, f"day-{day.number}")
            self._hand_out(self._issued, day.redeemed)

        await self.at_desk(work)
        self._issued += day.sent

    async def supply(self, count: float) -> None:
        """Issue and hand out what a step of a search uses up."""
        wanted = int(count * 1.02) + 100
        made = self._given + wanted - self._issued
        if made > 0:
            await self.at_desk(lambda: issue(self._stage.desk, self._stage.main.slug, made, f"step-{self._issued}"))
            self._issued += made
        await self.at_desk(lambda: self._stock(wanted))
