"""What a Valkey Cluster says of itself as a whole, for `tillgate doctor`. Nothing is changed."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from gateway.cluster import Cluster
from gateway.doctor import Finding, ok
from gateway.pipe import ArbiterLost, ArbiterUnfit
from gateway.slots import Address, Range, fields_of, range_of, slot_of


async def findings_of(cluster: Cluster, partitions: int) -> list[Finding]:
    """Slots, replicas, where the partitions are (0: not known), and what a broken-off move left behind.

    Raises redis.exceptions.RedisError, OSError.
    """
    try:
        ranges = await cluster.ranges()
    except (ArbiterLost, ArbiterUnfit) as error:
        fix = "start its nodes, mend the cluster, or mend valkey.url"
        return [Finding("valkey cluster", "fail", str(error), fix)]
    primaries = list(dict.fromkeys(each.primary for each in ranges))
    spread = _judge_spread(ranges, primaries, partitions) if partitions else ()
    replicas = {address: await _replicas(cluster, address) for address in primaries}
    coverage = {address: await _covers(cluster, address) for address in primaries}
    left = [finding for address in primaries for finding in await _left(cluster, ranges, address, partitions)]
    return [*spread, *_judge_replicas(replicas), *_judge_coverage(coverage), *left]


def _judge_spread(ranges: Sequence[Range], primaries: Sequence[Address], partitions: int) -> Iterator[Finding]:
    """Every partition has a primary, and every primary has a partition."""
    homes: dict[Address, list[int]] = {primary: [] for primary in primaries}
    for partition in range(partitions):
        found = range_of(ranges, partition)
        if found is None:
            text = f"nobody has slot {slot_of(partition)}, which is partition {partition}"
            yield Finding("valkey cluster", "fail", text, "CLUSTER ADDSLOTS it, or valkey-cli --cluster fix")
            continue
        homes[found.primary].append(partition)
    told = "; ".join(f"{home}: partition {', '.join(map(str, numbers)) or 'none'}" for home, numbers in homes.items())
    idle = [str(home) for home, numbers in homes.items() if not numbers]
    most = max(map(len, homes.values()))
    if idle:
        slots = ", ".join(f"{slot_of(number)} (partition {number})" for number in range(partitions))
        fix = f"move a slot there: {slots}" if most > 1 else "nothing; or more partitions at `tillgate init`"
        yield Finding("valkey spread", "warn", f"{told}: nothing to do for {', '.join(idle)}", fix)
    else:
        yield ok("valkey spread", told)


def _judge_replicas(connected: Mapping[Address, int]) -> Iterator[Finding]:
    if bare := [str(primary) for primary, count in connected.items() if not count]:
        text = f"no replica is connected to {', '.join(bare)}: if it fails, its partitions answer UNKNOWN"
        yield Finding("valkey replicas", "warn", text, "start a replica, or add one with CLUSTER REPLICATE")
    else:
        yield ok("valkey replicas", "each primary has one that is connected")


def _judge_coverage(required: Mapping[Address, bool]) -> Iterator[Finding]:
    if any(required.values()):
        where = ", ".join(str(address) for address, value in required.items() if value)
        text = f"cluster-require-full-coverage is yes at {where}: while one slot has no primary, none of them answers"
        yield Finding("valkey coverage", "warn", text, "CONFIG SET cluster-require-full-coverage no, on every node")
    else:
        yield ok("valkey coverage", "a primary that is lost takes only its own partitions with it")


async def _replicas(cluster: Cluster, address: Address) -> int:
    (told,) = await cluster.ask(address, ("INFO", "replication"))
    return int(fields_of(told).get("connected_slaves", "0"))


async def _covers(cluster: Cluster, address: Address) -> bool:
    (reply,) = await cluster.ask(address, ("CONFIG", "GET", "cluster-require-full-coverage"))
    values: Sequence[Any] = list(reply.values()) if isinstance(reply, dict) else reply[1::2]
    return b"yes" in values


async def _left(cluster: Cluster, ranges: Sequence[Range], address: Address, partitions: int) -> list[Finding]:
    """Keys of partitions that this primary has not."""
    others = [each for each in range(partitions) if (at := range_of(ranges, each)) and at.primary != address]
    asked = [("CLUSTER", "COUNTKEYSINSLOT", str(slot_of(partition))) for partition in others]
    counts = await cluster.ask(address, *asked)
    fix = "let the move end; if it was broken off: tillgate rebuild, and delete them there"
    return [
        Finding("valkey move", "warn", f"{address} holds {count} keys of partition {partition}, which is not its", fix)
        for partition, count in zip(others, counts, strict=True)
        if count
    ]
