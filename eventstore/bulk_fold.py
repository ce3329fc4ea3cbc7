"""The fold of voucher state for millions of records: the same result as eventstore.vouchers, column by column. Pure.

Theory. `vouchers.apply_batch` takes a record apart and works out its voucher's value at once. Here a batch becomes rows
without looking at single records: record fields lie 64 bytes apart, so each of their bytes is a column that one slice
gives and one slice assignment puts in place. A row is the name of the hash (campaign, serial / 64) and a piece of 36
bytes, which says what happened to which of its vouchers; the only work per record is to append the piece to its hash.
A piece has the form of a field and a value in Valkey's own encoding (a listpack: integers of 7 bits and strings below
64 bytes, each with its length behind it), and nearly every voucher has one event in its life. So when a hash is
finished, the pieces side by side ARE what Valkey keeps, and are written as they stand. Only a hash with a voucher that
has more of a history (reversed, tombstoned, in conflict) is worked out voucher by voucher, by the same `next_value`.

Appending to one of a million hashes misses every cache there is. So rows are first thrown into 256 buckets by a byte of
their name, packed there, and each bucket is put together when all is known: half the time (measured for 2 million).

A fold may cover a slice of the vouchers only, so that several processes share the work and memory stays bounded.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from itertools import compress
from struct import Struct

import msgspec

from eventstore.events import APPLIED, CONFLICT, HEADER_BYTES, IMPORT, RECORD_BYTES, REDEEM, REVERSE, TOMBSTONED, VOID
from eventstore.log import EMPTY_HEAD, Batch, Head, LogDamaged
from eventstore.outcomes import Scan, counted
from eventstore.vouchers import ENTRY_BYTES, REGISTRY_VALUE, checked_head, next_value

PIECE_BYTES = 36
BUCKETS = 256
LOOSE_ROWS_MAX = 200_000  # some 20 MB as objects of their own; packed, a row takes 48 bytes
SLICES_MAX = 256  # a slice is told by one byte of the serial
Fields = dict[bytes, bytes]
Finished = tuple[bytes, bytes | Fields]
"""A hash's key in Valkey, and what it holds: pieces side by side if each is a whole value, else values by field."""

_NAME_BYTES = 12  # campaign u32, serial u64 without its lowest 6 bits
_ROW_BYTES = _NAME_BYTES + PIECE_BYTES
_ROW = Struct(f"{_NAME_BYTES}s{PIECE_BYTES}s")
_WHOLE_ROW = Struct(f"{_ROW_BYTES}s")
_NAMES = Struct(f"{_NAME_BYTES}s{PIECE_BYTES}x")
_BUCKET_AT = 10  # of a name: bits 8 to 15 of the serial, so that neighbours stay together
_PIECE = Struct("BBBc20s11sB")  # field, its length 1; string of 32; kind; claim_id + terminal; at_ms + seq; 33
_SERIAL_LAST = HEADER_BYTES + 15  # of the first record: see events.RECORD
_SLICED_BY = HEADER_BYTES + 14  # neighbours of 256 serials stay together
# (where a column lies in a payload, where in the rows): campaign and serial but its last byte; claim_id and terminal
_COLUMNS = tuple(
    [(HEADER_BYTES + 4 + n, n) for n in range(_NAME_BYTES - 1)] + [(HEADER_BYTES + 32 + n, 16 + n) for n in range(20)]
)
_FIELD = bytes(byte & 63 for byte in range(256))
_NAME_END = bytes(byte & 192 for byte in range(256))
_KINDS = {(REDEEM, APPLIED): b"R", (VOID, APPLIED): b"V", (REVERSE, APPLIED): b"r", (REVERSE, TOMBSTONED): b"t"}
_KINDS[REDEEM, CONFLICT] = b"c"
_KINDS[IMPORT, APPLIED] = b"i"
_KIND_BYTES = {pair: kind[0] for pair, kind in _KINDS.items()}
_KIND_OF = {ord(kind): (op, verdict) for (op, verdict), kind in _KINDS.items()}
_UNDONE, _LOST = ord("r"), ord("c")
_NO_EFFECT, _IMPOSSIBLE, _IMPORTED = 0, 1, ord("i")


class Slice(msgspec.Struct, frozen=True):
    """One of `of` parts of all vouchers of a partition."""

    number: int = 0
    of: int = 1


WHOLE = Slice()


