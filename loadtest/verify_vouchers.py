"""Every voucher's life, replayed from the log by rules of our own, and what Valkey holds of it. Pure.

A voucher's value in Valkey is a row of 32-byte entries: kind, claim id (16), terminal u32, at_ms u48, seq u40. Who
holds it (R redeemed, V voided) comes first, then what is settled, in its order: r reversed, t tombstoned, c lost as a
conflict.
"""

import bisect
import re
import struct
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise

from loadtest.evidence import Campaign, Control, Held
from loadtest.verify_rows import (
    APPLIED,
    BUCKETS,
    CONFLICT,
    IMPORT,
    NOWHERE,
    REDEEM,
    REVERSE,
    TOMBSTONED,
    VOID,
    Buckets,
    Faults,
    Logged,
    Place,
    at,
    logged_rows,
    named,
    serial_bucket,
    word,
)

ENTRY_BYTES = 32
CONFLICTS_BYTES_MAX = 256 * ENTRY_BYTES  # a value this long takes no more conflicts
_ENTRY = struct.Struct(">c16sI6s5s")
_CODE = struct.Struct(">IQ")
_HELD = struct.Struct(">BHI16sH")  # 0 a voucher, 1 a code; partition; campaign; serial or keyed hash; bytes that follow
_KEY = re.compile(rb"\{(\d+)\}(?:v(\d+):(\d+)|r[0-9a-f]{4})")

Subject = tuple[int, bytes]  # campaign and serial (8 bytes), or 0 and a code's keyed hash (16 bytes)


class Life:
    """One voucher or imported code, as far as it was replayed."""

    __slots__ = ("holder", "newest", "partition", "settled", "value")

    def __init__(self, partition: int) -> None:
        self.partition = partition
        self.holder: tuple[bytes, Logged] | None = None  # R or V
        self.settled: list[tuple[bytes, bytes]] = []  # claim id, entry
        self.value: bytes = b""  # of an imported code
        self.newest: Logged | None = None  # the record that changed it last

    def held(self) -> bytes:
        """What Valkey must hold."""
        if self.value:
            return self.value
        holder = _entry(self.holder[0], self.holder[1], self.holder[1]) if self.holder else b""
        return holder + b"".join([entry for _, entry in self.settled]) if self.settled else holder


def _entry(kind: bytes, claim: Logged, made: Logged) -> bytes:
    """`made` is the record that wrote it."""
    stamp = made.at_ms.to_bytes(6, "big"), made.seq.to_bytes(5, "big")
    return _ENTRY.pack(kind, claim.claim_id, claim.terminal, *stamp)


def held_row(held: Held) -> tuple[int, bytes] | None:
    """The bucket and the row of a field in Valkey; None if its key is of no form of ours."""
    match = _KEY.fullmatch(held.key)
    if match is None:
        return None
    partition, campaign, bucket = match.groups()
    if campaign is None:
        if len(held.field) != 16:
            return None
        return held.field[15] % BUCKETS, _HELD.pack(1, int(partition), 0, held.field, len(held.value)) + held.value
    if not held.field.isdigit():
        return None
    serial = int(bucket) * 64 + int(held.field)
    row = _HELD.pack(0, int(partition), int(campaign), serial.to_bytes(16, "big"), len(held.value))
    return serial_bucket(serial), row + held.value


def keep_held(buckets: Buckets, held: Held, faults: Faults) -> None:
    """One field of Valkey into its bucket."""
    found = held_row(held)
    if found is None:
        faults.add((0,), f"Valkey holds the key {held.key.decode(errors='replace')}, which no voucher has")
    else:
        buckets.add(*found)


