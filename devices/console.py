"""The cashier's commands: lines on standard input, and on a local socket for a daemon that has no terminal."""

import asyncio
import os
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Literal

import msgspec

from gateway.messages import REF_CHARS_MAX

SOCKET_NAME = "terminal.sock"
HEALTH_COMMAND = "health"  # on the socket only: one line of JSON, for programs
ANSWER_S = 5.0  # a till answers at once; one that is stuck must not hold up whoever asks
ANSWER_BYTES_MAX = 1 << 16  # sixteen scanners are 8 KiB
LINE_BYTES_MAX = 8192  # a command with the longest code in it
SOCKET_PATH_BYTES_MAX = 107  # sun_path of unix(7), less its closing zero
READ_BYTES = 4096
TAIL_CHARS_MIN = 4  # fewer hex digits name too many scans to be meant

Execute = Callable[[str], Awaitable[str]]


class Undo(msgspec.Struct, frozen=True):
    """`reverse` or `give-up`; `tail` is hex digits, empty for the last scan."""

    verb: Literal["reverse", "give-up"]
    tail: str


class TypedCode(msgspec.Struct, frozen=True):
    """`code <text>`: a voucher whose picture cannot be scanned."""

    code: str

    def __repr__(self) -> str:
        return "TypedCode()"


class ShowOpen(msgspec.Struct, frozen=True):
    """`waiting`: what is still waiting."""


class ShowPairing(msgspec.Struct, frozen=True):
    """`pair`: digits with which a phone or tablet may open the cashier's page."""


class SetReference(msgspec.Struct, frozen=True):
    """`cashier <id>` or `receipt <number>`: told to the gateway with every scan from now on; without text, no more."""

    which: Literal["cashier", "receipt"]
    text: str


Command = Undo | TypedCode | ShowOpen | ShowPairing | SetReference


def parse_command(line: str) -> Command | None:
    """None: not a command; say which there are."""
    words = line.split()
    if words == ["waiting"]:
        return ShowOpen()
    if words == ["pair"]:
        return ShowPairing()
    if words and words[0] in ("cashier", "receipt") and len(words) <= 2:
        text = "".join(words[1:])
        fits = len(text) <= REF_CHARS_MAX and text.isprintable()
        return SetReference("cashier" if words[0] == "cashier" else "receipt", text) if fits else None
    if len(words) == 2 and words[0] in ("reverse", "give-up"):
        tail = words[1].lower().removeprefix("#").replace("-", "")
        if tail == "last":
            tail = ""
        elif len(tail) < TAIL_CHARS_MIN or set(tail) - set("0123456789abcdef"):
            return None
        return Undo("reverse" if words[0] == "reverse" else "give-up", tail)
    if len(words) >= 2 and words[0] == "code":
        return TypedCode(" ".join(words[1:]))
    return None


@asynccontextmanager
async def command_socket(path: Path, execute: Execute) -> AsyncIterator[None]:
    """Serve the same line protocol on a unix socket that only this user can open; one answer a line."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while command := await reader.readline():
                writer.write((await execute(command.decode("utf-8", "replace").strip()) + "\n").encode())
                await writer.drain()
        except (ConnectionError, ValueError):  # ValueError: a line over the limit
            pass
        finally:
            writer.close()

    if len(os.fsencode(path)) > SOCKET_PATH_BYTES_MAX:
        yield  # the kernel takes no longer name; the keyboard still works
        return
    server = await asyncio.start_unix_server(serve, sock=_bound_socket(path), limit=LINE_BYTES_MAX)
    try:
        yield
    finally:
        server.close()
        _remove(path)


class NotRunning(Exception):
    """No daemon answers on the socket; the text says where it was looked for."""


def ask_terminal(path: Path, command: str) -> str:
    """One command line to a running daemon; its answer. Raises `NotRunning`."""
    with socket.socket(socket.AF_UNIX) as line:
        line.settimeout(ANSWER_S)
        try:
            line.connect(os.fspath(path))
            line.sendall(command.encode() + b"\n")
            with line.makefile("rb") as answers:
                answer = answers.readline(ANSWER_BYTES_MAX)
        except OSError as error:
            raise NotRunning(f"no terminal answers at {path}: {error.strerror or error}") from None
    if not answer.endswith(b"\n"):
        raise NotRunning(f"the terminal at {path} ended in the middle of its answer")
    return answer.decode().rstrip("\n")


def _bound_socket(path: Path) -> socket.socket:
    """Created with the right mode from the first moment on."""
    _remove(path)  # the journal's lock says that no other daemon is behind it
    bound = socket.socket(socket.AF_UNIX)
    old = os.umask(0o177)
    try:
        bound.bind(os.fspath(path))
    except OSError:
        bound.close()
        raise
    finally:
        os.umask(old)
    return bound


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)


async def stdin_lines() -> AsyncIterator[str]:
    """Lines typed by the cashier; ends at end of input, at once when standard input cannot be waited for."""
    loop, lines = asyncio.get_running_loop(), asyncio.StreamReader(LINE_BYTES_MAX)

    def read() -> None:  # here, and not in a task later: readiness holds for this moment only, and a read may block
        try:
            some = os.read(fd, READ_BYTES)
        except OSError:
            some = b""  # the terminal window is gone; the daemon is not
        if some:
            lines.feed_data(some)
        else:
            loop.remove_reader(fd)
            lines.feed_eof()

    try:
        fd = sys.stdin.fileno()
        # Not connect_read_pipe: it would make a shared terminal non-blocking, and our own output fail.
        loop.add_reader(fd, read)
    except (OSError, ValueError):
        return  # closed, a regular file, or /dev/null
    try:
        while command := await _line(lines):
            yield command.decode("utf-8", "replace").strip()
    finally:
        loop.remove_reader(fd)


async def _line(lines: asyncio.StreamReader) -> bytes:
    """The next line that is not absurdly long; empty at the end."""
    while True:
        try:
            return await lines.readline()
        except ValueError:
            continue  # longer than any command: dropped
