"""What verify compares a load run with: the event log, the gateways' own read models, Valkey, a gateway's answers.

The log in a SQLite file is read with SQL of our own and handed on unchecked, checksums and all: whether it is whole is
for the verdict to say, not for the code that wrote it. The read models are read from their files, each with the
position up to which it goes, so that they can be compared while a gateway runs.
"""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import msgspec

from eventstore.events import (
    BadPayload,
    CampaignClosed,
    CampaignCreated,
    CampaignPurged,
    ControlEvent,
    TerminalOffered,
    VouchersIssued,
    decode_control,
)
from eventstore.log import SEQ_BITS, LogDamaged
from eventstore.sqlite_file import connect, read_meta, row_id
from gateway import valkey_client
from gateway.client import Client, Refused
from gateway.console_door import CONSOLE_FILE
from gateway.core import INDEX_FILE
from gateway.proof import live_hashes, live_head
from gateway.settings import Config
from gateway.shared_logs import DeploymentReader
from gateway.storage import LOG_FILE, is_shared, open_log_reader

if TYPE_CHECKING:
    from loadtest.evidence import Answered, Control, Held, Indexed, Stored, Totals

READ_BATCHES = 256  # at a time, from a server; at most about 20 MB
_ROWS = "SELECT id, prev, tip, payload, verdicts, crc FROM batch WHERE id >= ? AND id < ? ORDER BY id"
_NEWEST = "SELECT max(id) FROM batch WHERE id >= ? AND id < ?"
_APPLIED = {INDEX_FILE: "SELECT partition, seq FROM applied", CONSOLE_FILE: "SELECT partition, seq FROM counted"}
_SEQ_MASK = (1 << SEQ_BITS) - 1


# --- the log ----------------------------------------------------------------------------------------------------------


class LogSource(Protocol):
    """A log to be read as it lies there."""

    partitions: int

    async def walk(self, partition: int, take: Callable[["Stored"], None]) -> None:
        """Every batch of a partition, in order. Raises LogDamaged where the storage cannot give any more, LogLost."""
        ...

    async def newest(self) -> dict[int, int]:
        """The newest batch of each voucher partition. Raises LogDamaged, LogLost."""
        ...

    async def close(self) -> None: ...


class LogFile:
    """The log of a deployment that has it in one file."""

    def __init__(self, path: Path) -> None:
        """Raises FileNotFoundError, LogUnreadable."""
        self._connection = connect(path, "ro")
        self.partitions = read_meta(self._connection).partitions

    async def walk(self, partition: int, take: Callable[["Stored"], None]) -> None:
        await asyncio.to_thread(self._walk, partition, take)

    def _walk(self, partition: int, take: Callable[["Stored"], None]) -> None:
        from loadtest.evidence import Stored

        seq = 0
        try:
            with closing(self._connection.execute(_ROWS, _bounds(partition))) as rows:
                for key, *row in rows:
                    seq = key - row_id(partition, 0)
                    take(Stored(partition, seq, *row))
        except sqlite3.Error as error:
            raise LogDamaged(partition, seq + 1, f"the file cannot be read: {error}") from error

    async def newest(self) -> dict[int, int]:
        return {partition: await asyncio.to_thread(self._newest, partition) for partition in range(self.partitions)}

    def _newest(self, partition: int) -> int:
        try:
            (key,) = self._connection.execute(_NEWEST, _bounds(partition)).fetchone()
        except sqlite3.Error as error:
            raise LogDamaged(partition, 0, f"the file cannot be read: {error}") from error
        return key - row_id(partition, 0) if key else 0

    async def close(self) -> None:
        self._connection.close()


def _bounds(partition: int) -> tuple[int, int]:
    return row_id(partition, 0), row_id(partition + 1, 0)


class LogServer:
    """A log that several gateways share; its reader checks the checksums."""

    def __init__(self, reader: DeploymentReader) -> None:
        self._reader = reader
        self.partitions = reader.partitions

    async def walk(self, partition: int, take: Callable[["Stored"], None]) -> None:
        from loadtest.evidence import Stored

        seq = 0
        while batches := await self._reader.read(partition, seq + 1, READ_BATCHES):
            for batch in batches:
                take(Stored(partition, batch.seq, batch.prev, batch.tip, batch.payload, batch.verdicts, None))
            seq = batches[-1].seq

    async def newest(self) -> dict[int, int]:
        return {partition: (await self._reader.head(partition)).seq for partition in range(self.partitions)}

    async def close(self) -> None:
        await self._reader.close()


async def open_source(config: Config) -> LogSource:
    """The log a configuration means. Raises FileNotFoundError, LogUnreadable, LogUnfit, LogLost, KeyFault."""
    if is_shared(config):
        return LogServer(await open_log_reader(config))
    return LogFile(Path(config.data_dir) / LOG_FILE)


