"""Gateways as processes on one PostgreSQL log and one Valkey, a furnished deployment, and tills that never give up."""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import unittest.mock
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import aiohttp
from cli_world import Told, tillgate
from core_world import new_id, wall_ms
from source_tree import ROOT
from stream_world import Closed, TillClient, device

from gateway.client import Client
from gateway.messages import Redeem, Verdict, Verdicts

START_S, END_S, RESOLVED_S = 60.0, 60.0, 60.0
AGAIN_S = 0.05  # a till's pause before it connects again
LOST = (aiohttp.ClientError, OSError, Closed, TimeoutError)


class Site:
    """One deployment: environment for every command, data directory, and what was furnished."""

    def __init__(self, data: Path, log_url: str, valkey_url: str) -> None:
        self.data = data
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith("TILLGATE_")} | {
            "TILLGATE_DATA": str(data),
            "TILLGATE_LOG__URL": log_url,
            "TILLGATE_VALKEY__URL": valkey_url,
            "TILLGATE_SERVER__PORT": "0",
            "TILLGATE_METRICS__PORT": "0",
            "TILLGATE_DRAIN_SECONDS": "0",
        }
        self.codes: list[str] = []

    def command(self, *args: object, **more: str) -> Told:
        """One command line, carried out in a thread of this process."""

        def carry_out() -> Told:
            with unittest.mock.patch.dict(os.environ, self.environment | more, clear=True):
                return tillgate(*args)

        with ThreadPoolExecutor(1) as thread:
            return thread.submit(carry_out).result()

    def json(self, *args: object, **more: str) -> Any:
        return self.command(*args, "--json", **more).json

    @contextlib.contextmanager
    def serving(self, *args: object, **more: str) -> Iterator["Running"]:
        """`tillgate serve`; ended cleanly, unless it has ended already."""
        line = [sys.executable, "-m", "gateway.cli", "serve", "--json", *map(str, args)]
        with (self.data / "told.txt").open("ab") as told:
            process = subprocess.Popen(
                line, cwd=ROOT, env=self.environment | more, stdout=subprocess.PIPE, stderr=told, text=True
            )
        with process:
            try:
                assert process.stdout is not None
                answer = process.stdout.readline()
                assert answer, self.told()
                yield Running(process, json.loads(answer)["url"])
                process.send_signal(signal.SIGTERM)
                assert process.wait(END_S) == 0, self.told()
            finally:
                with contextlib.suppress(ProcessLookupError):
                    process.send_signal(signal.SIGCONT)
                    process.kill()

    def told(self) -> str:
        """What all gateways said."""
        return (self.data / "told.txt").read_text()

    async def furnish(self, url: str, tills: int, vouchers: int) -> None:
        """A merchant with a store, terminals 1 to `tills` with the keys of stream_world.device, a campaign, codes."""
        token = (self.data / "secrets" / "admin.token").read_text().strip()
        async with Client(url, token) as client:
            await client.post("/v1/merchants", {"merchant": "m1", "title": "M"}, dict)
            await client.post("/v1/stores", {"store": "s1", "merchant": "m1", "title": "S"}, dict)
            offer = {"title": "C", "kind": "prepaid", "value": "1.00 EUR", "starts": "2025-01-01", "ends": "2099-01-01"}
            await client.post("/v1/campaigns", {"slug": "cake", "offer": offer | {"stores": ["s1"]}}, dict)
            for number in range(1, tills + 1):
                offered = await client.post("/v1/terminals", {"store": "s1", "label": f"t{number}"}, dict)
                assert offered["terminal"] == number
                key = device(number).public_key().public_bytes_raw().hex()
                enrolled = {"token": offered["token"], "public_key": key}
                await client.post("/v1/terminals/enrol", enrolled, dict)
            await client.post("/v1/campaigns/cake/issues", {"count": vouchers, "request_id": "r"}, dict)
            first = 0
            async for line in client.lines("/v1/campaigns/cake/codes", first=first or 1, count=vouchers):
                self.codes.append(line.partition(",")[2])


