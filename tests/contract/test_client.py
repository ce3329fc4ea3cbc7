"""What the HTTP client makes of every kind of answer, over real sockets."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from gateway.client import BadReply, Client, Refused, Unreachable, Unresolved

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def answering(answer: Answer) -> AsyncIterator[Client]:
    """A client of a server that gives this answer to everything."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        async with Client(f"http://127.0.0.1:{runner.addresses[0][1]}/", "tg_SECRET") as client:
            yield client
    finally:
        await runner.cleanup()


def problem(code: int, **fields: str) -> web.Response:
    headers = {"Retry-After": "1"} if code == 503 else {}
    return web.json_response(fields, status=code, content_type="application/problem+json", headers=headers)


async def test_a_request_arrives_as_it_was_meant() -> None:
    seen: list[object] = []

    async def answer(request: web.Request) -> web.StreamResponse:
        seen.append((request.method, request.raw_path, request.headers["Authorization"], await request.text()))
        return web.json_response({"n": 1})

    async with answering(answer) as client:
        assert await client.post("/v1/a%2Fb", {"é": 1}, dict[str, int]) == {"n": 1}
        assert await client.get("/v1/x", dict[str, int], first=3, count=4) == {"n": 1}
    assert seen == [
        ("POST", "/v1/a%2Fb", "Bearer tg_SECRET", '{"é":1}'),
        ("GET", "/v1/x?first=3&count=4", "Bearer tg_SECRET", ""),
    ]


@pytest.mark.parametrize(
    ("code", "fields", "text"),
    (
        (400, {"title": "Bad Request", "detail": "must be text", "field": "slug"}, "slug: must be text"),
        (403, {"title": "Forbidden", "detail": "not yours"}, "not yours"),
        (404, {"title": "Not Found"}, "Not Found"),
    ),
)
async def test_a_refusal_tells_the_field_and_why(code: int, fields: dict[str, str], text: str) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        return problem(code, **fields)

    async with answering(answer) as client:
        with pytest.raises(Refused) as refused:
            await client.post("/v1/x", {}, dict[str, int])
    assert (refused.value.status_code, str(refused.value)) == (code, text)


@pytest.mark.parametrize("again", (False, True))
async def test_only_what_may_be_repeated_is_repeated(again: bool) -> None:
    answers = [problem(503, detail="ask again"), web.json_response({"n": 1})]

    async def answer(request: web.Request) -> web.StreamResponse:
        return answers.pop(0)

    async with answering(answer) as client:
        if again:
            assert await client.post("/v1/x", {}, dict[str, int], again=True) == {"n": 1}
        else:
            with pytest.raises(Unresolved, match="ask again"):
                await client.post("/v1/x", {}, dict[str, int])
    assert len(answers) == (0 if again else 1)


@pytest.mark.parametrize(
    ("code", "text", "said"),
    (
        (200, "<html>", "something else"),
        (200, "[1]", "something else"),
        (500, "", "500"),
        (302, "", "302"),
        (404, "", "404"),
    ),
)
async def test_an_answer_that_is_no_gateways_is_named(code: int, text: str, said: str) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        return web.Response(text=text, status=code, headers={"Location": "/elsewhere"})

    async with answering(answer) as client:
        with pytest.raises(BadReply, match=said) as bad:
            await client.get("/v1/x", dict[str, int])
    assert "tg_SECRET" not in str(bad.value)


async def test_a_text_that_breaks_off_is_never_taken_for_the_end() -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"1,a\n2,b\n3")
        if request.path == "/cut":
            assert request.transport is not None
            request.transport.abort()
        return response

    for path in ("/cut", "/torn"):
        got: list[str] = []

        async def take_all(client: Client, path: str = path, got: list[str] = got) -> None:
            async for line in client.lines(path):
                got.append(line)

        async with answering(answer) as client:
            with pytest.raises(Unreachable):
                await take_all(client)
        assert got in (["1,a", "2,b"], [])


async def test_nobody_there_is_unreachable() -> None:
    async with Client("http://127.0.0.1:1") as client:
        with pytest.raises(Unreachable, match="cannot be reached"):
            await client.get("/livez", dict[str, bool])
