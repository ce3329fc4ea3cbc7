"""Where the cashier looks: lines of text, and whatever else a till has. All are told the same, each in its own way."""

import contextlib
import io
import select
import time
from typing import Protocol, TextIO

from devices.feedback import Told, line, told_text


class Screen(Protocol):
    """`language` is "en" or "zh", and may be changed at any time."""

    language: str

    def tell(self, told: Told) -> str:
        """Show it; never waits, never raises for want of somebody who looks. Returns it as one line of text."""


class TextScreen:
    """Lines on one text stream; colour only on a terminal. A line is left out where nobody takes it: a terminal that
    was stopped (Ctrl-S), a pipe that is full or closed, a file without room. None of these may hold or end a till.
    """

    def __init__(self, out: TextIO, language: str) -> None:
        self._out = out
        self._room = _room_on(out)
        self._colour = out.isatty()
        self.language = language

    def tell(self, told: Told) -> str:
        text = told_text(self.language, told)
        now_ms = time.time_ns() // 1_000_000
        # Room on a pipe is at least 4,096 bytes (PIPE_BUF of Linux), and no line is as long.
        if self._room is None or self._room.poll(0):
            with contextlib.suppress(OSError):
                self._out.write(line(told.mood, text, at_ms=now_ms, colour=self._colour) + "\n")
                self._out.flush()
        return text


def _room_on(out: TextIO) -> "select.poll | None":
    """What tells whether a write would wait; None for what is no file of the kernel's."""
    try:
        fd = out.fileno()
    except io.UnsupportedOperation:
        return None
    room = select.poll()
    room.register(fd, select.POLLOUT)
    return room


class Screens:
    """Several at once; what is returned is the first one's."""

    def __init__(self, first: Screen, *others: Screen) -> None:
        self._first, self._others = first, list(others)

    def add(self, screen: Screen) -> None:
        """Tell one more from now on."""
        self._others.append(screen)

    @property
    def language(self) -> str:
        return self._first.language

    @language.setter
    def language(self, language: str) -> None:
        for screen in (self._first, *self._others):
            screen.language = language

    def tell(self, told: Told) -> str:
        for screen in self._others:
            screen.tell(told)
        return self._first.tell(told)
