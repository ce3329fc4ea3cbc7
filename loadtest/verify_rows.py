"""What is compared, as rows of fixed size, in buckets. Pure.

Theory. Journals and log may hold more than memory: ten million attempts would be some 4 GB of Python values. So nothing
is kept as values. Every attempt, every record of the log and every voucher in Valkey becomes a row of bytes, and rows
that can belong together (same id, or vouchers of one hash in Valkey) go to the same of BUCKETS buckets, which lie in
files. Then one bucket after the other is read and compared in memory (a Grace hash join). A million attempts that were
accepted once take 330 MB of such files, and some 20 MB of memory while a bucket is compared; beside that, only the
claim ids of reversed redemptions are kept in memory.
"""

import struct
from collections.abc import Callable, Iterable, Sequence
from typing import BinaryIO, NamedTuple

from gateway.messages import Verdict
from loadtest.run_files import Attempt

BUCKETS = 64
KEPT_BYTES = 32_768  # of a bucket in memory before they are written: 2 MB for a set of buckets
RECORD_BYTES, HEADER_BYTES = 64, 16  # of the log, see eventstore/events.py: the layout is all we share with it
REDEEM, REVERSE, VOID, IMPORT = 1, 2, 3, 4
APPLIED, TOMBSTONED, REPEATED, REVERSED, CONFLICT, CONFLICT_AGAIN = 0, 1, 2, 3, 4, 6

HEADER = struct.Struct(">BBHIQ")
STAMP = struct.Struct(">HQQ")  # partition, seq, at_ms
PLACE = struct.Struct(">IB")  # index, verdict
_LOGGED = struct.Struct(">BBxxIQ16s16sIQ4x HQQ IB")
_TRIED = struct.Struct(">Q16sBBB I IQ HQI IQ")
_KINDS = ("redeem", "reverse", "lookup", "preview")
_NO_VERDICT, _NO_SUCH_VERDICT = 254, 253
_CODES = {verdict.name.lower(): int(verdict) for verdict in Verdict}
_WORDS = {code: word for word, code in _CODES.items()} | {_NO_VERDICT: None, _NO_SUCH_VERDICT: "no verdict"}
_DIFFER, _PLACED, _SENT = 1, 2, 4

Place = tuple[int, int, int]  # partition, seq, index
NOWHERE: Place = (0, 0, 0)


class BadAttempt(Exception):
    """An attempt of a journal that cannot be; says which and why."""


class Logged(NamedTuple):
    """One record of the log with its verdict."""

    op: int
    static: int
    campaign: int  # 0: it names no voucher
    serial: int
    redemption_id: bytes
    claim_id: bytes
    terminal: int
    scanned_ms: int
    partition: int
    seq: int
    at_ms: int
    within: int  # the batch
    verdict: int

    @property
    def place(self) -> Place:
        return self.partition, self.seq, self.within


class Tried(NamedTuple):
    """One attempt of a journal."""

    number: int  # among all attempts, from 0
    redemption_id: bytes
    kind: int  # see `is_redeem` and others below
    code: int
    flags: int
    terminal: int
    campaign: int  # 0: the code names no voucher
    serial: int
    partition: int
    seq: int
    within: int  # the batch
    sends: int
    intended_us: int

    @property
    def op(self) -> int:
        """The op its records have in the log; 0: it leaves none."""
        return (REDEEM, REVERSE, 0, 0)[self.kind]

    @property
    def is_lookup(self) -> bool:
        return self.kind == 2

    @property
    def told(self) -> str | None:
        """The verdict's name; None: none was told."""
        return _WORDS[self.code]

    @property
    def answers_differ(self) -> bool:
        return bool(self.flags & _DIFFER)

    @property
    def was_sent(self) -> bool:
        return bool(self.flags & _SENT)

    @property
    def place(self) -> Place | None:
        """Where the log holds it, as told."""
        return (self.partition, self.seq, self.within) if self.flags & _PLACED else None


