"""Which voucher a scan names, which partition that is in, and which claim a request stands for. Pure."""

import struct
import zlib
from hashlib import blake2b

import msgspec

from gateway.messages import ID_BYTES, REF_CHARS_MAX, Redeem, Reverse

SCANNED_MS_END = 2**63
NO_BODY = blake2b(digest_size=ID_BYTES)  # copied: cheaper than making one
pack_claim = struct.Struct(">I16sIQ").pack  # terminal, redemption_id, campaign, serial
_BUCKET = struct.Struct(">IQ")


class Spot(msgspec.Struct, frozen=True, gc=False):
    """Which voucher a scan names, and under what kind of code."""

    campaign: int
    serial: int
    kind: str


def partition_of(campaign: int, serial: int, partitions: int) -> int:
    """The shard of a voucher: 64 neighbours share one, and one hash in Valkey."""
    return zlib.crc32(_BUCKET.pack(campaign, serial >> 6)) % partitions if partitions > 1 else 0


def claim_id_of(terminal: int, scan: Redeem, campaign: int, serial: int) -> bytes:
    """16-byte digest of (terminal, redemption_id, body): what makes two sends the same redemption."""
    state = NO_BODY.copy()
    state.update(pack_claim(terminal, scan.redemption_id, campaign, serial))
    if scan.merchant_ref is not None or scan.cashier_ref is not None:
        state.update(msgspec.msgpack.encode((scan.merchant_ref, scan.cashier_ref)))
    return state.digest()


def void_claim_id(campaign: int, serial: int, request_id: str) -> bytes:
    """The claim id of a void: the same request on the same voucher is the same void."""
    return blake2b(_BUCKET.pack(campaign, serial) + request_id.encode(), digest_size=ID_BYTES, person=b"void").digest()


def fault_of(scan: Redeem) -> str | None:
    """What is wrong with the form of a scan, in words; None if nothing is."""
    if len(scan.redemption_id) != ID_BYTES:
        return f"redemption_id has {len(scan.redemption_id)} bytes, {ID_BYTES} expected"
    if not 0 <= scan.scanned_ms < SCANNED_MS_END:
        return "scanned_ms is not a time in milliseconds since 1970"
    for name, ref in (("merchant_ref", scan.merchant_ref), ("cashier_ref", scan.cashier_ref)):
        if ref is not None and len(ref) > REF_CHARS_MAX:
            return f"{name} has {len(ref)} characters, at most {REF_CHARS_MAX} are allowed"
    return None


def fault_of_reversal(reversal: Reverse) -> str | None:
    """What is wrong with the form of a reversal, in words; None if nothing is."""
    for name, value in (("reversal_id", reversal.reversal_id), ("redemption_id", reversal.redemption_id)):
        if len(value) != ID_BYTES:
            return f"{name} has {len(value)} bytes, {ID_BYTES} expected"
    return "reversal_id must differ from redemption_id" if reversal.reversal_id == reversal.redemption_id else None
