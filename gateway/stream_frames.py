"""Messages past aiohttp's queue: bytes of a till's connection cut into WebSocket frames, RFC 6455 section 5.2.

aiohttp queues a message and wakes the till's task for it, which for a single scan is a good part of what it costs. A
whole binary message is unmasked and taken here, in the call that brought its end; every other frame (text, a fragment,
a ping, a close) goes as it is to aiohttp's reader and its errors. A frame that is not masked, or whose length takes 64
bits, is aiohttp's with all that comes after it.
"""

import asyncio
from collections.abc import Callable

from aiohttp import web
from aiohttp._websocket.helpers import websocket_mask
from aiohttp.http import WebSocketReader

_BINARY = 0x82  # FIN, no extension, opcode 2
_MASKED, _LENGTH_16 = 0x80, 0xFE

Take = Callable[[bytearray], bool]
"""Takes a message; False: and no other before `go_on`."""


class Frames:
    """Stands where aiohttp's reader stands. Until `take` is set, it gets everything."""

    __slots__ = ("_is_held", "_is_theirs", "_reader", "_tail", "_transport", "take")

    def __init__(self, reader: WebSocketReader, transport: asyncio.Transport) -> None:
        self._reader, self._transport = reader, transport
        self._tail = b""
        self._is_held = self._is_theirs = False
        self.take: Take | None = None

    def feed_data(self, received: bytes) -> tuple[bool, bytes]:
        """As the reader's: whether the connection has to end, and what is left over then."""
        if self._is_theirs:
            return self._reader.feed_data(received)
        if self._tail:
            received, self._tail = self._tail + received, b""
        at, end = 0, len(received)
        while not self._is_held and end - at > 1:
            first, length, body = received[at], received[at + 1], at + 6
            if length == _LENGTH_16:
                length, body = int.from_bytes(received[at + 2 : at + 4], "big"), at + 8
            elif _MASKED <= length < _LENGTH_16:
                length -= _MASKED
            else:
                self._is_theirs = True
                return self._reader.feed_data(received[at:])
            after = body + length
            if after > end or body > end:
                break
            if first == _BINARY and self.take is not None:
                payload = bytearray(received[body:after])
                websocket_mask(received[body - 4 : body], payload)
                if not self.take(payload):
                    self._is_held = True
                    self._transport.pause_reading()
            else:
                has_to_end, rest = self._reader.feed_data(received[at:after])
                if has_to_end:
                    return has_to_end, rest
            at = after
        self._tail = received[at:]
        return False, b""

    def feed_eof(self) -> None:
        """As the reader's."""
        self._reader.feed_eof()

    def go_on(self) -> None:
        """There is room for further messages."""
        if self._is_held:
            self._is_held = False
            if not self._transport.is_closing():
                self._transport.resume_reading()
                self.feed_data(b"")


def frames_of(request: web.Request) -> Frames | None:
    """Where a connection's messages can be taken from; None if it is none of HotConnection's."""
    return getattr(request.protocol, "frames", None)
