"""A generator process as the run sees it."""

import asyncio
import sys
from typing import TypeVar

from loadtest.generator_plan import (
    LENGTH_BYTES,
    Beat,
    Broken,
    FromGenerator,
    Plan,
    ToGenerator,
    framed,
    from_generator,
)

M = TypeVar("M")
END_SECONDS_MAX = 5.0
MESSAGE_BYTES_MAX = 1 << 28


class CrewLost(Exception):
    """A generator ended, or cannot go on; says why."""


class Process:
    """One generator."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._later: list[bytes] = []
        self.beat: Beat | None = None
        self.step_done = asyncio.Event()
        self.is_gone = False

    @classmethod
    async def start(cls, plan: Plan) -> "Process":
        """Start one and give it its plan. An interrupt at the keyboard is for us to pass on, so it has a session."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "loadtest.generator"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
            limit=MESSAGE_BYTES_MAX,
        )
        made = cls(process)
        made.send(plan)
        return made

    @property
    def pid(self) -> int:
        return self._process.pid

    def send(self, message: ToGenerator) -> None:
        """Say something to it; if it is gone that shows when it is heard."""
        assert self._process.stdin is not None
        if not self._process.stdin.is_closing():
            self._process.stdin.write(framed(message))

    def send_later(self, message: ToGenerator) -> None:
        """From a thread: `flush` sends it."""
        self._later.append(framed(message))

    def flush(self) -> None:
        """Send what threads left."""
        assert self._process.stdin is not None
        later, self._later = self._later, []
        if not self._process.stdin.is_closing():
            self._process.stdin.writelines(later)

    async def hear(self) -> FromGenerator:
        """The next message. Raises CrewLost."""
        assert self._process.stdout is not None
        try:
            size = int.from_bytes(await self._process.stdout.readexactly(LENGTH_BYTES), "big")
            message = from_generator.decode(await self._process.stdout.readexactly(size))
        except asyncio.IncompleteReadError:
            self.is_gone = True
            raise CrewLost(await self._last_words()) from None
        if isinstance(message, Broken):
            self.is_gone = True
            raise CrewLost(message.why)
        return message

    async def expect(self, kind: type[M]) -> M:
        """The next message, which must be one of this kind. Raises CrewLost."""
        message = await self.hear()
        if not isinstance(message, kind):
            raise CrewLost(f"a generator said {message} out of turn")
        return message

    async def _last_words(self) -> str:
        assert self._process.stderr is not None
        said = (await self._process.stderr.read()).decode(errors="replace").strip()
        return "a generator ended: " + (said.rpartition("\n")[2] or f"exit code {self._process.returncode}")

    async def close(self) -> None:
        """Until it is gone; killed if it does not leave."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            async with asyncio.timeout(END_SECONDS_MAX):
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()
