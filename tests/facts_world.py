"""Facts for tests: what a till tells that accepted without a connection, and what the log says of it."""

from core_world import KEYS, World, new_id, wall_ms

from eventstore.events import extras_of, iter_records
from eventstore.offline_events import OfflinePolicy
from gateway.lane import Asked
from gateway.messages import Fact, Redeem
from gateway.offline_codes import OfflineKeys
from gateway.offline_rules import Outage

HOUR_MS = 3_600_000
POLICY = OfflinePolicy(count_max=3, value_minor_max=2500, minutes_max=120)
SIGNER = OfflineKeys(KEYS)


async def codes(w: World, count: int) -> list[str]:
    return [SIGNER.signed(code) for code in await w.codes(count, "tea")]


def fact_of(code: str, *, ago_ms: int = HOUR_MS, redemption_id: bytes | None = None) -> Fact:
    accepted_ms = wall_ms() - ago_ms
    return Fact(Redeem(redemption_id or new_id(), code, accepted_ms), accepted_ms, accepted_ms - 60_000)


async def tell(w: World, terminal: int, *facts: Fact, outage: Outage | None = None) -> Asked:
    return await w.core.facts.take(w.directory.terminals[terminal], facts, outage or Outage())


def places_of(asked: Asked) -> list[tuple[int, int, int]]:
    return [(p, seq, at + n) for _, p, seq, at, count in asked.places for n in range(count)]


async def rows(w: World) -> list[tuple[bytes, int, object]]:
    """(redemption_id, verdict, what it says of its acceptance) of every record in the log."""
    found = []
    for partition in range(w.core.log.partitions):
        head = await w.core.log.head(partition)
        for batch in await w.core.log.read(partition, 1, head.seq) if head.seq else []:
            extras = extras_of(batch.payload)
            for index, record in enumerate(iter_records(batch.payload)):
                extra = extras.get(index)
                found.append((record.redemption_id, batch.verdicts[index], extra and extra.offline))
    return found
