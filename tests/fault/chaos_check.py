"""The checker: naive, linear in what happened, sharing no rule with the product but the layout of a record.

It reads the log, the histories of all tills and Valkey's final state, and holds them against each other:

    chain       the log is one intact chain per partition
    state       replayed in the log's order, every logged verdict is what the voucher's state then asked for; in
                particular a voucher is accepted only while nobody holds it: one acceptance, net of reversals
    place       every answer stands in the log where it was told, with that id, voucher, terminal and verdict
    stable      the answers to one id: accepted, then perhaps reversed after a reversal was sent, and never back; of two
                answers that were under way at once, the log says which is the earlier
    winner      who was told to have been first stands in the log before, and had asked before that was told
    order       what was asked after an answer was told comes later in the log than that answer
    good_code   no code of ours is ever refused as unknown, unreadable or anything else it is not
    ghost       nothing is in the log that no till asked for
    valkey      Valkey holds exactly what the log says, to the byte
"""

import heapq
import struct
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from chaos_history import REDEEM, REVERSE, Entry, read

from eventstore.log import CONTROL, Head, LogDamaged
from eventstore.sqlite_file import open_reader
from eventstore.verify import verify

_HEAD = struct.Struct(">BBHIQ")
_RECORD = struct.Struct(">BBBBIQ16s16sIQI")
_ENTRY = struct.Struct(">c16sI6s5s")
OP_REDEEM, OP_REVERSE, OP_IMPORT = 1, 2, 4
ACCEPTED, TOMBSTONED, REPEATED, REVERSED, ALREADY_REDEEMED, TOO_MANY = 0, 1, 2, 3, 21, 22
SETTLED_MAX = 10
TOLD_OF_REDEEM = {0: 0, 2: 0, 1: 3, 3: 3}  # logged byte -> what a till hears; others as they are
TOLD_OF_REVERSE = {0: 3, 1: 3, 2: 3, 3: 3}
REDEEM_MAY = {ACCEPTED, REVERSED, ALREADY_REDEEMED, TOO_MANY}
REVERSE_MAY = {REVERSED, TOO_MANY}

Place = tuple[int, int, int]
Held = tuple[bytes, bytes, int, int, int]  # kind, claim id, terminal, at_ms, seq


@dataclass(slots=True)
class Life:
    """One voucher, replayed."""

    partition: int
    holder: Held | None = None
    settled: list[Held] = field(default_factory=list)
    accepted: list[tuple[Place, int, int, bytes]] = field(default_factory=list)  # place, terminal, at_ms, id

    def value(self) -> bytes:
        rows = [*([self.holder] if self.holder else []), *self.settled]
        packed = ((k, c, t, at.to_bytes(6, "big"), seq.to_bytes(5, "big")) for k, c, t, at, seq in rows)
        return b"".join(_ENTRY.pack(*row) for row in packed)


@dataclass(slots=True)
class Asked:
    """One id, as the tills know it."""

    kind: int
    serial: int
    other_id: bytes
    sent_s: float
    floor: dict[int, int]  # the highest batch of each partition that anybody had been told of
    terminal: int
    last: int | None = None  # the newest answer in the log's order, where that stands, and when it was heard
    last_place: Place = (0, 0, 0)
    heard_s: float = 0.0


@dataclass
class Found:
    """What came of the check."""

    batches: int = 0
    records: int = 0
    answers: int = 0
    accepted: int = 0
    vouchers: int = 0
    violations: list[tuple[str, str, int | None]] = field(default_factory=list)  # rule, what, serial

    def add(self, rule: str, what: str, serial: int | None = None) -> None:
        self.violations.append((rule, what, serial))

    def add_all(self, other: "Found") -> None:
        """Count another check's in."""
        self.batches += other.batches
        self.records += other.records
        self.answers += other.answers
        self.accepted += other.accepted
        self.vouchers += other.vouchers
        self.violations += other.violations

    def by_rule(self) -> dict[str, int]:
        return dict(Counter(rule for rule, _, _ in self.violations))


