"""A whole core on a real log and a real Valkey, with one merchant, two stores, two terminals and one campaign."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from redis.asyncio.connection import UnixDomainSocketConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from eventstore.events import (
    CampaignCreated,
    ControlEvent,
    KeyAdded,
    MerchantAdded,
    Offer,
    StoreOpened,
    TerminalEnrolled,
    TerminalOffered,
)
from eventstore.log import Batch
from eventstore.sqlite_log import SqliteLog
from gateway.cluster import Cluster
from gateway.codes import CodeKeys
from gateway.core import LOG_FILE, Core, open_core, wall_ms
from gateway.directory import Rejected
from gateway.lane import Asked
from gateway.messages import Redeem, Reverse, Verdict
from gateway.recovery import PartitionHalted, Recovered

KEYS = CodeKeys(keys={1: b"k" * 32}, active=1, pepper=b"p" * 32)
DAY_MS = 86_400_000


class Seen:
    """Observer that remembers."""

    def __init__(self) -> None:
        self.batches: list[Batch] = []
        self.outcomes: list[Recovered | PartitionHalted] = []

    def batch(self, batch: Batch, seconds: float) -> None:
        self.batches.append(batch)

    def commit(self, seconds: float, batches: int) -> None:
        pass

    def claimed(self, seconds: float) -> None:
        pass

    def claim_failed(self, cause: str) -> None:
        pass

    def violated(self, invariant: str) -> None:
        raise AssertionError(invariant)

    def recovered(self, partition: int, outcome: Recovered | PartitionHalted) -> None:
        self.outcomes.append(outcome)


def new_id() -> bytes:
    """A UUIDv7 as a terminal mints it."""
    raw = bytearray(wall_ms().to_bytes(6, "big") + os.urandom(10))
    raw[6] = raw[6] & 15 | 0x70
    return bytes(raw)


def offer(**changes: object) -> Offer:
    now_ms = wall_ms()
    base = {
        "title": "Cake",
        "kind": "prepaid",
        "value_minor": 1000,
        "currency": "CNY",
        "starts_ms": now_ms - DAY_MS,
        "ends_ms": now_ms + DAY_MS,
        "stores": ("s1", "s2"),
    }
    return Offer(**(base | changes))  # type: ignore[arg-type]


async def until(true: object, seconds: float = 30.0) -> None:
    """Wait for an observable condition, or fail."""
    deadline = asyncio.get_running_loop().time() + seconds
    while not true():  # type: ignore[operator]
        assert asyncio.get_running_loop().time() < deadline, "it did not happen in time"
        await asyncio.sleep(0.005)


class World:
    def __init__(self, core: Core, seen: Seen) -> None:
        self.core, self.seen = core, seen
        self.directory = core.control.directory

    async def write(self, *events: ControlEvent) -> None:
        outcome = await self.core.control.record("test", lambda directory, now_ms: events)
        assert not isinstance(outcome, Rejected), outcome

    async def ready(self) -> None:
        try:
            await until(lambda: not self.core.troubles())
        except AssertionError as error:
            fatal = self.core.fatal
            raise AssertionError(self.core.troubles(), fatal.done() and fatal.exception()) from error

    async def codes(self, count: int, slug: str = "cake", request: str = "r1") -> list[str]:
        issued = await self.core.desk.issue("test", slug, count, request)
        assert not isinstance(issued, Rejected), issued
        return list(self.core.ring.mint(1, issued.campaign, issued.first_serial, issued.count))

    def scan(self, code: str, redemption_id: bytes | None = None) -> Redeem:
        return Redeem(redemption_id or new_id(), code, wall_ms())

    async def redeem(self, terminal: int, *scans: Redeem) -> Asked:
        answered: asyncio.Future[Asked] = asyncio.get_running_loop().create_future()
        self.core.redeemer.redeem(self.directory.terminals[terminal], scans, answered.set_result)
        return await asyncio.wait_for(answered, 10)

    async def verdict(self, terminal: int, scan: Redeem) -> Verdict:
        return Verdict((await self.redeem(terminal, scan)).codes[0])

    async def reverse(self, terminal: int, reversal: Reverse) -> Verdict:
        answered: asyncio.Future[Asked] = asyncio.get_running_loop().create_future()
        asker = self.directory.principal_of_terminal(terminal)
        assert asker is not None
        await self.core.reversals.reverse(asker, terminal, [reversal], answered.set_result)
        return Verdict((await asyncio.wait_for(answered, 10)).codes[0])


def connector(url: str) -> UnixDomainSocketConnection:
    return UnixDomainSocketConnection(path=url.removeprefix("unix://"), retry=Retry(NoBackoff(), 0))


@asynccontextmanager
async def world(directory: Path, url: str | Cluster, *, partitions: int = 1) -> AsyncIterator[World]:
    """Opens (and on first use initialises) the deployment in `directory`."""
    fresh = not (directory / LOG_FILE).exists()
    if fresh:
        SqliteLog.create(directory / LOG_FILE, partitions, "test", wall_ms())
    seen = Seen()
    connect = url if isinstance(url, Cluster) else lambda: connector(url)
    core = await open_core(directory, KEYS, connect=connect, observer=seen)
    made = World(core, seen)
    try:
        if fresh:
            await made.write(KeyAdded(key_id=1), MerchantAdded(merchant="m1", title="M"))
            await made.write(*(StoreOpened(store=f"s{n}", merchant="m1", title=f"S{n}") for n in (1, 2, 3)))
            for n in (1, 2, 3):
                ends_ms = wall_ms() + 60_000
                token = bytes([n]) * 32
                await made.write(
                    TerminalOffered(terminal=n, store=f"s{n}", label=f"t-{n}", token_hash=token, expires_ms=ends_ms)
                )
                await made.write(TerminalEnrolled(terminal=n, public_key=bytes([n]) * 32))
            await made.write(CampaignCreated(campaign=1, slug="cake", offer=offer()))
        await made.ready()
        yield made
    finally:
        await core.close()
