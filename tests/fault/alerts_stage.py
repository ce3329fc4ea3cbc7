"""A gateway, its Valkey, a Prometheus and an Alertmanager, all real and all for one test, and rules in fast motion.

The rules are those of ops/, with windows SCALE times shorter: five minutes are ten seconds. Both servers of ours lie
on disks that fail on request (chaos_disk.py). Traffic is scans that are sent again under their first ids: the log
answers them, and codes never run out.
"""

import asyncio
import os
import shutil
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp
import chaos_disk
import yaml
from chaos_servers import Gateway, Valkey
from source_tree import ROOT
from stream_world import SUBPROTOCOL, Closed, TillClient, furnish, site

from gateway import slo
from gateway.messages import Redeem

OPS = ROOT / "ops"
SCALE = 30
EVERY = "1s"  # ten samples in what stands for five minutes
CAPACITY = 1e6
FIRES_S = 120.0  # the longest takes a minute on a quiet machine
SCANS = 20  # each message of the traffic
PAUSE_S = 0.1


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def becomes(true: Callable[[], Awaitable[bool]], seconds: float = FIRES_S) -> bool:
    """Whether an observable condition comes true in time."""
    until_s = time.monotonic() + seconds
    while not (came := await true()) and time.monotonic() < until_s:  # noqa: ASYNC110 - a question, no event
        await asyncio.sleep(0.2)
    return came


class Scraped(Gateway):
    """A gateway whose metrics stay at one port over restarts."""

    def __init__(self, *args: Any, capacity: float) -> None:
        super().__init__(*args)
        self.metrics_port, self._capacity = free_port(), capacity

    def _environment(self) -> dict[str, str]:
        return super()._environment() | {
            "TILLGATE_METRICS__PORT": str(self.metrics_port),
            "TILLGATE_METRICS__CAPACITY_REDEEM_PER_SECOND": str(self._capacity),
        }


class Watcher:
    """Prometheus and Alertmanager, with the rules of ops/ in fast motion."""

    def __init__(self, home: Path, target: int, session: aiohttp.ClientSession, scale: int) -> None:
        self._home, self._session = home, session
        self._ports = free_port(), free_port()
        home.mkdir()
        (home / "rules").mkdir()
        for path in (OPS / "prometheus" / "rules").glob("*.yml"):
            (home / "rules" / path.name).write_text(slo.scaled(path.read_text(), scale))
        config = {
            "global": {"scrape_interval": EVERY, "evaluation_interval": EVERY, "scrape_timeout": EVERY},
            "rule_files": [str(home / "rules" / "*.yml")],
            "alerting": {"alertmanagers": [{"static_configs": [{"targets": [f"127.0.0.1:{self._ports[1]}"]}]}]},
            "scrape_configs": [{"job_name": "tillgate", "static_configs": [{"targets": [f"127.0.0.1:{target}"]}]}],
        }
        (home / "prometheus.yml").write_text(yaml.safe_dump(config))

    def start(self, stack: AsyncExitStack) -> None:
        """Both servers, until the stack ends."""
        for command in self._commands():
            with (self._home / f"{command[0]}.log").open("wb") as log:
                child = subprocess.Popen(command, stdout=log, stderr=log, env=os.environ | {"GOMAXPROCS": "1"})
            stack.callback(child.wait)
            stack.callback(child.terminate)

    def _commands(self) -> list[list[str]]:
        prometheus, alertmanager = self._ports
        return [
            [
                *("prometheus", f"--config.file={self._home}/prometheus.yml", f"--storage.tsdb.path={self._home}/tsdb"),
                *(f"--web.listen-address=127.0.0.1:{prometheus}", "--log.level=warn"),
            ],
            [
                *("prometheus-alertmanager", f"--config.file={OPS}/alertmanager/alertmanager.yml"),
                *(f"--storage.path={self._home}/alerts", "--cluster.listen-address="),
                *(f"--web.listen-address=127.0.0.1:{alertmanager}", "--log.level=warn"),
            ],
        ]

    async def _get(self, port: int, path: str) -> Any:
        async with self._session.get(f"http://127.0.0.1:{port}{path}") as response:
            return await response.json()

    async def is_calm(self) -> bool:
        """The gateway is scraped, and nothing fires but the watchdog."""
        known = await self.scrapes()
        return known and await self.firing() == {("TillgateWatchdog", "none")} and not await self.pages()

    async def scrapes(self) -> bool:
        """Both answer, and know the gateway: Prometheus only after five seconds."""
        try:
            return await self.value("up") == 1 and await self.pages() is not None
        except aiohttp.ClientError:
            return False

    async def firing(self) -> set[tuple[str, str]]:
        """(alert, severity) as Prometheus sees them, muted or not."""
        told = (await self._get(self._ports[0], "/api/v1/alerts"))["data"]["alerts"]
        return {
            (alert["labels"]["alertname"], alert["labels"]["severity"]) for alert in told if alert["state"] == "firing"
        }

    async def pages(self) -> set[str]:
        """Alerts that reach somebody's bed: pages that Alertmanager does not mute."""
        told = await self._get(self._ports[1], "/api/v2/alerts?inhibited=false&silenced=false&active=true")
        return {alert["labels"]["alertname"] for alert in told if alert["labels"]["severity"] == "page"}

    async def has_no_page(self) -> bool:
        """No cause is told any more; what burnt of a budget stays burnt for as long as its window."""
        return not {name for name, severity in await self.firing() if severity == "page" and "Burn" not in name}

    async def value(self, query: str) -> float | None:
        told = (await self._get(self._ports[0], f"/api/v1/query?query={query}"))["data"]["result"]
        return float(told[0]["value"][1]) if told else None


