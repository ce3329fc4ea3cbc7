"""The demo's processes: started with their output in files, watched, killed on purpose, and all ended at the end."""

import asyncio
import contextlib
import fcntl
import os
import signal
import sys
from asyncio.subprocess import Process
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from gateway.embedded import endpoint_of

WAIT_SECONDS_MAX = 60.0  # nothing takes a second on an idle machine; a loaded one must not fail for that
POLL_SECONDS = 0.01
END_SECONDS_MAX = 15.0  # a gateway drains, then stops its Valkey, which fsyncs
LOG_TAIL_LINES = 5
ENVIRONMENT = {  # marks and Chinese in the children's output, whatever the locale
    **os.environ,
    "PYTHONUTF8": "1",
}

T = TypeVar("T")


class DemoFailed(Exception):
    """The demo could not be played to its end; says what was awaited, and where the output is."""


async def until(condition: Callable[[], bool], what: str) -> None:
    """Wait for something that can be observed. Raises DemoFailed."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + WAIT_SECONDS_MAX
    while not condition():
        if loop.time() > deadline:
            raise DemoFailed(f"waited {WAIT_SECONDS_MAX:.0f} s in vain for {what}")
        await asyncio.sleep(POLL_SECONDS)


async def in_time(awaited: "asyncio.Future[T]", what: str) -> T:
    """Wait for something that will be told. Raises DemoFailed."""
    try:
        async with asyncio.timeout(WAIT_SECONDS_MAX):
            return await asyncio.shield(awaited)
    except TimeoutError:
        raise DemoFailed(f"waited {WAIT_SECONDS_MAX:.0f} s in vain for {what}") from None


class Children:
    """Every process of the demo, by name. `trouble` gets a DemoFailed when one ends that should not."""

    def __init__(self, logs: Path) -> None:
        self.logs = logs
        self.trouble: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._running: dict[str, Process] = {}
        self._watches: set[asyncio.Task[None]] = set()

    async def start(self, name: str, arguments: Sequence[str], *, pipes: bool = False) -> Process:
        """A process that is to stay until it is killed or ended here. Arguments as for `_spawn`."""
        process = await self._spawn(name, arguments, pipes)
        watch = asyncio.create_task(self._watch(name, process))
        self._watches.add(watch)
        watch.add_done_callback(self._watches.discard)
        return process

    async def _spawn(self, name: str, arguments: Sequence[str], pipes: bool) -> Process:
        """`python ARGUMENTS` in a session of its own, so that Ctrl-C reaches only us. Output goes to `name`.log.

        With `pipes`, standard input and output are the caller's.
        """
        assert name not in self._running
        ours = asyncio.subprocess.PIPE
        with self.log_of(name).open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                *arguments,
                stdin=ours if pipes else asyncio.subprocess.DEVNULL,
                stdout=ours if pipes else log,
                stderr=log,
                env=ENVIRONMENT,
                start_new_session=True,
            )
        self._running[name] = process
        return process

    async def run(self, name: str, arguments: Sequence[str]) -> None:
        """Start a process and wait for its end. Raises DemoFailed unless it ends with 0."""
        await self._ended(name, await self._spawn(name, arguments, pipes=False))

    async def piped(self, name: str, arguments: Sequence[str], octets: bytes, *, fine: Sequence[int] = (0,)) -> bytes:
        """What a process makes of its standard input. Raises DemoFailed unless it ends with a `fine` code."""
        process = await self._spawn(name, arguments, pipes=True)
        made, _ = await process.communicate(octets)
        await self._ended(name, process, fine)
        return made

    async def kill(self, name: str) -> None:
        """kill -9, and wait until it is gone."""
        process = self._running.pop(name)
        process.kill()
        await process.wait()

    async def end(self, *names: str) -> None:
        """SIGTERM to each, SIGKILL to those that stay; returns when all are gone."""
        ending = [self._running.pop(name) for name in names if name in self._running]
        for number in (signal.SIGTERM, signal.SIGKILL):
            for process in ending:
                with contextlib.suppress(ProcessLookupError):
                    process.send_signal(number)
            waits = [asyncio.ensure_future(process.wait()) for process in ending]
            if waits:
                await asyncio.wait(waits, timeout=END_SECONDS_MAX)
            ending = [process for process in ending if process.returncode is None]

    async def end_all(self) -> None:
        """Whatever still runs, the gateway last, because the others talk to it."""
        names = list(self._running)
        await self.end(*(name for name in names if name != "gateway"))
        await self.end("gateway")
        for watch in self._watches:
            watch.cancel()
        self.trouble.cancel()

    def log_of(self, name: str) -> Path:
        return self.logs / f"{name}.log"

    async def _watch(self, name: str, process: Process) -> None:
        await process.wait()
        if self._running.get(name) is process and not self.trouble.done():
            self.trouble.set_exception(DemoFailed(self._end_in_words(name, process)))

    async def _ended(self, name: str, process: Process, fine: Sequence[int] = (0,)) -> None:
        await process.wait()
        del self._running[name]
        if process.returncode not in fine:
            raise DemoFailed(self._end_in_words(name, process))

    def _end_in_words(self, name: str, process: Process) -> str:
        lines = self.log_of(name).read_text("utf-8", "replace").splitlines()[-LOG_TAIL_LINES:]
        return f"{name} ended with {process.returncode}: {' / '.join(lines) or 'it said nothing'}"


def valkey_pid(directory: Path) -> int | None:
    """The process of the data directory's private Valkey, proven by its working directory; None if it does not run."""
    home = directory / "valkey"
    try:
        pid = int((home / "valkey.pid").read_text())
        return pid if Path(f"/proc/{pid}/cwd").samefile(home) else None
    except (OSError, ValueError):  # no file, half a number, no such process, or one that is not ours
        return None


def kill_valkey(directory: Path) -> int:
    """kill -9 of the private Valkey; its pid. Raises DemoFailed when there is none."""
    pid = valkey_pid(directory)
    if pid is None:
        raise DemoFailed("the private Valkey does not run")
    os.kill(pid, signal.SIGKILL)
    return pid


async def end_orphaned_valkey(directory: Path) -> None:
    """End the private Valkey that a killed gateway may have left, whatever it is doing."""
    lock_path = directory / "valkey" / "server.lock"
    if endpoint_of(directory) is None or not lock_path.exists():
        return
    with lock_path.open() as lock:
        await until(lambda: _is_free(lock.fileno(), directory), "the private Valkey to end")


def _is_free(lock: int, directory: Path) -> bool:
    """The lock is the server's as long as it lives. As long as it is held, its holder is told to end."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        if (pid := valkey_pid(directory)) is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        return False
    return True
