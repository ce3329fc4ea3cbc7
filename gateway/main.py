"""The gateway as a process: opened in order, served until it is told to leave, left without losing an answer.

`running` is the gateway while its block runs; `serve` adds what a process needs: signals, draining, the end on a
failed log. Leaving: /readyz says so at once, tills are asked to go, and for `drain_seconds` everything still works,
because load balancers need that long to notice. Then nothing new is let in, what is under way is answered, and the
parts are closed in reverse order. A second signal ends the process on the spot; a log that failed does too, without a
further answer.
"""

import asyncio
import contextlib
import gc
import os
import signal
import ssl
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import msgspec
import uvloop
from aiohttp import web
from redis.asyncio.connection import Connection, UnixDomainSocketConnection, parse_url
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from gateway import http
from gateway.auth import Auth
from gateway.config import BadConfig, Config, is_private
from gateway.console_door import Console
from gateway.core import Core, open_core, wall_ms
from gateway.embedded import EmbeddedValkey, Endpoint
from gateway.ends import ENDS_FILE, Ends, cause_of
from gateway.keyfile import KeyFile, read_secret
from gateway.metrics import Metrics
from gateway.scrape import Scrapes
from gateway.storage import is_shared, open_log, own_directory
from gateway.stream import Stream

GATEWAY_FILE = "gateway.json"  # in the data directory while a gateway serves it
BODY_BYTES_MAX = 8 << 20  # an import of 1,000 codes of the longest kind; each route has its own, smaller bound
KEEP_ALIVE_S = 75.0  # longer than the 60 s of common load balancers, so that they are the ones who close
IN_FLIGHT_S_MAX = 10.0  # an answer takes milliseconds, behind a recovery seconds
BACKLOG = 1024  # tills that reconnect at once after a restart; the kernel's own limit is 4096
READY_S_MAX = 5.0  # a start waits this long for recovery, then serves and says that it is not ready
POLL_S = 0.01
CONNECT_S_MAX = 2.0  # to Valkey, on the same machine or next to it
COLLECT_AFTER = (50_000, 20, 50)  # messages leave no cycles behind; the default would look for them every ten messages

Report = Callable[[str], None]


class Served(msgspec.Struct, frozen=True):
    """The content of GATEWAY_FILE."""

    pid: int
    url: str
    metrics_url: str


class Gateway:
    """A gateway that runs."""

    def __init__(self, core: Core, stream: Stream, scrapes: Scrapes, ends: Ends, valkey: EmbeddedValkey | None) -> None:
        self.core, self.stream, self.scrapes, self.ends, self.valkey = core, stream, scrapes, ends, valkey
        self.url = self.metrics_url = ""
        self._loop = asyncio.get_running_loop()

    async def wait_until_ready(self) -> None:
        """Returns when scans can be answered, or after READY_S_MAX."""
        deadline_s = self._loop.time() + READY_S_MAX
        while self.core.troubles() and self._loop.time() < deadline_s:  # noqa: ASYNC110 - a question, no event
            await asyncio.sleep(POLL_S)

    async def drain(self, seconds: float) -> None:
        """Say that we leave, and serve on while everybody takes note."""
        self.core.leaving = True
        self.stream.drain(int(seconds * 1000))
        await asyncio.sleep(seconds)


