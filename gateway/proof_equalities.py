"""The proof, pure: what the log says, what tills were told and what Valkey holds are one story, or where they differ.

The log is walked batch by batch and counted here once more, by other code than the one that claims, folds or recovers:
a mistake in those would otherwise prove itself. Only `rebuilt`, the state folded from the log, comes from eventstore.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence

import msgspec

from eventstore.events import APPLIED, REDEEM, REVERSE, Record, iter_records
from eventstore.log import Batch, Head
from eventstore.vouchers import REDEEMED, FoldedState, entries
from gateway.messages import PUBLIC, Position, Verdict

Voucher = tuple[int, int]  # campaign, serial
Hashes = Mapping[bytes, Mapping[bytes, bytes]]
REVERSALS_SAY = {0: Verdict.REVERSED, 1: Verdict.REVERSED, 2: Verdict.REVERSED}  # taken back, tombstoned, repeated


class ToldReversal(msgspec.Struct, frozen=True):
    """One reversal in a till's journal; `verdict` None: not answered."""

    reversal_id: str  # 32 hex digits
    verdict: int | None = None
    place: Position | None = None
    gave_up: bool = False


class Told(msgspec.Struct, frozen=True):
    """One redemption in a till's journal: one line of what `python -m devices.journal` prints."""

    journal: str
    redemption_id: str  # 32 hex digits
    verdict: int | None = None  # the public verdict byte; None: not answered
    place: Position | None = None
    at_ms: int = 0
    reversals: tuple[ToldReversal, ...] = ()


class Equality(msgspec.Struct, frozen=True):
    """One thing that must hold, with the numbers behind it; `difference` names the first place where it does not."""

    name: str
    says: str
    holds: bool
    numbers: dict[str, int]
    difference: str = ""


class Live(msgspec.Struct, frozen=True):
    """What Valkey holds: every hash of every partition, and the heads beside them."""

    hashes: Hashes
    heads: Mapping[int, Head]


class LogFacts:
    """What the log says about redemptions; `take` every voucher batch of every partition, in order."""

    def __init__(self, told: Iterable[Told]) -> None:
        self.verdicts: Counter[int] = Counter()
        self.accepted: set[str] = set()
        self.reversed: set[str] = set()
        self.standing: dict[Voucher, bytes] = {}  # claim id of the redemption that stands
        self.twice: list[Voucher] = []
        self._ids: dict[bytes, str] = {}  # claim id -> redemption id, of accepted ones
        self._expected = _answers(told)
        self.answers_told = len(self._expected)

    def take(self, batch: Batch) -> None:
        """The next batch of its partition. Raises BadPayload."""
        for index, (record, verdict) in enumerate(zip(iter_records(batch.payload), batch.verdicts, strict=True)):
            place = batch.partition, batch.seq, index
            if self._expected.get(place) == (record.redemption_id.hex(), _public(record.op, verdict)):
                del self._expected[place]
            if record.op == REDEEM:
                self.verdicts[verdict] += 1
            if verdict == APPLIED:
                self._take_effect(record)

    def astray(self) -> list[str]:
        """Ids of answers that were told, but do not stand in the log where the till was told they would."""
        return sorted(asked_id for asked_id, _ in self._expected.values())

    def _take_effect(self, record: Record) -> None:
        voucher = record.campaign, record.serial
        if record.op == REDEEM:
            redemption_id = record.redemption_id.hex()
            if voucher in self.standing or redemption_id in self.accepted:
                self.twice.append(voucher)
            self.accepted.add(redemption_id)
            self._ids[record.claim_id] = redemption_id
            self.standing[voucher] = record.claim_id
        elif record.op == REVERSE:
            self.reversed.add(self._ids.get(record.claim_id, ""))
            if self.standing.get(voucher) == record.claim_id:
                del self.standing[voucher]


def _public(op: int, verdict: int) -> int | None:
    """What a till is told of a logged verdict byte."""
    return REVERSALS_SAY.get(verdict, PUBLIC[verdict]) if op == REVERSE else PUBLIC[verdict]


def _answers(told: Iterable[Told]) -> dict[tuple[int, int, int], tuple[str, int]]:
    """Every answered id by the place in the log that the answer named; (0, 0, n) for answers that named none."""
    answers: dict[tuple[int, int, int], tuple[str, int]] = {}
    for one in told:
        asked: list[tuple[str, int | None, Position | None]] = [(one.redemption_id, one.verdict, one.place)]
        asked += [(reversal.reversal_id, reversal.verdict, reversal.place) for reversal in one.reversals]
        for asked_id, verdict, place in asked:
            if verdict is not None:
                at = (place.partition, place.seq, place.index) if place else (0, 0, len(answers))
                answers[at] = asked_id, verdict
    return answers


