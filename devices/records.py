"""What a till's journal says: its entries, their bytes on disk, and the ledger folded from them. Pure.

The file is MAGIC, then blocks: u32 length, u32 crc32 (both big-endian, of the payload), payload = msgpack array of
entries. One block is one commit, written and fsynced as a whole before the next begins, so only the last block can be
torn. A bad block that is not the last is damage, and is never cut away silently. Entries, as a scan lives:

    scanned            minted id, keyed hash of the code, the sealed Redeem message (only until compaction forgets it)
    offline            it was accepted here without a connection: a fact, which the gateway will be told
    answered           the verdict the till was told, and its place in the log
    reversal_asked     the cashier undoes a redemption, or gives up one that is still unanswered
    reversal_answered  the verdict on that

Compaction writes the same entries again, with hash and seal left empty where the answer has come.
"""

import struct
import zlib
from collections.abc import Iterable, Sequence

import msgspec

from gateway.messages import ID_BYTES, Position, Verdict

MAGIC = b"tillgate-journal-1\n"
FRAME = struct.Struct(">II")
BLOCK_BYTES_MAX = 1 << 20  # the largest commit, 256 answers beside 512 that a full disk held up, is 60 KiB
HISTORY_MAX = 20_000  # answered scans kept without their codes: two full shifts, enough to prove yesterday


class JournalDamaged(Exception):
    """The journal holds something no crash leaves behind. The text names the place; nothing has been changed."""


class Scanned(msgspec.Struct, array_like=True, tag="scanned", frozen=True):
    redemption_id: bytes
    scanned_ms: int
    code_hash: bytes = b""
    sealed: bytes = b""
    voucher: bytes = b""  # campaign u32, serial u40, if the code spells them; stays when the code is forgotten


class OfflineAccepted(msgspec.Struct, array_like=True, tag="offline", frozen=True):
    """Durable before the cashier is told yes. Times are by the gateway's clock, as far as the till can tell."""

    redemption_id: bytes
    accepted_ms: int
    contact_ms: int
    campaign: int
    value_minor: int
    offer: str = ""  # for reading


class Answered(msgspec.Struct, array_like=True, tag="answered", frozen=True):
    """`verdict` is the public verdict byte; seq 0 means the gateway named no place."""

    redemption_id: bytes
    verdict: int
    partition: int
    seq: int
    index: int
    at_ms: int


class ReversalAsked(msgspec.Struct, array_like=True, tag="reversal_asked", frozen=True):
    reversal_id: bytes
    redemption_id: bytes
    reversed_ms: int
    gave_up: bool = False  # asked while the redemption itself had no answer


class ReversalAnswered(msgspec.Struct, array_like=True, tag="reversal_answered", frozen=True):
    reversal_id: bytes
    redemption_id: bytes
    verdict: int
    partition: int
    seq: int
    index: int
    at_ms: int


Entry = Scanned | OfflineAccepted | Answered | ReversalAsked | ReversalAnswered
_decode = msgspec.msgpack.Decoder(list[Entry]).decode
_encode = msgspec.msgpack.Encoder().encode


class Reversal(msgspec.Struct):
    """One attempt to undo a redemption; `verdict` None: not answered yet, so it is still being asked."""

    reversal_id: bytes
    reversed_ms: int
    gave_up: bool
    verdict: int | None = None
    place: Position | None = None
    at_ms: int = 0

    @property
    def undone(self) -> bool:
        return self.verdict in (Verdict.ACCEPTED, Verdict.REVERSED)


class Record(msgspec.Struct):
    """Everything the journal knows of one redemption_id; `verdict` None: no answer has been told."""

    redemption_id: bytes
    scanned_ms: int
    code_hash: bytes
    sealed: bytes
    verdict: int | None = None
    place: Position | None = None
    at_ms: int = 0
    reversals: list[Reversal] = msgspec.field(default_factory=list)
    voucher: bytes = b""
    offline: OfflineAccepted | None = None

    @property
    def reversing(self) -> Reversal | None:
        """The reversal that still waits for its answer."""
        return next((r for r in self.reversals if r.verdict is None), None)

    @property
    def undone(self) -> bool:
        return any(r.undone for r in self.reversals)

    @property
    def unresolved(self) -> bool:
        """Still to be asked: no answer, and not given up."""
        return self.verdict is None and not self.reversals and self.offline is None

    @property
    def untold(self) -> bool:
        """Accepted offline, and the gateway has not said what came of it."""
        return self.offline is not None and self.verdict is None

    @property
    def stands(self) -> bool:
        """This till gave the value for it, as far as it knows."""
        given = self.verdict == Verdict.ACCEPTED or self.untold
        return given and not self.undone

    @property
    def settled(self) -> bool:
        """Nothing is to be sent for it any more."""
        return not self.unresolved and not self.untold and self.reversing is None


