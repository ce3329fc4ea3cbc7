"""Which log a configuration means, opened; and the directory a gateway has for itself beside others on the same log."""

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from eventstore.log import DeploymentLog, LogLocked
from eventstore.sqlite_file import open_reader
from eventstore.sqlite_log import SqliteLog
from gateway.keyfile import KEY_FILE
from gateway.settings import SQLITE, Config
from gateway.shared_logs import DeploymentReader, shared_log

LOG_FILE = "log.db"
LOCK_FILE = "gateway.lock"
GATEWAYS_MAX = 64  # on one data directory: as many as there may be workers


def is_shared(config: Config) -> bool:
    """Whether several gateways may hold the log."""
    return config.log.url != SQLITE


def holds_deployment(config: Config) -> bool:
    """Whether the data directory is one of a deployment: its log, or, where the log is elsewhere, its keys."""
    return (Path(config.data_dir) / (KEY_FILE if is_shared(config) else LOG_FILE)).is_file()


async def open_log(config: Config, on_commit: Callable[[float, int], None]) -> DeploymentLog:
    """The log, for appending. Raises FileNotFoundError, LogLocked, LogUnreadable, LogUnfit, LogLost, KeyFault."""
    if not is_shared(config):
        return SqliteLog.open(Path(config.data_dir) / LOG_FILE, on_commit)
    return await shared_log(config).open(on_commit)


async def open_log_reader(config: Config) -> DeploymentReader:
    """The log, for reading beside whoever writes it. Raises as `open_log`, but never LogLocked."""
    if not is_shared(config):
        return open_reader(Path(config.data_dir) / LOG_FILE)
    return await shared_log(config).reader()


@contextmanager
def own_directory(config: Config) -> Iterator[Path]:
    """Where this gateway keeps what it computes from the log; nobody else uses it meanwhile. Raises LogLocked.

    It is the data directory itself, and `gateway-1`, `gateway-2` ... in it for further gateways on a shared log: the
    first that is free, so that one that starts again goes on with what the one before it had computed.
    """
    data_dir = Path(config.data_dir)
    if not is_shared(config):  # the log itself is locked
        yield data_dir
        return
    for number in range(GATEWAYS_MAX):
        own = data_dir / f"gateway-{number}" if number else data_dir
        own.mkdir(mode=0o700, exist_ok=True)
        lock = os.open(own / LOCK_FILE, os.O_CREAT | os.O_RDWR, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            continue
        try:
            yield own
            return
        finally:
            os.close(lock)
    raise LogLocked(f"{GATEWAYS_MAX} gateways use {data_dir} already")
