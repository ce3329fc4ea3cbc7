"""A gateway's index of redemption ids, and where the log says that it must point. Pure."""

import struct
from collections.abc import Callable, Mapping, Sequence
from typing import BinaryIO

from loadtest.evidence import Indexed
from loadtest.verify_ids import first_place
from loadtest.verify_rows import TOMBSTONED, Buckets, Faults, Logged, Place, at, id_bucket, named

_ROW = struct.Struct(">16sHQIB")
Found = tuple[Place, bool]  # where, and whether it was refused there


class Index:
    """One gateway's: `applied` is the last batch of each partition that is in it."""

    def __init__(self, where: str, applied: Mapping[int, int], make_file: Callable[[], BinaryIO]) -> None:
        self.where, self.rows = where, 0
        self._applied, self._buckets = applied, Buckets(make_file)

    def take(self, row: Indexed) -> None:
        """One row of it."""
        self.rows += 1
        self._buckets.add(id_bucket(row.redemption_id), _ROW.pack(*row))

    def compare(self, bucket: int, by_id: Mapping[bytes, Sequence[Logged]], faults: Faults) -> None:
        """One bucket, with the log's records of it."""
        theirs: dict[bytes, Found] = {
            redemption_id: ((partition, seq, index), bool(is_refused))
            for redemption_id, partition, seq, index, is_refused in _ROW.iter_unpack(self._buckets.take(bucket))
        }
        for redemption_id, rows in by_id.items():
            known = [row for row in rows if row.seq <= self._applied.get(row.partition, 0)]
            found = theirs.pop(redemption_id, None)
            if found not in _right(known):
                row = known[0] if known else rows[0]
                who = f"{named(row.campaign, row.serial)}: id {redemption_id.hex()}"
                faults.add(
                    row.place, f"{self.where}: {who} is at {_wanted(known)} in the log, {_told(found)} in the index"
                )
        for redemption_id, found in theirs.items():
            faults.add(
                found[0], f"{self.where}: id {redemption_id.hex()} is {_told(found)} in the index, not in the log"
            )


def _right(known: Sequence[Logged]) -> set[Found | None]:
    """Where it may lie: partitions are indexed side by side, so which one's came first is open."""
    if not known:
        return {None}
    effects = [row for row in known if row.verdict <= TOMBSTONED]
    firsts: dict[int, Logged] = {}
    for row in effects or known:
        firsts.setdefault(row.partition, row)
    return {(row.place, not effects) for row in firsts.values()}


def _wanted(known: Sequence[Logged]) -> str:
    row = first_place(known)
    return at(row.place) if row is not None else "none of the batches it has applied"


def _told(found: Found | None) -> str:
    return "nowhere" if found is None else at(found[0]) + (" (refused)" if found[1] else "")