class BulkFold:
    """What Valkey must hold for one slice of one partition, after the batches that were applied."""

    def __init__(
        self, partition: int, mine: Slice = WHOLE, head: Head = EMPTY_HEAD, *, is_counting: bool = True
    ) -> None:
        """`is_counting`: whether anybody wants `counts`, a tenth of the work."""
        assert 0 <= mine.number < mine.of <= SLICES_MAX, f"slice {mine}"
        self.partition, self.head = partition, head
        self.counts: Counter[Scan] = Counter()  # op, campaign, terminal, verdict: what counters are made of
        self._mine = mine
        self._is_counting = is_counting and mine.number == 0
        self._selects = bytes(byte % mine.of == mine.number for byte in range(256))
        self._loose: list[list[bytes]] = [[] for _ in range(BUCKETS)]  # rows, in order
        self._loose_rows = 0
        self._packed: list[list[bytes]] = [[] for _ in range(BUCKETS)]  # rows side by side, in order
        self._base: dict[bytes, bytes | Fields] = {}  # put in as finished before, by key
        self._strange: set[bytes] = set()  # names of hashes with a record that is more than a value at its end
        self._codes: dict[bytes, Fields] = {}  # by the first two bytes of the keyed hash

    # --- putting in ---

    def apply(self, batch: Batch) -> None:
        """The next batch of the partition. Raises LogDamaged where it cannot follow."""
        if batch.seq != self.head.seq + 1 or batch.prev != self.head.tip:
            raise LogDamaged(batch.partition, batch.seq, f"does not follow batch {self.head.seq}")
        count, received_ms = checked_head(batch)
        self.head = Head(batch.seq, batch.tip)
        if not count:
            return
        if self._is_counting:  # each batch is counted once, whoever folds which slice
            self.counts.update(counted(batch, count))
        payload, end = batch.payload, HEADER_BYTES + count * RECORD_BYTES
        ops = payload[HEADER_BYTES:end:RECORD_BYTES]
        if ops.count(REDEEM) == count == batch.verdicts.count(APPLIED):
            chosen = payload[_SLICED_BY:end:RECORD_BYTES].translate(self._selects) if self._mine.of > 1 else None
            self._add(payload, end, count, self._stamp(batch, received_ms), b"R", chosen)
            return
        kinds = bytes(map(_kind, ops, batch.verdicts))
        if _IMPOSSIBLE in kinds:
            at = kinds.index(_IMPOSSIBLE)
            why = f"op {ops[at]} cannot have had verdict {batch.verdicts[at]}"
            raise LogDamaged(batch.partition, batch.seq, why)
        if _IMPORTED in kinds:
            self._import(batch, kinds)
        mine = payload[_SLICED_BY:end:RECORD_BYTES].translate(self._selects)
        chosen = bytes(a and b for a, b in zip(mine, kinds.translate(_ON_VOUCHERS), strict=True))
        if any(chosen):
            self._add(payload, end, count, self._stamp(batch, received_ms), kinds, chosen)

    def _stamp(self, batch: Batch, received_ms: int) -> bytes:
        return received_ms.to_bytes(6, "big") + batch.seq.to_bytes(5, "big")

    def _add(self, payload: bytes, end: int, count: int, stamp: bytes, kinds: bytes, chosen: bytes | None) -> None:
        kind = kinds if len(kinds) == 1 else b"R"
        rows = bytearray((bytes(_NAME_BYTES) + b"\0\x01\xa0" + kind + bytes(20) + stamp + b"\x21") * count)
        for source, place in _COLUMNS:
            rows[place::_ROW_BYTES] = payload[source:end:RECORD_BYTES]
        low = payload[_SERIAL_LAST:end:RECORD_BYTES]
        rows[_NAME_BYTES - 1 :: _ROW_BYTES] = low.translate(_NAME_END)
        rows[_NAME_BYTES::_ROW_BYTES] = low.translate(_FIELD)
        if len(kinds) > 1:
            rows[_NAME_BYTES + 3 :: _ROW_BYTES] = kinds
        if _UNDONE in kinds or _LOST in kinds:
            named = zip(_NAMES.iter_unpack(rows), kinds, strict=True)
            self._strange.update(name for (name,), what in named if what in (_UNDONE, _LOST))
        loose = self._loose
        found = zip(rows[_BUCKET_AT::_ROW_BYTES], _WHOLE_ROW.iter_unpack(rows), strict=True)
        for bucket, (row,) in found if chosen is None else compress(found, chosen):
            loose[bucket].append(row)
        self._loose_rows += count
        if self._loose_rows >= LOOSE_ROWS_MAX:
            self._pack()

    def _pack(self) -> None:
        for loose, packed in zip(self._loose, self._packed, strict=True):
            if loose:
                packed.append(b"".join(loose))
                loose.clear()
        self._loose_rows = 0

    def _import(self, batch: Batch, kinds: bytes) -> None:
        for index, kind in enumerate(kinds):
            at = HEADER_BYTES + index * RECORD_BYTES
            code = batch.payload[at + 16 : at + 32]
            if kind == _IMPORTED and self._selects[code[0]]:
                held = self._codes.setdefault(code[:2], {})
                if code in held:
                    raise LogDamaged(batch.partition, batch.seq, "an import of a code that was known took effect")
                held[code] = batch.payload[at + 4 : at + 16]

    def put(self, key: bytes, held: bytes | Fields) -> None:
        """A hash as it was finished before, by a fold of the same slice that ended at the head this one began with.

        It may come before the batches or behind them. Raises LogDamaged.
        """
        _, _, rest = key.partition(b"}")
        if rest[:1] == b"r":
            assert isinstance(held, dict), "codes are kept by field"
            prefix = bytes.fromhex(rest[1:].decode())
            since = self._codes.get(prefix, {})
            if since.keys() & held.keys():
                raise LogDamaged(self.partition, self.head.seq, "an import of a code that was known took effect before")
            self._codes[prefix] = held | since
        else:
            self._base[key] = held

    # --- taking out ---

    def keys(self) -> set[bytes]:
        """Of every hash in which something happened, and of those that were put in."""
        self._pack()
        names = {name for packed in self._packed for rows in packed for (name,) in _NAMES.iter_unpack(rows)}
        return {*map(self._key, names), *self._base, *map(self._key_of_codes, self._codes)}

    def finished(self, purged: Iterable[int] = ()) -> Iterator[Finished]:
        """Every hash, but those of purged campaigns; each is let go of as it is told. Raises LogDamaged."""
        gone = {campaign.to_bytes(4, "big") for campaign in purged}
        self._pack()
        base, strange = self._base, self._strange
        for packed in self._packed:
            pieces: defaultdict[bytes, bytes] = defaultdict(bytes)
            for rows in packed:
                for name, piece in _ROW.iter_unpack(rows):
                    pieces[name] += piece
            packed.clear()
            for name, side_by_side in pieces.items():
                key = self._key(name)
                held = base.pop(key, b"") if base else b""
                if gone and name[:4] in gone:
                    continue
                if isinstance(held, dict):
                    values = {int(field): value for field, value in held.items()}
                    yield key, self._worked_out(name, side_by_side, values)
                    continue
                whole = held + side_by_side
                if len(set(whole[::PIECE_BYTES])) * PIECE_BYTES == len(whole) and name not in strange:
                    yield key, whole
                else:
                    yield key, self._worked_out(name, whole, {})
        while base:  # nothing happened to these
            key, held = base.popitem()
            if not gone or _campaign_of(key) not in gone:
                yield key, held
        while self._codes:
            prefix, codes = self._codes.popitem()
            kept = {code: value for code, value in codes.items() if value[:4] not in gone} if gone else codes
            if kept:
                yield self._key_of_codes(prefix), kept

    def _key(self, name: bytes) -> bytes:
        return b"{%d}v%d:%d" % (self.partition, *_campaign_and_row(name))

    def _key_of_codes(self, prefix: bytes) -> bytes:
        return b"{%d}r%s" % (self.partition, prefix.hex().encode())

    def _worked_out(self, name: bytes, pieces: bytes, held: dict[int, bytes]) -> Fields:
        values = dict(held)
        for field, _, _, kind, claim, stamp, _ in _PIECE.iter_unpack(pieces):
            op, verdict = _KIND_OF[kind[0]]
            value = next_value(values.get(field, b""), op, verdict, claim, stamp)
            if value is None:
                campaign, row = _campaign_and_row(name)
                seq = int.from_bytes(stamp[6:], "big")
                why = f"op {op} cannot have had verdict {verdict} on voucher {campaign}-{row * 64 + field}"
                raise LogDamaged(self.partition, seq, why)
            values[field] = value
        return {b"%d" % field: value for field, value in values.items()}


