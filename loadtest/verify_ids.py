"""What was told of every redemption id, and what the log, a gateway's index and a gateway's answers say of it. Pure."""

from collections.abc import Collection, Sequence

import msgspec

from gateway.messages import PUBLIC, Answer
from loadtest.evidence import Answered
from loadtest.verify_rows import (
    APPLIED,
    CONFLICT,
    CONFLICT_AGAIN,
    REDEEM,
    REPEATED,
    REVERSE,
    REVERSED,
    TOMBSTONED,
    Faults,
    Logged,
    Place,
    Tried,
    at,
    logged_rows,
    named,
    tried_rows,
    word,
)

_STANDS = {  # what a later record of the same claim may say, by what the earlier one said
    (REDEEM, APPLIED): {REPEATED, REVERSED},
    (REDEEM, REPEATED): {REPEATED, REVERSED},
    (REDEEM, REVERSED): {REVERSED},
    (REDEEM, CONFLICT): {CONFLICT_AGAIN},
    (REDEEM, CONFLICT_AGAIN): {CONFLICT_AGAIN},
    (REVERSE, APPLIED): {REPEATED},
    (REVERSE, TOMBSTONED): {REPEATED},
    (REVERSE, REPEATED): {REPEATED},
}


class Scope(msgspec.Struct, frozen=True):
    """Which records of the log must be the run's own."""

    terminals: Collection[int] | None  # those of its terminals; None: all, the deployment was made for this run
    from_ms: int  # and made since it began


class Expected(msgspec.Struct, frozen=True):
    """What a gateway must answer when it is asked for an id; `place` None: it knows none."""

    redemption_id: bytes
    voucher: str
    verdict: str | None
    place: Place | None