def fold_control(control: "Control", batch: "Stored") -> None:
    """Take in one batch of the control partition, as far as it can be read: a damaged one is the chain's matter."""
    try:
        events = decode_control(batch.payload).events
    except BadPayload:
        return
    for event in events:
        _fold(control, event)


def _fold(control: "Control", event: ControlEvent) -> None:
    from loadtest.evidence import Campaign

    match event:
        case CampaignCreated():
            control.campaigns[event.campaign] = Campaign(event.offer.starts_ms, event.offer.ends_ms, [])
        case VouchersIssued():
            control.campaigns[event.campaign].issued.append((event.first_serial, event.count))
        case CampaignClosed():
            control.campaigns[event.campaign].closed = True
        case CampaignPurged():
            control.campaigns[event.campaign].purged = True
        case TerminalOffered():
            control.stores[event.terminal] = event.store
        case _:
            pass


# --- what the gateways computed ---------------------------------------------------------------------------------------


def read_models(config: Config, name: str) -> list[Path]:
    """The files of this name: one of each gateway that ever used the directory."""
    data_dir = Path(config.data_dir)
    return [path for path in (data_dir / name, *sorted(data_dir.glob(f"gateway-*/{name}"))) if path.is_file()]


def _where(config: Config, path: Path) -> str:
    return str(path.relative_to(config.data_dir))


def _snapshot(path: Path) -> sqlite3.Connection:
    """A connection that sees one state of a file that a gateway may be writing. Raises sqlite3.Error."""
    connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None)
    connection.execute("BEGIN")
    return connection


def totals_of(config: Config) -> list["Totals"]:
    """What each gateway counted for its console. Raises sqlite3.Error."""
    from loadtest.evidence import Totals

    found = []
    for path in read_models(config, CONSOLE_FILE):
        with closing(_snapshot(path)) as connection:
            counted = dict(connection.execute(_APPLIED[CONSOLE_FILE]).fetchall())
            rows = connection.execute("SELECT store, campaign, kind, sum(n) FROM cell GROUP BY store, campaign, kind")
            cells = {(store, campaign, kind >> 8, kind & 255): n for store, campaign, kind, n in rows}
            found.append(Totals(_where(config, path), counted, cells))
    return found


def indexes_of(config: Config) -> Iterator[tuple[str, dict[int, int], Iterable["Indexed"]]]:
    """Each gateway's index of ids: which, how far it goes, its rows. Raises sqlite3.Error."""
    from loadtest.evidence import Indexed

    for path in read_models(config, INDEX_FILE):
        with closing(_snapshot(path)) as connection:
            applied = dict(connection.execute(_APPLIED[INDEX_FILE]).fetchall())
            rows = connection.execute("SELECT id, batch, place FROM redemption")
            yield (
                _where(config, path),
                applied,
                (Indexed(id_, at >> SEQ_BITS, at & _SEQ_MASK, place >> 1, bool(place & 1)) for id_, at, place in rows),
            )


def is_caught_up(config: Config, newest: dict[int, int]) -> bool:
    """Whether some gateway's read models of each kind reach the end of the log. Raises sqlite3.Error."""
    return all(
        any(_reaches(path, name, newest) for path in read_models(config, name)) or not read_models(config, name)
        for name in (INDEX_FILE, CONSOLE_FILE)
    )


def _reaches(path: Path, name: str, newest: dict[int, int]) -> bool:
    with closing(_snapshot(path)) as connection:
        reached = dict(connection.execute(_APPLIED[name]).fetchall())
    return all(reached.get(partition, 0) >= seq for partition, seq in newest.items())


# --- Valkey and the gateway -------------------------------------------------------------------------------------------


@asynccontextmanager
async def valkey_of(config: Config) -> AsyncIterator[valkey_client.Client | None]:
    """A client of the deployment's Valkey, which must run; None where it has a private one that does not."""
    client = valkey_client.client_of(config)
    if client is None:
        yield None
        return
    async with client:
        yield client


async def read_valkey(
    valkey: valkey_client.Client, partitions: int, take: Callable[["Held"], None]
) -> dict[int, tuple[int, bytes]]:
    """Everything it holds for this deployment; returns the heads. Raises valkey_client.UNREADABLE."""
    from loadtest.evidence import Held

    async for key, fields in live_hashes(valkey, partitions):
        for field, value in fields.items():
            take(Held(key, field, value))
    heads = {partition: await live_head(valkey, partition) for partition in range(partitions)}
    return {partition: (head.seq, head.tip) for partition, head in heads.items()}


async def ask_gateway(client: Client, ids: Sequence[bytes]) -> list["Answered"]:
    """Two answers for each id. Raises ClientFault."""
    from loadtest.evidence import Answered

    return [Answered(one, await _answer(client, one), await _answer(client, one)) for one in ids]


async def _answer(client: Client, redemption_id: bytes) -> bytes | None:
    try:
        return bytes(await client.get(f"/v1/redemptions/{redemption_id.hex()}", msgspec.Raw))
    except Refused as refused:
        if refused.status_code == 404:
            return None
        raise