class Checker:
    def __init__(self, log_path: Path, histories: Mapping[int, Path], campaign: int) -> None:
        """`histories`: by terminal number."""
        self._log_path, self._histories, self._campaign = log_path, histories, campaign
        self.found = Found()
        self._batches: dict[int, list[tuple[bytes, bytes]]] = {}
        self._lives: dict[int, Life] = {}
        self._codes: dict[int, dict[bytes, bytes]] = {}
        self._heads: dict[int, Head] = {}
        self._asked: dict[bytes, Asked] = {}

    async def check_log(self) -> None:
        """The chain, then every verdict replayed."""
        reader = open_reader(self._log_path)
        try:
            whole = await verify(reader, lambda partition, seq, head_seq: None)
            self.found.batches, self.found.records = whole.batches, whole.records
            self._heads = {partition: head for partition, head in whole.heads.items() if partition != CONTROL}
            for partition in self._heads:
                rows = self._batches[partition] = []
                while batches := await reader.read(partition, len(rows) + 1, 500):
                    rows += [(batch.payload, batch.verdicts) for batch in batches]
        except LogDamaged as error:
            self.found.add("chain", str(error))
        finally:
            await reader.close()
        for partition, rows in self._batches.items():
            for seq, (payload, verdicts) in enumerate(rows, 1):
                self._replay(partition, seq, payload, verdicts)
        self.found.vouchers = len(self._lives)

    def _replay(self, partition: int, seq: int, payload: bytes, verdicts: bytes) -> None:
        _, _, _, count, at_ms = _HEAD.unpack_from(payload)
        for index in range(count):
            row = _RECORD.unpack_from(payload, _HEAD.size + index * _RECORD.size)
            op, _, _, _, campaign, serial, own_id, claim_id, terminal, _, _ = row
            verdict, place = verdicts[index], (partition, seq, index)
            if op == OP_IMPORT:
                if verdict == ACCEPTED:
                    self._codes.setdefault(partition, {})[own_id] = struct.pack(">IQ", campaign, serial)
            elif campaign == self._campaign:
                life = self._lives.setdefault(serial, Life(partition))
                why = _apply(life, op, verdict, claim_id, terminal, at_ms, place, own_id)
                if why:
                    self.found.add("state", f"{_at(place)}: verdict {verdict}, but {why}", serial)

    def check_histories(self) -> None:
        """Everything tills were told, in the order of time."""
        told: dict[int, int] = {}
        for entry, terminal in _by_time(self._histories):
            if entry.kind in (REDEEM, REVERSE):
                serial = entry.seq
                if entry.kind == REVERSE and entry.other_id in self._asked:
                    serial = self._asked[entry.other_id].serial
                asked = Asked(entry.kind, serial, entry.other_id, entry.at_s, told, terminal)
                self._asked[entry.asked_id] = asked
                continue
            self.found.answers += 1
            self._check_told(entry, self._asked[entry.asked_id])
            if entry.seq > told.get(entry.partition, 0):
                told = {**told, entry.partition: entry.seq}  # those asked since the last one share it
        self._check_ghosts()

    def _check_told(self, entry: Entry, asked: Asked) -> None:
        add, serial, who = self.found.add, asked.serial, entry.asked_id.hex()
        place = entry.partition, entry.seq, entry.index
        logged = self._record_at(place)
        if logged is None:
            add("place", f"{who} was told {entry.code} at {_at(place)}, where the log has nothing", serial)
        else:
            op, own_id, terminal, logged_serial, verdict = logged
            public = (TOLD_OF_REDEEM if asked.kind == REDEEM else TOLD_OF_REVERSE).get(verdict, verdict)
            if (op, own_id, terminal, public) != (asked.kind, entry.asked_id, asked.terminal, entry.code):
                add("place", f"{who} was told {entry.code} at {_at(place)}, the log has {logged} there", serial)
            elif logged_serial != serial:
                add("good_code", f"{who} is logged as of {logged_serial} at {_at(place)}", serial)
        if entry.code not in (REDEEM_MAY if asked.kind == REDEEM else REVERSE_MAY):
            add("good_code", f"{who} was told {entry.code} at {_at(place)}", serial)
        if place > asked.last_place or entry.asked_s > asked.heard_s:  # else an earlier answer, on a slower way
            if asked.last in (ACCEPTED, REVERSED) and entry.code != asked.last and entry.code != REVERSED:
                add("stable", f"{who} was told {asked.last}, then {entry.code} at {_at(place)}", serial)
            asked.last, asked.last_place, asked.heard_s = entry.code, place, entry.at_s
        elif entry.code in (ACCEPTED, REVERSED) and asked.last not in (entry.code, REVERSED):
            add("stable", f"{who} was told {entry.code} at {_at(place)}, and {asked.last} behind that", serial)
        if entry.seq <= asked.floor.get(entry.partition, 0):
            floor = asked.floor[entry.partition]
            add("order", f"{who} was sent after batch {floor} had been told, but stands at {_at(place)}", serial)
        if entry.code == ALREADY_REDEEMED:
            self._check_winner(entry, asked, place)
        self.found.accepted += entry.code == ACCEPTED

    def _check_winner(self, entry: Entry, asked: Asked, place: Place) -> None:
        if not entry.winner_ms:  # nobody could tell just then which campaign a typed code is of, and who may know
            return
        life = self._lives.get(asked.serial)
        for at, terminal, at_ms, own_id in life.accepted if life else ():
            if (
                at < place
                and (terminal, at_ms) == (entry.winner_terminal, entry.winner_ms)
                and own_id != entry.asked_id
            ):
                winner = self._asked.get(own_id)
                if winner is not None and winner.sent_s <= entry.at_s:
                    return
        named = f"till {entry.winner_terminal} at {entry.winner_ms}"
        self.found.add(
            "winner", f"{entry.asked_id.hex()} was told at {_at(place)} that {named} was first", asked.serial
        )

    def _record_at(self, place: Place) -> tuple[int, bytes, int, int, int] | None:
        partition, seq, index = place
        rows = self._batches.get(partition, [])
        if not 0 < seq <= len(rows) or index >= len(rows[seq - 1][1]):
            return None
        payload, verdicts = rows[seq - 1]
        row = _RECORD.unpack_from(payload, _HEAD.size + index * _RECORD.size)
        return row[0], row[6], row[8], row[5], verdicts[index]

    def _check_ghosts(self) -> None:
        for serial, life in self._lives.items():
            for place, _, _, own_id in life.accepted:
                if own_id not in self._asked:
                    self.found.add("ghost", f"{_at(place)}: nobody sent {own_id.hex()}", serial)

    def check_valkey(self, hashes: Mapping[bytes, Mapping[bytes, bytes]], heads: Mapping[int, Head]) -> None:
        """Everything Valkey holds but its redis streams."""
        expected: dict[bytes, dict[bytes, bytes]] = {}
        for serial, life in self._lives.items():
            if value := life.value():
                key = b"{%d}v%d:%d" % (life.partition, self._campaign, serial >> 6)
                expected.setdefault(key, {})[b"%d" % (serial & 63)] = value
        for partition, codes in self._codes.items():
            for keyed_hash, value in codes.items():
                key = b"{%d}r%s" % (partition, keyed_hash[:2].hex().encode())
                expected.setdefault(key, {})[keyed_hash] = value
        for key in sorted(expected.keys() | hashes.keys()):
            if expected.get(key) != hashes.get(key):
                self.found.add("valkey", f"{key.decode()} differs: {expected.get(key)} in the log, {hashes.get(key)}")
        for partition, head in self._heads.items():
            if heads.get(partition) != head:
                self.found.add("valkey", f"partition {partition}: the log ends at {head}, {heads.get(partition)}")

    def history_of(self, serial: int) -> list[str]:
        """Everything known of one voucher: the log's records, and what tills sent and heard, in their order of time."""
        lines = []
        for partition, rows in self._batches.items():
            for seq, (payload, verdicts) in enumerate(rows, 1):
                for index, verdict in enumerate(verdicts):
                    row = _RECORD.unpack_from(payload, _HEAD.size + index * _RECORD.size)
                    if (row[4], row[5]) == (self._campaign, serial) and row[0] != OP_IMPORT:
                        op = {OP_REDEEM: "redeem", OP_REVERSE: "reverse"}.get(row[0], row[0])
                        text = f"{op} {row[6].hex()} claim {row[7].hex()} terminal {row[8]}: {verdict}"
                        lines.append(f"log {_at((partition, seq, index))} {text}")
        ids = {own_id for own_id, asked in self._asked.items() if asked.serial == serial}
        for entry, till in _by_time(self._histories):
            if entry.asked_id in ids:
                lines.append(f"{entry.at_s:.6f} till {till} {_in_words(entry)}")
        return lines


