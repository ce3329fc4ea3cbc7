"""The gateway put together: opened in order, and left in reverse order without losing an answer.

`running` is the gateway while its block runs; serving.py adds what a process needs: signals, draining, the end on a
failed log.
"""

import asyncio
import contextlib
import os
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import msgspec
from aiohttp import web
from redis.asyncio.connection import Connection, UnixDomainSocketConnection, parse_url
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from gateway import http
from gateway.auth import Auth
from gateway.cluster import Cluster, Valkey
from gateway.config import BadConfig, is_private
from gateway.console_door import Console
from gateway.core import Core, open_core, wall_ms
from gateway.embedded import EmbeddedValkey, Endpoint
from gateway.ends import ENDS_FILE, Ends
from gateway.http_health import Health
from gateway.http_hot import HotRunner
from gateway.keyfile import KeyFile, read_secret
from gateway.metrics import Metrics
from gateway.scrape import Scrapes
from gateway.settings import Config
from gateway.snapshots import Snapshots
from gateway.storage import is_shared, open_log, own_directory
from gateway.stream import Stream
from gateway.valkey_url import is_cluster, plain_url, seeds_of

GATEWAY_FILE = "gateway.json"  # in the data directory while a gateway serves it
BODY_BYTES_MAX = 8 << 20  # an import of 1,000 codes of the longest kind; each route has its own, smaller bound
KEEP_ALIVE_S = 75.0  # longer than the 60 s of common load balancers, so that they are the ones who close
IN_FLIGHT_S_MAX = 10.0  # an answer takes milliseconds, behind a recovery seconds
RUNNER_OPTIONS: Mapping[str, Any] = {
    "access_log": None,
    "keepalive_timeout": KEEP_ALIVE_S,
    "shutdown_timeout": IN_FLIGHT_S_MAX,
}
BACKLOG = 1024  # tills that reconnect at once after a restart; the kernel's own limit is 4096
READY_S_MAX = 5.0  # a start waits this long for recovery, then serves and says that it is not ready
POLL_S = 0.01
CONNECT_S_MAX = 2.0  # to Valkey, on the same machine or next to it

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
        self.tls: ssl.SSLContext | None = None
        self.runner: web.AppRunner | None = None
        self._loop = asyncio.get_running_loop()

    async def wait_until_ready(self) -> None:
        """Returns when scans can be answered, or after READY_S_MAX."""
        deadline_s = self._loop.time() + READY_S_MAX
        while self.core.troubles() and self._loop.time() < deadline_s:  # noqa: ASYNC110 - a question, no event
            await asyncio.sleep(POLL_S)

    async def stop_listening(self) -> None:
        """Take no connection any more; those there are stay."""
        assert self.runner is not None
        for site in list(self.runner.sites):
            await site.stop()

    async def drain(self, seconds: float, is_worker: bool = False) -> None:
        """Say that we leave, and serve on while everybody takes note.

        Of workers that share a port, the others take what comes anew: this one is dealt no connection any more.
        """
        self.core.leaving = True
        self.stream.drain(int(seconds * 1000))
        if is_worker:
            await self.stop_listening()
        await asyncio.sleep(seconds)


# --- opening ----------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def running(
    config: Config, *, report: Report = lambda text: None, announce: bool = True, share_port: bool = False
) -> AsyncIterator[Gateway]:
    """A gateway that listens for as long as the block runs; inside, it is ready unless recovery takes long.

    `report` is told whatever an operator should know; `announce`: other commands find it by GATEWAY_FILE;
    `share_port`: other workers listen on the same port, and the kernel deals out connections (SO_REUSEPORT). Raises
    BadConfig, KeyFault, LogLocked, LogUnreadable, LogDamaged, LogFailed, LogLost, EmbeddedError, OSError.
    """
    directory = Path(config.data_dir)
    tls = tls_context(config)
    async with AsyncExitStack() as stack:
        key_file = KeyFile(directory)
        keys = key_file.load()
        metrics = await _metrics(stack, config)
        snapshots, valkey = Snapshots(config, report), None
        connect: Valkey
        if config.valkey.url:
            connect = connector_of_url(config.valkey.url, config.valkey.password_file)
        else:
            valkey = EmbeddedValkey(directory, on_report=report, seed=snapshots.seed)
            connect = connector_of_endpoint(await valkey.start())
            stack.push_async_callback(valkey.stop)
        own = stack.enter_context(own_directory(config))
        shared = await open_log(config, metrics.commit) if is_shared(config) else None
        counted = await snapshots.counted()
        core = await open_core(
            own, keys, connect=connect, observer=metrics, shared=shared, stored=snapshots.stored, counted=counted
        )
        stack.push_async_callback(core.close)
        if own == directory:  # of several gateways on a shared log, the first keeps them for all
            core.watch(snapshots.keep())
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
        gateway.tls = tls
        console = None
        if config.console.served:
            console = await Console.open(core, auth, metrics, stream, scrapes, config, own)
            stack.push_async_callback(console.close)
        doors = http.doors(core, auth, key_file, metrics, package_version())
        app = web.Application(client_max_size=BODY_BYTES_MAX)
        app.add_routes(
            [
                web.get("/v1/stream", http.problems(stream.connect)),
                *(console.routes() if console else ()),
                *doors.routes,
            ]
        )
        runner = HotRunner(app, doors.admit, **RUNNER_OPTIONS)
        await _listen_to_all(stack, gateway, metrics, runner, config, share_port)
        if console:
            stack.callback(console.dismiss)
        await gateway.wait_until_ready()
        if announce:
            write_gateway_file(directory, Served(os.getpid(), gateway.url, gateway.metrics_url))
            stack.callback(remove_gateway_file, directory, os.getpid())
        if tls is None and not is_private(config.server.host):
            report(f"{gateway.url} is not encrypted and reachable from other machines: set server.tls_cert and tls_key")
        yield gateway


