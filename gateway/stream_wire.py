"""How the stream's messages become bytes and back: two encodings, whole frames, and what can be saved of a bad message.

A message that does not fit the contract is read again scan by scan, so that only the scans that are wrong are refused.
"""

import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import msgspec
from aiohttp import WSMsgType

from gateway.messages import SUBPROTOCOL, SUBPROTOCOL_JSON, FromGateway, FromTill, Redeem, Reverse

FAULT_CHARS_MAX = 200  # msgspec may quote what it was sent instead of a message's tag
NO_SCAN, NO_REVERSAL = Redeem(b"", "", 0), Reverse(b"", b"", 0)  # stand for unreadable ones: refused and logged as such
UNDECODABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
_MEDIUM, _LONG = struct.Struct(">BBH"), struct.Struct(">BBQ")

T = TypeVar("T", Redeem, Reverse)


class LooseRedeem(msgspec.Struct, array_like=True, tag="redeem"):
    ref: int
    scans: list[msgspec.Raw]


class LooseReverse(msgspec.Struct, array_like=True, tag="reverse"):
    ref: int
    reversals: list[msgspec.Raw]


def read_each(
    decode: Callable[[msgspec.Raw], T], unreadable: T, raws: Sequence[msgspec.Raw]
) -> tuple[list[T], dict[int, str]]:
    """Every scan (or reversal), `unreadable` in the place of one that cannot be read; and by index what was wrong."""
    read: list[T] = []
    faults: dict[int, str] = {}
    for index, raw in enumerate(raws):
        try:
            read.append(decode(raw))
        except UNDECODABLE as error:
            read.append(unreadable)
            faults[index] = fault_text(error, type(unreadable).__struct_fields__)
    return read, faults


class Wire:
    """One subprotocol's encoding, its decoders built once."""

    def __init__(self, codec: Any, kind: WSMsgType) -> None:
        self.kind = kind
        self.encode: Callable[[FromGateway], bytes] = codec.Encoder().encode
        self.decode: Callable[[bytes | bytearray | str], FromTill] = codec.Decoder(FromTill).decode
        self.decode_loosely: Callable[[bytes | bytearray | str], LooseRedeem | LooseReverse]
        self.decode_loosely = codec.Decoder(LooseRedeem | LooseReverse).decode
        self.decode_scan: Callable[[msgspec.Raw], Redeem] = codec.Decoder(Redeem).decode
        self.decode_reversal: Callable[[msgspec.Raw], Reverse] = codec.Decoder(Reverse).decode
        self._first_byte = 0x80 | kind.value  # FIN and the opcode

    def frame(self, message: FromGateway) -> bytes:
        """A message as one whole unmasked WebSocket frame (RFC 6455 section 5.2)."""
        payload = self.encode(message)
        size = len(payload)
        if size < 126:
            return bytes((self._first_byte, size)) + payload
        if size < 65536:
            return _MEDIUM.pack(self._first_byte, 126, size) + payload
        return _LONG.pack(self._first_byte, 127, size) + payload


WIRES: Mapping[str, Wire] = {
    SUBPROTOCOL: Wire(msgspec.msgpack, WSMsgType.BINARY),
    SUBPROTOCOL_JSON: Wire(msgspec.json, WSMsgType.TEXT),
}


def fault_text(error: Exception, fields: Sequence[str] = ()) -> str:
    """What is wrong with a message, its place by name where it is one of `fields`."""
    if not isinstance(error, msgspec.ValidationError):
        return "cut short, or not in the encoding that was agreed"
    text = str(error)
    for number, field in enumerate(fields):
        text = text.replace(f"`$[{number}]", f"`{field}")
    return text[:FAULT_CHARS_MAX]