class Vouchers:
    """Compares one bucket after the other."""

    def __init__(self, control: Control, *, with_valkey: bool) -> None:
        self.twice, self.state, self.conserved = Faults(), Faults(), Faults()  # L1, L4, L10
        self.vouchers = self.codes = self.accepted = self.reversed = self.held = 0
        self.redeemed: Counter[int] = Counter()  # by campaign, as they stand at the end of the log
        self.voided: Counter[int] = Counter()
        self._control, self._with_valkey = control, with_valkey
        self._issued = {number: _spans(campaign) for number, campaign in control.campaigns.items()}

    def compare(self, effects: bytes, held: bytes) -> None:
        """One bucket of the log's effects in order, and of what Valkey holds."""
        lives: dict[Subject, Life] = {}
        for row in logged_rows(effects):
            subject = (0, row.redemption_id) if row.op == IMPORT else (row.campaign, row.serial.to_bytes(8, "big"))
            life = lives.get(subject)
            if life is None:
                life = lives[subject] = Life(row.partition)
            self._apply(life, row)
            life.newest = row
        self._count(lives)
        if self._with_valkey:
            self._compare_held(lives, held)

    # --- L1 ---

    def _apply(self, life: Life, row: Logged) -> None:
        if row.partition != life.partition:
            text = f"{named(row.campaign, row.serial)} has records in partition {life.partition} and at {at(row.place)}"
            self.twice.add((row.at_ms, *row.place), text)
        effect = row.op, row.verdict
        if effect == (REDEEM, APPLIED):
            self._accept(life, row)
        elif effect == (REVERSE, APPLIED):
            self._take_back(life, row)
        elif effect == (REVERSE, TOMBSTONED):
            life.settled.append((row.claim_id, _entry(b"t", row, row)))
        elif effect == (REDEEM, CONFLICT):
            if len(life.held()) < CONFLICTS_BYTES_MAX:
                life.settled.append((row.claim_id, _entry(b"c", row, row)))
        elif effect == (VOID, APPLIED):
            if life.holder is not None:
                text = f"{_whose(row)} was voided at {at(row.place)} while {_standing(life.holder)}"
                self.conserved.add((row.at_ms, *row.place), text)
            life.holder = b"V", row
        elif effect == (IMPORT, APPLIED):
            if life.value:
                text = f"the code of {_whose(row)} was imported a second time at {at(row.place)}"
                self.conserved.add((row.at_ms, *row.place), text)
            life.value = life.value or _CODE.pack(row.campaign, row.serial)
        else:
            text = f"{_whose(row)}: op {row.op} cannot have got {word(row.verdict)} at {at(row.place)}"
            self.twice.add((row.at_ms, *row.place), text)

    def _accept(self, life: Life, row: Logged) -> None:
        self.accepted += 1
        if life.holder is not None:
            self._accepted_twice(row, f"while {_standing(life.holder)}")
        elif life.settled and any(claim_id == row.claim_id for claim_id, _ in life.settled):
            self._accepted_twice(row, "though it had been taken back before")
        life.holder = b"R", row

    def _accepted_twice(self, row: Logged, why: str) -> None:
        who = f"{_whose(row)}: redemption {row.redemption_id.hex()} was accepted at {at(row.place)}"
        self.twice.add((row.at_ms, *row.place), f"{who}, {why}" if why.startswith("though") else f"{who} {why}")

    def _take_back(self, life: Life, row: Logged) -> None:
        self.reversed += 1
        if life.holder is None or life.holder[0] != b"R" or life.holder[1].claim_id != row.claim_id:
            stands = _standing(life.holder) if life.holder else "nothing of it stood"
            text = f"{_whose(row)}: reversal {row.redemption_id.hex()} took effect at {at(row.place)} while {stands}"
            self.twice.add((row.at_ms, *row.place), text)
            return
        life.settled.append((row.claim_id, _entry(b"r", life.holder[1], row)))
        life.holder = None

    # --- L10 ---

    def _count(self, lives: Mapping[Subject, Life]) -> None:
        for (campaign, _), life in lives.items():
            if not campaign:
                self.codes += 1
                number, its_serial = _CODE.unpack(life.value)
                if not self._is_issued(number, its_serial):
                    self._never_issued(number, its_serial, life, "a code of it was imported")
                continue
            self.vouchers += 1
            if life.holder is not None:
                kind = self.redeemed if life.holder[0] == b"R" else self.voided
                kind[campaign] += 1
                its_serial = life.holder[1].serial
                if not self._is_issued(campaign, its_serial):
                    self._never_issued(campaign, its_serial, life, _standing(life.holder))

    def _is_issued(self, campaign: int, serial: int) -> bool:
        starts, ends = self._issued.get(campaign, ((), ()))
        found = bisect.bisect_right(starts, serial)
        return found > 0 and serial < ends[found - 1]

    def _never_issued(self, campaign: int, serial: int, life: Life, why: str) -> None:
        self.conserved.add(_changed(life), f"{named(campaign, serial)} was never issued, and {why}")

    # --- L4 ---

    def _compare_held(self, lives: Mapping[Subject, Life], rows: bytes) -> None:
        theirs = _unpacked(rows)
        self.held += len(theirs)
        for subject in lives.keys() | theirs.keys():
            life = lives.get(subject)
            value = life.held() if life is not None else b""
            ours = (life.partition, value) if life is not None and value else None
            if ours != theirs.get(subject) and not self._is_purged(subject, ours or theirs.get(subject)):
                self.state.add(_changed(life), _difference(subject, life, ours, theirs.get(subject)))

    def _is_purged(self, subject: Subject, held: tuple[int, bytes] | None) -> bool:
        campaign = subject[0] or (int.from_bytes(held[1][:4], "big") if held else 0)
        offer = self._control.campaigns.get(campaign)
        return offer is not None and offer.purged