async def _metrics(stack: AsyncExitStack, config: Config) -> Metrics:
    """What counts; where somebody collects spans, what tells them too. Raises BadConfig."""
    if not config.tracing.url:
        return Metrics(package_version())
    try:
        from gateway.tracing import TracedMetrics
    except ModuleNotFoundError as error:
        raise BadConfig([f"tracing.url: this needs the package {error.name}. Install tillgate[otel]"]) from None
    traced = TracedMetrics(package_version(), config.tracing)
    stack.push_async_callback(asyncio.to_thread, traced.close)
    return traced


async def _listen_to_all(
    stack: AsyncExitStack,
    gateway: Gateway,
    metrics: Metrics,
    runner: HotRunner,
    config: Config,
    share_port: bool,
) -> None:
    """Open both ports. What is opened last is closed first: tills, then the API, and the metrics at the very end."""
    scrapes = web.Application()
    scrapes.add_routes([web.get("/metrics", gateway.scrapes.scraped), *Health(gateway.core).routes()])
    place = ("metrics", config.metrics.host, config.metrics.port)
    gateway.metrics_url = await _listen(stack, place, web.AppRunner(scrapes, **RUNNER_OPTIONS), None)
    gateway.metrics_url += "/metrics"
    place = ("server", config.server.host, config.server.port)
    gateway.url = await _listen(stack, place, runner, gateway.tls, share_port)
    gateway.runner = runner
    stack.push_async_callback(gateway.stream.close)
    stack.push_async_callback(gateway.stop_listening)

    def drop_everything(seconds: float) -> None:
        gateway.stream.abort_all()
        metrics.shed("stalled")
        assert runner.server is not None
        for connection in runner.server.connections:
            connection.force_close()

    gateway.core.on_stall = drop_everything


async def _listen(
    stack: AsyncExitStack,
    place: tuple[str, str, int],
    runner: web.AppRunner,
    tls: ssl.SSLContext | None,
    share_port: bool = False,
) -> str:
    """`place`: the table of the configuration, and its host and port. Raises OSError."""
    what, host, port = place
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    try:
        site = web.TCPSite(runner, host, port, ssl_context=tls, backlog=BACKLOG, reuse_port=share_port or None)
        await site.start()
    except OSError as error:
        code = error.errno or 0  # below 0: of a name look-up
        why = os.strerror(code) if code > 0 else error.strerror or str(error)
        raise OSError(error.errno, why, f"{what}.host {host}, {what}.port {port}") from None
    shown = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - compared, not bound
    shown = f"[{shown}]" if ":" in shown else shown
    return f"{'https' if tls else 'http'}://{shown}:{runner.addresses[0][1]}"


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


def connector_of_url(url: str, password_file: str) -> Valkey:
    """The configured Valkey: what makes unconnected connections to it, or the cluster it is. Raises KeyFault."""
    options: dict[str, Any] = dict(parse_url(plain_url(url) if is_cluster(url) else url))
    kind = options.pop("connection_class", Connection)
    if password_file:
        options["password"] = read_secret(Path(password_file)).decode().strip()
    if not is_cluster(url):
        return _connector(kind, options)
    return Cluster(seeds_of(url), lambda node: _connector(kind, options | {"host": node.host, "port": node.port})())


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
