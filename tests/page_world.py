"""A till with its cashier's page, and browsers that look at it."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from scripted_gateway import ScriptedGateway
from till_bench import TillBench, until

PAGE = '[page]\nlisten = "127.0.0.1:0"'
PAGE_BEYOND = '[page]\nlisten = "0.0.0.0:0"'


class PageTill:
    """A running till; `url` is its page's."""

    def __init__(self, bench: TillBench, gateway: ScriptedGateway, more: str = PAGE) -> None:
        self.bench, self.gateway = bench, gateway
        bench.configure(gateway.url, more=more)

    @property
    def url(self) -> str:
        found = re.findall(r"page is ready \((https?)://[^:]*:(\d+)\)", self.bench.screen())
        scheme, port = found[-1]
        return f"{scheme}://127.0.0.1:{port}"

    @property
    def pairing(self) -> str:
        """The digits that were offered last."""
        return re.findall(r"open the page on it and type (\d{4} \d{4})", self.bench.screen())[-1]

    async def start(self) -> None:
        before = self.bench.screen().count("page is ready")
        self.bench.start()
        await until(lambda: self.bench.screen().count("page is ready") > before, self.bench.screen)
        await until(lambda: self.bench.screen().count("connected to the gateway") > before, self.bench.screen)

    def scan(self, code: str) -> None:
        self.bench.scanner.write(code.encode() + b"\r")


@asynccontextmanager
async def page_till(directory: Path, more: str = PAGE) -> AsyncIterator[PageTill]:
    """A till that has started, with a gateway that answers as the test has planned."""
    with TillBench(directory) as bench:
        async with ScriptedGateway(bench.public_key) as gateway:
            till = PageTill(bench, gateway, more)
            await till.start()
            yield till
