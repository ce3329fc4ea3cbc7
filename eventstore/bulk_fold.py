"""The fold of voucher state for millions of records: the same result as eventstore.vouchers, column by column. Pure.

Theory. `vouchers.apply_batch` takes a record apart and works out its voucher's value at once. Here nothing is done to
one record. Some ten thousand of them at a time become an array, whose columns (numpy) are looked at as a whole: what
each record did, by a table of op and verdict; which are of this slice; and for these a row of 44 bytes, the voucher and
the one entry that its record would leave. Rows are dealt into 256 buckets by a mix of campaign and serial, so that what
is sorted later fits the caches whatever the serials are; 64 neighbours stay together.

When all is known, each bucket is sorted by voucher, events of one in their order. Then hashes (64 neighbours) lie side
by side, and two events on one voucher do, too. Nearly every voucher has one event in its life: its row is its value,
and the hash is cut out of the sorted bytes as it stands (eventstore.finished). Only a hash with a voucher that has more
of a history (reversed, tombstoned, in conflict) is worked out voucher by voucher, by the same `next_value`.

A fold may cover a slice of the vouchers only, so that several processes share the work and memory stays bounded.
"""

from collections import Counter
from collections.abc import Collection, Iterator
from struct import Struct

import msgspec
import numpy as np
from numpy.typing import NDArray

from eventstore.events import APPLIED, CONFLICT, HEADER_BYTES, IMPORT, RECORD_BYTES, REDEEM, REVERSE, TOMBSTONED, VOID
from eventstore.finished import PIECE_BYTES, SLICES_MAX, Fields, Finished
from eventstore.log import EMPTY_HEAD, Batch, Head, LogDamaged
from eventstore.outcomes import Scan, counted
from eventstore.vouchers import checked_head, next_value

BUCKETS = 256
LOOSE_RECORDS_MAX = 16_384  # 1.5 MB, which fit the caches; dealt in some 3 ms, for which an event loop can wait

# As in events.RECORD. The byte that slices are told by is bits 8 to 15 of the serial.
_RECORD = np.dtype(
    {
        "names": ["op", "campaign", "serial", "registry", "slice", "code", "claim"],
        "formats": ["u1", ">u4", ">u8", "V12", "u1", "V16", "V20"],  # claim: claim_id and terminal
        "offsets": [0, 4, 8, 4, 14, 16, 32],
        "itemsize": RECORD_BYTES,
    }
)
_ROW = np.dtype(
    {
        "names": ["campaign", "serial", "kind", "claim", "stamp", "entry"],
        "formats": ["u4", "u8", "u1", "V20", "V11", "V32"],  # entry: kind, claim and stamp
        "offsets": [0, 4, 12, 13, 33, 12],
        "itemsize": 44,
    }
)
_WHOLE_ROW = np.dtype(f"V{_ROW.itemsize}")
_PIECE = np.dtype([("field", "u1"), ("behind_field", "u1"), ("string", "u1"), ("entry", "V32"), ("behind", "u1")])
_IMPORT = np.dtype([("code", "V16"), ("registry", "V12"), ("batch", "u4")])
_ENTRIES = Struct("B2xc20s11sx")  # of a piece: field, kind, claim, stamp
_IMPORTS = Struct("=16s12sI")
_KINDS = {(REDEEM, APPLIED): b"R", (VOID, APPLIED): b"V", (REVERSE, APPLIED): b"r", (REVERSE, TOMBSTONED): b"t"}
_KINDS[REDEEM, CONFLICT] = b"c"
_KINDS[IMPORT, APPLIED] = b"i"
_PAIRS = {kind: pair for pair, kind in _KINDS.items()}
_NO_EFFECT, _IMPOSSIBLE, _IMPORTED = 0, 1, ord("i")
_MIX = np.uint64(0x9E3779B97F4A7C15)  # 2**64 / golden ratio: the top byte of a product has something of all bits below
_Bytes = NDArray[np.uint8]
_Rows = NDArray[np.void]


def _kind_table() -> _Bytes:
    """What a record did, by op and verdict: a letter, or nothing; _IMPOSSIBLE for what no claim ever says."""
    table = np.full((256, 256), _NO_EFFECT, np.uint8)
    table[:, [APPLIED, TOMBSTONED, CONFLICT]] = _IMPOSSIBLE
    for (op, verdict), kind in _KINDS.items():
        table[op, verdict] = kind[0]
    return table.ravel()