class Ids:
    """Compares one bucket after the other."""

    def __init__(
        self, scope: Scope, reversed_claims: Collection[bytes], purged: Collection[int], asked: Collection[int]
    ) -> None:
        """`asked`: numbers of the attempts that a gateway is to be asked for."""
        self.told, self.phantoms, self.stable, self.unknown = Faults(), Faults(), Faults(), Faults()  # L2, L3, L7, L9
        self.accepted = self.answers = self.unplaced = self.retried = 0
        self.logged = self.before = 0
        self.open_accepted = self.open_refused = self.open_absent = 0
        self.expected: list[Expected] = []
        self._scope, self._reversed, self._purged = scope, reversed_claims, purged
        self._asked = frozenset(asked)

    def compare(self, tried: bytes, logged: bytes) -> dict[bytes, list[Logged]]:
        """One bucket; returns the log's records of it by id."""
        by_id: dict[bytes, list[Logged]] = {}
        for row in logged_rows(logged):
            by_id.setdefault(row.redemption_id, []).append(row)
        sends: dict[bytes, int] = {}
        first: dict[bytes, Tried] = {}
        for attempt in tried_rows(tried):
            op, told = attempt.op, attempt.told
            rows: Sequence[Logged] = by_id.get(attempt.redemption_id, ())
            if op and attempt.was_sent:
                sends[attempt.redemption_id] = sends.get(attempt.redemption_id, 0) + attempt.sends
            if told is not None and (op or attempt.is_lookup):
                self._check_told(attempt, op, told, rows)
            if op:
                self._check_outcome(attempt, op, told, rows)
            self._check_twin(attempt, op, told, first)
            if attempt.number in self._asked and op == REDEEM:
                self.expected.append(_expected(attempt, rows, self._reversed))
        for redemption_id, rows in by_id.items():
            self._check_asked_for(redemption_id, rows, sends.get(redemption_id, 0))
            self._check_stable(redemption_id, rows)
        return by_id

    # --- L2 ---

    def _check_told(self, attempt: Tried, op: int, told: str, rows: Sequence[Logged]) -> None:
        self.answers += 1
        self.accepted += told == "accepted" and op == REDEEM
        place = attempt.place
        if place is None:
            self.unplaced += 1
            yes = [row for row in rows if row.verdict in (APPLIED, REPEATED)]
            if told == "accepted" and op and not yes:
                self._not_there(attempt, "told no position", rows)
            return
        row = next((row for row in rows if row.place == place), None)
        if row is None:
            self._not_there(attempt, f"told {at(place)}", rows)
        elif why := self._misfit(attempt, op, told, row):
            text = f"{_who(attempt)} was told {told} at {at(row.place)}, where {why}"
            self.told.add((attempt.intended_us, attempt.number), text)

    def _not_there(self, attempt: Tried, where: str, rows: Sequence[Logged]) -> None:
        found = f"holds it at {at(rows[0].place)} as {word(rows[0].verdict)}" if rows else "has never seen it"
        text = f"{_who(attempt)} was told {attempt.told} ({where}), but the log {found}"
        self.told.add((attempt.intended_us, attempt.number), text)

    def _misfit(self, attempt: Tried, op: int, told: str, row: Logged) -> str:
        """Why this record is not what was told; empty: it is."""
        if op and row.op != op:
            return "the log has another op"
        if op and row.terminal != attempt.terminal:
            return f"the log names terminal {row.terminal}, and it was asked at {attempt.terminal}"
        both = attempt.campaign and row.campaign
        if both and (row.campaign, row.serial) != (attempt.campaign, attempt.serial):
            return f"the log names {named(row.campaign, row.serial)}"
        if not _says(row, self._reversed, told):
            return f"the log says {word(row.verdict)}"
        return ""

    # --- L9 ---

    def _check_outcome(self, attempt: Tried, op: int, told: str | None, rows: Sequence[Logged]) -> None:
        self.retried += attempt.sends > 1
        if told in ("accepted", "reversed", "conflict"):
            return
        own = [row for row in rows if row.op == op and _same_voucher(attempt, row)]
        effects = [row for row in own if row.verdict in (APPLIED, TOMBSTONED)]
        if told is None:
            if not attempt.was_sent:
                return  # L3's
            self.open_accepted += bool(effects)
            self.open_refused += bool(own) and not effects
            self.open_absent += not own
            return
        if effects and (attempt.sends > 1 or attempt.place is None or effects[0].place < attempt.place):
            text = f"{_who(attempt)} was told {told}, but took effect at {at(effects[0].place)}"
            self.unknown.add((attempt.intended_us, attempt.number), text)

    # --- L3 ---

    def _check_asked_for(self, redemption_id: bytes, rows: Sequence[Logged], sends: int) -> None:
        rows = [row for row in rows if self._is_ours(row)]
        self.logged += len(rows)
        if len(rows) <= sends:
            return
        row = rows[sends]
        asked = f"it was sent {sends} times and is there {len(rows)} times" if sends else "nobody sent it"
        text = f"{named(row.campaign, row.serial)}: redemption {redemption_id.hex()} is logged at {at(row.place)}"
        self.phantoms.add((row.at_ms, *row.place), f"{text} from terminal {row.terminal}, and {asked}")

    def _is_ours(self, row: Logged) -> bool:
        scope = self._scope
        ours = row.at_ms >= scope.from_ms and (scope.terminals is None or row.terminal in scope.terminals)
        self.before += not ours
        return ours

    # --- L7 ---

    def _check_stable(self, redemption_id: bytes, rows: Sequence[Logged]) -> None:
        """The log's records of one id."""
        if len(rows) == 1 and rows[0].verdict != REPEATED:
            return
        effect: Logged | None = None
        last: dict[tuple[int, bytes], Logged] = {}
        for row in rows:
            if row.campaign in self._purged or not row.campaign:
                continue
            if row.verdict in (APPLIED, TOMBSTONED):
                if effect is not None:
                    places = f"{at(effect.place)} and, on {named(row.campaign, row.serial)}, at {at(row.place)}"
                    text = f"{named(effect.campaign, effect.serial)}: id {redemption_id.hex()} took effect at {places}"
                    for faults in (self.stable, self.unknown):
                        faults.add((row.at_ms, *row.place), text)
                effect = row
            if row.op == REDEEM and row.verdict == REPEATED and effect is None:
                text = f"{named(row.campaign, row.serial)}: redemption {redemption_id.hex()} was repeated at"
                self.stable.add((row.at_ms, *row.place), f"{text} {at(row.place)}, and was never accepted before")
            before = last.get((row.op, row.claim_id))
            may = _STANDS.get((before.op, before.verdict)) if before else None
            if before and may and row.verdict not in may:
                said = f"{word(before.verdict)} at {at(before.place)}, then {word(row.verdict)} at {at(row.place)}"
                text = f"{named(row.campaign, row.serial)}: redemption {redemption_id.hex()} was {said}"
                self.stable.add((row.at_ms, *row.place), text)
            last[row.op, row.claim_id] = row

    def _check_twin(self, attempt: Tried, op: int, told: str | None, first: dict[bytes, Tried]) -> None:
        """Answers that tills were told to the same id."""
        order = (attempt.intended_us, attempt.number)
        if attempt.answers_differ:
            self.stable.add(order, f"{_who(attempt)} was told {told} and, when it was sent again, something else")
        if not op or told is None:
            return
        other = first.setdefault(attempt.redemption_id, attempt)
        if other is attempt:
            return
        same = (other.kind, other.terminal, other.campaign, other.serial)
        if same != (attempt.kind, attempt.terminal, attempt.campaign, attempt.serial):
            return  # another body: refused as a reused id
        early, late = sorted((other, attempt), key=lambda one: one.intended_us)
        if early.told == "accepted" and late.told not in ("accepted", "reversed"):
            self.stable.add(order, f"{_who(attempt)} was told accepted, and later {late.told}")