def _apply(
    life: Life, op: int, verdict: int, claim: bytes, terminal: int, at_ms: int, place: Place, own_id: bytes
) -> str:
    """One record on a voucher: why its verdict cannot be, or nothing."""
    holds = life.holder is not None and life.holder[1] == claim
    is_settled = any(row[1] == claim for row in life.settled)
    if op == OP_REDEEM:
        if verdict == ACCEPTED:
            life.accepted.append((place, terminal, at_ms, own_id))
            wrong = "it was held" if life.holder else "this id was settled" if is_settled else ""
            life.holder = b"R", claim, terminal, at_ms, place[1]
            return wrong
        if verdict == REPEATED:
            return "" if holds else "this id does not hold it"
        if verdict == REVERSED:
            return "" if is_settled else "this id was never reversed"
        if holds or is_settled:
            return "this id has its answer"
        if verdict == ALREADY_REDEEMED:
            return "" if life.holder else "nobody holds it"
        return _refusal(life, verdict)
    if verdict == ACCEPTED:
        if not holds or life.holder is None:
            return "this id does not hold it"
        life.settled.append((b"r", claim, life.holder[2], at_ms, place[1]))
        life.holder = None
    elif verdict == TOMBSTONED:
        life.settled.append((b"t", claim, terminal, at_ms, place[1]))
        return "this id was there" if holds or is_settled else ""
    elif verdict == REPEATED:
        return "" if is_settled else "this id was never reversed"
    elif holds or is_settled:
        return "this id could be reversed"
    else:
        return _refusal(life, verdict)
    return ""


def _refusal(life: Life, verdict: int) -> str:
    worn_out = len(life.settled) + (life.holder is not None) >= SETTLED_MAX
    return "it is not worn out" if verdict == TOO_MANY and not worn_out else ""


def _by_time(histories: Mapping[int, Path]) -> Iterator[tuple[Entry, int]]:
    def of(terminal: int, path: Path) -> Iterator[tuple[Entry, int]]:
        return ((entry, terminal) for entry in read(path))

    return heapq.merge(*(of(*pair) for pair in histories.items()), key=lambda pair: pair[0].at_s)


def _at(place: Place) -> str:
    return "{}/{}/{}".format(*place)


def _in_words(entry: Entry) -> str:
    if entry.kind == REDEEM:
        return f"sends redeem {entry.asked_id.hex()}"
    if entry.kind == REVERSE:
        return f"sends reverse {entry.asked_id.hex()} of {entry.other_id.hex()}"
    winner = f", first was till {entry.winner_terminal} at {entry.winner_ms}" if entry.winner_ms else ""
    return f"hears {entry.code} for {entry.asked_id.hex()} at {_at((entry.partition, entry.seq, entry.index))}{winner}"
