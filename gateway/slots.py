"""What a Valkey Cluster tells of itself: which slot a partition lies in, and which primary has it. Pure.

Sources: the cluster specification (hash slots, hash tags, CRC16 of XMODEM) and the replies of CLUSTER SLOTS and INFO.
"""

import binascii
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

SLOTS = 16_384
PORT = 6379  # where a node listens if nobody says otherwise


class Address(msgspec.Struct, frozen=True, order=True):
    """Where a node listens."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Range(msgspec.Struct, frozen=True):
    """Slots first..last, the primary that has them, and its replicas that are up and were ever sent a write."""

    first: int
    last: int
    primary: Address
    replicas: tuple[Address, ...] = ()


def slot_of(partition: int) -> int:
    """Of every key of a partition: only what stands in the braces of its tag {p} is hashed."""
    return binascii.crc_hqx(b"%d" % partition, 0) % SLOTS


def ranges_of(reply: Sequence[Any], asked: Address) -> list[Range]:
    """What CLUSTER SLOTS says: rows of first, last, primary, replicas; a node is host, port and more.

    An empty host, or none, means "the one you have asked".
    """
    return [
        Range(first, last, _address(primary, asked), tuple(_address(replica, asked) for replica in replicas))
        for first, last, primary, *replicas in reply
    ]


def _address(node: Sequence[Any], asked: Address) -> Address:
    host, port = node[:2]
    return Address(host.decode() if host else asked.host, int(port))


def range_of(ranges: Iterable[Range], partition: int) -> Range | None:
    """The range that a partition lies in; None: no primary has its slot."""
    slot = slot_of(partition)
    return next((each for each in ranges if each.first <= slot <= each.last), None)


def nodes_in(ranges: Iterable[Range]) -> list[Address]:
    """Every node that is named, once, primaries first."""
    ranges = list(ranges)
    named = [each.primary for each in ranges] + [replica for each in ranges for replica in each.replicas]
    return list(dict.fromkeys(named))


def fields_of(told: bytes) -> dict[str, str]:
    """The lines `name:value` of INFO and CLUSTER INFO; headings and empty lines are skipped."""
    lines = (line.partition(":") for line in told.decode("utf-8", "replace").splitlines())
    return {name: value for name, colon, value in lines if colon}
