"""What a fold comes to, hash by hash, as Valkey keeps it. Pure.

A voucher with one event in its life, and nearly every one has, is kept in 36 bytes: a piece. It has the form of a field
and a value in Valkey's own encoding (a listpack: integers of 7 bits and strings below 64 bytes, each with its length
behind it), so pieces side by side ARE what Valkey keeps, and are written as they stand.
"""

from struct import Struct

from eventstore.vouchers import ENTRY_BYTES

PIECE_BYTES = 36  # field, its length 1; string of 32; kind; claim_id + terminal; at_ms + seq; 33
SLICES_MAX = 256  # a slice is told by one byte of the serial
Fields = dict[bytes, bytes]
Finished = tuple[bytes, bytes | Fields]
"""A hash's key in Valkey, and what it holds: pieces side by side if each is a whole value, else values by field."""

_WHOLE = Struct(f"{PIECE_BYTES}s")


def by_field(held: bytes | Fields) -> Fields:
    """What a finished hash holds, by field."""
    if isinstance(held, dict):
        return held
    return {b"%d" % piece[0]: piece[3 : 3 + ENTRY_BYTES] for (piece,) in _WHOLE.iter_unpack(held)}


def fields_in(held: bytes | Fields) -> int:
    """How many fields a finished hash has."""
    return len(held) if isinstance(held, dict) else len(held) // PIECE_BYTES
