"""What was asked and what came of it, as one number (`kind`) and as one word; and how to count it fast. Pure.

A record is eight words of eight bytes. Word 0 holds op, entry and campaign, word 6 the terminal (and the upper half of
the till's clock, which changes every seven weeks); both come out of a batch as lists in C. Only distinct words are
taken apart, so a record costs a tenth of a microsecond to count, where unpacking it costs half a one.
"""

import sys
from collections import Counter
from collections.abc import Mapping

from eventstore.events import HEADER_BYTES, IMPORT, RECORD_BYTES, REDEEM, REVERSE, VOID
from eventstore.log import Batch

HOUR_MS = 3_600_000
Cell = tuple[str, int, int]  # store, campaign, kind: what counts are kept by
Words = tuple[int, int]  # words 0 and 6 of a record, in the machine's byte order
_WORDS, _ASKED_AT, _TERMINAL_AT = RECORD_BYTES // 8, 0, 6


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


def words_of(payload: bytes, count: int) -> tuple[list[int], list[int]]:
    """Words 0 and words 6 of all records; `count` as `checked_head` told it."""
    words = memoryview(payload)[HEADER_BYTES : HEADER_BYTES + count * RECORD_BYTES].cast("Q")
    return words[_ASKED_AT::_WORDS].tolist(), words[_TERMINAL_AT::_WORDS].tolist()


def parts_of(words: Words) -> tuple[int, int, int]:
    """(op, campaign, terminal) of a record's words."""
    asked, where = (word.to_bytes(8, sys.byteorder) for word in words)
    return asked[0], int.from_bytes(asked[4:], "big"), int.from_bytes(where[:4], "big")


def counted(batch: Batch, count: int) -> Mapping[tuple[Words, int], int]:
    """How many records have the same words and verdict byte."""
    asked, where = words_of(batch.payload, count)
    verdicts = batch.verdicts
    if count and asked.count(asked[0]) == count == verdicts.count(verdicts[:1]):  # one campaign, all accepted: as ever
        return {((asked[0], word), verdicts[0]): n for word, n in Counter(where).items()}
    return {
        ((first, second), verdict): n
        for (first, second, verdict), n in Counter(zip(asked, where, verdicts, strict=True)).items()
    }
