"""How a command reaches the gateway: the one that serves the data directory, or one of its own while it works."""

import asyncio
import functools
import os
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
import msgspec

from gateway.cli_output import EXIT_UNREACHABLE, EXIT_USAGE, Fault, say

if TYPE_CHECKING:  # imported where they are used, so that help and usage errors come at once
    from gateway.client import Client
    from gateway.config import Loaded
    from gateway.settings import Config

GATEWAY_FILE = "gateway.json"  # in the data directory while a gateway serves it
ADMIN_TOKEN = Path("secrets") / "admin.token"  # in the data directory
TURN_SECONDS_MAX = 10.0  # commands on one data directory wait for each other; most take less than one
TURN_POLL_SECONDS = 0.1

T = TypeVar("T")


class Reach(msgspec.Struct, frozen=True):
    """What the options say about which gateway is meant."""

    data_dir: str | None
    url: str | None
    token_file: str | None


class Served(msgspec.Struct, frozen=True):
    """The content of GATEWAY_FILE."""

    pid: int
    url: str


def takes_data(command: Callable[..., Any]) -> Callable[..., Any]:
    """Gives a command `--data`."""
    text = "Data directory (else TILLGATE_DATA, else ./tillgate-data)."
    return click.option("--data", "data_dir", metavar="DIR", help=text)(command)


def reaches_gateway(command: Callable[..., Any]) -> Callable[..., Any]:
    """Gives a command `--data`, `--url` and `--token-file`, together as its argument `reach`."""

    @functools.wraps(command)
    def with_reach(*args: Any, data_dir: str | None, url: str | None, token_file: str | None, **kwargs: Any) -> Any:
        return command(*args, reach=Reach(data_dir, url, token_file), **kwargs)

    decorated: Callable[..., Any] = with_reach
    text = "File with the bearer token (else TILLGATE_TOKEN_FILE, else DIR/secrets/admin.token)."
    decorated = click.option("--token-file", metavar="FILE", envvar="TILLGATE_TOKEN_FILE", help=text)(decorated)
    text = "Address of a gateway that runs elsewhere (else TILLGATE_URL)."
    decorated = click.option("--url", metavar="URL", envvar="TILLGATE_URL", help=text)(decorated)
    return takes_data(decorated)


def loaded(data_dir: str | None) -> "Loaded":
    """The configuration, with its data directory overridden by `data_dir`. Raises Fault."""
    from gateway.config import BadConfig, read

    try:
        return read(None, os.environ, {} if data_dir is None else {"data": data_dir})
    except BadConfig as error:
        raise Fault(str(error), EXIT_USAGE) from None


def data_directory(data_dir: str | None) -> Path:
    """The data directory, which must be a deployment's. Raises Fault."""
    from gateway.storage import holds_deployment

    config = loaded(data_dir).config
    directory = Path(config.data_dir)
    if not holds_deployment(config):
        text = f"there is no Tillgate log in {directory}"
        raise Fault(text, EXIT_USAGE, hint=f"tillgate init --data {directory}, or name another directory with --data")
    return directory


def ask(reach: Reach, job: Callable[["Client"], Awaitable[T]]) -> T:
    """Do `job` with a client of the gateway that is meant. Raises Fault."""
    from gateway.client import ClientFault, Unreachable, Unresolved

    async def in_loop() -> T:
        async with reached(reach) as client:
            return await job(client)

    try:
        return asyncio.run(in_loop())
    except Unreachable as error:
        raise Fault(str(error), EXIT_UNREACHABLE) from None
    except Unresolved as error:
        raise Fault(f"{error}. Run the same command again", EXIT_UNREACHABLE) from None
    except ClientFault as error:
        raise Fault(str(error)) from None


@asynccontextmanager
async def reached(reach: Reach) -> AsyncIterator["Client"]:
    """A client of the gateway at `--url`, else of the one that serves the data directory, else of one of our own."""
    from gateway.client import Client

    async with AsyncExitStack() as stack:
        tls = None
        if reach.url:
            url, token_file = reach.url, reach.token_file and Path(reach.token_file)
            if not token_file:
                raise Fault("--url needs --token-file (or TILLGATE_TOKEN_FILE)", EXIT_USAGE)
            if not url.startswith(("http://", "https://")):
                raise Fault(f"--url: {url} is not an address like https://gateway.example", EXIT_USAGE)
        else:
            directory = data_directory(reach.data_dir)
            token_file = Path(reach.token_file) if reach.token_file else directory / ADMIN_TOKEN
            config = loaded(reach.data_dir).config
            url = await _turn(stack, config, directory)
            tls = own_certificate(config)
        yield await stack.enter_async_context(Client(url, read_token(token_file), tls=tls))


def read_token(path: Path) -> str:
    """The token in a file that only its owner may read. Raises Fault."""
    from gateway.keyfile import KeyFault, read_secret

    try:
        return read_secret(path).decode("ascii").strip()
    except UnicodeDecodeError:
        raise Fault(f"{path} does not hold a token") from None
    except KeyFault as error:
        raise Fault(str(error)) from None


async def served_url(config: "Config", directory: Path) -> str | None:
    """Where the gateway that serves this directory answers; None if none does (any more)."""
    from gateway.client import Client, ClientFault

    try:
        served = msgspec.json.decode((directory / GATEWAY_FILE).read_bytes(), type=Served)
        os.kill(served.pid, 0)  # the file outlives a killed gateway, and anybody may listen where it listened
    except (FileNotFoundError, ProcessLookupError, msgspec.DecodeError):
        return None
    async with Client(served.url, tls=own_certificate(config)) as client:
        try:
            await client.get("/livez", msgspec.Raw)
        except ClientFault:
            return None
    return served.url


def own_certificate(config: "Config") -> ssl.SSLContext | None:
    """Trust in the certificate this machine's gateway is configured with; it names the public host, not loopback."""
    if not config.server.tls_cert:
        return None
    context = ssl.create_default_context(cafile=config.server.tls_cert)
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.check_hostname = False
    return context


async def _turn(stack: AsyncExitStack, config: "Config", directory: Path) -> str:
    """The URL of the directory's gateway; started here if there is none, once other commands have let go of it."""
    deadline = asyncio.get_running_loop().time() + TURN_SECONDS_MAX
    while True:
        url = await served_url(config, directory) or await _own(stack, config, deadline)
        if url is not None:
            return url
        await asyncio.sleep(TURN_POLL_SECONDS)


async def _own(stack: AsyncExitStack, config: "Config", deadline: float) -> str | None:
    from eventstore.log import LogDamaged, LogFailed, LogLocked, LogLost, LogUnreadable
    from gateway.config import BadConfig
    from gateway.embedded import EmbeddedError, EmbeddedLocked
    from gateway.keyfile import KeyFault
    from gateway.main import running
    from gateway.settings import MetricsConfig, ServerConfig

    private = msgspec.structs.replace(config, server=ServerConfig(port=0), metrics=MetricsConfig(port=0))
    try:
        own = await stack.enter_async_context(running(private, report=say, announce=False))
    except (LogLocked, EmbeddedLocked) as error:
        if asyncio.get_running_loop().time() < deadline:
            return None
        raise Fault(f"{error}, and does not answer", EXIT_UNREACHABLE) from None
    except (LogUnreadable, LogDamaged, LogFailed, LogLost, EmbeddedError, KeyFault, BadConfig, OSError) as error:
        raise Fault(f"no gateway could be started: {error}", hint="tillgate doctor") from None
    return own.url