def equalities(facts: LogFacts, told: Sequence[Told], rebuilt: FoldedState, live: Live) -> list[Equality]:
    """All but the chain itself, whose check comes before anything here may be believed."""
    return [
        _accepted_was_told(facts, told),
        _standing_is_held(facts, live, rebuilt.purged),
        _never_twice(facts),
        _rebuilt_is_live(rebuilt, live),
        _told_is_logged(facts),
    ]


def _accepted_was_told(facts: LogFacts, told: Sequence[Told]) -> Equality:
    heard = {one.redemption_id for one in told if one.verdict == Verdict.ACCEPTED}
    odd = sorted(heard ^ facts.accepted)
    return Equality(
        name="accepted_in_log_is_accepted_at_tills",
        says="accepted in the log = accepted told to tills, id by id",
        holds=not odd,
        numbers={"in the log": len(facts.accepted), "told to tills": len(heard)},
        difference=f"redemption {odd[0]}" if odd else "",
    )


def _standing_is_held(facts: LogFacts, live: Live, purged: frozenset[int]) -> Equality:
    held = redeemed_in(live.hashes)
    held |= {voucher for voucher in facts.standing if voucher[0] in purged}  # on purpose no longer kept
    net = len(facts.accepted) - len(facts.reversed)
    odd = sorted(held ^ set(facts.standing))
    return Equality(
        name="accepted_less_reversed_is_held_in_valkey",
        says="accepted - reversed = held as redeemed in Valkey = distinct vouchers",
        holds=not odd and net == len(held) == len(facts.standing),
        numbers={
            "accepted": len(facts.accepted),
            "reversed": len(facts.reversed),
            "held in Valkey": len(held),
            "distinct vouchers": len(facts.standing),
        },
        difference=f"voucher {odd[0][0]}-{odd[0][1]}" if odd else "",
    )


def _never_twice(facts: LogFacts) -> Equality:
    return Equality(
        name="no_voucher_accepted_twice",
        says="no voucher accepted a second time while its first redemption stood",
        holds=not facts.twice,
        numbers={"accepted twice": len(facts.twice)},
        difference="voucher {}-{}".format(*facts.twice[0]) if facts.twice else "",
    )


def _rebuilt_is_live(rebuilt: FoldedState, live: Live) -> Equality:
    odd = differences(rebuilt.hashes, kept(live.hashes, rebuilt.purged))
    heads = sorted(p for p in rebuilt.heads.keys() | live.heads.keys() if rebuilt.heads.get(p) != live.heads.get(p))
    first = f"partition {heads[0]}'s head" if heads else odd[0] if odd else ""
    return Equality(
        name="state_rebuilt_from_log_is_live_state",
        says="state rebuilt from the log = live state, hash for hash",
        holds=not odd and not heads,
        numbers={"rebuilt": len(rebuilt.hashes), "live": len(live.hashes), "different": len(odd) + len(heads)},
        difference=first,
    )


def _told_is_logged(facts: LogFacts) -> Equality:
    astray = facts.astray()
    return Equality(
        name="every_answer_stands_in_the_log_at_its_place",
        says="every answer told to a till stands in the log, at the place the till was given",
        holds=not astray,
        numbers={"answers told": facts.answers_told, "found": facts.answers_told - len(astray)},
        difference=f"answer to {astray[0]}" if astray else "",
    )


def kept(hashes: Hashes, purged: Collection[int]) -> Hashes:
    """Without purged campaigns: a loss of writes may have brought some of them back, and nobody looks at it."""
    found: dict[bytes, Mapping[bytes, bytes]] = {}
    for key, fields in hashes.items():
        kind, _, rest = key.partition(b"}")[2].partition(b"v")
        if kind:  # a hash of imported codes, each with its campaign
            codes = {code: value for code, value in fields.items() if int.from_bytes(value[:4], "big") not in purged}
            found |= {key: codes} if codes else {}
        elif int(rest.partition(b":")[0]) not in purged:
            found[key] = fields
    return found


def redeemed_in(hashes: Hashes) -> set[Voucher]:
    """The vouchers whose holder is a redemption. Keys are `{p}v<campaign>:<serial / 64>`, see eventstore.vouchers."""
    found = set()
    for key, fields in hashes.items():
        kind, _, rest = key.partition(b"}")[2].partition(b"v")
        if kind:
            continue  # a hash of imported codes
        campaign, _, bucket = rest.partition(b":")
        for field, value in fields.items():
            if entries(value)[0].kind == REDEEMED:
                found.add((int(campaign), int(bucket) * 64 + int(field)))
    return found


def differences(one: Hashes, other: Hashes) -> list[str]:
    """Keys whose hashes are not the same, to the byte; in words, sorted. Keys name vouchers, or 2 bytes of a hash."""
    return [f"key {key.decode()}" for key in sorted(one.keys() | other.keys()) if one.get(key) != other.get(key)]