def _difference(
    subject: Subject, life: Life | None, ours: tuple[int, bytes] | None, theirs: tuple[int, bytes] | None
) -> str:
    who = "an imported code"
    if subject[0]:
        who = named(subject[0], int.from_bytes(subject[1], "big"))
    elif ours is not None:
        who = f"the code of {named(*_CODE.unpack(ours[1]))}"
    where = f", last changed at {at(_changed(life))}" if life is not None else ""
    return f"{who}{where}: the log makes it {_in_words(ours)}, Valkey holds {_in_words(theirs)}"


def _in_words(held: tuple[int, bytes] | None) -> str:
    if held is None:
        return "nothing"
    partition, value = held
    if len(value) % ENTRY_BYTES:
        return f"{len(value)} bytes (partition {partition})"
    names = {b"R": "redeemed", b"V": "voided", b"r": "reversed", b"t": "tombstoned", b"c": "lost"}
    entries = (_ENTRY.unpack_from(value, start) for start in range(0, len(value), ENTRY_BYTES))
    said = [
        f"{names.get(kind, kind)} by {claim.hex()[:8]} in batch {int.from_bytes(seq, 'big')}"
        for kind, claim, _, _, seq in entries
    ]
    return " and ".join(said) + f" (partition {partition})"


def _unpacked(rows: bytes) -> dict[Subject, tuple[int, bytes]]:
    found: dict[Subject, tuple[int, bytes]] = {}
    start = 0
    while start < len(rows):
        is_code, partition, campaign, name, length = _HELD.unpack_from(rows, start)
        start += _HELD.size
        found[campaign, name if is_code else name[8:]] = partition, rows[start : start + length]
        start += length
    return found


def _spans(campaign: Campaign) -> tuple[Sequence[int], Sequence[int]]:
    """Half-open ranges of issued serials, in order; those that overlap are one."""
    starts: list[int] = []
    ends: list[int] = []
    for first, count in sorted(campaign.issued):
        if ends and first <= ends[-1]:
            ends[-1] = max(ends[-1], first + count)
        else:
            starts.append(first)
            ends.append(first + count)
    return starts, ends


def overlap(campaign: Campaign) -> tuple[int, int] | None:
    """Two issues that share serials: their first serials."""
    issued = sorted(campaign.issued)
    for (first, count), (second, _) in pairwise(issued):
        if first + count > second:
            return first, second
    return None


def _changed(life: Life | None) -> Place:
    return life.newest.place if life is not None and life.newest is not None else NOWHERE


def _whose(row: Logged) -> str:
    return named(row.campaign, row.serial)


def _standing(holder: tuple[bytes, Logged]) -> str:
    kind, row = holder
    what = "redemption" if kind == b"R" else "void"
    return f"{what} {row.redemption_id.hex()} at {at(row.place)} stood"
