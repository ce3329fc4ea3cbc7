"""A client of the gateway's HTTP API, for the command line and for tools.

Every failure that a caller may expect is one of: `Unreachable` (nobody answered, or not in time), `Unresolved` (the
gateway said 503: nothing is known, the same request may be sent again), `Refused` (4xx, with the field that is wrong),
`BadReply` (what answered is no gateway of this version).
"""

import asyncio
import io
import os
import re
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Self, TypeVar

import aiohttp
import msgspec
from yarl import URL

CONNECT_SECONDS_MAX = 5.0  # across the world it takes half a second; after five nobody is there
ANSWER_SECONDS_MAX = 60.0  # an import of 1000 codes behind a recovery that replays some thousand batches
AGAIN_SECONDS_MAX = 60.0  # how long a request that may be repeated is repeated: a restart of Valkey fits in
AGAIN_PAUSE_SECONDS = 0.5  # when the gateway does not say how long to wait
PIECES_FROM_BYTES = 1 << 20  # a longer body is written piece by piece: aiohttp warns of blocking the loop otherwise
LINE_BYTES_MAX = 4 << 20  # one batch of the log as JSON, with room

T = TypeVar("T")


class ClientFault(Exception):
    """The request was not carried out as asked; the text says why, and holds no secret."""


class Unreachable(ClientFault):
    """Nobody answered at this address. Whether a request was carried out is unknown."""


class Unresolved(ClientFault):
    """503: nothing is known (yet); the same request, with the same id, may be sent again."""

    def __init__(self, text: str, retry_after_s: float) -> None:
        super().__init__(text)
        self.retry_after_s = retry_after_s


class Refused(ClientFault):
    """4xx: the request is wrong or forbidden; nothing was changed."""

    def __init__(self, status_code: int, problem: "Problem") -> None:
        text = problem.detail or problem.title
        super().__init__(f"{problem.field}: {text}" if problem.field else text)
        self.status_code, self.problem = status_code, problem


class BadReply(ClientFault):
    """The answer is not what this version of the API says."""


class Problem(msgspec.Struct, frozen=True):
    """RFC 9457, with the field of the request that is wrong."""

    type: str = "about:blank"
    title: str = ""
    detail: str = ""
    field: str | None = None


class Content(msgspec.Struct, frozen=True):
    """A body that is not JSON."""

    media: str
    octets: bytes