def _told(letters: bytes) -> NDArray[np.bool_]:
    return np.isin(np.arange(256), list(letters))


_KIND_TABLE = _kind_table()
_ON_VOUCHERS, _STRANGE = _told(b"RVrtc"), _told(b"rc")  # strange: more than a value at its end


class Slice(msgspec.Struct, frozen=True):
    """One of `of` parts of all vouchers of a partition."""

    number: int = 0
    of: int = 1


WHOLE = Slice()


class BulkFold:
    """What Valkey must hold for one slice of one partition, after the batches that were applied."""

    def __init__(
        self,
        partition: int,
        mine: Slice = WHOLE,
        head: Head = EMPTY_HEAD,
        *,
        purged: Collection[int] = (),
        is_counting: bool = True,
    ) -> None:
        """`purged`: campaigns that are no longer kept: their codes may have been imported again since.

        `is_counting`: whether anybody wants `counts`.
        """
        assert 0 <= mine.number < mine.of <= SLICES_MAX, f"slice {mine}"
        self.partition, self.head = partition, head
        self.counts: Counter[Scan] = Counter()  # op, campaign, terminal, verdict: what counters are made of
        self._is_counting = is_counting and mine.number == 0
        self._purged = frozenset(purged)
        self._gone = frozenset(campaign.to_bytes(4, "big") for campaign in purged)  # as a code's value begins
        self._mine = np.arange(256) % mine.of == mine.number
        self._loose: list[tuple[bytes, bytes, bytes]] = []  # of each batch: its records, verdicts, and stamp
        self._loose_records = 0
        self._packed: list[list[bytes]] = [[] for _ in range(BUCKETS)]  # rows side by side, in order
        self._packed_rows = 0
        self._base: dict[bytes, bytes | Fields] = {}  # put in as finished before, by key
        self._codes: dict[bytes, Fields] = {}  # by the first two bytes of the keyed hash

    # --- putting in ---

    def apply(self, batch: Batch) -> None:
        """The next batch of the partition. Raises LogDamaged where it, or one a little before it, cannot follow."""
        if batch.seq != self.head.seq + 1 or batch.prev != self.head.tip:
            raise LogDamaged(batch.partition, batch.seq, f"does not follow batch {self.head.seq}")
        count, received_ms = checked_head(batch)
        self.head = Head(batch.seq, batch.tip)
        if not count:
            return
        if self._is_counting:  # each batch is counted once, whoever folds which slice
            self.counts.update(counted(batch, count))
        records = batch.payload[HEADER_BYTES : HEADER_BYTES + count * RECORD_BYTES]
        stamp = received_ms.to_bytes(6, "big") + batch.seq.to_bytes(5, "big")
        self._loose.append((records, batch.verdicts, stamp))
        self._loose_records += count
        if self._loose_records >= LOOSE_RECORDS_MAX:
            self._pack()

    def _pack(self) -> None:
        """Deal what is loose into buckets. Raises LogDamaged."""
        if not self._loose:
            return
        in_batches, verdicts_of, stamps_of = zip(*self._loose, strict=True)
        self._loose, self._loose_records = [], 0
        records = np.frombuffer(b"".join(in_batches), _RECORD)
        verdicts = np.frombuffer(b"".join(verdicts_of), np.uint8)
        stamps = np.frombuffer(b"".join(stamps_of), "V11")
        batch_of = np.repeat(np.arange(len(stamps), dtype=np.uint32), list(map(len, verdicts_of)))
        kinds = _KIND_TABLE[records["op"].astype(np.uint16) << 8 | verdicts]
        if self._purged:
            kinds[np.isin(records["campaign"], list(self._purged))] = _NO_EFFECT
        if (kinds == _IMPOSSIBLE).any():
            at = int(np.argmax(kinds == _IMPOSSIBLE))
            why = f"op {records['op'][at]} cannot have had verdict {verdicts[at]}"
            raise LogDamaged(self.partition, _seq_in(stamps[batch_of[at]].tobytes()), why)
        if (kinds == _IMPORTED).any():
            self._import(records, stamps, batch_of, np.flatnonzero(kinds == _IMPORTED))
        chosen = np.flatnonzero(_ON_VOUCHERS[kinds] & self._mine[records["slice"]])
        buckets = buckets_of(records["campaign"][chosen], records["serial"][chosen])
        order = chosen[np.argsort(buckets, kind="stable")]
        rows = np.empty(len(order), _ROW)
        for column in ("campaign", "serial", "claim"):
            rows[column] = records[column][order]
        rows["kind"], rows["stamp"] = kinds[order], stamps[batch_of[order]]
        self._packed_rows += len(rows)
        packed, at = rows.tobytes(), 0
        for bucket, count in enumerate(np.bincount(buckets, minlength=BUCKETS).tolist()):
            if count:
                self._packed[bucket].append(packed[at : at + count * _ROW.itemsize])
                at += count * _ROW.itemsize

    def _import(self, records: _Rows, stamps: _Rows, batch_of: NDArray[np.uint32], places: NDArray[np.intp]) -> None:
        found = np.empty(len(places), _IMPORT)
        found["code"], found["registry"] = records["code"][places], records["registry"][places]
        found["batch"] = batch_of[places]
        for code, voucher, batch in _IMPORTS.iter_unpack(found.tobytes()):
            if self._mine[code[0]]:
                held = self._codes.setdefault(code[:2], {})
                if code in held:
                    why = "an import of a code that was known took effect"
                    raise LogDamaged(self.partition, _seq_in(stamps[batch].tobytes()), why)
                held[code] = voucher

    def put(self, key: bytes, held: bytes | Fields) -> None:
        """A hash as it was finished before, by a fold of the same slice that ended at the head this one began with.

        It may come before the batches or behind them. Raises LogDamaged.
        """
        _, _, rest = key.partition(b"}")
        if rest[:1] == b"r":
            assert isinstance(held, dict), "codes are kept by field"
            held = {code: value for code, value in held.items() if value[:4] not in self._gone} if self._gone else held
            if not held:
                return
            self._pack()
            prefix = bytes.fromhex(rest[1:].decode())
            since = self._codes.get(prefix, {})
            if since.keys() & held.keys():
                raise LogDamaged(self.partition, self.head.seq, "an import of a code that was known took effect before")
            self._codes[prefix] = held | since
        elif not self._purged or _campaign_and_row(key)[0] not in self._purged:
            self._base[key] = held

    # --- taking out ---

    def keys(self) -> set[bytes]:
        """Of every hash in which something happened, and of those that were put in. Raises LogDamaged."""
        self._pack()
        found = {*self._base, *map(self._key_of_codes, self._codes)}
        for packed in self._groups():
            rows = np.frombuffer(b"".join(packed), _ROW)
            found.update(self._keys(_in_order(rows)))
        return found

    def finished(self) -> Iterator[list[Finished]]:
        """Every hash, many at a time; each is let go of as it is told. Raises LogDamaged, also while gone through."""
        self._pack()
        return self._finished()

    def _groups(self) -> list[list[bytes]]:
        """What is to be sorted together: a bucket, or everything where it is little."""
        if self._packed_rows > LOOSE_RECORDS_MAX:
            return [packed for packed in self._packed if packed]
        return [[rows for packed in self._packed for rows in packed]]

    def _finished(self) -> Iterator[list[Finished]]:
        for packed in self._groups():
            rows = np.frombuffer(b"".join(packed), _ROW)
            packed.clear()
            yield self._hashes(_in_order(rows))
        while self._base:  # nothing happened to these
            yield [self._base.popitem()]
        while self._codes:
            prefix, codes = self._codes.popitem()
            yield [(self._key_of_codes(prefix), codes)]

    def _hashes(self, rows: _Rows) -> list[Finished]:
        """Of rows in their order."""
        starts, keys = _starts_of(rows), self._keys(rows)
        again = ~_changes(rows, rows["serial"])
        again |= _STRANGE[rows["kind"]]
        odd = np.zeros(len(starts), np.bool_)
        odd[np.searchsorted(starts, np.flatnonzero(again), side="right") - 1] = True
        pieces = np.empty(len(rows), _PIECE)
        pieces["field"], pieces["entry"] = rows["serial"] & 63, rows["entry"]
        pieces["behind_field"], pieces["string"], pieces["behind"] = 1, 0xA0, 33
        blob = pieces.tobytes()
        cuts = [*(starts * PIECE_BYTES).tolist(), len(blob)]
        found: list[Finished] = [(key, blob[start:end]) for key, start, end in zip(keys, cuts, cuts[1:], strict=False)]
        for at in np.flatnonzero(odd).tolist():
            if keys[at] not in self._base:
                found[at] = keys[at], self._worked_out(keys[at], blob[cuts[at] : cuts[at + 1]], {})
        for at, key in enumerate(keys) if self._base else ():
            if key in self._base:
                held = self._on_top(key, self._base.pop(key), blob[cuts[at] : cuts[at + 1]], is_odd=bool(odd[at]))
                found[at] = key, held
        return found

    def _on_top(self, key: bytes, held: bytes | Fields, since: bytes, *, is_odd: bool) -> bytes | Fields:
        if isinstance(held, dict):
            return self._worked_out(key, since, {int(field): value for field, value in held.items()})
        if is_odd or not set(held[::PIECE_BYTES]).isdisjoint(since[::PIECE_BYTES]):
            return self._worked_out(key, held + since, {})
        return held + since

    def _keys(self, rows: _Rows) -> list[bytes]:
        """Of the hashes of rows in their order."""
        starts = _starts_of(rows)
        campaigns = rows["campaign"][starts].tolist()
        before = {campaign: b"{%d}v%d:" % (self.partition, campaign) for campaign in set(campaigns)}
        numbers = (rows["serial"][starts] >> 6).tolist()
        return [b"%b%d" % (before[campaign], number) for campaign, number in zip(campaigns, numbers, strict=True)]

    def _key_of_codes(self, prefix: bytes) -> bytes:
        return b"{%d}r%s" % (self.partition, prefix.hex().encode())

    def _worked_out(self, key: bytes, pieces: bytes, held: dict[int, bytes]) -> Fields:
        values = dict(held)
        for field, kind, claim, stamp in _ENTRIES.iter_unpack(pieces):
            op, verdict = _PAIRS[kind]
            value = next_value(values.get(field, b""), op, verdict, claim, stamp)
            if value is None:
                campaign, row = _campaign_and_row(key)
                why = f"op {op} cannot have had verdict {verdict} on voucher {campaign}-{row * 64 + field}"
                raise LogDamaged(self.partition, _seq_in(stamp), why)
            values[field] = value
        return {b"%d" % field: value for field, value in values.items()}


