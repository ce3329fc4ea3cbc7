"""Frames cut out of a till's bytes: every message arrives once and whole, however they come, and however few fit."""

import asyncio
from collections.abc import Iterator
from random import Random

import pytest
from aiohttp._websocket.reader import WebSocketDataQueue
from aiohttp.http import WebSocketReader
from aiohttp.streams import EofStream

from gateway.stream_frames import Frames

BINARY, TEXT, PING, PONG, MORE = 2, 1, 9, 10, 0


class Line:
    """As much of a transport, and of aiohttp's protocol, as they ask of it."""

    _reading_paused = False

    def __init__(self) -> None:
        self.is_paused = False

    def pause_reading(self) -> None:
        self.is_paused = True

    def resume_reading(self, resume_parser: bool = True) -> None:
        self.is_paused = False

    def is_closing(self) -> bool:
        return False


class Setting:
    def __init__(self) -> None:
        self.line, loop = Line(), asyncio.get_running_loop()
        self.queue = WebSocketDataQueue(self.line, 1 << 22, loop=loop)  # type: ignore[arg-type]
        self.frames = Frames(WebSocketReader(self.queue, 1 << 18, compress=False, decode_text=True), self.line)  # type: ignore[arg-type]
        self.taken: list[bytes] = []
        self.room = 10**9
        self.frames.take = self.take

    def take(self, content: bytearray) -> bool:
        assert self.room > 0, "taken although there was no room"
        self.taken.append(bytes(content))
        self.room -= 1
        return self.room > 0

    async def queued(self) -> list[object]:
        self.queue.feed_eof()
        told: list[object] = []
        while True:
            try:
                told.append((await self.queue.read()).data)
            except EofStream:
                return told


def frame(opcode: int, payload: bytes, rng: Random, *, last: bool = True) -> bytes:
    size = len(payload)
    length = bytes((0x80 | size,)) if size < 126 else b"\xfe" + size.to_bytes(2, "big")
    mask = rng.randbytes(4)
    masked = bytes(byte ^ mask[at & 3] for at, byte in enumerate(payload))
    return bytes((last << 7 | opcode,)) + length + mask + masked


def pieces(sent: bytes, rng: Random) -> Iterator[bytes]:
    at = 0
    while at < len(sent):
        size = rng.choice((1, 2, 3, 5, 7, 30, 200, 5000))
        yield sent[at : at + size]
        at += size


@pytest.mark.parametrize("seed", range(40))
async def test_every_message_comes_once_and_whole(seed: int) -> None:
    rng = Random(seed)
    here, sent, direct, others = Setting(), b"", [], []
    for _ in range(60):
        payload = rng.randbytes(rng.choice((0, 1, 80, 125, 126, 127, 300, 4000)))
        match rng.randrange(6):
            case 0:
                sent += frame(TEXT, payload.hex().encode(), rng)
                others.append(payload.hex())
            case 1:
                sent += frame(rng.choice((PING, PONG)), payload[:125], rng)
                others.append(payload[:125])
            case 2:
                sent += frame(BINARY, payload, rng, last=False) + frame(MORE, b"end", rng)
                others.append(payload + b"end")
            case _:
                sent += frame(BINARY, payload, rng)
                direct.append(payload)
    for piece in pieces(sent, rng):
        assert here.frames.feed_data(piece) == (False, b"")
    assert here.taken == direct
    assert await here.queued() == others


async def test_without_room_nothing_is_taken_until_there_is() -> None:
    rng, here = Random(1), Setting()
    sent = [rng.randbytes(50) for _ in range(10)]
    here.room = 3
    here.frames.feed_data(b"".join(frame(BINARY, payload, rng) for payload in sent[:8]))
    assert (here.taken, here.line.is_paused) == (sent[:3], True)
    here.frames.feed_data(b"".join(frame(BINARY, payload, rng) for payload in sent[8:]))  # was on its way already
    here.room = 4
    here.frames.go_on()
    assert (here.taken, here.line.is_paused) == (sent[:7], True)
    here.room = 100
    here.frames.go_on()
    assert (here.taken, here.line.is_paused) == (sent, False)
    here.frames.go_on()
    assert here.taken == sent


@pytest.mark.parametrize(
    "odd",
    (
        b"\x82\x05hello",  # not masked
        b"\x82\xff" + (5).to_bytes(8, "big") + bytes(4) + b"hello",  # a length of 64 bits
    ),
)
async def test_what_is_not_usual_is_for_aiohttp_with_all_behind_it(odd: bytes) -> None:
    rng, here = Random(1), Setting()
    for at in range(len(odd)):
        here.frames.feed_data(odd[at : at + 1])
    here.frames.feed_data(frame(BINARY, b"behind", rng))
    assert here.taken == []
    assert await here.queued() == [b"hello", b"behind"]


@pytest.mark.parametrize("wrong", (b"\xf2\x80" + bytes(4), b"\x83\x80" + bytes(4), b"\x82\xff" + b"\x7f" + bytes(11)))
async def test_a_wrong_frame_ends_the_connection(wrong: bytes) -> None:
    here = Setting()
    has_to_end, _ = here.frames.feed_data(frame(BINARY, b"before", Random(1)) + wrong)
    assert has_to_end
    assert here.taken == [b"before"]
