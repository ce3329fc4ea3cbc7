"""A private Valkey in the data directory, for when no other is configured.

Theory of operation. Everything lives in `<data directory>/valkey/` (mode 0700). Two file locks guard it:

- `lock` is held by one gateway. Whoever cannot take it is the second one, and is refused (`EmbeddedLocked`).
- `server.lock` is taken by the gateway and inherited by the server it spawns. Such a lock belongs to all
  who hold the open file, so it outlives a killed gateway as long as the server lives. Free means: no server
  of ours runs here, whatever a stale pid file says, and the pid it names is never touched. Taken means: one
  of ours does. So two servers can never append to one file, not even when the first is too busy to answer.

A server found behind a taken `server.lock` is adopted only if the process named by the pid file is the one
that answers, and it says that it works in this directory. From then on it is watched like a child. Servers
are held by pidfd, so no signal can reach a stranger that was given the same pid. A server that dies is
restarted, at most RESTARTS_MAX times in RESTART_WINDOW_SECONDS; then the state is FAILED until the gateway
starts again.

The server outlives a kill -9 of the gateway on purpose: the next one adopts it warm. Linux only (pidfd).
"""

import asyncio
import contextlib
import enum
import fcntl
import os
import secrets
import signal
import socket
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec

from gateway.valkey_server import (
    LOOPBACK,
    EmbeddedError,
    EmbeddedFailed,
    EmbeddedLocked,
    EmbeddedMissing,
    EmbeddedTooOld,
    Endpoint,
    Server,
    ask,
    endpoint_of,
    find_server,
    home_of,
    log_tail,
    packaged_server,
    reserved_port,
    set_torn_file_aside,
    spawn,
    write_secret,
)

__all__ = [
    "EmbeddedError",
    "EmbeddedFailed",
    "EmbeddedLocked",
    "EmbeddedMissing",
    "EmbeddedTooOld",
    "EmbeddedValkey",
    "Endpoint",
    "State",
    "endpoint_of",
    "restart_pause_s",
]

READY_SECONDS_MAX = 300.0  # loading takes 2.5 s per 300,000 redemptions (measured): enough for 30 million
ORPHAN_SECONDS_MAX = 15.0  # a server just spawned or just ending settles within one; more means that it hangs
STOP_SECONDS_MAX = 10.0  # a clean end writes and fsyncs the last second of the append-only file
KILL_SECONDS_MAX = 5.0  # after SIGKILL only a process stuck in the kernel is still there
POLL_SECONDS = 0.02
RESTARTS_MAX = 5  # with RESTART_WINDOW_SECONDS: survives accidents, gives up on a server that cannot live
RESTART_WINDOW_SECONDS = 60.0
RESTART_PAUSE_SECONDS = 0.1  # the first; each later one in the window is twice as long
PASSWORD_BYTES = 32


class State(enum.Enum):
    STOPPED = "stopped"
    STARTING = "starting"  # also while it is being restarted
    RUNNING = "running"
    FAILED = "failed"  # restarted too often; stop() and start() begin anew


def restart_pause_s(restarts_s: Iterable[float], now_s: float) -> float | None:
    """Seconds to wait before the next restart, given when the former ones were; None after too many."""
    recent = sum(now_s - at < RESTART_WINDOW_SECONDS for at in restarts_s)
    return None if recent >= RESTARTS_MAX else RESTART_PAUSE_SECONDS * 2**recent


