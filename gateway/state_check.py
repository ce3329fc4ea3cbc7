"""Whether Valkey holds what the log says, hash for hash: the log folded in memory, some 60 bytes a voucher."""

from collections.abc import Callable

import msgspec

from eventstore.finished import by_field
from eventstore.log import LogReader
from gateway.proof import hashes_of, live_head
from gateway.proof_equalities import kept
from gateway.recovery import Purged, fold_log
from gateway.valkey_client import Client

DIFFERENCES_MAX = 20  # told by key; what is wrong shows in the first of them


class StateChecked(msgspec.Struct, frozen=True):
    """Of one partition. `moved`: something was redeemed meanwhile, so that nothing can be said."""

    hashes: int
    different: list[str]  # keys, at most DIFFERENCES_MAX
    moved: bool = False


async def check_state(
    log: LogReader, partition: int, purged: Purged, valkey: Client, advance: Callable[[int], None]
) -> StateChecked:
    """Compare one partition. Raises LogDamaged, LogFailed, LogLost, valkey_client.UNREADABLE."""
    folded = await fold_log(log, partition, purged, advance)
    expected, gone = dict(folded.hashes), await purged()
    count, different = len(expected), []
    if await live_head(valkey, partition) != folded.head:
        return StateChecked(count, [], moved=True)
    async for key, fields in hashes_of(valkey, partition):
        held, there = expected.pop(key, None), kept({key: fields}, gone).get(key)
        if there != (None if held is None else by_field(held)):
            different.append(key.decode())
    different += [key.decode() for key in expected]
    moved = await live_head(valkey, partition) != folded.head
    return StateChecked(count, sorted(different)[:DIFFERENCES_MAX], moved)
