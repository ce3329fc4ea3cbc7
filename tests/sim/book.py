"""The auditor's book: the log read in the plainest words, a page a voucher. Shares no product code."""

import struct
from collections import defaultdict
from collections.abc import Iterator, Set
from typing import Any

import msgspec

REDEEM, REVERSE, VOID, IMPORT = 1, 2, 3, 4
ACCEPTED, TOMBSTONED, REPEATED, REVERSED, CONFLICT, CONFLICT_AGAIN = 0, 1, 2, 3, 4, 6
VOIDED, TAKEN, WORN_OUT = 20, 21, 22
CONTROL = 0xFFFF
SETTLED_MAX = 10
RECORD = struct.Struct(">BBxxIQ16s16sI")  # what is looked at of a record's 64 bytes


class Row(msgspec.Struct):
    """One logged record, cut out by the offsets its description gives."""

    place: tuple[int, int, int]
    op: int
    static: int
    campaign: int
    serial: int
    redemption_id: bytes
    claim: bytes
    terminal: int
    at_ms: int
    verdict: int


class Mark(msgspec.Struct, frozen=True):
    """An id on a voucher: R or V holds it, r, t or c is settled."""

    kind: str
    claim: bytes
    terminal: int
    at_ms: int
    seq: int

    def packed(self) -> bytes:
        who = self.kind.encode() + self.claim + self.terminal.to_bytes(4, "big")
        return who + self.at_ms.to_bytes(6, "big") + self.seq.to_bytes(5, "big")


class Page(msgspec.Struct):
    """One voucher's page in the auditor's book."""

    holder: Mark | None = None
    settled: list[Mark] = []


class Book:
    """The log read from its first row to its last."""

    def __init__(self, chains: dict[int, list[Any]], purged: Set[int] = frozenset()) -> None:
        self.purged = purged  # campaigns that are no longer kept from some moment on, which this log does not tell
        self.rows: dict[tuple[int, int, int], Row] = {}
        self.pages: dict[tuple[int, int], Page] = defaultdict(Page)
        self.homes: dict[tuple[int, int], int] = {}
        self.codes: dict[int, dict[bytes, bytes]] = defaultdict(dict)
        self.held_at: dict[tuple[int, int, int], Mark | None] = {}  # who held the voucher when this row was judged
        self.accepted: dict[bytes, Row] = {}  # by claim
        self.undone: dict[bytes, Row] = {}  # by claim
        self.lost: dict[bytes, Row] = {}  # by claim
        self.wrong: list[str] = []
        for partition, chain in chains.items():
            self._check_chain(partition, chain)
            if partition != CONTROL:
                for row in _rows(partition, chain):
                    self._enter(row)

    def _check_chain(self, partition: int, chain: list[Any]) -> None:
        tip = bytes(16)
        for number, batch in enumerate(chain, 1):
            if batch.seq != number or batch.prev != tip:
                self.wrong.append(f"chain: partition {partition}, batch {number}: seq {batch.seq} does not follow")
                return
            tip = batch.tip

    def _enter(self, row: Row) -> None:
        self.rows[row.place] = row
        if not row.campaign:
            return
        if row.op == IMPORT:
            self._enter_code(row)
            return
        voucher = (row.campaign, row.serial)
        page = self.pages[voucher]
        self.homes[voucher] = row.place[0]
        self.held_at[row.place] = page.holder
        expected = self._judge(row, page)
        is_refused_late = row.campaign in self.purged and row.static != ACCEPTED and row.verdict == row.static
        if row.verdict != expected and not is_refused_late:
            self.wrong.append(f"R1: {row.place}: op {row.op} on {voucher} got {row.verdict}, the book says {expected}")
        self._effect(row, page)

    def _enter_code(self, row: Row) -> None:
        named = row.campaign.to_bytes(4, "big") + row.serial.to_bytes(8, "big")
        known = self.codes[row.place[0]].setdefault(row.redemption_id, named) if row.verdict == ACCEPTED else None
        if known is not None and known != named:
            self.wrong.append(f"R1: {row.place}: a code was registered twice")

    def _judge(self, row: Row, page: Page) -> int:
        holder = page.holder
        is_settled = any(mark.claim == row.claim for mark in page.settled)
        is_holder = holder is not None and holder.claim == row.claim
        if row.op == REVERSE:
            if is_settled or (is_holder and holder is not None and holder.kind == "V"):
                return REPEATED
            if row.static or is_holder:
                return row.static
            marks = len(page.settled) + (holder is not None)
            return WORN_OUT if marks >= SETTLED_MAX else TOMBSTONED
        if is_holder:
            return REPEATED
        if is_settled:
            lost = any(mark.claim == row.claim and mark.kind == "c" for mark in page.settled)
            return CONFLICT_AGAIN if lost else REVERSED
        if row.op == REDEEM and row.static == CONFLICT:
            return ACCEPTED if holder is None else CONFLICT
        reasons = [row.static] if row.static else []
        if holder is not None:
            reasons.append(TAKEN if holder.kind == "R" else VOIDED)
        elif len(page.settled) >= SETTLED_MAX:
            reasons.append(WORN_OUT)
        return min(reasons, default=ACCEPTED)

    def _effect(self, row: Row, page: Page) -> None:
        seq = row.place[1]
        if row.op == REVERSE:
            if row.verdict == ACCEPTED and page.holder is not None:
                page.settled.append(Mark("r", page.holder.claim, page.holder.terminal, row.at_ms, seq))
                page.holder = None
            elif row.verdict == TOMBSTONED:
                page.settled.append(Mark("t", row.claim, row.terminal, row.at_ms, seq))
            if row.verdict in (ACCEPTED, TOMBSTONED):
                self.undone.setdefault(row.claim, row)
        elif row.verdict == CONFLICT:
            page.settled.append(Mark("c", row.claim, row.terminal, row.at_ms, seq))
            self.lost.setdefault(row.claim, row)
        elif row.verdict == ACCEPTED:
            page.holder = Mark("R" if row.op == REDEEM else "V", row.claim, row.terminal, row.at_ms, seq)
            if row.op == REDEEM:
                self.accepted.setdefault(row.claim, row)

    def expected_hashes(self) -> dict[bytes, dict[bytes, bytes]]:
        """What Valkey must hold, by key and field."""
        expected: dict[bytes, dict[bytes, bytes]] = defaultdict(dict)
        for (campaign, serial), page in self.pages.items():
            marks = ([page.holder] if page.holder else []) + page.settled
            if marks:
                key = f"{{{self.homes[campaign, serial]}}}v{campaign}:{serial // 64}".encode()
                expected[key][str(serial % 64).encode()] = b"".join(mark.packed() for mark in marks)
        for partition, codes in self.codes.items():
            for name, value in codes.items():
                expected[f"{{{partition}}}r{name[:2].hex()}".encode()][name] = value
        return dict(expected)


def _rows(partition: int, chain: list[Any]) -> Iterator[Row]:
    for batch in chain:
        payload = batch.payload
        count, at_ms = int.from_bytes(payload[4:8], "big"), int.from_bytes(payload[8:16], "big")
        for index in range(count):
            op, static, campaign, serial, redemption_id, claim, terminal = RECORD.unpack_from(payload, 16 + 64 * index)
            place, verdict = (partition, batch.seq, index), batch.verdicts[index]
            yield Row(place, op, static, campaign, serial, redemption_id, claim, terminal, at_ms, verdict)
