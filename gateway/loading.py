"""Loading a partition's whole state into Valkey, and knowing afterwards that it is still what was loaded.

`{p}load` holds the token of a rebuild under way, and claims are refused while it stands; each call below proves its
token, so that a rebuild which another one has overtaken changes nothing any more (claim.lua).
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from typing import Any

import msgspec

from eventstore.finished import Finished, fields_in
from eventstore.log import Head
from eventstore.snapshot import dump
from eventstore.vouchers import head_key, head_value

LOAD_FIELDS_MAX = 1000  # half a millisecond of Valkey when they are new; one hash of codes alone may have more
MOVES_REPLICATED_SINCE = 8  # the major version of Valkey in which CLUSTER SETSLOT reaches the replicas
NOBODY = b"-"  # no server has such a replid
LOADS_IN_FLIGHT = 4  # of a rebuild: a lane's look-ups must not wait for more than some 10 ms

Call = Callable[..., Awaitable[Any]]  # one command to the partition's Valkey, and its reply


class Run(msgspec.Struct, frozen=True):
    """Which life of a server this is, as its INFO says; `{p}run` keeps id and replid of the one that was rebuilt.

    A start from an append-only file gives it a new id and a new replid. A replica that is promoted has another id, and
    names its primary's replid as the former one (zeros: none): what it holds came over the network, not from that file.
    """

    id: bytes
    replid: bytes
    former: bytes


def run_of(facts: bytes, *, is_cluster: bool = False) -> Run:
    """What an INFO of the sections server and replication says.

    In a cluster a promoted replica counts as another server unless it knows which slots its primary was giving away:
    of those it may lack keys, and would take their vouchers for new ones. Valkey tells its replicas since 8.0.
    """
    told = {name: value for name, _, value in (line.partition(b":") for line in facts.splitlines())}
    knows_moves = int(told.get(b"valkey_version", b"0").partition(b".")[0]) >= MOVES_REPLICATED_SINCE
    former = told[b"master_replid2"] if knows_moves or not is_cluster else NOBODY
    return Run(told[b"run_id"], told[b"master_replid"], former)


async def load_all(
    call: Call,
    old_keys: AsyncIterator[list[bytes]],
    partition: int,
    hashes: Iterable[Finished],
    head: Head,
    token: bytes,
) -> bool:
    """Wipe, load, and set the head. False: another rebuild took over."""
    head_load = (head_key(partition), b"{%d}load" % partition)
    await call("FCALL", "tillgate_load_begin_1", 2, *head_load, token)
    async for page in old_keys:
        doomed = [key for key in page if key not in head_load]
        keys = (*head_load, *doomed)
        if doomed and not await call("FCALL", "tillgate_load_wipe_1", len(keys), *keys, token):
            return False
    if not await _load_hashes(call, head_load, hashes, token):
        return False
    value = head_value(head) if head.seq else b""
    return bool(await call("FCALL", "tillgate_load_finish_1", 2, *head_load, token, value))


async def _load_hashes(call: Call, head_load: tuple[bytes, bytes], hashes: Iterable[Finished], token: bytes) -> bool:
    """LOADS_IN_FLIGHT calls at a time: Valkey works on one while the next is made."""
    under_way: deque[asyncio.Future[Any]] = deque()
    try:
        for keys, dumps in load_calls(hashes):
            load = ("FCALL", "tillgate_load_1", len(keys) + 2, *head_load, *keys, token, *dumps)
            under_way.append(asyncio.ensure_future(call(*load)))
            await asyncio.sleep(0)  # so that it is sent before the next is made
            if len(under_way) >= LOADS_IN_FLIGHT and not await under_way.popleft():
                return False
        while under_way:
            if not await under_way.popleft():
                return False
    finally:
        forget(under_way)
    return True


def load_calls(hashes: Iterable[Finished]) -> Iterator[tuple[list[bytes], list[bytes]]]:
    """Keys and what is to be restored there, cut into calls of about LOAD_FIELDS_MAX fields."""
    keys: list[bytes] = []
    dumps: list[bytes] = []
    fields = 0
    for key, held in hashes:
        keys.append(key)
        dumps.append(dump(held))
        fields += fields_in(held)
        if fields >= LOAD_FIELDS_MAX:
            yield keys, dumps
            keys, dumps, fields = [], [], 0
    if keys:
        yield keys, dumps


def forget(calls: Iterable["asyncio.Future[Any]"]) -> None:
    """Nobody waits for them any more, however they end."""
    for call in calls:
        call.cancel()
        call.add_done_callback(_seen)


def _seen(call: "asyncio.Future[Any]") -> None:
    if not call.cancelled():
        call.exception()
