"""A snapshot of folded voucher state, to the byte: rows a Valkey loads by itself, and the manifest vouching for them.

A snapshot is derived from the log and may be thrown away. It is two files. The rows are an RDB file of version 10,
which every server since Redis 7.0 loads (format: `rdb.h` and `listpack.c` of Redis 7.0; there is no stream in it, and
its own checksum is left at zero, which means: none). So a private Valkey starts on it without a command being sent. The
manifest says whose it is, up to which batch of which partition (seq and tip), and the CRC-32 of each section of the
rows; nothing of the rows is believed before its checksum has matched. First comes the section of the file's head, then
one for each slice of each partition, then that of its end.

    "REDIS0010" FE 00                   select database 0
    00 <key> <tip, seq>                 the head of a partition
    10 <key> <listpack>                 a hash whose values are 32 bytes each: field, value, field, value ...
    04 <key> <count> <field> <value>..  any other hash
    FF 0000000000000000                 the end

Lengths are those of RDB: one byte below 64, two below 16,384, else 80 and four, big-endian.

A hash alone, as DUMP tells it and RESTORE takes it, is its row without the key, then the version (0A 00) and the
CRC-64/REDIS of all before, little-endian (`cluster.c` of Redis 7.0). There a checksum of zero does not mean none.
"""

import enum
import struct
import zlib
from collections.abc import Container, Iterable, Iterator, Mapping
from mmap import mmap

import anycrc
import msgspec

from eventstore.finished import PIECE_BYTES, Fields, Finished
from eventstore.log import Head
from eventstore.vouchers import head_key, head_value

SNAPSHOT_FORMAT = 1
FRAME = -1  # the "partition" of the sections that are the file's own
START = b"REDIS0010\xfe\x00"
END = b"\xff" + bytes(8)
_STRING, _HASH, _LISTPACK = 0x00, 0x04, 0x10
_crc64 = anycrc.Model("CRC64-REDIS").calc
_LP_HEAD = struct.Struct("<IH")  # its bytes in all, its elements
_LP_EXTRA = _LP_HEAD.size + 1  # what a listpack has beside its elements


class Why(enum.StrEnum):
    """Why a snapshot is not used. The log is, then."""

    MISSING = "missing"
    UNREADABLE = "unreadable"  # the manifest is no manifest, or its checksum does not match
    FORMAT = "format"
    FOREIGN = "foreign"  # of another deployment, or of another number of partitions
    DAMAGED = "damaged"  # a section's checksum does not match, or bytes are missing
    AHEAD = "ahead"  # the log ends before it: the log was restored from a backup
    OFF_CHAIN = "off chain"  # the log has another batch at its place


class Refused(msgspec.Struct, frozen=True):
    """A snapshot that is not used, and what was found."""

    why: Why
    text: str


class Section(msgspec.Struct, frozen=True):
    """Where a part of the rows lies in its file, and its CRC-32."""

    partition: int
    slice: int
    start: int
    length: int
    crc: int


class Manifest(msgspec.Struct, frozen=True):
    """What a snapshot is of."""

    format: int
    deployment_id: str
    at_ms: int  # when it was finished
    file: str  # the name of the rows
    slices: int  # of each partition
    heads: dict[int, tuple[int, bytes]]  # by partition: seq and tip of the newest batch in it
    records: int  # in the batches it is made of
    purged: list[int]  # campaigns that are not in it
    applied: list[tuple[int, int, int, int]]  # partition, op, campaign, how many records took effect
    sections: list[Section]

    def head(self, partition: int) -> Head:
        """The newest batch of a partition that is in it."""
        return Head(*self.heads[partition])

    def rows_of(self, partition: int) -> list[Section]:
        """The sections with a partition's hashes."""
        return [section for section in self.sections if section.partition == partition]


# --- the manifest -----------------------------------------------------------------------------------------------------


def encode_manifest(manifest: Manifest) -> bytes:
    """The checksum of all that follows in 8 hex digits, and the manifest as JSON, a line each."""
    body = msgspec.json.format(msgspec.json.encode(manifest), indent=1) + b"\n"
    return b"%08x\n" % zlib.crc32(body) + body


def decode_manifest(content: bytes) -> Manifest | Refused:
    crc, _, body = content.partition(b"\n")
    if crc != b"%08x" % zlib.crc32(body):
        return Refused(Why.UNREADABLE, "the manifest's checksum does not match")
    try:
        version = msgspec.json.decode(body, type=_Version).format
        if version != SNAPSHOT_FORMAT:
            return Refused(Why.FORMAT, f"snapshot format {version}, this build reads {SNAPSHOT_FORMAT}")
        return msgspec.json.decode(body, type=Manifest)
    except msgspec.DecodeError as error:  # msgspec.ValidationError is one
        return Refused(Why.UNREADABLE, f"the manifest: {error}")


class _Version(msgspec.Struct):
    format: int


def check_owner(manifest: Manifest, deployment_id: str, partitions: int) -> Refused | None:
    """Whether it is a snapshot of this deployment at all."""
    if manifest.deployment_id != deployment_id:
        return Refused(Why.FOREIGN, f"it is of deployment {manifest.deployment_id}")
    if sorted(manifest.heads) != list(range(partitions)):
        return Refused(Why.FOREIGN, f"it is of {len(manifest.heads)} partitions, the log has {partitions}")
    return None