class Ledger:
    """The journal's entries folded: what is open, by code, and what became of the rest."""

    def __init__(self) -> None:
        self.records: dict[bytes, Record] = {}
        self._open: dict[bytes, Record] = {}  # not settled: what bounds the journal
        self._by_code: dict[bytes, bytes] = {}  # hash of a code -> the one unresolved id that carries it
        self._by_voucher: dict[bytes, bytes] = {}  # voucher -> the id for which its value was given here

    def apply(self, entry: Entry) -> None:
        """Fold one entry. Raises `JournalDamaged` when it speaks of an id that was never scanned."""
        if isinstance(entry, Scanned):
            record = Record(entry.redemption_id, entry.scanned_ms, entry.code_hash, entry.sealed, voucher=entry.voucher)
            self.records[entry.redemption_id] = record
        else:
            record = self._known(entry.redemption_id)
            _change(record, entry)
        self._index(record)

    def open_count(self) -> int:
        return len(self._open)

    def open_records(self) -> list[Record]:
        return list(self._open.values())

    def unresolved_for(self, code_hash: bytes) -> Record | None:
        """The unresolved redemption of this code: a further read must carry its id."""
        redemption_id = self._by_code.get(code_hash)
        return self.records[redemption_id] if redemption_id else None

    def given_for(self, voucher: bytes) -> Record | None:
        """The redemption for which this till gave the value of a voucher, if it did and has not undone it."""
        redemption_id = self._by_voucher.get(voucher)
        return self.records[redemption_id] if redemption_id else None

    def untold(self, campaign: int) -> list[OfflineAccepted]:
        """What of a campaign was accepted offline and is not settled yet: what its caps bound."""
        facts = [record.offline for record in self._open.values() if record.offline is not None and record.untold]
        return [fact for fact in facts if fact.campaign == campaign]

    def last(self, *, unresolved: bool) -> Record | None:
        """The latest scan that can be undone (neither refused nor undone), or that has no answer yet."""
        wanted = (lambda r: r.unresolved) if unresolved else is_reversible
        return next(filter(wanted, reversed(self.records.values())), None)

    def with_tail(self, tail: str) -> list[Record]:
        """The records whose id ends so (hex)."""
        return [r for r in self.records.values() if r.redemption_id.hex().endswith(tail)]

    def compacted(self) -> list[Entry]:
        """The entries that say the same without the codes of what is settled, oldest history dropped."""
        settled = [r.redemption_id for r in self.records.values() if r.settled]
        forgotten = set(settled[: max(0, len(settled) - HISTORY_MAX)])
        return [e for r in self.records.values() if r.redemption_id not in forgotten for e in _entries_of(r)]

    def _known(self, redemption_id: bytes) -> Record:
        record = self.records.get(redemption_id)
        if record is None:
            raise JournalDamaged(f"an entry names {redemption_id.hex()}, which was never scanned")
        return record

    def _index(self, record: Record) -> None:
        if record.settled:
            self._open.pop(record.redemption_id, None)
        else:
            self._open[record.redemption_id] = record
        if record.unresolved:
            self._by_code[record.code_hash] = record.redemption_id
        elif self._by_code.get(record.code_hash) == record.redemption_id:
            del self._by_code[record.code_hash]
        if record.voucher and record.stands:
            self._by_voucher[record.voucher] = record.redemption_id
        elif self._by_voucher.get(record.voucher) == record.redemption_id:
            del self._by_voucher[record.voucher]


def is_reversible(record: Record) -> bool:
    return record.verdict in (None, Verdict.ACCEPTED) and not record.undone and record.reversing is None


