"""`tillgate serve --workers N`: keeps N workers alive that share one port, and replaces them one after another.

Each worker is a whole gateway in a process of its own, on the shared log; the kernel deals out connections between
their listening sockets (SO_REUSEPORT, socket(7)). Worker i tells its metrics and whether it is ready on the port
metrics.port + i. A worker that ends by itself is started again, later each time it fails soon.

SIGHUP reads the configuration again and replaces the workers one by one: the next is asked to leave only when its
predecessor's successor is ready, so all but one serve at any time. A worker whose port closes drops what the kernel
had queued there and it had not taken yet; tills and tools connect again and ask with the same id. SIGTERM lets all of
them drain at once; a second one ends them on the spot.
"""

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import aiohttp
import msgspec

from gateway.config import BadConfig
from gateway.main import IN_FLIGHT_S_MAX, Report, Served, remove_gateway_file, write_gateway_file
from gateway.sd_notify import told_of
from gateway.serving import Reread, changes
from gateway.settings import Config

START_S_MAX = 60.0  # to open log and Valkey and to fold the control partition
READY_S_MAX = 120.0  # a recovery that rebuilds a partition takes the longest
END_S_MAX = 3 * IN_FLIGHT_S_MAX  # beside draining: tills, requests, and the log each have their own limit
POLL_S = 0.05
AGAIN_S = (0.2, 0.5, 1.0, 2.0, 5.0, 10.0)  # before a worker that ended is started again; the last one repeats
STEADY_S = 60.0  # a worker that lived so long did not fail at once
FIXED = ("data", "server.host", "server.port", "metrics.host", "metrics.port", "workers", "log.url")


class WorkerFailed(Exception):
    """A worker ended before it served."""


class _Worker:
    """One of the processes, and the next one in its place."""

    def __init__(self, number: int, config: Config) -> None:
        self.number, self.config = number, config
        self.served: Served | None = None
        self.process: asyncio.subprocess.Process | None = None
        self.replaced = asyncio.Event()  # set when a successor serves
        self.is_asked = False  # to leave, by us
        self.is_last = False  # it has no successor any more
        self._spawning = asyncio.Lock()

    async def start(self) -> Served:
        """Raises WorkerFailed."""
        async with self._spawning:
            if self.is_last:
                raise WorkerFailed(f"worker {self.number} is not started any more")
            self.process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "gateway.worker"),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                start_new_session=True,  # Ctrl-C at our terminal is for us; we pass it on, once
            )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        line = b""
        with contextlib.suppress(TimeoutError, ConnectionError):
            async with asyncio.timeout(START_S_MAX):
                self.process.stdin.write(msgspec.json.encode(self.config) + b"\n")
                await self.process.stdin.drain()
                line = await self.process.stdout.readline()
        if not line:
            self.send(signal.SIGKILL)
            raise WorkerFailed(f"worker {self.number} did not start (exit code {await self.process.wait()})")
        self.served = msgspec.json.decode(line, type=Served)
        self.replaced.set()
        return self.served

    def send(self, number: signal.Signals) -> None:
        if self.process is not None and self.process.returncode is None:
            # Not by asyncio's own call: that one reaps a process which has just ended, and its exit code is lost to us.
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.process.pid, number)

    async def wait(self) -> int:
        assert self.process is not None
        return await self.process.wait()

    async def end(self) -> int:
        """Ask it to leave, and wait for it; its exit code."""
        self.send(signal.SIGTERM)
        try:
            async with asyncio.timeout(self.config.drain_seconds + END_S_MAX):
                return await self.wait()
        except TimeoutError:
            self.send(signal.SIGKILL)
            return await self.wait()

    async def end_for_good(self) -> int:
        """As `end`; 0 if it had ended before, whatever of."""
        self.is_last = True
        async with self._spawning:
            if self.process is None or self.process.returncode is not None:
                return 0
        return await self.end()

    async def is_ready(self) -> bool:
        assert self.served is not None
        url = self.served.metrics_url.removesuffix("/metrics") + "/readyz"
        try:
            async with aiohttp.ClientSession(trust_env=False) as session, session.get(url) as response:
                return response.status == 200
        except (aiohttp.ClientError, OSError):
            return False