def check_place(manifest: Manifest, partition: int, log_head: Head, log_tip_there: bytes | None) -> Refused | None:
    """Whether the log goes on from it. `log_tip_there` is the log's tip at the snapshot's seq."""
    seq, tip = manifest.heads[partition]
    if seq > log_head.seq:
        return Refused(Why.AHEAD, f"it is of batch {seq} of partition {partition}, the log ends at {log_head.seq}")
    if seq and tip != log_tip_there:
        return Refused(Why.OFF_CHAIN, f"batch {seq} of partition {partition} is another one in the log")
    return None


# --- the rows ---------------------------------------------------------------------------------------------------------


def start_rows(heads: Mapping[int, Head]) -> bytes:
    """What a file of rows begins with."""
    rows = (
        b"\x00" + _string(head_key(partition)) + _string(head_value(head))
        for partition, head in sorted(heads.items())
        if head.seq
    )
    return START + b"".join(rows)


def rows_of(hashes: Iterable[Finished]) -> bytes:
    """Hashes side by side."""
    parts: list[bytes] = []
    for key, held in hashes:
        if isinstance(held, dict):
            parts += (b"\x04", _string(key), _fields(held))
        else:  # no call for any of these: there are millions
            parts += (_KEY_STARTS[len(key)], key, _LISTPACK_STARTS[len(held)], held, b"\xff")
    return b"".join(parts)


def dump(held: bytes | Fields) -> bytes:
    """One hash without its key, for RESTORE."""
    if isinstance(held, dict):
        content = b"\x04%b\x0a\x00" % _fields(held)
    else:
        content = b"\x10%b%b\xff\x0a\x00" % (_LISTPACK_STARTS[len(held)], held)
    crc: int = _crc64(content)
    return content + crc.to_bytes(8, "little")


def _fields(held: Fields) -> bytes:
    return _length(len(held)) + b"".join(_string(part) for pair in held.items() for part in pair)


def rows_in(section: bytes | mmap, at: int = 0, end: int | None = None) -> Iterator[Finished]:
    """The hashes of a section whose checksum has matched; of such a one ValueError is a bug."""
    end = len(section) if end is None else end
    while at < end:
        kind = section[at]
        key, at = _read_string(section, at + 1)
        if kind == _LISTPACK:
            size, at = _read_length(section, at)
            yield key, section[at + _LP_HEAD.size : at + size - 1]
            at += size
        elif kind == _HASH:
            count, at = _read_length(section, at)
            fields: Fields = {}
            for _ in range(count):
                field, at = _read_string(section, at)
                fields[field], at = _read_string(section, at)
            yield key, fields
        else:
            raise ValueError(f"a row of kind {kind} at {at}")


def apart(section: bytes, wanted: Container[bytes] | None) -> tuple[list[Finished], list[tuple[int, int]]]:
    """The hashes whose keys are wanted (None: all), and from where to where the rows of others lie side by side."""
    found: list[Finished] = []
    others: list[tuple[int, int]] = []
    at = began = 0
    while at < len(section):
        start, short = at, section[at + 1]
        if section[at] == _LISTPACK and short < 0x40 and 0x40 <= (first := section[at + 2 + short]) < 0x80:
            key, at = section[at + 2 : at + 2 + short], at + 4 + short  # as nearly every row is; a call less, or four
            at += (first & 0x3F) << 8 | section[at - 1]
        else:
            key, at = _read_string(section, at + 1)
            at = _behind_hash(section, section[start], at)
        if wanted is None or key in wanted:
            found += rows_in(section, start, at)
            if began < start:
                others.append((began, start))
            began = at
    if began < at:
        others.append((began, at))
    return found, others


def _behind_hash(section: bytes, kind: int, at: int) -> int:
    strings = 1
    if kind == _HASH:
        count, at = _read_length(section, at)
        strings = 2 * count
    for _ in range(strings):
        size, at = _read_length(section, at)
        at += size
    return at


def _length(n: int) -> bytes:
    if n < 1 << 6:
        return n.to_bytes(1, "big")
    if n < 1 << 14:
        return (0x4000 | n).to_bytes(2, "big")
    return b"\x80" + n.to_bytes(4, "big")


def _listpack_start(pieces: int) -> bytes:
    size = pieces * PIECE_BYTES + _LP_EXTRA
    return _length(size) + _LP_HEAD.pack(size, 2 * pieces)


_KEY_STARTS = [b"\x10" + _length(size) for size in range(64)]
_LISTPACK_STARTS = {pieces * PIECE_BYTES: _listpack_start(pieces) for pieces in range(65)}  # by what follows, in bytes


def _string(text: bytes) -> bytes:
    return _length(len(text)) + text


def _read_length(section: bytes | mmap, at: int) -> tuple[int, int]:
    first = section[at]
    if first < 0x40:
        return first, at + 1
    if first < 0x80:
        return (first & 0x3F) << 8 | section[at + 1], at + 2
    return int.from_bytes(section[at + 1 : at + 5], "big"), at + 5


def _read_string(section: bytes | mmap, at: int) -> tuple[bytes, int]:
    size, at = _read_length(section, at)
    return section[at : at + size], at + size
