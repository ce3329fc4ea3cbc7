"""An asyncio event loop whose clock is a number: it jumps to the next timer, so nothing ever waits.

What is ready runs in the order it became ready, as asyncio promises; all chance lies in the delays that the models of
Valkey, log and network choose from one seeded generator. Same seed, same run, to the last callback.

Every callback belongs to an `Owner`, the process whose code it is: the owner of the callback that scheduled it, unless
`at` names another. That makes a crash what it is: the callbacks of a dead owner never run (no `finally`, no `except`,
as under kill -9), and those of a stopped one wait and then run late, all at once, as after SIGSTOP and SIGCONT.
"""

import asyncio
import heapq
from asyncio import events
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import Any

ASKED_EVERY = 8  # timers between two questions whether to go on


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

    __slots__ = ("args", "callback", "owner", "when_s")

    def __init__(
        self, callback: Callable[..., object] | None, args: tuple[Any, ...], owner: Owner, when_s: float
    ) -> None:
        self.callback, self.args, self.owner, self.when_s = callback, args, owner, when_s

    def cancel(self) -> None:
        self.callback, self.args = None, ()

    def cancelled(self) -> bool:
        return self.callback is None

    def when(self) -> float:
        return self.when_s


class SimLoop(asyncio.BaseEventLoop):
    """`on_error` is told of exceptions that reach the loop: which owner, and what."""

    def __init__(self, on_error: Callable[[Owner, BaseException], None]) -> None:
        super().__init__()
        self.world = self.owner = Owner("world")
        self.now_s = 0.0
        self._on_error = on_error
        self._queue: deque[Call] = deque()
        self._timers: list[tuple[float, int, Call]] = []
        self._count = 0
        self._tasks: list[asyncio.Task[Any]] = []

    def time(self) -> float:
        return self.now_s

    def call_soon(self, callback: Callable[..., object], *args: Any, context: Context | None = None) -> Any:
        call = Call(callback, args, self.owner, self.now_s)
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
        call = Call(callback, args, owner, when_s)
        self._count += 1
        heapq.heappush(self._timers, (when_s, self._count, call))
        return call

    def create_task(self, coro: Coroutine[Any, Any, Any], **kwargs: Any) -> asyncio.Task[Any]:  # type: ignore[override]
        task = asyncio.Task(coro, loop=self)
        self._tasks.append(task)
        return task

    def resume(self, owner: Owner) -> None:
        """Let a stopped owner run again: first all that it missed."""
        if owner.stopped and not owner.dead:
            owner.stopped = owner.held = False
            self._queue.extend(owner.backlog)
        owner.backlog.clear()

    def run_while(self, goes_on: Callable[[], bool]) -> None:
        """Run until `goes_on` says no (asked now and then, before the clock moves) or nothing is left to do."""
        events._set_running_loop(self)
        queue, timers, turns = self._queue, self._timers, 0
        try:
            while True:
                while queue:
                    self._run(queue.popleft())
                if not timers or (turns % ASKED_EVERY == 0 and not goes_on()):
                    return
                turns += 1
                when_s, _, call = heapq.heappop(timers)
                if call.callback is not None:
                    self.now_s = max(self.now_s, when_s)
                    self._run(call)
        finally:
            events._set_running_loop(None)
            self.owner = self.world

    def _run(self, call: Call) -> None:
        owner = call.owner
        if owner.held:
            if not owner.dead:
                owner.backlog.append(call)
            return
        self.owner = owner
        if call.callback is None:
            return
        try:
            call.callback(*call.args)
        except Exception as error:  # noqa: BLE001 - a process may end of anything; the world decides what that means
            self._on_error(owner, error)

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