class Running:
    """A `tillgate serve` that runs."""

    def __init__(self, process: subprocess.Popen[str], url: str) -> None:
        self.process, self.url, self.pid = process, url, process.pid

    def workers(self) -> list[int]:
        """The processes it has started."""
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text()
        return [int(pid) for pid in children.split()]


class Till:
    """One terminal that asks any of its gateways, in turn, until it is told; the same scan has the same id for ever."""

    def __init__(self, number: int, urls: Sequence[str]) -> None:
        self.number, self._urls = number, list(urls)
        self.answers: dict[bytes, Verdict] = {}
        self.seconds: list[float] = []  # from when a scan was due to its answer
        self.retries: Counter[str] = Counter()
        self._client: TillClient | None = None
        self._stack = contextlib.AsyncExitStack()

    async def ask(self, scan: Redeem, due_s: float | None = None) -> Verdict:
        """The verdict, however often it takes. Raises TimeoutError after RESOLVED_S."""
        due_s = time.monotonic() if due_s is None else due_s
        async with asyncio.timeout(RESOLVED_S):
            while True:
                try:
                    verdict = await self._once(scan)
                except LOST as error:
                    self.retries[type(error).__name__] += 1
                    await self.leave()
                    await asyncio.sleep(AGAIN_S)
                    continue
                if verdict is not Verdict.UNRESOLVED:
                    break
                self.retries["unresolved"] += 1
                await asyncio.sleep(AGAIN_S)
        self.seconds.append(time.monotonic() - due_s)
        self.answers[scan.redemption_id] = verdict
        return verdict

    async def _once(self, scan: Redeem) -> Verdict:
        if self._client is None or self._client.drained:
            await self.leave()
            self._urls.append(self._urls.pop(0))
            session = await self._stack.enter_async_context(aiohttp.ClientSession())
            ws = await self._stack.enter_async_context(
                session.ws_connect(self._urls[-1] + "/v1/stream", protocols=["tillgate.v1"], compress=0)
            )
            client = TillClient(ws, "tillgate.v1")
            await client.greet(self.number)
            self._client = client
        answer: Verdicts = await self._client.redeem(scan)
        return Verdict(answer.codes[0])

    def visit(self, url: str) -> None:
        """From the next connection on, ask this gateway only."""
        self._urls = [url]

    async def leave(self) -> None:
        """Hang up."""
        stack, self._stack, self._client = self._stack, contextlib.AsyncExitStack(), None
        await stack.aclose()


@contextlib.asynccontextmanager
async def tills(count: int, urls: Sequence[str]) -> AsyncIterator[list[Till]]:
    made = [Till(number, urls[number % len(urls) :] + urls[: number % len(urls)]) for number in range(1, count + 1)]
    try:
        yield made
    finally:
        for till in made:
            await till.leave()


async def load(made: Sequence[Till], codes: Sequence[str], rate: float, is_over: Callable[[], bool]) -> int:
    """Scan the codes, each once, at `rate` a second (an open model: a till that is late catches up) until it is over.

    Returns how many were scanned; every one of them has its answer.
    """
    began_s = time.monotonic()
    places = iter(enumerate(codes))

    async def work(till: Till) -> int:
        scanned = 0
        for place, code in places:
            due_s = began_s + place / rate
            await asyncio.sleep(max(0.0, due_s - time.monotonic()))
            if is_over():
                break
            await till.ask(Redeem(new_id(), code, wall_ms()), due_s)
            scanned += 1
        return scanned

    return sum(await asyncio.gather(*map(work, made)))


async def until(condition: Callable[[], bool], seconds: float = START_S) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        await asyncio.sleep(0.02)


def new_site(data: Path, log_url: str, valkey_url: str, partitions: int = 1) -> Site:
    """A deployment of its own, not served yet."""
    site = Site(data, log_url, valkey_url)
    told = site.command("init", "--partitions", partitions)
    assert told.code == 0, told.err
    return site
