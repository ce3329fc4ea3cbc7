"""One till of the demo: a scanner or a camera, a real terminal daemon, and a cashier who reads its lines."""

import asyncio
import re
from asyncio.subprocess import Process
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec

from gateway.demo_camera import PhonesOnCamera
from gateway.demo_children import Children, DemoFailed, in_time
from gateway.demo_scanners import DatalogicScanner, HoneywellScanner, LineScanner, NewlandScanner, SsiScanner

LINE_UP: tuple[Callable[[Path], LineScanner | PhonesOnCamera], ...] = (  # what stands at the tills, in turn
    lambda _: SsiScanner(),
    lambda _: HoneywellScanner(),
    lambda _: LineScanner("crlf", b"]Q1", b"\r\n"),  # with the AIM identifier of a QR symbol
    lambda _: DatalogicScanner(),
    lambda _: SsiScanner(),
    lambda _: HoneywellScanner(),
    lambda _: NewlandScanner(),
    lambda till: PhonesOnCamera(till / "pictures"),
    lambda till: PhonesOnCamera(till / "pictures"),
    lambda _: LineScanner("tab", b"]Q1", b"\t"),
)
GOOD, BAD, WAITING = "✓", "✗", "…"
_line = re.compile(rf"\d\d:\d\d:\d\d ([{GOOD}{BAD}{WAITING}·]) (?:#([0-9a-f]{{6}}) )?(.*)").fullmatch


class Reading(msgspec.Struct):
    """One scan as the till took it: the `number`-th in its journal, shown to the cashier by its `tail`."""

    till: int
    number: int
    tail: str
    told: str = ""  # the line of its final answer
    told_later: str = ""  # that of a reversal


class Till:
    """Till `index` in `store`, enrolled: its directory holds its key, `terminal.toml` and its journal."""

    def __init__(self, index: int, store: str, directory: Path, children: Children) -> None:
        self.index, self.store, self.directory = index, store, directory
        self._children = children
        self._process: Process | None = None
        self._listening: asyncio.Task[None] | None = None
        self.scanner = LINE_UP[index % len(LINE_UP)](directory)
        self._loop = asyncio.get_running_loop()
        self._online = self._scanner_ready = self._loop.create_future()
        self._taken: asyncio.Future[str] = self._loop.create_future()
        self._answers: dict[str, asyncio.Future[str]] = {}
        self._count = 0

    @property
    def name(self) -> str:
        return f"till-{self.index}"

    @property
    def journal(self) -> Path:
        return self.directory / "journal.bin"

    def configure(self) -> None:
        """Complete what enrolment wrote: the language of the lines, and the scanner."""
        with (self.directory / "terminal.toml").open("a") as file:
            file.write('language = "en"\n' + self.scanner.configuration("counter"))

    async def start(self) -> None:
        """Returns when the terminal is connected and has opened its scanner."""
        self._online, self._scanner_ready = self._loop.create_future(), self._loop.create_future()
        arguments = ["-m", "devices.terminal", "--config", str(self.directory / "terminal.toml")]
        self._process = await self._children.start(self.name, arguments, pipes=True)
        self._listening = asyncio.create_task(self._listen(self._process))
        await in_time(self._online, f"{self.name} to be connected")
        await in_time(self._scanner_ready, f"the scanner of {self.name}")

    async def kill(self) -> None:
        await self._children.kill(self.name)
        await self._gone()

    async def stop(self) -> None:
        """End the terminal, then unplug its scanner."""
        await self._children.end(self.name)
        await self._gone()
        self.scanner.unplug()

    async def scan(self, text: str) -> Reading:
        """The scanner reads a picture with this text; returns when the till has heard it (and journalled it)."""
        return await self._take(self.scanner.show(text))

    async def type(self, text: str) -> Reading:
        """The cashier types a code."""
        return await self._take(self._command(f"code {text}"))

    async def answer(self, reading: Reading) -> None:
        """Wait for the final answer to a scan, and note its line."""
        reading.told = await self._final(reading.tail)

    async def reverse(self, reading: Reading) -> None:
        """The cashier takes a redemption back; waits for the final answer to that, and notes its line."""
        self._answers[reading.tail] = self._loop.create_future()
        await self._command(f"reverse {reading.tail}")
        reading.told_later = await self._final(reading.tail)

    async def _take(self, act: Awaitable[None]) -> Reading:
        self._taken = self._loop.create_future()
        await act
        tail = await in_time(self._taken, f"{self.name} to hear a scan")
        self._count += 1
        return Reading(self.index, self._count - 1, tail)

    async def _final(self, tail: str) -> str:
        return await in_time(self._answers[tail], f"the answer to #{tail} at {self.name} ({self.store})")

    async def _command(self, line: str) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n".encode())
        await self._process.stdin.drain()

    async def _listen(self, process: Process) -> None:
        assert process.stdout is not None
        with (self.directory / "screen.txt").open("ab") as screen:
            async for octets in process.stdout:
                screen.write(octets)
                if found := _line(octets.decode("utf-8", "replace").rstrip("\n")):
                    self._read(found[1], found[2], found[3])

    def _read(self, mark: str, tail: str | None, text: str) -> None:
        """One line of the screen. Lines about scans are told apart by mark and number, never by their words."""
        if tail is None:
            self._read_of_no_scan(mark, text)
            return
        answer = self._answers.get(tail)
        is_open = answer is not None and not answer.done()
        if mark == WAITING and not is_open and not self._taken.done():
            self._answers[tail] = self._loop.create_future()
            self._taken.set_result(tail)
        elif mark in (GOOD, BAD) and answer is not None and is_open:
            answer.set_result(text)

    def _read_of_no_scan(self, mark: str, text: str) -> None:
        if text.startswith("connected") and not self._online.done():
            self._online.set_result(None)
        elif text.endswith("scanner ready") and not self._scanner_ready.done():
            self._scanner_ready.set_result(None)
        elif mark == BAD and not self._taken.done():
            self._taken.set_exception(DemoFailed(f"{self.name}: {text}"))

    async def _gone(self) -> None:
        if self._listening is not None:
            await self._listening