def fold(entries: Iterable[Entry]) -> Ledger:
    ledger = Ledger()
    for entry in entries:
        ledger.apply(entry)
    return ledger


def _change(record: Record, entry: OfflineAccepted | Answered | ReversalAsked | ReversalAnswered) -> None:
    if isinstance(entry, OfflineAccepted):
        record.offline = entry
        return
    if isinstance(entry, ReversalAsked):
        record.reversals.append(Reversal(entry.reversal_id, entry.reversed_ms, entry.gave_up))
        return
    answered = record if isinstance(entry, Answered) else _reversal(record, entry.reversal_id)
    answered.verdict = entry.verdict
    answered.place = Position(entry.partition, entry.seq, entry.index) if entry.seq else None
    answered.at_ms = entry.at_ms


def _reversal(record: Record, reversal_id: bytes) -> Reversal:
    for reversal in record.reversals:
        if reversal.reversal_id == reversal_id:
            return reversal
    raise JournalDamaged(f"an entry answers reversal {reversal_id.hex()}, which was never asked")


def _entries_of(record: Record) -> list[Entry]:
    kept = (b"", b"") if record.settled else (record.code_hash, record.sealed)
    entries: list[Entry] = [Scanned(record.redemption_id, record.scanned_ms, *kept, record.voucher)]
    if record.offline is not None:
        entries.append(record.offline)
    if record.verdict is not None:
        entries.append(Answered(record.redemption_id, record.verdict, *_place_fields(record.place), record.at_ms))
    for reversal in record.reversals:
        ids = (reversal.reversal_id, record.redemption_id)
        entries.append(ReversalAsked(*ids, reversal.reversed_ms, reversal.gave_up))
        if reversal.verdict is not None:
            place = _place_fields(reversal.place)
            entries.append(ReversalAnswered(*ids, reversal.verdict, *place, reversal.at_ms))
    return entries


def _place_fields(place: Position | None) -> tuple[int, int, int]:
    return (place.partition, place.seq, place.index) if place else (0, 0, 0)


# --- bytes ------------------------------------------------------------------------------------------------------------


def encode_block(entries: Sequence[Entry]) -> bytes:
    assert entries
    assert all(len(entry.redemption_id) == ID_BYTES for entry in entries)
    payload = _encode(entries)
    assert len(payload) <= BLOCK_BYTES_MAX
    return FRAME.pack(len(payload), zlib.crc32(payload)) + payload


def encode_file(entries: Iterable[Entry]) -> bytes:
    """One block for each entry, so that a bad sector is told from a torn tail as well as it can be."""
    return MAGIC + b"".join(encode_block([entry]) for entry in entries)


def decode_file(content: bytes) -> tuple[list[Entry], int]:
    """Entries, and the length of the sound part: less than all when the last block is torn.

    Raises `JournalDamaged` for anything a crash between two fsyncs cannot explain.
    """
    if not content.startswith(MAGIC):
        if MAGIC.startswith(content):
            return [], 0  # killed while the file was created
        raise JournalDamaged("this is not a journal of this version")
    entries: list[Entry] = []
    at = len(MAGIC)
    while at < len(content):
        block = _block_at(content, at)
        if block is None:
            _require_torn(content, at)
            break
        entries += block[0]
        at = block[1]
    return entries, at


def _block_at(content: bytes, at: int) -> tuple[list[Entry], int] | None:
    if at + FRAME.size > len(content):
        return None
    length, crc = FRAME.unpack_from(content, at)
    start, end = at + FRAME.size, at + FRAME.size + length
    if not 0 < length <= BLOCK_BYTES_MAX or end > len(content) or zlib.crc32(content[start:end]) != crc:
        return None
    try:
        return _decode(content[start:end]), end
    except msgspec.MsgspecError as error:
        raise JournalDamaged(f"the block at byte {at} is sound but unreadable: {error}") from None


def _require_torn(content: bytes, at: int) -> None:
    """A torn tail is one unfinished block and nothing sound after it, wherever a damaged length may point."""
    if len(content) - at <= FRAME.size + BLOCK_BYTES_MAX:
        later = range(at + 1, len(content) - FRAME.size)
        if all(_block_at(content, start) is None for start in later):
            return
    raise JournalDamaged(f"the block at byte {at} is damaged, and more was written after it")