# --- opening ----------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def running(
    config: Config, *, report: Report = lambda text: None, announce: bool = True
) -> AsyncIterator[Gateway]:
    """A gateway that listens for as long as the block runs; inside, it is ready unless recovery takes long.

    `report` is told whatever an operator should know; `announce`: other commands find it by GATEWAY_FILE. Raises
    BadConfig, KeyFault, LogLocked, LogUnreadable, LogDamaged, LogFailed, LogLost, EmbeddedError, OSError.
    """
    directory = Path(config.data_dir)
    tls = tls_context(config)
    async with AsyncExitStack() as stack:
        key_file = KeyFile(directory)
        keys = key_file.load()
        metrics = Metrics(package_version())
        valkey = None
        if config.valkey.url:
            connect = connector_of_url(config.valkey.url, config.valkey.password_file)
        else:
            valkey = EmbeddedValkey(directory, on_report=report)
            connect = connector_of_endpoint(await valkey.start())
            stack.push_async_callback(valkey.stop)
        own = stack.enter_context(own_directory(config))
        shared = await open_log(config, metrics.commit) if is_shared(config) else None
        core = await open_core(own, keys, connect=connect, observer=metrics, shared=shared)
        stack.push_async_callback(core.close)
        auth = Auth(keys.pepper, core.control.directory)
        stream = Stream(core, auth, metrics, wall_ms)
        ends = Ends(own / ENDS_FILE)
        stack.callback(ends.close)
        scrapes = Scrapes(
            core,
            stream,
            metrics,
            ends,
            directory=directory,
            connect=connect,
            valkey=valkey,
            capacity=config.metrics.capacity_redeem_per_second,
        )
        gateway = Gateway(core, stream, scrapes, ends, valkey)
        console = await Console.open(core, auth, metrics, stream, scrapes, config, own)
        stack.push_async_callback(console.close)
        app = web.Application(client_max_size=BODY_BYTES_MAX)
        app.add_routes(
            [
                web.get("/v1/stream", http.problems(stream.connect)),
                *console.routes(),
                *http.routes(core, auth, key_file, metrics, package_version()),
            ]
        )
        await _listen_to_all(stack, gateway, metrics, app, config, tls)
        stack.callback(console.dismiss)
        await gateway.wait_until_ready()
        if announce:
            write_gateway_file(directory, Served(os.getpid(), gateway.url, gateway.metrics_url))
            stack.callback(remove_gateway_file, directory, os.getpid())
        if tls is None and not is_private(config.server.host):
            report(f"{gateway.url} is not encrypted and reachable from other machines: set server.tls_cert and tls_key")
        yield gateway


async def _listen_to_all(
    stack: AsyncExitStack,
    gateway: Gateway,
    metrics: Metrics,
    app: web.Application,
    config: Config,
    tls: ssl.SSLContext | None,
) -> None:
    """Open both ports. What is opened last is closed first: tills, then the API, and the metrics at the very end."""
    scrapes = web.Application()
    scrapes.add_routes([web.get("/metrics", gateway.scrapes.scraped)])
    gateway.metrics_url, _ = await _listen(stack, "metrics", scrapes, config.metrics.host, config.metrics.port, None)
    gateway.metrics_url += "/metrics"
    gateway.url, runner = await _listen(stack, "server", app, config.server.host, config.server.port, tls)
    stack.push_async_callback(gateway.stream.close)
    for site in list(runner.sites):
        stack.push_async_callback(site.stop)

    def drop_everything(seconds: float) -> None:
        gateway.stream.abort_all()
        metrics.shed("stalled")
        assert runner.server is not None
        for connection in runner.server.connections:
            connection.force_close()

    gateway.core.on_stall = drop_everything


async def _listen(
    stack: AsyncExitStack, what: str, app: web.Application, host: str, port: int, tls: ssl.SSLContext | None
) -> tuple[str, web.AppRunner]:
    """`what`: the table of the configuration that names `host` and `port`, for errors. Raises OSError."""
    runner = web.AppRunner(app, access_log=None, keepalive_timeout=KEEP_ALIVE_S, shutdown_timeout=IN_FLIGHT_S_MAX)
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    try:
        await web.TCPSite(runner, host, port, ssl_context=tls, backlog=BACKLOG).start()
    except OSError as error:
        code = error.errno or 0  # below 0: of a name look-up
        why = os.strerror(code) if code > 0 else error.strerror or str(error)
        raise OSError(error.errno, why, f"{what}.host {host}, {what}.port {port}") from None
    shown = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - compared, not bound
    shown = f"[{shown}]" if ":" in shown else shown
    return f"{'https' if tls else 'http'}://{shown}:{runner.addresses[0][1]}", runner


def tls_context(config: Config) -> ssl.SSLContext | None:
    """What the configured certificate and key make; None without. Raises BadConfig."""
    if not config.server.tls_cert:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(config.server.tls_cert, config.server.tls_key)
    except OSError as error:  # ssl.SSLError is one
        both = f"server.tls_cert {config.server.tls_cert} and server.tls_key {config.server.tls_key}"
        raise BadConfig([f"{both} do not open as a PEM chain and its key: {error.strerror or error}"]) from None
    return context


def connector_of_url(url: str, password_file: str) -> Callable[[], Connection]:
    """Makes unconnected connections to the configured Valkey. Raises KeyFault."""
    options: dict[str, Any] = dict(parse_url(url))
    kind = options.pop("connection_class", Connection)
    if password_file:
        options["password"] = read_secret(Path(password_file)).decode().strip()
    return _connector(kind, options)


