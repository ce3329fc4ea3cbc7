"""Hot requests past aiohttp: the same answers however the bytes arrive, and nothing changes for all other requests."""

import asyncio
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random

import msgspec
import pytest
from aiohttp import web
from core_world import new_id, until
from http_world import HttpWorld, http_world

from gateway.http_hot import HotRunner, Tell

ANSWER_S_MAX = 5.0
CODES = 400
# More bytes than any spoilt length swallows; the last one ends the connection.
BEHIND = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n" * 28 + b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
_length = re.compile(rb"Content-Length: (\d+)").search


@pytest.fixture
async def h(tmp_path: Path, valkey_endpoint: str) -> AsyncIterator[HttpWorld]:
    async with http_world(tmp_path, valkey_endpoint) as made:
        yield made


class Hot:
    """The world's routes behind a runner of our own, which counts what went past aiohttp."""

    def __init__(self, h: HttpWorld, codes: list[str]) -> None:
        self.h, self.codes = h, codes
        self.taken = self.port = self.plain_port = 0

    def admit(self, authorization: str, body: bytes, tell: Tell) -> bool:
        is_taken = self.h.doors.admit(authorization, body, tell)
        self.taken += is_taken
        return is_taken

    def request(self, body: bytes, more: str = "", who: str = "till-1") -> bytes:
        head = (
            f"POST /v1/redemptions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {self.h.tokens[who]}\r\n"
            f"Content-Type: application/json\r\n{more}Content-Length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body

    def redemption(self, redemption_id: str = "") -> bytes:
        return self.request(
            msgspec.json.encode({"redemption_id": redemption_id or new_id().hex(), "code": self.codes.pop()})
        )

    async def told(self, *pieces: bytes, answers: int = 1) -> list[tuple[int, bytes]]:
        """Code and body of every answer to these pieces, each sent by itself on one connection."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            for piece in pieces:
                writer.write(piece)
                await asyncio.sleep(0)
            return [await answer(reader) for _ in range(answers)]
        finally:
            writer.close()


async def answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """(0, b"") where the connection ends instead."""
    async with asyncio.timeout(ANSWER_S_MAX):
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            length = _length(head)
            return int(head[9:12]), await reader.readexactly(int(length[1]) if length else 0)
        except (asyncio.IncompleteReadError, ConnectionError):
            return 0, b""


@asynccontextmanager
async def served(h: HttpWorld, **options: float) -> AsyncIterator[Hot]:
    """The world's routes twice more: behind a HotRunner, and behind aiohttp alone."""
    hot = Hot(h, await h.w.codes(CODES))  # a control event makes everybody be looked up again
    runners = [HotRunner(_app(h), hot.admit, access_log=None, **options), web.AppRunner(_app(h), access_log=None)]
    try:
        for runner in runners:
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", 0).start()
        hot.port, hot.plain_port = (runner.addresses[0][1] for runner in runners)
        await hot.told(hot.redemption())  # who comes for the first time is looked up on aiohttp's way
        yield hot
    finally:
        for runner in runners:
            await runner.cleanup()


def _app(h: HttpWorld) -> web.Application:
    app = web.Application()
    app.add_routes(h.doors.routes)
    return app


async def test_a_request_may_come_in_any_pieces(h: HttpWorld) -> None:
    async with served(h) as hot:
        whole = hot.redemption()
        (first,) = await hot.told(whole)
        assert (first[0], hot.taken) == (200, 1)
        cuts = [*range(1, len(whole), 23), whole.index(b"\r\n\r\n") + 2, whole.index(b"\r\n\r\n") + 4]
        for cut in cuts:
            assert await hot.told(whole[:cut], whole[cut:]) == [first]
        assert hot.taken == 1 + len(cuts)


async def test_answers_come_in_the_order_of_the_requests(h: HttpWorld) -> None:
    async with served(h) as hot:
        wanted = [new_id().hex() for _ in range(40)]
        requests = [hot.redemption(each) for each in wanted]
        requests.insert(7, f"GET /v1/redemptions/{wanted[0]} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        told = await hot.told(b"".join(requests), answers=41)
        assert told.pop(7)[0] == 401
        assert [msgspec.json.decode(body)["redemption_id"] for _, body in told] == wanted
        assert hot.taken >= 7


async def test_a_connection_is_hot_again_after_another_request(h: HttpWorld) -> None:
    async with served(h) as hot:
        reader, writer = await asyncio.open_connection("127.0.0.1", hot.port)
        writer.write(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await answer(reader))[0] == 200
        async with asyncio.timeout(ANSWER_S_MAX):
            while not hot.taken:  # a request on the heels of aiohttp's answer is aiohttp's too
                writer.write(hot.redemption())
                assert (await answer(reader))[0] == 200
        writer.close()


async def test_what_is_not_accepted_is_told_as_ever(h: HttpWorld) -> None:
    async with served(h) as hot:
        code = hot.codes.pop()
        first, second = ({"redemption_id": new_id().hex(), "code": code} for _ in range(2))
        bodies = [first, first, second, {"redemption_id": new_id().hex(), "code": "nonsense"}]
        (won,), (again,), (lost,), (unknown,) = [await hot.told(hot.request(msgspec.json.encode(b))) for b in bodies]
        assert won == again
        assert [msgspec.json.decode(body)["verdict"] for _, body in (won, lost, unknown)] == [
            "accepted",
            "already_redeemed",
            "unknown_code",
        ]
        assert hot.taken == 4
        (refused,) = await hot.told(hot.request(b'{"redemption_id":"12","code":"x"}'))
        assert (refused[0], msgspec.json.decode(refused[1])["field"]) == (400, "redemption_id")
        assert hot.taken == 4


async def test_a_lane_that_cannot_answer_says_so(h: HttpWorld) -> None:
    async with served(h) as hot:
        h.w.core.lanes[0].halt("for a test")
        reader, writer = await asyncio.open_connection("127.0.0.1", hot.port)
        writer.write(b"".join([hot.redemption() for _ in range(300)]))  # each answered before its call returns
        told = [await answer(reader) for _ in range(300)]
        writer.close()
        assert {code for code, _ in told} == {503}
        assert all(msgspec.json.decode(body)["retry"] for _, body in told)


async def test_whatever_bytes_come_the_answers_are_those_of_aiohttp_alone(h: HttpWorld) -> None:
    async with served(h) as hot:
        whole = hot.redemption()
        rng = Random(5)
        for _ in range(150):
            sent = _spoilt(whole, rng) + BEHIND
            there, here = [await _all_told(port, sent) for port in (hot.plain_port, hot.port)]
            assert there == here, sent
        assert hot.taken > 20


def _spoilt(whole: bytes, rng: Random) -> bytes:
    """With a fault in its head, or broken off anywhere."""
    lines = whole.split(b"\r\n")
    odd = (b"Transfer-Encoding: chunked", b"Content-Length: 5", b"X: \x01", b"Expect: 100-continue", b" folded", b"A:b")
    match rng.randrange(6):
        case 0:
            lines.insert(rng.randrange(1, len(lines) - 1), rng.choice(odd))
        case 1:
            at = rng.randrange(len(lines))
            lines[at] = lines[at].replace(b" ", rng.choice((b"", b"  ", b"\t")), 1)
        case 2:
            del lines[rng.randrange(len(lines) - 1)]
        case 3:
            return whole[: rng.randrange(len(whole))]
        case 4:
            at = rng.randrange(whole.index(b"{"))
            return whole[:at] + bytes((rng.choice(b"\x00\r\n :a0\xff"),)) + whole[at + 1 :]
        case _:
            lines[rng.randrange(1, 4)] += rng.choice((b" ", b"\t", b"\x7f", b"; charset=utf-8"))
    return b"\r\n".join(lines)


async def _all_told(port: int, sent: bytes) -> Sequence[tuple[int, bytes]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(sent)
    told = []
    while (each := await answer(reader))[0]:
        told.append(each)
    writer.close()
    return told


async def test_a_hot_connection_is_no_idle_one(h: HttpWorld) -> None:
    async with served(h, keepalive_timeout=0.5) as hot:
        reader, writer = await asyncio.open_connection("127.0.0.1", hot.port)
        for _ in range(8):
            writer.write(hot.redemption())
            assert (await answer(reader))[0] == 200
            await asyncio.sleep(0.1)
        assert hot.taken >= 8
        async with asyncio.timeout(ANSWER_S_MAX):
            assert await reader.read() == b""  # but then it is
        writer.close()


async def test_a_server_that_stops_lets_the_answer_out(h: HttpWorld) -> None:
    async with served(h) as hot:
        reader, writer = await asyncio.open_connection("127.0.0.1", hot.port)
        writer.write(hot.redemption())
        await until(lambda: hot.taken == 1)
    assert (await answer(reader))[0] == 200
    writer.close()
