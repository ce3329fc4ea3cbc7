"""Valkey Cluster: which primary has which partition, asked of any node that answers and says that its cluster works.

Theory. Every key of partition p has the hash tag {p}, so a partition lies in one slot, on one primary (slots.py). No
redirection is ever followed. MOVED, ASK, TRYAGAIN, CLUSTERDOWN, READONLY and a lost connection all mean that this call
is not answered: the lane gives its scans back as UNRESOLVED, the owner is looked up again, and recovery.py compares
what it finds there with the log before the next claim. What a look-up says need not be true, a node may be late or cut
off: then the claim is refused by that server, or its batch by the log's chain. So a look-up needs only to be right in
the end, and each one begins with another node, so that a wrong one does not have the word for ever.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any

import msgspec
import redis.exceptions
from redis.asyncio import Connection

from gateway.pipe import LOST, ArbiterLost, ArbiterMoved, ArbiterRefused, ArbiterUnfit, connected
from gateway.slots import Address, Range, fields_of, nodes_in, range_of, ranges_of, slot_of

ANSWER_S_MAX = 1.0  # a node's answer takes a millisecond; one that is paused takes the connection and says nothing
WATCH_S = 0.5  # a partition is a call of 20 us; a move of any size takes longer
NO_CLUSTER = "cluster support disabled"  # what a server that is not in cluster mode says to CLUSTER


class Cluster:
    """Looks primaries up. `make` makes an unconnected connection to one node."""

    def __init__(self, seeds: Sequence[Address], make: Callable[[Address], Connection]) -> None:
        self._seeds, self.make = list(seeds), make
        self._nodes = deque(self._seeds)  # those that are configured, and those of the newest answer

    async def ranges(self) -> list[Range]:
        """Who has which slots, by the first node that can tell. Raises ArbiterLost, ArbiterUnfit."""
        faults = []
        for address in list(self._nodes):
            self._nodes.rotate(-1)
            try:
                async with asyncio.timeout(ANSWER_S_MAX):
                    state, slots = await self.ask(address, ("CLUSTER", "INFO"), ("CLUSTER", "SLOTS"))
            except LOST as error:
                faults.append(f"{address}: {str(error) or 'no answer'}")
            except redis.exceptions.ResponseError as error:
                if NO_CLUSTER in str(error):
                    raise ArbiterUnfit(f"{address} is no node of a cluster: write redis:// in valkey.url") from None
                faults.append(f"{address}: {error}")
            else:
                if (told := fields_of(state).get("cluster_state")) == "ok":
                    return self._learnt(ranges_of(slots, address))
                faults.append(f"{address}: its cluster_state is {told}")
        raise ArbiterLost(f"no node of the cluster can tell who has what: {'; '.join(faults)}")

    def _learnt(self, ranges: list[Range]) -> list[Range]:
        there = dict.fromkeys([*self._seeds, *nodes_in(ranges)])
        self._nodes = deque([node for node in self._nodes if node in there])
        self._nodes.extend(there.keys() - set(self._nodes))
        return ranges

    async def primary(self, partition: int) -> Address:
        """Who has a partition's slot now. Raises ArbiterLost, ArbiterUnfit."""
        found = range_of(await self.ranges(), partition)
        if found is None:
            raise ArbiterLost(f"no primary has slot {slot_of(partition)}: CLUSTER ADDSLOTS it, or mend the cluster")
        return found.primary

    async def ask(self, address: Address, *commands: tuple[str, ...]) -> list[Any]:
        """What one node says, over a connection of its own. Raises LOST, redis.exceptions.ResponseError."""
        connection = self.make(address)
        try:
            await connected(connection)
            for command in commands:
                await connection.send_command(*command)
            return [await connection.read_response(disable_decoding=True) for _ in commands]
        finally:
            await connection.disconnect(nowait=True)


Valkey = Callable[[], Connection] | Cluster
"""Where claims go: one server, as what makes an unconnected connection to it; or a cluster."""


async def keep_watch(
    find_whole: Callable[[int], Awaitable[bool]], on_moved: Callable[[int], None], partitions: int
) -> None:
    """Look at each partition every WATCH_S, until cancelled, whether it is whole where it was last found.

    Claims would notice by themselves; but a move that is broken off while nobody claims must not go unseen.
    """
    known = set[int]()
    while True:
        await asyncio.sleep(WATCH_S)
        for partition in range(partitions):
            try:
                await find_whole(partition)
            except ArbiterMoved:
                if partition not in known:
                    on_moved(partition)
                known.add(partition)
            except (ArbiterLost, ArbiterRefused):
                pass  # its lane knows
            else:
                known.discard(partition)


async def home_of(valkey: Valkey, partition: int) -> tuple[Address | None, Callable[[], Connection]]:
    """Where a partition is now (None: there is but one server), and what connects to it. Raises as `primary`."""
    if not isinstance(valkey, Cluster):
        return None, valkey
    address = await valkey.primary(partition)
    return address, partial(valkey.make, address)


class Server(msgspec.Struct, frozen=True):
    """One server, and the partitions it has. `address` is None where there is but one."""

    address: Address | None
    connect: Callable[[], Connection]
    partitions: tuple[int, ...]


async def servers_of(valkey: Valkey, partitions: int) -> list[Server]:
    """The servers that have partitions now. Raises ArbiterLost, ArbiterUnfit; also if nobody has a partition."""
    if not isinstance(valkey, Cluster):
        return [Server(None, valkey, tuple(range(partitions)))]
    ranges = await valkey.ranges()
    homes: dict[Address, list[int]] = {}
    for partition in range(partitions):
        found = range_of(ranges, partition)
        if found is None:
            raise ArbiterLost(f"no primary has slot {slot_of(partition)}")
        homes.setdefault(found.primary, []).append(partition)
    return [Server(address, partial(valkey.make, address), tuple(numbers)) for address, numbers in homes.items()]
