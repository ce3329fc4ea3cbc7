"""What was asked and what came of it, as one number (`kind`) and as one word; and how to count it fast. Pure.

Counting takes no record apart. The bytes that matter lie 64 apart, so each is a column that one slice gives; most
columns of a batch hold one value all the way down (one op, one campaign, the upper bytes of a terminal), and only the
others are counted, in C: some 0.1 us a record, less than half of what unpacking takes (measured in turns with it).
"""

from collections import Counter
from collections.abc import Mapping

from eventstore.events import HEADER_BYTES, IMPORT, RECORD_BYTES, REDEEM, REVERSE, VOID
from eventstore.log import Batch

HOUR_MS = 3_600_000
Cell = tuple[str, int, int]  # store, campaign, kind: what counts are kept by
Scan = tuple[int, int, int, int]  # op, campaign, terminal, verdict byte
_COLUMNS = tuple(HEADER_BYTES + at for at in (0, 4, 5, 6, 7, 48, 49, 50, 51))  # op, campaign, terminal: events.RECORD


def kind_of(op: int, verdict: int) -> int:
    """The number a cell keeps for what was asked and what came of it."""
    return op << 8 | verdict


def outcome_of(kind: int) -> str:
    """redeemed | repeated | refused, of a redemption; reversed | voided | imported; denied for what else failed."""
    op, verdict = kind >> 8, kind & 255
    if op == REDEEM:
        return {0: "redeemed", 2: "repeated"}.get(verdict, "refused")
    if verdict > 1:
        return "denied"
    return {REVERSE: "reversed" if verdict == 0 else "tombstoned", VOID: "voided", IMPORT: "imported"}.get(op, "denied")


OUTCOMES = {kind_of(op, verdict): outcome_of(kind_of(op, verdict)) for op in range(1, 5) for verdict in range(256)}


def counted(batch: Batch, count: int) -> Mapping[Scan, int]:
    """How many records have the same op, campaign, terminal and verdict; `count` as `checked_head` told it."""
    if not count:
        return {}
    end = HEADER_BYTES + count * RECORD_BYTES
    columns = [*(batch.payload[at:end:RECORD_BYTES] for at in _COLUMNS), batch.verdicts]
    mixed = [at for at, column in enumerate(columns) if column.count(column[0]) != count]
    key = bytearray(column[0] for column in columns)
    if not mixed:
        return {_scan_of(key): count}
    found: dict[Scan, int] = {}
    if len(mixed) == 1:  # a column of bytes counts as it is
        (at,) = mixed
        for value, n in Counter(columns[at]).items():
            key[at] = value
            found[_scan_of(key)] = n
        return found
    for values, n in Counter(zip(*(columns[at] for at in mixed), strict=True)).items():
        for at, value in zip(mixed, values, strict=True):
            key[at] = value
        found[_scan_of(key)] = n
    return found


def _scan_of(key: bytearray) -> Scan:
    return key[0], int.from_bytes(key[1:5], "big"), int.from_bytes(key[5:9], "big"), key[9]
