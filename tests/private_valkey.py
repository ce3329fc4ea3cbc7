"""What the tests of the private Valkey share: waiting, looking at processes, connecting, leaving nothing behind."""

import asyncio
import contextlib
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

from redis.asyncio import Redis

from gateway.embedded import EmbeddedValkey, Endpoint, State
from gateway.valkey_server import find_server, packaged_server

WAIT_SECONDS = 8.0  # nothing here takes a second on an idle machine


async def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        await asyncio.sleep(0.005)


def server_program() -> Path:
    """The Valkey a gateway of ours would start; not from inside a loop."""
    return asyncio.run(find_server(os.environ.get("PATH", os.defpath), packaged_server()))


@contextlib.contextmanager
def server_in(directory: Path) -> Iterator[str]:
    """The URL of a Valkey in this directory that keeps nothing; not from inside a loop."""
    socket = directory / "valkey.sock"
    settings = ("--port", "0", "--save", "", "--appendonly", "no", "--logfile", f"{directory}/valkey.log")
    server = subprocess.Popen([server_program(), *settings, "--unixsocket", str(socket), "--dir", str(directory)])
    try:
        yield f"unix://{socket}"
    finally:
        server.terminate()
        server.wait()


def pid_of(embedded: EmbeddedValkey) -> int:
    assert embedded.pid is not None
    return embedded.pid


async def until_replaced(embedded: EmbeddedValkey, pid: int) -> None:
    await until(lambda: embedded.state is State.RUNNING and embedded.pid not in (None, pid))


def runs(pid: int) -> bool:
    """Whether the process exists, and is more than a dead entry that nobody has reaped."""
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


@contextlib.asynccontextmanager
async def connected(endpoint: Endpoint) -> AsyncIterator[Redis]:
    client = Redis(
        unix_socket_path=endpoint.unix_path,
        host=endpoint.host or "",
        port=endpoint.port or 0,
        password=endpoint.password,
    )
    try:
        yield client
    finally:
        await client.aclose()


def end_private_valkeys(directory: Path) -> None:
    """Those of data directories below `directory` whose gateway was killed, or whose test failed."""
    for pid_file in directory.glob("**/valkey.pid"):
        pid = int(pid_file.read_text())
        with contextlib.suppress(OSError):  # no such process
            if Path(f"/proc/{pid}/cwd").readlink() == pid_file.parent:
                os.kill(pid, signal.SIGKILL)


@contextlib.contextmanager
def short_directory() -> Iterator[Path]:
    """A directory for one test; pytest's own paths are too long for a socket."""
    with tempfile.TemporaryDirectory(prefix="tillgate-") as name:
        try:
            yield Path(name)
        finally:
            end_private_valkeys(Path(name))