def _locked(path: Path) -> int | None:
    """A descriptor that holds the lock of `path`; None when somebody else does."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return None
    return fd


class EmbeddedValkey:
    """The private server of one data directory. `on_report` is told whatever an operator should know."""

    def __init__(self, directory: Path, *, on_report: Callable[[str], None]) -> None:
        self._home = home_of(directory)
        self._report = on_report
        self._endpoint: Endpoint | None = None
        self._server: Server | None = None
        self._supervisor: asyncio.Task[None] | None = None
        self._gateway_lock: int | None = None
        self._server_lock: int | None = None
        self._reserved: socket.socket | None = None
        self._restarts_s: deque[float] = deque(maxlen=RESTARTS_MAX)  # when, on the loop's clock
        self.state = State.STOPPED
        self.restarts = 0

    @property
    def pid(self) -> int | None:
        """The server's, while there is one."""
        return self._server.pid if self._server and not self._server.died.is_set() else None

    async def start(self) -> Endpoint:
        """Adopts the server that a killed gateway left, or starts one; returns when it answers.

        Raises EmbeddedLocked, EmbeddedMissing, EmbeddedTooOld, EmbeddedFailed, and OSError when the directory
        cannot be written. The endpoint stays the same over restarts.
        """
        assert self.state is State.STOPPED
        self._home.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._home.chmod(0o700)
        self._gateway_lock = _locked(self._home / "lock")
        if self._gateway_lock is None:
            raise EmbeddedLocked(f"another gateway uses the data directory {self._home.parent}")
        self.state = State.STARTING
        try:
            await self._bring_up()
            self.state = State.RUNNING
        finally:
            if self.state is not State.RUNNING:
                await self.stop()
        self._supervisor = asyncio.create_task(self._supervise(), name="embedded-valkey")
        assert self._endpoint is not None
        return self._endpoint

    async def stop(self) -> None:
        """Ends the server within STOP_SECONDS_MAX, or else kills it. Harmless when stopped."""
        if self._supervisor is not None:
            self._supervisor.cancel()
            await asyncio.wait([self._supervisor])
        if self._server is not None:
            await self._end(self._server)
            self._server.release()
        for fd in (self._server_lock, self._gateway_lock):
            if fd is not None:
                os.close(fd)
        if self._reserved is not None:
            self._reserved.close()
        self._supervisor = self._server = self._server_lock = self._gateway_lock = self._reserved = None
        self._endpoint = None
        self.state = State.STOPPED

    async def _bring_up(self) -> None:
        """One server, proven ours, loaded and answering; or none, and an exception."""
        if self.pid is not None:
            raise EmbeddedFailed(f"the former server (pid {self.pid}) cannot be ended, so none takes its place")
        try:
            await self._bring_up_once()
        except EmbeddedFailed:
            if (aside := set_torn_file_aside(self._home)) is None:
                raise
            self._report(
                "the private Valkey's append-only file ends in the middle of a write, as after a power failure: it is "
                f"kept as {aside}, and the vouchers are rebuilt from the event log"
            )
            await self._bring_up_once()

    async def _bring_up_once(self) -> None:
        self._server = await self._orphan() or await self._spawn()
        try:
            await self._wait_until_ready(self._server)
        except EmbeddedFailed:
            await self._end(self._server)
            raise

    async def _orphan(self) -> Server | None:
        """The server that holds the directory, once proven ours; None when none does, and now we hold it."""
        deadline = asyncio.get_running_loop().time() + ORPHAN_SECONDS_MAX
        while True:
            if self._server_lock is None:
                self._server_lock = _locked(self._home / "server.lock")
            if self._server_lock is not None:
                return None
            if orphan := await self._proven():
                self._report(f"adopted the private Valkey (pid {orphan.pid}) that an earlier gateway left")
                return orphan
            if asyncio.get_running_loop().time() > deadline:
                raise EmbeddedFailed(
                    f"a server that an earlier gateway started still holds {self._home}, but does not answer "
                    "as the one named in valkey.pid; nothing was touched. To find it: "
                    f"fuser {self._home / 'server.lock'}"
                )
            await asyncio.sleep(POLL_SECONDS)

    async def _proven(self) -> Server | None:
        """The process of the pid file, if it is also the one that answers and works in our directory."""
        if (endpoint := endpoint_of(self._home.parent)) is None:
            return None
        try:
            candidate = Server(int((self._home / "valkey.pid").read_bytes()))
        except (OSError, ValueError, OverflowError):  # no such file, no number, no such process
            return None
        with contextlib.ExitStack() as otherwise:
            otherwise.callback(candidate.release)
            answer = await ask(endpoint)
            if not (answer and answer.pid == candidate.pid and _same(Path(answer.directory), self._home)):
                return None
            otherwise.pop_all()
        self._endpoint = endpoint
        return candidate

    async def _spawn(self) -> Server:
        assert self._server_lock is not None
        program = await find_server(os.environ.get("PATH", os.defpath), packaged_server())
        if self._endpoint is None:
            self._endpoint = self._new_endpoint()
        return spawn(program, self._home, self._endpoint, self._server_lock)

    def _new_endpoint(self) -> Endpoint:
        endpoint = endpoint_of(self._home.parent)
        if endpoint is None or endpoint.unix_path is None:
            self._reserved = reserved_port()
            port, password = self._reserved.getsockname()[1], secrets.token_urlsafe(PASSWORD_BYTES)
            endpoint = Endpoint(host=LOOPBACK, port=port, password=password)
            write_secret(self._home / "loopback.json", msgspec.json.encode(endpoint))
        return endpoint

    async def _wait_until_ready(self, server: Server) -> None:
        assert self._endpoint is not None
        now_s = asyncio.get_running_loop().time
        deadline, loading_told = now_s() + READY_SECONDS_MAX, False
        while now_s() < deadline:
            if server.died.is_set():
                raise EmbeddedFailed(
                    f"the private Valkey {server.end_in_words()} while starting. If it cannot read its files, move "
                    f"{self._home / 'appendonlydir'} away: it is rebuilt from the event log; {log_tail(self._home)}"
                )
            answer = await ask(self._endpoint)
            if answer and answer.pid == server.pid:
                if answer.ready:
                    return
                if not loading_told:
                    self._report(f"the private Valkey (pid {server.pid}) is loading its vouchers")
                loading_told = True
            await asyncio.sleep(POLL_SECONDS)
        raise EmbeddedFailed(
            f"the private Valkey (pid {server.pid}) was not ready within {READY_SECONDS_MAX:.0f} s; "
            f"{log_tail(self._home)}"
        )

    async def _supervise(self) -> None:
        """Restarts the server whenever it dies, until it dies too often."""
        while self.state is State.RUNNING:
            assert self._server is not None
            await self._server.died.wait()
            self._report(f"the private Valkey (pid {self._server.pid}) {self._server.end_in_words()}")
            self.state = State.STARTING
            while self.state is State.STARTING:
                self.state = await self._restart()

    async def _restart(self) -> State:
        """One attempt; STARTING asks for the next one."""
        now_s = asyncio.get_running_loop().time()
        if (pause_s := restart_pause_s(self._restarts_s, now_s)) is None:
            self._report(
                f"the private Valkey died more than {RESTARTS_MAX} times in {RESTART_WINDOW_SECONDS:.0f} s; "
                f"it is not restarted again. Mend the cause, then restart the gateway; {log_tail(self._home)}"
            )
            return State.FAILED
        self._restarts_s.append(now_s)
        self.restarts += 1
        await asyncio.sleep(pause_s)
        try:
            await self._bring_up()
        except (EmbeddedError, OSError) as error:  # OSError: no space, no process, no file to be had
            self._report(f"restart {self.restarts} failed: {error}")
            return State.STARTING
        self._report(f"restarted the private Valkey (pid {self.pid}), restart {self.restarts} since the start")
        return State.RUNNING

    async def _end(self, server: Server) -> None:
        """Asks the server to end, then makes it."""
        for number, seconds in ((signal.SIGTERM, STOP_SECONDS_MAX), (signal.SIGKILL, KILL_SECONDS_MAX)):
            server.send(number)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(server.died.wait(), seconds)
                return
            self._report(f"the private Valkey (pid {server.pid}) did not end within {seconds:.0f} s of {number.name}")


def _same(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:  # it names a directory that is gone
        return False
