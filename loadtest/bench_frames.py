"""What tills send and what comes back, as bytes: encoded before the clock starts, cut apart after it. Pure.

Frames are RFC 6455; a client must mask, and with a mask of zeros the payload is its own masked form, while the server
does the same work as with any other. Ids are UUIDv7 and rise from message to message on every connection, as they do on
a till that mints them while it scans; a gateway may rely on that to know that an id is new.
"""

import re
from collections.abc import Iterator, Sequence
from random import Random

import msgspec

from gateway.messages import SUBPROTOCOL, Redeem, RedeemMany, RedemptionRequest, Verdict
from loadtest.bench_plan import Shape

RETRY_SCANS_MAX = 4096  # how far back on its connection a retry reaches: below a second, as a till's first retry does
BINARY, CLOSE, PING, PONG = 0x82, 0x88, 0x89, 0x8A  # opcodes with FIN
_ACCEPTED, _USED = bytes((Verdict.ACCEPTED,)), bytes((Verdict.ALREADY_REDEEMED,))
_length = re.compile(rb"content-length: *(\d+)", re.IGNORECASE).search
_encode = msgspec.msgpack.Encoder().encode
_encode_json = msgspec.json.Encoder().encode


class Message(msgspec.Struct, frozen=True, gc=False):
    """One message, ready to be sent, and the verdict bytes it must get."""

    raw: bytes
    expected: bytes
    distinct: int  # vouchers in it that no earlier message named


def mint_id(at_ms: int, rng: Random) -> bytes:
    """A UUIDv7 (RFC 9562 section 5.7)."""
    tail = rng.getrandbits(76) | 0x7 << 76
    return at_ms.to_bytes(6, "big") + (tail & ~(0x3 << 62) | 0x2 << 62).to_bytes(10, "big")


def conversation(codes: Iterator[str], shape: Shape, at_ms: int, rng: Random) -> Iterator[tuple[list[Redeem], bytes]]:
    """What one connection sends, scans and expected verdicts a message, until the codes run out.

    Repeats and used vouchers name scans sent earlier on the same connection, so that their verdicts are certain.
    """
    fresh: list[Redeem] = []
    while True:
        at_ms += 1
        scans, expected = [], b""
        for _ in range(shape.scans):
            draw = rng.random() if fresh else 1.0
            if draw < shape.repeats:
                scans.append(fresh[-rng.randint(1, min(len(fresh), RETRY_SCANS_MAX))])
                expected += _ACCEPTED
            elif draw < shape.repeats + shape.used:
                scans.append(Redeem(mint_id(at_ms, rng), rng.choice(fresh).code, at_ms))
                expected += _USED
            else:
                code = next(codes, None)
                if code is None:
                    return
                scans.append(Redeem(mint_id(at_ms, rng), code, at_ms))
                fresh.append(scans[-1])
                expected += _ACCEPTED
        yield scans, expected


def stream_messages(codes: Iterator[str], shape: Shape, at_ms: int, rng: Random) -> list[Message]:
    """One connection's messages; `ref` is the index."""
    seen: set[str] = set()
    messages = []
    for ref, (scans, expected) in enumerate(conversation(codes, shape, at_ms, rng)):
        raw = client_frame(BINARY, _encode(RedeemMany(ref, scans)))
        messages.append(Message(raw, expected, _unseen(scans, seen)))
    return messages


def http_messages(
    codes: Iterator[str], shape: Shape, at_ms: int, rng: Random, *, token: str, terminal: int
) -> list[Message]:
    """One connection's requests, a scan each."""
    seen: set[str] = set()
    head = (
        "POST /v1/redemptions HTTP/1.1\r\nHost: localhost\r\n"
        f"Authorization: Bearer {token}\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    ).encode()
    messages = []
    for (scan, *_), expected in conversation(codes, shape, at_ms, rng):
        body = _encode_json(RedemptionRequest(scan.redemption_id.hex(), scan.code, terminal, scan.scanned_ms))
        messages.append(Message(head % len(body) + body, expected, _unseen([scan], seen)))
    return messages


def _unseen(scans: Sequence[Redeem], seen: set[str]) -> int:
    before = len(seen)
    seen.update(scan.code for scan in scans)
    return len(seen) - before


def upgrade_request() -> bytes:
    """Ask for the stream (RFC 6455 section 4.1; the key is that section's example)."""
    return (
        "GET /v1/stream HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
        f"Sec-WebSocket-Protocol: {SUBPROTOCOL}\r\n\r\n"
    ).encode()


def client_frame(opcode: int, payload: bytes) -> bytes:
    """One masked frame."""
    length = len(payload)
    if length < 126:
        head = bytes((opcode, 0x80 | length))
    elif length < 1 << 16:
        head = bytes((opcode, 0x80 | 126)) + length.to_bytes(2, "big")
    else:
        head = bytes((opcode, 0x80 | 127)) + length.to_bytes(8, "big")
    return head + bytes(4) + payload


def take_frames(received: bytes) -> tuple[list[tuple[int, bytes]], bytes]:
    """(opcode, payload) of every whole frame from a server, and the bytes of the one that is not."""
    frames, start = [], 0
    while len(received) - start >= 2:
        length, body = received[start + 1], start + 2
        if length >= 126:
            body += 2 if length == 126 else 8
            if len(received) < body:
                break
            length = int.from_bytes(received[start + 2 : body], "big")
        if len(received) < body + length:
            break
        frames.append((received[start], received[body : body + length]))
        start = body + length
    return frames, received[start:]


def take_response(received: bytes) -> tuple[int, bytes, bytes] | None:
    """(code, body, rest) of a whole HTTP response; None while some of it is missing."""
    head, blank, rest = received.partition(b"\r\n\r\n")
    if not blank:
        return None
    found = _length(head)
    length = int(found[1]) if found else 0
    if len(rest) < length:
        return None
    return int(head[9:12]), rest[:length], rest[length:]