def connector_of_endpoint(endpoint: Endpoint) -> Callable[[], Connection]:
    """Makes unconnected connections to the private Valkey."""
    if endpoint.unix_path is not None:
        return _connector(UnixDomainSocketConnection, {"path": endpoint.unix_path})
    return _connector(Connection, {"host": endpoint.host, "port": endpoint.port, "password": endpoint.password})


def _connector(kind: Callable[..., Any], options: Mapping[str, Any]) -> Callable[[], Connection]:
    # Nothing is ever sent twice by the client: whether a lost call took place is for recovery to find out.
    return lambda: kind(**options, retry=Retry(NoBackoff(), 0), socket_connect_timeout=CONNECT_S_MAX)


def write_gateway_file(directory: Path, served: Served) -> None:
    """Tell other commands on this machine where the gateway of this directory is."""
    part = directory / f"{GATEWAY_FILE}.part"
    part.touch(0o600)
    part.write_bytes(msgspec.json.encode(served))
    part.replace(directory / GATEWAY_FILE)


def remove_gateway_file(directory: Path, pid: int) -> None:
    """Unless another gateway on this directory has announced itself since."""
    with contextlib.suppress(FileNotFoundError, msgspec.DecodeError):
        if msgspec.json.decode((directory / GATEWAY_FILE).read_bytes(), type=Served).pid == pid:
            (directory / GATEWAY_FILE).unlink(missing_ok=True)


def package_version() -> str:
    """Of the installed distribution."""
    try:
        return version("tillgate")
    except PackageNotFoundError:  # run from a checkout
        return "unknown"


# --- the process ------------------------------------------------------------------------------------------------------


def run(config: Config, *, ready: Callable[[str], None] | None = None, report: Report | None = None) -> int:
    """`serve` on the fast event loop; returns the process's exit code."""
    return uvloop.run(serve(config, ready=ready, report=report))


async def serve(config: Config, *, ready: Callable[[str], None] | None = None, report: Report | None = None) -> int:
    """Serve until SIGTERM or SIGINT; 0 after a clean end. `ready` is called with the URL once it answers.

    Raises what `running` raises. A log that fails while serving, or a bug in the answer path, ends the process with 1.
    """
    tell = report or _to_stderr
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: _end_on_bug(context, tell))
    asked_to_leave = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, _on_signal, asked_to_leave)
    async with running(config, report=tell) as gateway:
        loop.set_exception_handler(lambda _, context: _end_on_bug(context, tell, gateway.ends))
        gc.collect()
        gc.freeze()  # what exists now stays: no later collection need look at it
        gc.set_threshold(*COLLECT_AFTER)
        for trouble in gateway.core.troubles():
            tell(f"not ready yet: {trouble}")
        if ready is not None:
            ready(gateway.url)
        ends: list[asyncio.Future[Any]] = [loop.create_task(asked_to_leave.wait()), gateway.core.fatal]
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        if gateway.core.fatal.done():
            error = gateway.core.fatal.exception()
            _end_now(
                f"the gateway ends at once, nothing more is answered: {error}", tell, gateway.ends, cause_of(error)
            )
        await gateway.drain(config.drain_seconds)
    return 0


def _on_signal(asked_to_leave: asyncio.Event) -> None:
    if asked_to_leave.is_set():
        os._exit(1)  # asked twice: whoever asks does not want to wait, and the log holds all that was told
    asked_to_leave.set()


def _end_on_bug(context: Mapping[str, Any], tell: Report, ends: Ends | None = None) -> None:
    """A callback of ours that raised is a bug in the answer path; what a transport or a forgotten task says is not."""
    error = context.get("exception")
    said = f"{context.get('message')}: {type(error).__name__}: {error}" if error else str(context.get("message"))
    if "handle" in context and isinstance(error, Exception):
        _end_now(f"the gateway ends at once: {said}", tell, ends, "bug")
    tell(said)


def _end_now(text: str, tell: Report, ends: Ends | None, cause: str) -> None:
    # Not through the closing of the parts: after a failed fsync nothing may be written, and nobody may be answered.
    # The private Valkey stays for the next gateway to adopt.
    tell(text)
    if ends is not None:
        with suppress(OSError):  # a disk that takes nothing at all any more
            ends.count(cause)
    sys.stderr.flush()
    os._exit(1)


def _to_stderr(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