class Stage:
    def __init__(self, gateway: Scraped, valkey: Valkey, watcher: Watcher, session: aiohttp.ClientSession) -> None:
        self.gateway, self.valkey, self.watcher, self._session = gateway, valkey, watcher, session
        self.scans: Sequence[Redeem] = ()
        self.sent: Callable[[], Sequence[Redeem]] = lambda: self.scans
        self._till: asyncio.Task[None] | None = None

    def open_shop(self, scans: Sequence[Redeem]) -> None:
        """One till begins to scan."""
        self.scans = scans
        self._till = asyncio.create_task(self._traffic())

    async def close_shop(self) -> None:
        """The till goes away."""
        if self._till is not None:
            self._till.cancel()
            await asyncio.gather(self._till, return_exceptions=True)

    async def _traffic(self) -> None:
        while True:
            with suppress(Closed, aiohttp.ClientError, OSError, TimeoutError, AssertionError):
                url = self.gateway.url + "/v1/stream"
                async with self._session.ws_connect(url, protocols=[SUBPROTOCOL], compress=0) as ws:
                    till = TillClient(ws, SUBPROTOCOL)
                    await till.greet(1)
                    while True:
                        await till.redeem(*self.sent())
                        await asyncio.sleep(PAUSE_S)
            await asyncio.sleep(PAUSE_S)

    async def fires(self, *wanted: tuple[str, str], seconds: float = FIRES_S) -> None:
        """Waits until each of these (alert, severity) has fired in Prometheus."""
        missing = {(f"Tillgate{name}", severity) for name, severity in wanted}
        seen: set[tuple[str, str]] = set()

        async def fired() -> bool:
            seen.update(await self.watcher.firing())
            return missing <= seen

        assert await becomes(fired, seconds), f"no {missing - seen}; fired: {seen}; {self.gateway.tail()}"

    async def pages_only(self, name: str) -> None:
        """Waits until this alert, and no other one, would wake somebody; and it stays so."""
        wanted = {f"Tillgate{name}"}

        async def is_alone() -> bool:
            return await self.watcher.pages() == wanted

        assert await becomes(is_alone), await self.watcher.pages()
        for _ in range(10):
            assert await is_alone(), await self.watcher.pages()
            await asyncio.sleep(0.3)


async def prepare(home: Path, count: int = SCANS) -> list[Redeem]:
    """A deployment with terminals and `count` vouchers; returns their scans."""
    async with site(home) as here:
        scans = [here.w.scan(code) for code in await here.w.codes(count)]
        if not here.w.directory.merchants:
            await furnish(here.w)
    shutil.rmtree(home / "valkey")
    return scans


@asynccontextmanager
async def stage(
    tmp: Path,
    *,
    home: Path | None = None,
    scans: Sequence[Redeem] | None = None,
    capacity: float = CAPACITY,
    scale: int = SCALE,
    well: bool = True,
) -> AsyncIterator[Stage]:
    """Everything, running (and `well`), and a till that sends `scans`; without them, a new deployment and its scans.

    `home`: another place for the gateway's data directory; Valkey's lies beside it.
    """
    library = chaos_disk.build(tmp)
    home = home or tmp / "gateway"
    scans = await prepare(home) if scans is None else scans
    async with AsyncExitStack() as stack:
        session = await stack.enter_async_context(aiohttp.ClientSession())
        valkey_home = home.parent / "valkey"
        valkey = await Valkey.make(chaos_disk.Disk(library, valkey_home, tmp / "side-valkey"), valkey_home)
        gateway = Scraped(chaos_disk.Disk(library, home, tmp / "side-gateway"), home, valkey, ROOT, capacity=capacity)
        for process in (valkey, gateway):
            stack.callback(process.kill)
            await process.start()
        watcher = Watcher(tmp / "watch", gateway.metrics_port, session, scale)
        watcher.start(stack)
        made = Stage(gateway, valkey, watcher, session)
        stack.push_async_callback(made.close_shop)
        assert await becomes(watcher.is_calm if well else watcher.scrapes), await watcher.firing()
        made.open_shop(scans)
        yield made
