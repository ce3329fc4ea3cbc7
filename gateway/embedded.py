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

It keeps nothing on disk, because nothing of it would be believed: an append-only file has no checksums, and a bit that
rots in it would be loaded in silence. Each server starts on what `seed` puts into its directory just before (a snapshot
proven against the event log) or empty; recovery then replays what is missing from the log.

The server outlives a kill -9 of the gateway on purpose: the next one adopts it warm, with the vouchers in its memory,
which never were on disk. One that an older build started with an append-only file is ended instead. Linux only (pidfd).
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
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path

import msgspec

from gateway.valkey_server import (
    LOOPBACK,
    SEED_FILE,
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

READY_SECONDS_MAX = 300.0  # loading takes 0.3 s a million redemptions (measured)
ORPHAN_SECONDS_MAX = 15.0  # a server just spawned or just ending settles within one; more means that it hangs
STOP_SECONDS_MAX = 10.0  # it has nothing to write: this is a server that hangs
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


Seed = Callable[[Path], Awaitable[None]]
"""Puts what a server may load (SEED_FILE) into its directory, or nothing. Must not fail: it may leave the file out."""


async def empty(home: Path) -> None:
    """The seed of a server that starts with nothing."""


class EmbeddedValkey:
    """The private server of one data directory. `on_report` is told whatever an operator should know.

    `adopts`: take over a server that a killed gateway left, with what it holds; else it is ended.
    """

    def __init__(
        self, directory: Path, *, on_report: Callable[[str], None], seed: Seed = empty, adopts: bool = True
    ) -> None:
        self._home = home_of(directory)
        self._report = on_report
        self._seed, self._adopts = seed, adopts
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
        self._server = await self._orphan()
        if self._server is not None and not (self._adopts and await self._is_believed()):
            self._report(f"ended the private Valkey (pid {self._server.pid}): what it holds is not believed")
            await self._end(self._server)
            self._server = await self._orphan()
        if self._server is None:
            await self._spawn_seeded()
        else:
            await self._adopt(self._server)

    async def _adopt(self, server: Server) -> None:
        try:
            await self._wait_until_ready(server)
        except EmbeddedFailed:
            await self._end(server)
            raise

    async def _is_believed(self) -> bool:
        """Whether it never read a file that nobody proved: those of older builds did."""
        assert self._endpoint is not None
        answer = await ask(self._endpoint)
        return answer is None or not answer.keeps_files

    async def _spawn_seeded(self) -> None:
        """A new server on its seed; if it cannot load that, one without."""
        seed = self._home / SEED_FILE
        seed.unlink(missing_ok=True)
        await self._seed(self._home)
        try:
            await self._spawn_once()
        except EmbeddedFailed as error:
            if not seed.exists():
                raise
            self._report(f"the private Valkey would not start on its snapshot, and starts without: {error}")
            seed.unlink()
            await self._spawn_once()
        seed.unlink(missing_ok=True)  # it is loaded; the snapshot itself is elsewhere

    async def _spawn_once(self) -> None:
        self._server = await self._spawn()
        await self._adopt(self._server)

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
                    f"the private Valkey {server.end_in_words()} while starting; {log_tail(self._home)}"
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