class Buckets:
    """BUCKETS heaps of rows, each in a file of its own once it is large."""

    def __init__(self, make_file: Callable[[], BinaryIO]) -> None:
        self._make_file = make_file
        self._kept = [bytearray() for _ in range(BUCKETS)]
        self._files: list[BinaryIO | None] = [None] * BUCKETS

    def add(self, bucket: int, row: bytes) -> None:
        kept = self._kept[bucket]
        kept += row
        if len(kept) >= KEPT_BYTES:
            self._write(bucket)

    def _write(self, bucket: int) -> None:
        file = self._files[bucket]
        if file is None:
            file = self._files[bucket] = self._make_file()
        file.write(self._kept[bucket])
        self._kept[bucket].clear()

    def take(self, bucket: int) -> bytes:
        """All rows of a bucket, in the order in which they came. Once only."""
        file, kept = self._files[bucket], bytes(self._kept[bucket])
        self._kept[bucket] = bytearray()
        if file is None:
            return kept
        file.seek(0)
        written = file.read()
        file.close()
        return written + kept


class Faults:
    """The places where one invariant does not hold: how many, and the first."""

    def __init__(self) -> None:
        self.count = 0
        self.first = ""
        self._order: tuple[int, ...] = ()

    def add(self, order: tuple[int, ...], text: str) -> None:
        """`order`: smaller comes first."""
        if not self.count or order < self._order:
            self._order, self.first = order, text
        self.count += 1


def id_bucket(redemption_id: bytes) -> int:
    """Ids end in random bits (UUIDv7)."""
    return redemption_id[15] % BUCKETS


def serial_bucket(serial: int) -> int:
    """Vouchers of one hash in Valkey share a bucket."""
    return (serial >> 6) % BUCKETS


def tried_row(number: int, attempt: Attempt) -> tuple[bytes, bytes]:
    """The id and the row of an attempt. Raises BadAttempt."""
    try:
        redemption_id = bytes.fromhex(attempt.redemption_id)
        campaign, _, serial = (attempt.voucher or "0-0").partition("-")
        flags = _DIFFER * attempt.answers_differ | _SENT * (attempt.sent_us is not None)
        flags |= _PLACED * (attempt.position is not None)
        code = _NO_VERDICT if attempt.verdict is None else _CODES.get(attempt.verdict, _NO_SUCH_VERDICT)
        if code == Verdict.UNRESOLVED or attempt.ended_us is None:
            code = _NO_VERDICT
        row = _TRIED.pack(
            *(number, redemption_id, _KINDS.index(attempt.kind), code, flags, attempt.terminal),
            *(int(campaign), int(serial), *(attempt.position or NOWHERE), attempt.sends),
            max(attempt.intended_us, 0),
        )
    except (ValueError, struct.error) as error:
        raise BadAttempt(f"attempt {number + 1}, redemption {attempt.redemption_id!r}: {error}") from None
    if len(redemption_id) != 16:
        raise BadAttempt(f"attempt {number + 1}: redemption {attempt.redemption_id!r} is no id of 32 hex digits")
    return redemption_id, row


def tried_rows(rows: bytes) -> Iterable[Tried]:
    """What `tried_row` packed, one after the other."""
    return map(Tried._make, _TRIED.iter_unpack(rows))


def logged_rows(rows: bytes) -> Iterable[Logged]:
    """Records of 64 bytes, each followed by STAMP and PLACE."""
    return map(Logged._make, _LOGGED.iter_unpack(rows))


def at(place: Sequence[int]) -> str:
    """A position in words."""
    return "{}/{}/{}".format(*place)


def named(campaign: int, serial: int) -> str:
    """A voucher in words."""
    return f"voucher {campaign}-{serial}" if campaign else "a code that names no voucher"


def word(verdict: int) -> str:
    """A logged verdict byte in words."""
    return Verdict(verdict).name.lower() if verdict in Verdict._value2member_map_ else f"byte {verdict}"
