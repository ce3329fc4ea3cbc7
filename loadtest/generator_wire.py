"""A till's messages as bytes, put together from parts: what a generator does for every scan must cost next to nothing.

The bytes are those of the contract's own encoder (gateway.messages); a test holds them side by side.
"""

import msgspec

from gateway.messages import Redeem, Reverse
from loadtest.bench_frames import BINARY, client_frame

REF_END = 1 << 32
_encode = msgspec.msgpack.Encoder().encode
_REDEEM, _REVERSE = b"\x93\xa6redeem\xce", b"\x93\xa7reverse\xce"
_MASK = bytes(4)
_TAIL = b"\x01\xc0\xc0"  # scanned, no references
HEAD_BYTES = 14  # of a message of one scan, before the scan
SCAN_BODY_MAX = 125 - HEAD_BYTES  # longer frames need a longer head (RFC 6455 section 5.2)


def scan_body(redemption_id: bytes, code: str, scanned_ms: int) -> bytes:
    """One scan, as it stands in a message."""
    text = code.encode()
    if not 32 <= len(text) < 256:
        return _encode(Redeem(redemption_id, code, scanned_ms))
    size, at = bytes((0xD9, len(text))), scanned_ms.to_bytes(8, "big")
    return b"".join((b"\x96\xc4\x10", redemption_id, size, text, b"\xcf", at, _TAIL))


def reversal_body(reversal_id: bytes, redemption_id: bytes, reversed_ms: int) -> bytes:
    """One reversal, as it stands in a message."""
    return _encode(Reverse(reversal_id, redemption_id, reversed_ms, None, "load"))


def redeem_frame(ref: int, body: bytes) -> bytes:
    """The whole frame of one scan."""
    if len(body) <= SCAN_BODY_MAX:
        return b"".join(
            (bytes((BINARY, 0x80 | HEAD_BYTES + len(body))), _MASK, _REDEEM, ref.to_bytes(4, "big"), b"\x91", body)
        )
    return many_frame(ref, [body])


def many_frame(ref: int, bodies: list[bytes]) -> bytes:
    """The whole frame of several scans."""
    return client_frame(BINARY, b"".join((_REDEEM, ref.to_bytes(4, "big"), _array(len(bodies)), *bodies)))


def reverse_frame(ref: int, body: bytes) -> bytes:
    """The whole frame of one reversal."""
    return client_frame(BINARY, b"".join((_REVERSE, ref.to_bytes(4, "big"), b"\x91", body)))


def _array(size: int) -> bytes:
    return bytes((0x90 | size,)) if size < 16 else b"\xdc" + size.to_bytes(2, "big")