def buckets_of(campaigns: NDArray[np.uint32], serials: NDArray[np.uint64]) -> _Bytes:
    """The same of 64 neighbours; never by the bits that slices are told by alone, or a slice would be one bucket."""
    mixed = (serials.astype(np.uint64) >> np.uint64(6) ^ campaigns.astype(np.uint64) << np.uint64(32)) * _MIX
    return (mixed >> np.uint64(56)).astype(np.uint8)


def _taken(rows: _Rows, places: NDArray[np.intp]) -> _Rows:
    whole: _Rows = rows.view(_WHOLE_ROW)[places]  # field by field it takes fifteen times as long
    return whole.view(_ROW)


def _in_order(rows: _Rows) -> _Rows:
    """By campaign, then serial; events of one voucher as they came."""
    if not len(rows):
        return rows
    campaigns, serials = rows["campaign"].astype(np.uint64), rows["serial"]
    campaign_bits, serial_bits = int(campaigns.max()).bit_length(), int(serials.max()).bit_length()
    place_bits = len(rows).bit_length()
    if campaign_bits + serial_bits + place_bits > 64:
        return _taken(rows, np.lexsort((serials, campaigns)))
    # Numbers are sorted several times as fast as places are by them, so each takes its place along.
    numbers = campaigns << np.uint64(serial_bits + place_bits) | serials << np.uint64(place_bits)
    numbers |= np.arange(len(rows), dtype=np.uint64)
    numbers.sort()
    return _taken(rows, (numbers & np.uint64((1 << place_bits) - 1)).astype(np.intp))


def _changes(rows: _Rows, numbers: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Whether a row's number, or its campaign, is another one than that of the row before it."""
    changes = np.ones(len(rows), np.bool_)
    changes[1:] = (numbers[1:] != numbers[:-1]) | (rows["campaign"][1:] != rows["campaign"][:-1])
    return changes


def _starts_of(rows: _Rows) -> NDArray[np.intp]:
    """Where each hash begins in rows in their order."""
    return np.flatnonzero(_changes(rows, rows["serial"] >> np.uint64(6)))


def _seq_in(stamp: bytes) -> int:
    return int.from_bytes(stamp[6:], "big")


def _campaign_and_row(key: bytes) -> tuple[int, int]:
    campaign, _, row = key.partition(b"}v")[2].partition(b":")
    return int(campaign), int(row)