class Client:
    """One gateway at `url` (`http://host:port`), asked with one bearer token. An async context manager."""

    def __init__(self, url: str, token: str = "", *, tls: ssl.SSLContext | None = None) -> None:
        self.url = url.rstrip("/")
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._tls: ssl.SSLContext | bool = tls or True
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS_MAX, sock_read=ANSWER_SECONDS_MAX)
        self._session = aiohttp.ClientSession(
            headers=self._headers, timeout=timeout, trust_env=False, read_bufsize=LINE_BYTES_MAX
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._session is not None
        await self._session.close()

    async def get(self, path: str, reply: type[T], **query: str | int) -> T:
        """Reading changes nothing, so it is repeated while the gateway answers 503, for AGAIN_SECONDS_MAX."""
        return await self._until_resolved("GET", path, reply, None, query)

    async def get_whatever(self, path: str, reply: type[T], **query: str | int) -> T:
        """One question whose answer counts with any HTTP code, such as /readyz."""
        return await self._ask("GET", path, reply, None, query, any_code=True)

    async def post(self, path: str, body: object, reply: type[T], *, again: bool = False, **query: str | int) -> T:
        """`again`: the request has an idempotency key, so it may be repeated while the answer is 503.

        `body` is sent as JSON, or as it is if it is a Content.
        """
        if again:
            return await self._until_resolved("POST", path, reply, body, query)
        return await self._ask("POST", path, reply, body, query)

    async def blocks(self, path: str, **query: str | int) -> AsyncIterator[bytes]:
        """The whole lines of a streamed text, in blocks as they arrive. Raises Unreachable when it breaks off."""
        rest = b""
        try:
            async with self._open("GET", path, None, query) as response:
                if response.status != 200:
                    raise _fault_of(response, await response.read())
                async for block in response.content.iter_any():
                    whole, end, begun = block.rpartition(b"\n")
                    if end:
                        yield rest + whole + end
                        rest = b""
                    rest += begun
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise self._unreachable(error) from error
        if rest:
            raise Unreachable(f"the answer of {self.url} broke off")

    async def lines(self, path: str, **query: str | int) -> AsyncIterator[str]:
        """The lines of a streamed text, without their ends. Raises Unreachable when it breaks off."""
        try:
            async with self._open("GET", path, None, query) as response:
                if response.status != 200:
                    raise _fault_of(response, await response.read())
                async for line in response.content:
                    if not line.endswith(b"\n"):
                        raise Unreachable(f"the answer of {self.url} broke off")
                    yield line[:-1].decode()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise self._unreachable(error) from error

    async def _until_resolved(
        self, method: str, path: str, reply: type[T], body: object, query: Mapping[str, str | int]
    ) -> T:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + AGAIN_SECONDS_MAX
        while True:
            try:
                return await self._ask(method, path, reply, body, query)
            except Unresolved as error:
                if loop.time() + error.retry_after_s > deadline:
                    raise
                await asyncio.sleep(error.retry_after_s)

    async def _ask(
        self,
        method: str,
        path: str,
        reply: type[T],
        body: object,
        query: Mapping[str, str | int],
        *,
        any_code: bool = False,
    ) -> T:
        try:
            async with self._open(method, path, body, query) as response:
                content = await response.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise self._unreachable(error) from error
        if not (any_code or 200 <= response.status < 300):
            raise _fault_of(response, content)
        try:
            return msgspec.json.decode(content, type=reply)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise BadReply(f"{self.url}{path} answered something else than this version expects: {error}") from None

    def _open(
        self, method: str, path: str, body: object, query: Mapping[str, str | int]
    ) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        assert self._session is not None, "used inside `async with`"
        content: bytes | None = None
        headers = {}
        if method == "POST":
            sent = body if isinstance(body, Content) else Content("application/json", msgspec.json.encode(body))
            content, headers = sent.octets, {"Content-Type": sent.media}
        return self._session.request(
            method,
            _url(self.url + path, query),
            data=content if content is None or len(content) < PIECES_FROM_BYTES else io.BytesIO(content),
            headers=headers,
            ssl=self._tls,
            allow_redirects=False,
        )

    def _unreachable(self, error: Exception) -> Unreachable:
        code = error.os_error.errno if isinstance(error, aiohttp.ClientConnectorError) else None
        if code is not None and code > 0:  # below: of a name look-up
            return Unreachable(f"{self.url} cannot be reached: {os.strerror(code).lower()}")
        why = str(error) or ("no answer in time" if isinstance(error, TimeoutError) else type(error).__name__)
        return Unreachable(f"{self.url} cannot be reached: {why}")


def _url(text: str, query: Mapping[str, str | int]) -> URL:
    return URL(text, encoded=True).with_query(query) if query else URL(text, encoded=True)


def _fault_of(response: aiohttp.ClientResponse, content: bytes) -> ClientFault:
    problem = _problem_of(content)
    if response.status == 503:
        text = problem.detail or problem.title or "nothing is known yet: ask again"
        return Unresolved(text, _retry_after_s(response.headers.get("Retry-After")))
    if 400 <= response.status < 500 and (problem.detail or problem.title):
        return Refused(response.status, problem)
    said = " ".join(filter(None, (str(response.status), response.reason, problem.detail)))
    return BadReply(f"{response.url.origin()} answered {said}")


def _problem_of(content: bytes) -> Problem:
    try:
        return msgspec.json.decode(content, type=Problem)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return Problem()


def _retry_after_s(header: str | None) -> float:
    return float(header) if header and re.fullmatch(r"[1-9][0-9]{0,3}", header) else AGAIN_PAUSE_SECONDS
