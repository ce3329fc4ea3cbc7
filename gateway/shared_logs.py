"""A log on servers that several gateways share, whichever kind `log.url` names."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import msgspec

from eventstore.jetstream_url import SCHEMES, Place, place_of
from eventstore.log import Batch, DeploymentLog, LogReader, Meta
from gateway.keyfile import read_secret
from gateway.settings import Config


class DeploymentReader(LogReader, Protocol):
    """A LogReader that knows whose log it is."""

    @property
    def meta(self) -> Meta: ...


class SharedLog(Protocol):
    """A kind of server. All but LogUnreadable, LogUnfit and LogLost is said with each."""

    async def meta(self) -> Meta:
        """Whose log is there. Raises FileNotFoundError where there is none."""
        ...

    async def create(self, meta: Meta, first: Sequence[Batch]) -> None:
        """A new log that begins with the control batches `first`. Raises FileExistsError."""
        ...

    async def open(self, on_commit: Callable[[float, int], None]) -> DeploymentLog:
        """The log, for appending. Raises FileNotFoundError."""
        ...

    async def reader(self) -> DeploymentReader:
        """The log, for reading beside whoever writes it. Raises FileNotFoundError."""
        ...


class _InPostgres(msgspec.Struct, frozen=True):
    url: str
    password: str | None

    async def meta(self) -> Meta:
        from eventstore.postgres_server import connector, read_meta

        return await read_meta(connector(self.url, self.password))

    async def create(self, meta: Meta, first: Sequence[Batch]) -> None:
        from eventstore.postgres_server import connector, create

        await create(connector(self.url, self.password), meta, first)

    async def open(self, on_commit: Callable[[float, int], None]) -> DeploymentLog:
        from eventstore.postgres_log import PostgresLog
        from eventstore.postgres_server import connector

        return await PostgresLog.open(connector(self.url, self.password), on_commit)

    async def reader(self) -> DeploymentReader:
        from eventstore.postgres_server import PostgresReader, connector

        return await PostgresReader.open(connector(self.url, self.password))


class _InJetStream(msgspec.Struct, frozen=True):
    place: Place
    password: str | None

    async def meta(self) -> Meta:
        from eventstore.jetstream_server import read_meta

        return await read_meta(self.place, self.password)

    async def create(self, meta: Meta, first: Sequence[Batch]) -> None:
        from eventstore.jetstream_server import create

        await create(self.place, self.password, meta, first)

    async def open(self, on_commit: Callable[[float, int], None]) -> DeploymentLog:
        from eventstore.jetstream_log import JetStreamLog

        return await JetStreamLog.open(self.place, self.password, on_commit)

    async def reader(self) -> DeploymentReader:
        from eventstore.jetstream_reader import JetStreamReader

        return await JetStreamReader.open(self.place, self.password)


def shared_log(config: Config) -> SharedLog:
    """The one that the configuration, which was checked, names. Raises KeyFault."""
    name = config.log.password_file
    password = read_secret(Path(name)).decode().strip() if name else None
    if config.log.url.partition("://")[0] in SCHEMES:
        return _InJetStream(place_of(config.log.url), password)
    return _InPostgres(config.log.url, password)
