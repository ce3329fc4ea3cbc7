"""Lines for the cashier, on whatever standard output is: nobody who reads them may hold or end the till."""

import os
import pty
import termios
import threading
import tty

import pytest

from devices.feedback import Mood, Told
from devices.screen import TextScreen

TOLD = Told(Mood.PLAIN, "heard")
LINES = 5_000  # some 250 KiB: four times what a pipe holds


def tells(screen: TextScreen, lines: int = LINES) -> bool:
    """Whether all of them are told within a time that only a write that waits can take."""
    telling = threading.Thread(target=lambda: [screen.tell(TOLD) for _ in range(lines)], daemon=True)
    telling.start()
    telling.join(10)
    return not telling.is_alive()


def test_a_pipe_that_nobody_reads_holds_nobody_up() -> None:
    reader, writer = os.pipe()
    with os.fdopen(writer, "w", encoding="utf-8") as out:
        told = tells(TextScreen(out, "en"))
        assert os.read(reader, 1 << 20).endswith(b"asking the gateway\n"), "whole lines only"
        assert told
    os.close(reader)


def test_a_terminal_that_was_stopped_holds_nobody_up() -> None:
    keyboard, terminal = pty.openpty()
    tty.setraw(terminal)
    with os.fdopen(terminal, "w", encoding="utf-8") as out:
        screen = TextScreen(out, "en")
        termios.tcflow(terminal, termios.TCOOFF)
        assert tells(screen, 3)
        termios.tcflow(terminal, termios.TCOON)
        assert screen.tell(TOLD)
        assert os.read(keyboard, 4096).count(b"asking") == 1, "what was told while it stood still is left out"
    os.close(keyboard)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # what was not written, at the end
@pytest.mark.parametrize("gone", ("reader", "room"))
def test_a_closed_pipe_and_a_full_disk_end_nobody(gone: str) -> None:
    if gone == "reader":
        reader, fd = os.pipe()
        os.close(reader)
    else:
        fd = os.open("/dev/full", os.O_WRONLY)
    out = os.fdopen(fd, "w", encoding="utf-8", closefd=False)
    screen = TextScreen(out, "en")
    assert [screen.tell(TOLD) for _ in range(300)] == ["heard, asking the gateway"] * 300
    os.close(fd)
