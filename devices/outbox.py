"""What a till sends next, and when: every open redemption and reversal until it has its answer. Pure.

Theory of operation. Each thing to ask is `waiting` under its own id until a final answer to that id comes; nothing
else ever removes it, except the cashier giving a redemption up. Due ones are gathered into messages; a message in
flight has a `ref` and a deadline. A missed deadline makes its ids due again (same ids, new ref), but the flight is
remembered, so that a late answer still counts. When the connection goes, all flights go and their ids are due at once.
UNRESOLVED means "ask again": that id waits longer each time, with jitter, so that a gateway that recovers is not
overrun. Facts go before all else, and the reversal of one waits until the fact has its answer. A new scan of a code
whose earlier redemption is being reversed is held back until that reversal is answered: sent together, they could be
decided in the wrong order. Times are monotonic milliseconds, `spread` uniform in [0, 1).
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import TypeVar

import msgspec

from gateway.messages import (
    SCANS_PER_MESSAGE_MAX,
    Detail,
    Fact,
    FactMany,
    Place,
    Position,
    Redeem,
    RedeemMany,
    Reverse,
    ReverseMany,
    Verdict,
    Verdicts,
    Winner,
)

ANSWER_TIMEOUT_MS = 4000  # two of them still fit into the 10 s a scanner waits for its host
RETRY_MS_FIRST = 100  # the gateway's recovery is often over by then
RETRY_MS_MAX = 5000  # a shopper is waiting: no longer than this between two questions
FLIGHTS_MAX = 4  # messages unanswered at once: 1,024 scans drain a backlog at full speed without flooding
MESSAGE_BYTES_MAX = 1 << 17  # half of what a gateway takes; 256 usual codes, by the estimate below, are half of this
FIXED_BYTES = 128  # of a scan or reversal all but its code and references: ids, times, the till's own reason
UTF8_BYTES_MAX = 4  # of one character (RFC 3629)
SILENT_ROUNDS_MAX = 2  # deadlines missed one after the other until the connection itself is not believed

Body = TypeVar("Body", Redeem, Reverse, Fact)


class PeerFault(Exception):
    """The gateway said something outside the contract, or nothing: this connection is of no use any more."""


class Answer(msgspec.Struct, frozen=True):
    """What was said about one id. `verdict` UNRESOLVED: the outbox asks again by itself. Codes are not in here."""

    redemption_id: bytes
    asked_id: bytes  # the same, or the reversal_id when `is_reversal`
    is_reversal: bool
    verdict: int
    place: Position | None
    at_ms: int
    winner: Winner | None = None
    note: str | None = None
    offer: str | None = None
    is_fact: bool = False  # it was accepted here before it was told


class _Waiting(msgspec.Struct):
    body: Redeem | Reverse | Fact
    code_hash: bytes
    due_ms: int
    attempts: int = 0
    ref: int = 0  # the flight that carries it; 0: none


class _Flight(msgspec.Struct):
    ids: list[bytes]
    deadline_ms: int
    overdue: bool = False


class Outbox:
    def __init__(self) -> None:
        self._waiting: dict[bytes, _Waiting] = {}
        self._flights: dict[int, _Flight] = {}
        self._reversing: Counter[bytes] = Counter()  # codes that a reversal is being asked for
        self._ref = 0
        self._silent_rounds = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def add_redeem(self, redeem: Redeem, code_hash: bytes, now_ms: int) -> None:
        assert redeem.redemption_id not in self._waiting
        self._waiting[redeem.redemption_id] = _Waiting(redeem, code_hash, now_ms)

    def add_fact(self, fact: Fact, code_hash: bytes, now_ms: int) -> None:
        """Takes the place of the asking for the same redemption, if there is any."""
        self._waiting.pop(fact.redeem.redemption_id, None)
        self._waiting[fact.redeem.redemption_id] = _Waiting(fact, code_hash, now_ms)

    def add_reverse(self, reverse: Reverse, code_hash: bytes, now_ms: int) -> None:
        """`code_hash` may be empty when the journal has forgotten the code. Ends the asking for the redemption, but
        not the telling of a fact."""
        assert reverse.reversal_id not in self._waiting
        asking = self._waiting.get(reverse.redemption_id)
        if asking is not None and not isinstance(asking.body, Fact):
            del self._waiting[reverse.redemption_id]
        self._waiting[reverse.reversal_id] = _Waiting(reverse, code_hash, now_ms)
        self._reversing[code_hash] += 1

    def hurry(self, redemption_id: bytes, now_ms: int) -> None:
        """The same code was read again: if its id only waits for its next turn, ask now."""
        waiting = self._waiting.get(redemption_id)
        if waiting and not waiting.ref:
            waiting.due_ms = min(waiting.due_ms, now_ms)

    def is_asking(self, asked_id: bytes) -> bool:
        """Whether this id still waits for its final answer."""
        return asked_id in self._waiting

    def is_held(self, redemption_id: bytes) -> bool:
        waiting = self._waiting.get(redemption_id)
        return waiting is not None and self._held(waiting)

    def messages_due(self, now_ms: int) -> list[RedeemMany | ReverseMany | FactMany]:
        """What to send now: facts, reversals, scans. Raises `PeerFault` when the gateway has fallen silent."""
        self._mark_overdue(now_ms)
        due = [w for w in self._waiting.values() if not w.ref and w.due_ms <= now_ms]
        facts = [w.body for w in due if isinstance(w.body, Fact)]
        reversals = [w.body for w in due if isinstance(w.body, Reverse) and not self._held(w)]
        scans = [w.body for w in due if isinstance(w.body, Redeem) and not self._held(w)]
        messages: list[RedeemMany | ReverseMany | FactMany] = []
        for told in _parts(facts):
            if ref := self._take_off([f.redeem.redemption_id for f in told], now_ms):
                messages.append(FactMany(ref, told))
        for part in _parts(reversals):
            if ref := self._take_off([r.reversal_id for r in part], now_ms):
                messages.append(ReverseMany(ref, part))
        for some in _parts(scans):
            if ref := self._take_off([r.redemption_id for r in some], now_ms):
                messages.append(RedeemMany(ref, some))
        return messages

    def next_due_ms(self) -> int | None:
        """When `messages_due` may have something, if nothing else happens before. None: not until something does."""
        flying = sum(not f.overdue for f in self._flights.values())
        deadlines = [f.deadline_ms for f in self._flights.values() if not f.overdue]
        if flying < FLIGHTS_MAX:
            deadlines += [w.due_ms for w in self._waiting.values() if not w.ref and not self._held(w)]
        return min(deadlines, default=None)

    def take(self, verdicts: Verdicts, now_ms: int, spread: float) -> list[Answer]:
        """The answers to ids that still wait; UNRESOLVED ones stay and are due later. Raises `PeerFault`."""
        flight = self._flights.pop(verdicts.ref, None)
        if flight is None:
            raise PeerFault(f"verdicts for message {verdicts.ref}, which was not sent on this connection")
        places = _spread_out(verdicts.places, len(flight.ids))
        if len(verdicts.codes) != len(flight.ids):
            raise PeerFault(f"{len(verdicts.codes)} verdicts for {len(flight.ids)} questions")
        self._silent_rounds = 0
        answers = []
        for i, asked_id in enumerate(flight.ids):
            if waiting := self._waiting.get(asked_id):  # else answered before, or given up
                detail = verdicts.details.get(i, Detail())
                answers.append(
                    Answer(
                        redemption_id=_redemption_id(waiting.body),
                        asked_id=asked_id,
                        is_reversal=isinstance(waiting.body, Reverse),
                        verdict=verdicts.codes[i],
                        place=places[i],
                        at_ms=verdicts.at_ms,
                        winner=detail.winner,
                        note=detail.note,
                        offer=detail.offer,
                        is_fact=isinstance(waiting.body, Fact),
                    )
                )
                self._settle(answers[-1], waiting, verdicts.ref, now_ms, spread)
        return answers

    def connection_lost(self, now_ms: int) -> None:
        self._recall(self._waiting, now_ms)
        self._flights.clear()
        self._silent_rounds = 0

    def flying(self) -> int:
        """Messages sent on this connection whose answer may still come."""
        return len(self._flights)

    def _held(self, waiting: _Waiting) -> bool:
        if isinstance(waiting.body, Reverse):
            undone = self._waiting.get(waiting.body.redemption_id)
            return undone is not None and isinstance(undone.body, Fact)
        return isinstance(waiting.body, Redeem) and self._reversing[waiting.code_hash] > 0

    def _take_off(self, ids: list[bytes], now_ms: int) -> int:
        if sum(not f.overdue for f in self._flights.values()) >= FLIGHTS_MAX:
            return 0
        self._ref += 1
        self._flights[self._ref] = _Flight(ids, now_ms + ANSWER_TIMEOUT_MS)
        for asked_id in ids:
            waiting = self._waiting[asked_id]
            waiting.ref = self._ref
            waiting.attempts += 1
        return self._ref

    def _mark_overdue(self, now_ms: int) -> None:
        missed = [f for f in self._flights.values() if not f.overdue and f.deadline_ms <= now_ms]
        for flight in missed:
            flight.overdue = True
            self._recall(flight.ids, now_ms)
        self._silent_rounds += bool(missed)
        if self._silent_rounds >= SILENT_ROUNDS_MAX:
            raise PeerFault(f"no answer for {SILENT_ROUNDS_MAX * ANSWER_TIMEOUT_MS // 1000} s")

    def _recall(self, ids: Iterable[bytes], now_ms: int) -> None:
        for asked_id in ids:
            waiting = self._waiting.get(asked_id)
            if waiting and waiting.ref:
                waiting.ref = 0
                waiting.due_ms = now_ms

    def _settle(self, answer: Answer, waiting: _Waiting, ref: int, now_ms: int, spread: float) -> None:
        if is_final(answer.verdict, is_reversal=answer.is_reversal):
            del self._waiting[answer.asked_id]
            if answer.is_reversal:
                self._reversing[waiting.code_hash] -= 1
                if not self._reversing[waiting.code_hash]:
                    del self._reversing[waiting.code_hash]
        elif waiting.ref == ref:  # an older flight's "ask again" is news no more
            waiting.ref = 0
            waiting.due_ms = now_ms + backoff_ms(waiting.attempts, RETRY_MS_FIRST, RETRY_MS_MAX, spread)


def is_final(verdict: int, *, is_reversal: bool) -> bool:
    """A locked terminal does not end a reversal: what the cashier took back must be undone, however long it takes."""
    return verdict != Verdict.UNRESOLVED and not (is_reversal and verdict == Verdict.TERMINAL_LOCKED)


def backoff_ms(attempts: int, first_ms: int, max_ms: int, spread: float) -> int:
    """Full jitter over a ceiling that doubles with each attempt (from 1), never below a quarter of `first_ms`."""
    assert attempts >= 1
    ceiling_ms = min(max_ms, first_ms << min(attempts - 1, 16))
    return max(first_ms // 4, int(ceiling_ms * spread))


def uuid7(now_ms: int, random: bytes) -> bytes:
    """RFC 9562 section 5.7: 48 bits of Unix milliseconds, version, variant, and 74 of the 80 given random bits."""
    assert len(random) == 10
    tail = bytearray(random)
    tail[0] = tail[0] & 0x0F | 0x70
    tail[2] = tail[2] & 0x3F | 0x80
    return (now_ms & (1 << 48) - 1).to_bytes(6, "big") + bytes(tail)


def _parts(bodies: Iterable[Body]) -> Iterator[list[Body]]:
    """In order, as many to a message as a gateway takes; one alone always fits."""
    part: list[Body] = []
    part_bytes = 0
    for body in bodies:
        body_bytes = _bytes_at_most(body)
        if len(part) == SCANS_PER_MESSAGE_MAX or (part and part_bytes + body_bytes > MESSAGE_BYTES_MAX):
            yield part
            part, part_bytes = [], 0
        part.append(body)
        part_bytes += body_bytes
    if part:
        yield part


def _redemption_id(body: Redeem | Reverse | Fact) -> bytes:
    return body.redeem.redemption_id if isinstance(body, Fact) else body.redemption_id


def _bytes_at_most(body: Redeem | Reverse | Fact) -> int:
    scan = body if isinstance(body, Redeem) else body.redeem if isinstance(body, Fact) else body.original
    texts = (scan.code, scan.merchant_ref, scan.cashier_ref) if scan else ()
    return FIXED_BYTES + UTF8_BYTES_MAX * sum(len(text) for text in texts if text)


def _spread_out(places: list[Place], count: int) -> list[Position | None]:
    if any(place.count < 1 for place in places) or sum(place.count for place in places) != count:
        raise PeerFault(f"the places of {count} verdicts do not add up")
    return [
        Position(place.partition, place.seq, place.index + i) if place.seq else None
        for place in places
        for i in range(place.count)
    ]