class Supervisor:
    """Those workers."""

    def __init__(self, config: Config, port: int, reread: Reread, tell: Report) -> None:
        self._config, self._port, self._reread, self._tell = config, port, reread, tell
        self._workers = [_Worker(number, self._of(number, config)) for number in range(config.workers)]
        self._leaving = asyncio.Event()
        self._rolling: asyncio.Task[None] | None = None

    def _of(self, number: int, config: Config) -> Config:
        """A worker's own configuration."""
        metrics_port = config.metrics.port + number if config.metrics.port else 0
        return msgspec.structs.replace(
            config,
            workers=1,
            server=msgspec.structs.replace(config.server, port=self._port),
            metrics=msgspec.structs.replace(config.metrics, port=metrics_port),
        )

    async def run(self, ready: Callable[[Served], None]) -> int:
        """Until SIGTERM or SIGINT. 0 if all workers ended well. Raises WorkerFailed if one cannot even start."""
        loop, directory = asyncio.get_running_loop(), Path(self._config.data_dir)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_signal)
        try:
            first, *_ = await asyncio.gather(*(worker.start() for worker in self._workers))
        except WorkerFailed:
            await asyncio.gather(*(worker.end_for_good() for worker in self._workers))
            raise
        loop.add_signal_handler(signal.SIGHUP, self._on_hangup)
        keeping = [loop.create_task(self._keep(worker)) for worker in self._workers]
        write_gateway_file(directory, Served(os.getpid(), first.url, first.metrics_url))
        ready(first)
        with told_of(f"serving at {first.url} with {len(self._workers)} workers"):
            await self._leaving.wait()
        codes = await asyncio.gather(*(worker.end_for_good() for worker in self._workers))
        under_way = [task for task in (self._rolling, *keeping) if task is not None]
        for task in under_way:
            task.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)
        remove_gateway_file(directory, os.getpid())
        return 0 if set(codes) <= {0, -signal.SIGTERM} else 1  # the other: it was still starting

    def _on_signal(self) -> None:
        if self._leaving.is_set():
            for worker in self._workers:
                worker.send(signal.SIGKILL)
            os._exit(1)
        self._leaving.set()

    async def _keep(self, worker: _Worker) -> None:
        """Start the worker again whenever it ends."""
        loop, failures = asyncio.get_running_loop(), 0
        while True:
            began_s = loop.time()
            code = await worker.wait()
            if self._leaving.is_set():
                return
            if worker.is_asked:
                failures, worker.is_asked = 0, False  # whether its successor starts is another question
            else:
                failures = 0 if loop.time() - began_s > STEADY_S else failures + 1
                pause_s = AGAIN_S[min(failures, len(AGAIN_S) - 1)]
                self._tell(f"worker {worker.number} ended with {code}; it is started again in {pause_s:g} s")
                await asyncio.sleep(pause_s)
            try:
                await worker.start()
            except WorkerFailed as error:
                if not self._leaving.is_set():
                    self._tell(str(error))

    # --- replacing ---

    def _on_hangup(self) -> None:
        if self._rolling is not None and not self._rolling.done():
            self._tell("the workers are being replaced already")
            return
        self._rolling = asyncio.get_running_loop().create_task(self._roll())

    async def _roll(self) -> None:
        try:
            fresh = self._reread()
        except BadConfig as error:
            self._tell(f"nothing was changed: {error}")
            return
        fixed = sorted(changes(self._config, fresh) & set(FIXED))
        if fixed:
            self._tell(f"nothing was changed: {', '.join(fixed)} cannot change while workers run. Stop, then start")
            return
        self._config = fresh
        for worker in self._workers:
            if not await self._replace(worker, self._of(worker.number, fresh)):
                self._tell(f"the new worker {worker.number} is not ready: the others stay as they are")
                return
        self._tell(f"all {len(self._workers)} workers were replaced")

    async def _replace(self, worker: _Worker, config: Config) -> bool:
        """Whether its successor is ready."""
        worker.config, worker.is_asked = config, True
        worker.replaced.clear()
        await worker.end()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(READY_S_MAX):
                await worker.replaced.wait()
                while not await worker.is_ready():  # noqa: ASYNC110 - it has nobody to tell
                    await asyncio.sleep(POLL_S)
                return True
        return False


async def supervise(config: Config, *, ready: Callable[[Served], None], report: Report, reread: Reread) -> int:
    """Run `config.workers` workers until told to leave; the exit code. Raises WorkerFailed, OSError."""
    family = socket.AF_INET6 if ":" in config.server.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as reserved:
        # Bound but never listening: it keeps the port ours, gets no connection, and finds out what port 0 means.
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        try:
            reserved.bind((config.server.host, config.server.port))
        except OSError as error:
            where = f"server.host {config.server.host}, server.port {config.server.port}"
            raise OSError(error.errno, os.strerror(error.errno or 0), where) from None
        return await Supervisor(config, reserved.getsockname()[1], reread, report).run(ready)