_ON_VOUCHERS = bytes(kind not in (_NO_EFFECT, _IMPORTED) for kind in range(256))


def _kind(op: int, verdict: int) -> int:
    """What a record did: a letter, or nothing; _IMPOSSIBLE for what no claim ever says."""
    if verdict > TOMBSTONED and verdict != CONFLICT:
        return _NO_EFFECT
    return _KIND_BYTES.get((op, verdict), _IMPOSSIBLE)


def _campaign_and_row(name: bytes) -> tuple[int, int]:
    campaign, serial = REGISTRY_VALUE.unpack(name)
    return campaign, serial >> 6


def _campaign_of(key: bytes) -> bytes:
    return int(key.partition(b"}v")[2].partition(b":")[0]).to_bytes(4, "big")


def by_field(held: bytes | Fields) -> Fields:
    """What a finished hash holds, by field."""
    if isinstance(held, dict):
        return held
    return {b"%d" % piece[0]: piece[3 : 3 + ENTRY_BYTES] for (piece,) in _WHOLE.iter_unpack(held)}


def fields_in(held: bytes | Fields) -> int:
    """How many fields a finished hash has."""
    return len(held) if isinstance(held, dict) else len(held) // PIECE_BYTES


_WHOLE = Struct(f"{PIECE_BYTES}s")
