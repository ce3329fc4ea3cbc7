"""An asyncio event loop whose clock is a number: it jumps to the next timer, so nothing ever waits.

What is ready runs in the order it became ready, as asyncio promises; all chance lies in the delays that the models of
Valkey, log and network choose from one seeded generator. Same seed, same run, to the last callback.

Every callback belongs to an `Owner`, the process whose code it is: the owner of the callback that scheduled it, unless
`at` names another. That makes a crash what it is: the callbacks of a dead owner never run (no `finally`, no `except`,
as under kill -9), and those of a stopped one wait and then run late, all at once, as after SIGSTOP and SIGCONT.
"""

import asyncio
import gc
import heapq
from asyncio import events
from collections import deque
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from contextvars import Context
from typing import Any

ASKED_EVERY = 8  # timers between two questions whether to go on
TASKS_KEPT = 64  # when so many more tasks were made, the finished ones are let go: memory that is used again is quicker


class Owner:
    """A process in the simulated world."""

    __slots__ = ("backlog", "dead", "held", "name", "stopped")

    def __init__(self, name: str) -> None:
        self.name = name
        self.dead = self.stopped = False
        self.held = False  # dead or stopped: asked before every callback
        self.backlog: list[Call] = []

    def kill(self) -> None:
        self.dead = self.held = True
        self.backlog.clear()

    def stop(self) -> None:
        self.stopped = self.held = True


class Call:
    """A callback that is to run; what asyncio calls a handle."""

    __slots__ = ("args", "callback", "owner")

    def __init__(self, callback: Callable[..., object] | None, args: tuple[Any, ...], owner: Owner) -> None:
        self.callback, self.args, self.owner = callback, args, owner

    def cancel(self) -> None:
        self.callback, self.args = None, ()

    def cancelled(self) -> bool:
        return self.callback is None


class SimLoop(asyncio.BaseEventLoop):
    """`on_error` is told of exceptions that reach the loop: which owner, and what."""

    def __init__(self, on_error: Callable[[Owner, BaseException], None]) -> None:
        super().__init__()
        self.world = self.owner = Owner("world")
        self.now_s = 0.0
        self.steps = 0  # callbacks that were run
        self.stops_at = -1  # the number of such steps before which `run_while` returns; below 0: none
        self._on_error = on_error
        self._queue: deque[Call] = deque()
        self._timers: list[tuple[float, int, Call]] = []
        self._count = 0
        self._tasks: list[asyncio.Task[Any]] = []
        self._tasks_max = TASKS_KEPT

    def time(self) -> float:
        return self.now_s

    def call_soon(self, callback: Callable[..., object], *args: Any, context: Context | None = None) -> Any:
        call = Call(callback, args, self.owner)
        self._queue.append(call)
        return call

    def call_later(
        self, delay: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> Any:
        return self.at(self.now_s + delay, self.owner, callback, *args)

    def call_at(self, when: float, callback: Callable[..., object], *args: Any, context: Context | None = None) -> Any:
        return self.at(when, self.owner, callback, *args)

    def at(self, when_s: float, owner: Owner, callback: Callable[..., object], *args: Any) -> Call:
        """Run `callback` at a time as `owner`."""
        call = Call(callback, args, owner)
        self._count += 1
        heapq.heappush(self._timers, (when_s, self._count, call))
        return call

    def create_task(self, coro: Coroutine[Any, Any, Any], **kwargs: Any) -> asyncio.Task[Any]:  # type: ignore[override]
        task = asyncio.Task(coro, loop=self)
        self._tasks.append(task)
        if len(self._tasks) > self._tasks_max:
            self._forget_the_done()
        return task

    def _forget_the_done(self) -> None:
        for task in self._tasks:
            if task.done():  # how it ended was for its own process to look at, which may be dead by now
                task._log_traceback = False  # type: ignore[attr-defined]
        self._tasks = [task for task in self._tasks if not task.done()]
        self._tasks_max = len(self._tasks) + TASKS_KEPT

    async def sleep(self, seconds: float) -> None:
        """As asyncio.sleep, with fewer steps between the timer and the sleeper."""
        woken: asyncio.Future[None] = asyncio.Future(loop=self)
        call = self.at(self.now_s + seconds, self.owner, _wake, woken)
        try:
            await woken
        finally:
            call.callback = None

    def resume(self, owner: Owner) -> None:
        """Let a stopped owner run again: first all that it missed."""
        if owner.stopped and not owner.dead:
            owner.stopped = owner.held = False
            self._queue.extend(owner.backlog)
        owner.backlog.clear()

    def run_while(self, goes_on: Callable[[], bool]) -> None:
        """Run until `goes_on` says no (asked now and then, before the clock moves) or nothing is left to do.

        Or until `stops_at`: then everything stands as it does between two callbacks, and `run_while` goes on there.
        """
        events._set_running_loop(self)
        queue, timers, turns, pop, popleft = self._queue, self._timers, 0, heapq.heappop, self._queue.popleft
        steps, stops_at = self.steps, self.stops_at
        call: Call
        try:
            while steps != stops_at:
                if queue:
                    call = popleft()
                else:
                    if not timers or (turns % ASKED_EVERY == 0 and not goes_on()):
                        return
                    turns += 1
                    when_s, _, call = pop(timers)
                    if call.callback is not None and when_s > self.now_s:
                        self.now_s = when_s
                callback, owner = call.callback, call.owner
                if callback is None:
                    continue
                if owner.held:
                    if not owner.dead:
                        owner.backlog.append(call)
                    continue
                self.owner = owner
                steps += 1
                try:
                    callback(*call.args)
                except Exception as error:  # noqa: BLE001 - a process may end of anything; the world decides
                    self._on_error(owner, error)
        finally:
            self.steps = steps
            events._set_running_loop(None)
            self.owner = self.world

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if error is not None and not self.is_closed():
            self._on_error(self.owner, error)

    def dispose(self) -> None:
        """End every coroutine without a word; nothing of it runs on."""
        self.close()
        for task in self._tasks:
            if not task.done():
                task._log_destroy_pending = False  # type: ignore[attr-defined]
                self._close_quietly(task)
        self._tasks.clear()
        self._queue.clear()
        self._timers.clear()

    def _close_quietly(self, task: asyncio.Task[Any]) -> None:
        coroutine = task.get_coro()
        assert coroutine is not None
        coroutine.close()  # type: ignore[union-attr]


def _wake(sleeper: "asyncio.Future[None]") -> None:
    if not sleeper.done():  # cancelled in the same turn: a process that was stopped makes up for its time all at once
        sleeper.set_result(None)


@contextmanager
def collector_held_back() -> Iterator[Callable[[], int]]:
    """Without the garbage collector, which is given to be called now and then.

    A world is one large cycle, dropped as a whole; what was there before is not looked through each time.
    """
    gc.freeze()
    gc.disable()
    try:
        yield gc.collect
    finally:
        gc.enable()
        gc.unfreeze()
