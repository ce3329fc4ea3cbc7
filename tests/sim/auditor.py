"""The auditor: what tills were told, held against the log that was left, in the plainest words. Shares no product code.

    R1  a voucher is accepted at most once, net of reversals: every logged verdict is the one this book would give
    R2  every answer stands in the log, at the place it names
    R3  an answer of accepted or reversed never changes
    R4  already redeemed names a winner that is in the log and stood at that moment; no winner was invented
    R5  no refusal by absence (unknown, not issued, not found) that was false when it was asked for
    R6  a pause or a close binds everywhere after a second; paused is told only while it is true
    R7  Valkey holds what the log says
    R8  everything is answered once the faults stop, and nothing halts without a cause (the world checks that)
    R9  a gateway that answered for an id does not let it pass for another code
    chain  every partition's log is one chain without gaps
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

REDEEM, REVERSE, VOID, IMPORT = 1, 2, 3, 4
ACCEPTED, TOMBSTONED, REPEATED, REVERSED, ID_REUSED = 0, 1, 2, 3, 5
UNREADABLE, UNKNOWN, FORGED, NOT_ISSUED = 11, 12, 13, 14
VOIDED, TAKEN, WORN_OUT = 20, 21, 22
CLOSED, PAUSED, NOT_FOUND, DUPLICATE = 31, 32, 40, 43
CONTROL = 0xFFFF
SETTLED_MAX = 10
ISSUED, TYPED_CAMPAIGN = 1024, 2  # of every run: signed serials from the start, and where typed codes are imported
STALE_S = 1.0  # for so long a gateway may not know of a pause
VIOLATIONS_MAX = 20  # said of one run


class Evidence(msgspec.Struct):
    chains: dict[int, list[Any]]
    history: Sequence[Any]  # Told
    wishes: Sequence[Any]  # Wish
    deeds: Sequence[Any]  # Deed
    hashes: dict[bytes, dict[bytes, bytes]]
    heads: dict[int, bytes | None]
    is_halted: bool


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
    """An id on a voucher: R or V holds it, r or t is settled."""

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

    def __init__(self, chains: dict[int, list[Any]]) -> None:
        self.rows: dict[tuple[int, int, int], Row] = {}
        self.pages: dict[tuple[int, int], Page] = defaultdict(Page)
        self.homes: dict[tuple[int, int], int] = {}
        self.codes: dict[int, dict[bytes, bytes]] = defaultdict(dict)
        self.held_at: dict[tuple[int, int, int], Mark | None] = {}  # who held the voucher when this row was judged
        self.accepted: dict[bytes, Row] = {}  # by claim
        self.undone: dict[bytes, Row] = {}  # by claim
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
        if row.verdict != expected:
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
            return REVERSED
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
        payload, number = batch.payload, lambda a, b, of: int.from_bytes(of[a:b], "big")
        for index in range(number(4, 8, payload)):
            at = payload[16 + 64 * index : 80 + 64 * index]
            yield Row(
                place=(partition, batch.seq, index),
                op=at[0],
                static=at[1],
                campaign=number(4, 8, at),
                serial=number(8, 16, at),
                redemption_id=at[16:32],
                claim=at[32:48],
                terminal=number(48, 52, at),
                at_ms=number(8, 16, payload),
                verdict=batch.verdicts[index],
            )


def audit(evidence: Evidence) -> list[str]:
    """Every violation found, in words; none is a clean run."""
    book = Book(evidence.chains)
    wrong = list(book.wrong)
    bodies: dict[bytes, set[Any]] = defaultdict(set)
    for wish in evidence.wishes:
        bodies[_id_of(wish)].add(_body_of(wish))
    misused = {name for name, some in bodies.items() if len(some) > 1}
    for told in evidence.history:
        wrong += _check_place(book, told, misused)
        wrong += _check_absence(evidence, told)
        wrong += _check_pause(evidence.deeds, told)
    wrong += _check_no_change(evidence.history, misused)
    wrong += _check_ids(evidence.history, misused)
    if not evidence.is_halted:
        wrong += _check_state(book, evidence)
    return wrong[:VIOLATIONS_MAX]


def _is_reversal(wish: Any) -> bool:
    return wish.of is not None


def _id_of(wish: Any) -> bytes:
    name: bytes = wish.body.reversal_id if _is_reversal(wish) else wish.body.redemption_id
    return name


def _body_of(wish: Any) -> Any:
    if _is_reversal(wish):
        return (wish.terminal, "reverse", wish.body.redemption_id)
    return (wish.terminal, wish.code, wish.body.merchant_ref)


def _check_place(book: Book, told: Any, misused: set[bytes]) -> Iterator[str]:
    wish, row = told.wish, book.rows.get(told.place)
    where = f"{told.verdict} told to till {wish.terminal} at {told.at_s:.6f} by {told.by}, {told.place}"
    if row is None or (row.redemption_id, row.terminal, row.verdict) != (_id_of(wish), wish.terminal, told.verdict):
        yield f"R2: {where}: the log has no such answer there"
        return
    if _is_reversal(wish) and _id_of(wish.of) in misused:
        return  # which of the codes under this id is undone, is the till's own fault
    if wish.voucher is not None and row.campaign and (row.campaign, row.serial) != wish.voucher:
        yield f"R2: {where}: the log has another voucher there"
    if _is_reversal(wish):
        if told.verdict in (ACCEPTED, TOMBSTONED, REPEATED):
            yield from _check_undone(book, told, row, where)
        return
    if told.verdict in (ACCEPTED, REPEATED) and not _before(book.accepted.get(row.claim), row):
        yield f"R2: {where}: no acceptance of it in the log"
    if told.verdict == REVERSED and not _before(book.undone.get(row.claim), row):
        yield f"R3: {where}: nothing in the log reversed it"
    if told.verdict == TAKEN:
        holder = book.held_at.get(told.place)
        if holder is None or holder.packed() != told.entry:
            yield f"R4: {where}: it names a winner that did not hold the voucher then"


def _before(earlier: Row | None, row: Row) -> bool:
    return earlier is not None and earlier.place <= row.place


def _check_undone(book: Book, told: Any, row: Row, where: str) -> Iterator[str]:
    if not _before(book.undone.get(row.claim), row):
        yield f"R2: {where}: no reversal of it in the log"
    target = told.wish.of
    stands = [
        page.holder
        for voucher, page in book.pages.items()
        if page.holder is not None and page.holder.kind == "R" and voucher == target.voucher
    ]
    for holder in stands:
        row = book.accepted[holder.claim]
        if (row.redemption_id, row.terminal) == (_id_of(target), target.terminal):
            yield f"R3: {where}: the redemption it undid still stands at {row.place}"


def _check_absence(evidence: Evidence, told: Any) -> Iterator[str]:
    wish = told.wish
    where = f"{told.verdict} told to till {wish.terminal} at {told.at_s:.6f} by {told.by}, {told.place}"
    if _is_reversal(wish):
        if told.verdict == NOT_FOUND and any(
            other.wish is wish.of and other.verdict in (ACCEPTED, REPEATED) and other.at_s < wish.first_sent_s
            for other in evidence.history
        ):
            yield f"R5: {where}: the redemption had been accepted"
        return
    if told.verdict in (UNREADABLE, FORGED):
        yield f"R5: {where}: every code of this world is genuine"
    if told.verdict not in (UNKNOWN, NOT_ISSUED):
        return
    made = [deed for deed in evidence.deeds if deed.done_s is not None and deed.done_s < wish.first_sent_s]
    if wish.voucher is None:
        known = any(wish.code in deed.codes for deed in made)
    else:
        known = wish.voucher[1] <= ISSUED or any(deed.what == "issue" for deed in made)
    if known:
        yield f"R5: {where}: the voucher existed before it was asked for"


def _check_pause(deeds: Sequence[Any], told: Any) -> Iterator[str]:
    wish = told.wish
    if _is_reversal(wish):
        return
    campaign = wish.voucher[0] if wish.voucher else TYPED_CAMPAIGN
    where = f"{told.verdict} told to till {wish.terminal} at {told.at_s:.6f} by {told.by}, {told.place}"
    steps = [deed for deed in deeds if deed.campaign == campaign and deed.what in ("pause", "resume", "close")]
    if told.verdict == ACCEPTED:
        known = [n for n, deed in enumerate(steps) if deed.done_s is not None and deed.done_s + STALE_S < wish.first_sent_s]
        since = known[-1] if known else None
        if since is not None and steps[since].what != "resume":
            closed = any(steps[n].what == "close" for n in known)
            lifted = any(d.what == "resume" and d.began_s < told.at_s for d in steps[since + 1 :])
            if closed or not lifted:
                yield f"R6: {where}: fresh acceptance more than a second after {steps[since].what}"
    if told.verdict in (PAUSED, CLOSED):
        kind = "pause" if told.verdict == PAUSED else "close"
        begun = [n for n, deed in enumerate(steps) if deed.what == kind and deed.began_s <= told.at_s]
        over = bool(begun) and any(
            deed.what == "resume" and deed.done_s is not None and deed.done_s + STALE_S < wish.first_sent_s
            for deed in steps[begun[-1] + 1 :]
        )
        if not begun or over:
            yield f"R6: {where}: it was not"


def _check_no_change(history: Sequence[Any], misused: set[bytes]) -> Iterator[str]:
    by_body: dict[Any, list[Any]] = defaultdict(list)
    for told in history:
        by_body[_id_of(told.wish), _body_of(told.wish)].append(told)
    for answers in by_body.values():
        is_reversal = _is_reversal(answers[0].wish)
        if is_reversal and _id_of(answers[0].wish.of) in misused:
            continue
        lasting = (ACCEPTED, TOMBSTONED, REPEATED) if is_reversal else (ACCEPTED, REPEATED, REVERSED)
        firsts = [told for told in answers if told.verdict in lasting]
        for first in firsts[:1]:
            allowed = (REPEATED,) if is_reversal else (REVERSED,) if first.verdict == REVERSED else (REPEATED, REVERSED)
            for later in answers:
                if later.sent_s <= first.at_s or later.verdict in allowed:
                    continue
                if later.verdict == ID_REUSED and _id_of(later.wish) in misused:
                    continue
                yield (
                    f"R3: till {first.wish.terminal} was told {first.verdict} at {first.at_s:.6f} by {first.by} and "
                    f"{later.verdict} at {later.at_s:.6f} by {later.by}, {first.place} and {later.place}"
                )


def _check_ids(history: Sequence[Any], misused: set[bytes]) -> Iterator[str]:
    by_id: dict[bytes, list[Any]] = defaultdict(list)
    for told in history:
        if _id_of(told.wish) in misused and not _is_reversal(told.wish) and told.verdict == ACCEPTED:
            by_id[_id_of(told.wish)].append(told)
    for answers in by_id.values():
        for first in answers:
            for later in answers:
                other = _body_of(later.wish) != _body_of(first.wish)
                if other and later.by == first.by and later.sent_s > first.at_s:
                    yield f"R9: {first.by} accepted one id for two codes, {first.place} and {later.place}"


def _check_state(book: Book, evidence: Evidence) -> Iterator[str]:
    expected = book.expected_hashes()
    held = {key: fields for key, fields in evidence.hashes.items() if fields}
    for key in sorted(expected.keys() | held.keys()):
        if expected.get(key) != held.get(key):
            yield f"R7: {key.decode()} is not what the log says"
    for partition, chain in evidence.chains.items():
        if partition != CONTROL and chain:
            want = chain[-1].tip + str(chain[-1].seq).encode()
            if evidence.heads[partition] != want:
                yield f"R7: Valkey's head of partition {partition} is not the log's"
