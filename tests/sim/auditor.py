"""The auditor: what tills were told, held against the log that was left, in the plainest words. Shares no product code.

R1  a voucher is accepted at most once, net of reversals: every logged verdict is the one this book would give
R2  every answer stands in the log, at the place it names
R3  an answer of accepted or reversed never changes
R4  already redeemed names a winner that is in the log and stood at that moment; no winner was invented
R5  no refusal by absence (unknown, not issued, not found) that was false when it was asked for
R6  a pause or a close binds everywhere after a second; paused is told only while it is true
R7  Valkey holds what the log says
R8  everything is answered once the faults stop, and nothing halts without a cause (the world checks that)
R10 a fact is never refused: it holds its voucher, lost it to one that held it then, or was undone; that never changes,
    and what lost is an event of the control partition that names both
R9  a gateway that answered for an id does not let it pass for another code
chain  every partition's log is one chain without gaps
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence, Set
from typing import Any

import msgspec
from sim.book import (
    ACCEPTED,
    CONFLICT,
    CONFLICT_AGAIN,
    CONTROL,
    REPEATED,
    REVERSED,
    TAKEN,
    TOMBSTONED,
    Book,
    Row,
)

ID_REUSED = 5
LOCKED, UNREADABLE, UNKNOWN, FORGED, NOT_ISSUED = 10, 11, 12, 13, 14
CLOSED, PAUSED, NOT_FOUND, WINDOW_OVER = 31, 32, 40, 42
ISSUED, TYPED_CAMPAIGN = 1024, 2  # of every run: signed serials from the start, and where typed codes are imported
STALE_S = 1.0  # for so long a gateway may not know of a pause
VIOLATIONS_MAX = 20  # said of one run


Hashes = dict[bytes, dict[bytes, bytes]]


class Evidence(msgspec.Struct):
    chains: dict[int, list[Any]]
    history: Sequence[Any]  # Told
    wishes: Sequence[Any]  # Wish
    deeds: Sequence[Any]  # Deed
    hashes: dict[bytes, dict[bytes, bytes]]
    heads: dict[int, bytes | None]
    is_halted: bool
    conflicts: Sequence[Any] = ()  # OfflineConflict
    purged: Set[int] = frozenset()  # campaigns: nothing of them is accepted, undone or found any more


def audit(evidence: Evidence) -> list[str]:
    """Every violation found, in words; none is a clean run."""
    book = Book(evidence.chains, evidence.purged)
    wrong = list(book.wrong)
    bodies: dict[bytes, set[Any]] = defaultdict(set)
    for wish in evidence.wishes:
        bodies[_id_of(wish)].add(_body_of(wish))
    misused = {name for name, some in bodies.items() if len(some) > 1}
    if evidence.is_halted:  # the log was set back: what it says of the past is no evidence any more
        return (wrong + list(_check_told_once(evidence)))[:VIOLATIONS_MAX]
    for told in evidence.history:
        wrong += _check_place(book, told, misused)
        wrong += _check_absence(evidence, told)
        wrong += _check_pause(evidence.deeds, told)
    wrong += _check_facts(book, evidence, misused)
    wrong += _check_no_change(evidence, misused)
    wrong += _check_ids(evidence, misused)
    wrong += _check_state(book, evidence)
    return wrong[:VIOLATIONS_MAX]


def _check_told_once(evidence: Evidence) -> Iterator[str]:
    """R1 on nothing but what tills heard: nobody tried to undo either, and both were accepted."""
    undone = {_id_of(wish.of) for wish in evidence.wishes if _is_reversal(wish)}
    winners: dict[Any, Any] = {}
    for told in evidence.history:
        wish = told.wish
        if _is_reversal(wish) or told.verdict not in (ACCEPTED, REPEATED) or _id_of(wish) in undone:
            continue
        voucher = wish.voucher or wish.code
        first = winners.setdefault(voucher, wish)
        if (_id_of(first), _body_of(first)) != (_id_of(wish), _body_of(wish)):
            yield f"R1: {voucher} was accepted for till {first.terminal} and for till {wish.terminal}"


def _is_reversal(wish: Any) -> bool:
    return wish.of is not None


def _id_of(wish: Any) -> bytes:
    name: bytes = wish.body.reversal_id if _is_reversal(wish) else wish.body.redemption_id
    return name


def _campaign_of(wish: Any) -> int:
    return int(wish.voucher[0]) if wish.voucher else TYPED_CAMPAIGN


def _body_of(wish: Any) -> Any:
    if _is_reversal(wish):
        return (wish.terminal, "reverse", wish.body.redemption_id)
    return (wish.terminal, wish.code, wish.body.merchant_ref)


class Where:
    """Which answer a violation is about; put into words only if there is one."""

    __slots__ = ("told",)

    def __init__(self, told: Any) -> None:
        self.told = told

    def __str__(self) -> str:
        told = self.told
        return f"{told.verdict} told to till {told.wish.terminal} at {told.at_s:.6f} by {told.by}, {told.place}"


def _check_place(book: Book, told: Any, misused: set[bytes]) -> Iterator[str]:
    wish, row, where = told.wish, book.rows.get(told.place), Where(told)
    if _is_from_log(book, told, row):
        return
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
    if told.verdict == CONFLICT_AGAIN and not _before(book.lost.get(row.claim), row):
        yield f"R10: {where}: it is said again, and was never said"
    if told.verdict in (TAKEN, CONFLICT) and not (told.verdict == CONFLICT and told.entry is None):
        holder = book.held_at.get(told.place)
        if told.entry is None:
            yield f"R4: {where}: it names no winner"
        elif holder is None or holder.packed()[17:] != told.entry[17:]:
            yield f"R4: {where}: it names a winner that did not hold the voucher then"


def _is_from_log(book: Book, told: Any, row: Row | None) -> bool:
    """Whether this is the place of a redemption, long after, and what became of it; Valkey has forgotten it."""
    if row is None or row.campaign not in book.purged or (told.verdict, row.verdict) != (REVERSED, ACCEPTED):
        return False
    return row.redemption_id == _id_of(told.wish) and row.claim in book.undone


def _before(earlier: Row | None, row: Row) -> bool:
    return earlier is not None and earlier.place <= row.place


def _check_undone(book: Book, told: Any, row: Row, where: Where) -> Iterator[str]:
    if not _before(book.undone.get(row.claim), row) and not _before(book.lost.get(row.claim), row):
        yield f"R2: {where}: no reversal of it in the log"
    target = told.wish.of
    page = book.pages.get(target.voucher)
    if page is not None and page.holder is not None and page.holder.kind == "R":
        row = book.accepted[page.holder.claim]
        if (row.redemption_id, row.terminal) == (_id_of(target), target.terminal):
            yield f"R3: {where}: the redemption it undid still stands at {row.place}"


def _check_absence(evidence: Evidence, told: Any) -> Iterator[str]:
    wish, where = told.wish, Where(told)
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
    if _campaign_of(wish) in evidence.purged and wish.voucher is None:
        return  # its codes are free for others
    made = [deed for deed in evidence.deeds if deed.done_s is not None and deed.done_s < wish.first_sent_s]
    if wish.voucher is None:
        known = any(wish.code in deed.codes for deed in made)
    else:
        known = wish.voucher[1] <= ISSUED or any(deed.what == "issue" for deed in made)
    if known:
        yield f"R5: {where}: the voucher existed before it was asked for"


def _check_pause(deeds: Sequence[Any], told: Any) -> Iterator[str]:
    wish = told.wish
    if _is_reversal(wish) or told.as_fact or told.verdict not in (ACCEPTED, PAUSED, CLOSED):
        return
    campaign = _campaign_of(wish)
    where = Where(told)
    steps = [deed for deed in deeds if deed.campaign == campaign and deed.what in ("pause", "resume", "close")]
    if told.verdict == ACCEPTED:
        known = [
            n for n, deed in enumerate(steps) if deed.done_s is not None and deed.done_s + STALE_S < wish.first_sent_s
        ]
        since = known[-1] if known else None
        if since is not None and steps[since].what != "resume":
            closed = any(steps[n].what == "close" for n in known)
            lifted = any(d.what == "resume" and d.began_s < told.at_s for d in steps[since + 1 :])
            if closed or not lifted:
                yield f"R6: {where}: fresh acceptance more than a second after {steps[since].what}"
    if told.verdict in (PAUSED, CLOSED):
        kind = "pause" if told.verdict == PAUSED else "close"
        begun = [n for n, deed in enumerate(steps) if deed.what == kind and deed.began_s <= told.at_s]
        over = told.verdict == PAUSED and any(
            deed.what == "resume" and deed.done_s is not None and deed.done_s + STALE_S < wish.first_sent_s
            for deed in steps[(begun or [0])[-1] + 1 :]
        )
        if not begun or over:
            yield f"R6: {where}: it was not"


def _check_no_change(evidence: Evidence, misused: set[bytes]) -> Iterator[str]:
    by_body: dict[Any, list[Any]] = defaultdict(list)
    for told in evidence.history:
        by_body[_id_of(told.wish), _body_of(told.wish)].append(told)
    for answers in by_body.values():
        is_reversal = _is_reversal(answers[0].wish)
        if is_reversal and _id_of(answers[0].wish.of) in misused:
            continue
        again = (CONFLICT, CONFLICT_AGAIN)
        lasting = (ACCEPTED, TOMBSTONED, REPEATED) if is_reversal else (ACCEPTED, REPEATED, REVERSED, *again)
        is_typed = answers[0].wish.voucher is None
        firsts = [told for told in answers if told.verdict in lasting]
        for first in firsts[:1]:
            allowed = {REVERSED: (REVERSED,), CONFLICT: again, CONFLICT_AGAIN: again}.get(
                first.verdict, (REPEATED, REVERSED)
            )
            allowed = (REPEATED,) if is_reversal else allowed
            if _campaign_of(first.wish) in evidence.purged:
                if _id_of(first.wish) in misused:
                    continue
                late = (WINDOW_OVER,) if is_reversal else (LOCKED, CLOSED, *((UNKNOWN,) if is_typed else ()))
                from_log = (ACCEPTED, *((TOMBSTONED,) if is_reversal else ())) if REPEATED in allowed else ()
                allowed = (*allowed, *late, *from_log)
            for later in answers:
                if later.sent_s <= first.at_s or later.verdict in allowed:
                    continue
                if later.verdict == ID_REUSED and _id_of(later.wish) in misused:
                    continue
                yield (
                    f"R3: till {first.wish.terminal} was told {first.verdict} at {first.at_s:.6f} by {first.by} and "
                    f"{later.verdict} at {later.at_s:.6f} by {later.by}, {first.place} and {later.place}"
                )


def _check_facts(book: Book, evidence: Evidence, misused: set[bytes]) -> Iterator[str]:
    events = {conflict.redemption_id: conflict for conflict in evidence.conflicts}
    lost_rows = {row.redemption_id for row in book.lost.values()}
    for redemption_id, conflict in events.items():
        row = book.rows.get(tuple(conflict.place))
        if row is None or row.redemption_id != redemption_id or row.verdict not in (CONFLICT, CONFLICT_AGAIN):
            yield f"R10: the conflict at {conflict.place} is not in the log there"
            continue
        first = book.lost[row.claim]
        holder = book.held_at[first.place]
        named = (conflict.first_terminal, conflict.first_seq)
        if conflict.campaign in evidence.purged and conflict.first_kind == "unknown":
            continue
        if holder is None or (conflict.place == first.place and named != (holder.terminal, holder.seq)):
            yield f"R10: the conflict at {conflict.place} names {named}, and {holder} held the voucher"
        if conflict.terminal != row.terminal:
            yield f"R10: the conflict at {conflict.place} names terminal {conflict.terminal}"
    for told in evidence.history:
        wish = told.wish
        where = Where(told)
        if told.verdict in (CONFLICT, CONFLICT_AGAIN) and _id_of(wish) not in lost_rows:
            yield f"R10: {where}: the log has no such conflict"
        if not wish.is_fact or not told.as_fact or _id_of(wish) in misused:
            continue
        if told.verdict in (CONFLICT, CONFLICT_AGAIN) and _id_of(wish) not in events:
            yield f"R10: {where}: no event names both"
        if told.verdict not in (ACCEPTED, REPEATED, REVERSED, CONFLICT, CONFLICT_AGAIN, NOT_ISSUED):
            yield f"R10: {where}: a fact was refused"


def _check_ids(evidence: Evidence, misused: set[bytes]) -> Iterator[str]:
    by_id: dict[bytes, list[Any]] = defaultdict(list)
    for told in evidence.history:
        if told.as_fact and _campaign_of(told.wish) in evidence.purged:
            continue  # answered from the log
        if _id_of(told.wish) in misused and not _is_reversal(told.wish) and told.verdict == ACCEPTED:
            by_id[_id_of(told.wish)].append(told)
    for answers in by_id.values():
        for first in answers:
            for later in answers:
                other = _body_of(later.wish) != _body_of(first.wish)
                if other and later.by == first.by and later.sent_s > first.at_s:
                    yield f"R9: {first.by} accepted one id for two codes, {first.place} and {later.place}"


def _kept(hashes: Hashes, purged: Set[int]) -> Hashes:
    """Without purged campaigns: a loss of writes may have brought some of them back, and nobody looks at it."""
    kept: Hashes = defaultdict(dict)
    for key, fields in hashes.items():
        kind = key.partition(b"}")[2].partition(b":")[0]
        for field, value in fields.items():
            if (int(kind[1:]) if kind[:1] == b"v" else int.from_bytes(value[:4], "big")) not in purged:
                kept[key][field] = value
    return dict(kept)


def _check_state(book: Book, evidence: Evidence) -> Iterator[str]:
    expected, held = _kept(book.expected_hashes(), evidence.purged), _kept(evidence.hashes, evidence.purged)
    for key in sorted(expected.keys() | held.keys()):
        if expected.get(key) != held.get(key):
            yield f"R7: {key.decode()} is not what the log says"
    for partition, chain in evidence.chains.items():
        if partition != CONTROL and chain:
            want = chain[-1].tip + str(chain[-1].seq).encode()
            if evidence.heads[partition] != want:
                yield f"R7: Valkey's head of partition {partition} is not the log's"