def check_answers(expected: Sequence[Expected], answers: Sequence[Answered], faults: Faults) -> int:
    """L7, asked now: adds what a gateway answers otherwise than was told; returns how many ids were compared."""
    wanted = {one.redemption_id: one for one in expected}
    for number, answer in enumerate(answers):
        why = _answer_misfit(wanted[answer.redemption_id], answer)
        if why:
            who = f"{wanted[answer.redemption_id].voucher}: redemption {answer.redemption_id.hex()}"
            faults.add((1 << 62, number), f"{who} {why}")  # after what the run itself saw
    return len(answers)


def _answer_misfit(expected: Expected, answer: Answered) -> str:
    if answer.first != answer.second:
        return "was asked for twice, and the answers are not the same to the byte"
    if answer.first is None:
        return f"is at {at(expected.place)} in the log, and the gateway knows none" if expected.place else ""
    said = msgspec.json.decode(answer.first, type=Answer)
    if expected.place is None:
        return f"is not in the log, and the gateway answers {said.verdict}"
    if said.verdict != expected.verdict:
        return f"is {expected.verdict} in the log at {at(expected.place)}, and the gateway answers {said.verdict}"
    place = said.position and (said.position.partition, said.position.seq, said.position.index)
    if place != expected.place:
        return f"is at {at(expected.place)} in the log, and the gateway answers {at(place) if place else 'no position'}"
    return ""


def first_place(rows: Sequence[Logged]) -> Logged | None:
    """The record that answers for an id: the first that took effect, else the first of all."""
    return next((row for row in rows if row.verdict in (APPLIED, TOMBSTONED)), rows[0] if rows else None)


def _expected(attempt: Tried, rows: Sequence[Logged], reversed_claims: Collection[bytes]) -> Expected:
    row = first_place(rows)
    voucher = named(attempt.campaign, attempt.serial)
    if row is None:
        return Expected(attempt.redemption_id, voucher, None, None)
    public = PUBLIC[row.verdict]
    verdict = public.name.lower() if public is not None else None
    if row.verdict == APPLIED and row.claim_id in reversed_claims:
        verdict = "reversed"
    return Expected(attempt.redemption_id, voucher, verdict, row.place)


def _says(row: Logged, reversed_claims: Collection[bytes], told: str | None) -> bool:
    """Whether a till may be told this of this record."""
    if row.op == REVERSE and row.verdict in (APPLIED, TOMBSTONED, REPEATED):
        return told == "reversed"
    if told == "reversed" and row.verdict in (APPLIED, REPEATED):
        return row.claim_id in reversed_claims  # asked again after it was taken back
    public = PUBLIC[row.verdict]
    return public is not None and public.name.lower() == told


def _same_voucher(attempt: Tried, row: Logged) -> bool:
    both = attempt.campaign and row.campaign  # a forged code's record names none
    return not both or (row.campaign, row.serial) == (attempt.campaign, attempt.serial)


def _who(attempt: Tried) -> str:
    what = {REDEEM: "redemption", REVERSE: "reversal"}.get(attempt.op, "look-up of")
    return f"{named(attempt.campaign, attempt.serial)}: {what} {attempt.redemption_id.hex()}"
