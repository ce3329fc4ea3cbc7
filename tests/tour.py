"""Makes the pictures of the operator's tour, ops/tour/*.png, in both languages: `make tour`.

A demo run is kept and served again, some shoppers are let in over HTTP so that the curves move, and a browser looks.
"""

import asyncio
import contextlib
import json
import random
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import aiohttp
from browser_world import chromium, opened
from playwright.async_api import Page
from source_tree import ROOT

PICTURES = ROOT / "ops" / "tour"
CAMPAIGN = "autumn-bowl"
VOUCHERS, SCANS_PER_S, LIVE_S = 600, 15, 40.0
SEED = 7
SCREENS = (  # file, place, what is there once it is drawn, theme
    ("now", "now", ".chart canvas", "light"),
    ("campaign", f"campaigns/{CAMPAIGN}", ".chart canvas", "light"),
    ("stores", "stores", "table", "light"),
    ("voucher", "vouchers/1-1", "ol.life li", "light"),
    ("system", "system", "text=server.host", "dark"),
)
VIEWS = (  # for README.md, for README.zh-CN.md, and how a phone shows it
    *((name, place, there, "desk", theme, "en-GB") for name, place, there, theme in SCREENS),
    *((f"{name}-zh", place, there, "desk", theme, "zh-CN") for name, place, there, theme in SCREENS),
    ("now-phone", "now", ".chart canvas", "phone", "dark", "zh-CN"),
)


def tillgate(*words: object) -> None:
    command = [sys.executable, "-m", "gateway.cli", *map(str, words)]
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)


@contextlib.contextmanager
def serving(data: Path) -> Iterator[str]:
    command = [sys.executable, "-m", "gateway.cli", "serve", "--json", "--data", data]
    ports = ["--server-port", "0", "--metrics-port", "0"]
    with subprocess.Popen([*command, *ports], cwd=ROOT, text=True, stdout=subprocess.PIPE) as served:
        assert served.stdout is not None
        try:
            yield json.loads(served.stdout.readline())["url"]
        finally:
            served.send_signal(signal.SIGTERM)


class Shoppers:
    """Who redeem over HTTP, one after another, at all stores of all merchants."""

    def __init__(self, session: aiohttp.ClientSession, admin: str) -> None:
        self._session, self._admin = session, admin
        self._codes: list[str] = []
        self._tills: list[tuple[int, str]] = []  # terminal, and a token that may use it

    async def arrive(self) -> None:
        """Fresh vouchers, and a token for each merchant's own software."""
        body = {"count": VOUCHERS, "request_id": secrets.token_hex(8)}
        issued = await self._ask("POST", f"/v1/campaigns/{CAMPAIGN}/issues", self._admin, body)
        where = f"/v1/campaigns/{CAMPAIGN}/codes?first={issued['first_serial']}&count={VOUCHERS}"
        async with self._session.get(where, headers=_bearer(self._admin)) as answer:
            self._codes = [line.partition(",")[2] for line in (await answer.text()).split()]
        stores = {row["store"]: row["merchant"] for row in await self._ask("GET", "/v1/stores", self._admin)}
        tokens = {}
        for merchant in set(stores.values()):
            asked = {"role": "integrator", "scope": merchant, "label": f"tills of {merchant}"}
            tokens[merchant] = (await self._ask("POST", "/v1/tokens", self._admin, asked))["token"]
        terminals = await self._ask("GET", "/v1/terminals", self._admin)
        self._tills = [(row["terminal"], tokens[stores[row["store"]]]) for row in terminals]

    async def shop(self) -> None:
        """Until cancelled: mostly new vouchers, now and then one that was used."""
        used: list[str] = []
        while True:
            again = used and random.random() < 0.08
            code = random.choice(used) if again else self._codes.pop()
            used.append(code)
            terminal, token = random.choice(self._tills)
            body = {"redemption_id": secrets.token_hex(16), "code": code, "terminal": terminal}
            await self._ask("POST", "/v1/redemptions", token, {**body, "scanned_ms": time.time_ns() // 1_000_000})
            await asyncio.sleep(random.expovariate(SCANS_PER_S))

    async def _ask(self, method: str, path: str, token: str, body: object = None) -> "object | list | dict":  # type: ignore[type-arg]
        async with self._session.request(method, path, json=body, headers=_bearer(token)) as answer:
            answer.raise_for_status()
            return await answer.json()


def _bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


@contextlib.asynccontextmanager
async def shopping(url: str, admin: str) -> AsyncIterator[None]:
    async with aiohttp.ClientSession(url) as session:
        shoppers = Shoppers(session, admin)
        await shoppers.arrive()
        running = asyncio.create_task(shoppers.shop())
        try:
            yield
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


async def sign_in(page: Page, token: str) -> None:
    await page.fill("input[name=token]", token)
    await page.click("button[type=submit]")
    await page.wait_for_selector("nav a")


async def take(url: str, admin: str) -> None:
    async with shopping(url, admin), chromium() as browser:
        await asyncio.sleep(LIVE_S)  # the curves grow with the clock, and nothing else
        for name, place, there, size, theme, locale in VIEWS:
            colours = {"color_scheme": theme, "locale": locale}
            async with opened(browser, f"{url}/console", size, **colours) as page:
                await sign_in(page, admin)
                await page.goto(f"{url}/console#/{place}")
                await page.wait_for_selector(there)
                await page.wait_for_timeout(1500)  # one push of the stream, so that numbers are there
                await page.screenshot(path=PICTURES / f"{name}.png")
                print(f"ops/tour/{name}.png")


def main() -> None:
    PICTURES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        data = Path(scratch) / "party" / "data"
        tillgate("demo", "--seed", SEED, "--keep", data.parent)
        admin = (data / "secrets" / "admin.token").read_text().strip()
        with serving(data) as url:
            asyncio.run(take(url, admin))


if __name__ == "__main__":
    main()
