"""Where a running till can be asked how it is: on its local socket, and by scrapes where an address is configured."""

import os
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import msgspec
from aiohttp import web

from devices.config import TerminalConfig
from devices.console import HEALTH_COMMAND, SOCKET_NAME, command_socket
from devices.health import CONTENT_TYPE, Health, exposition, oldest_ms, scanner_health
from devices.journal import Journal
from devices.scanner import Scanner
from devices.till import Till


class HealthDesk:
    """Serves the cashier's commands on the socket too, because they share it. A scanner that is in no configuration
    has its name for a kind.
    """

    def __init__(self, config: TerminalConfig, journal: Journal, till: Till, scanners: Mapping[str, Scanner]) -> None:
        self._config, self._journal, self._till, self._scanners = config, journal, till, scanners
        self._kinds = {one.name: str(one.__struct_config__.tag) for one in config.scanners}
        self._started_ms = _now_ms()

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Raises `OSError` when the address for scrapes cannot be had."""
        async with AsyncExitStack() as stack:
            path = Path(self._config.state_directory) / SOCKET_NAME
            await stack.enter_async_context(command_socket(path, self._execute))
            if self._config.metrics_listen:
                await stack.enter_async_context(self._scraped(self._config.metrics_listen))
            yield

    def now(self) -> Health:
        now_ms, ledger = _now_ms(), self._journal.ledger
        disk = os.statvfs(self._config.state_directory)
        return Health(
            started_ms=self._started_ms,
            at_ms=now_ms,
            connected=self._till.online,
            waiting=ledger.open_count(),
            oldest_ms=oldest_ms(ledger.open_records(), now_ms),
            journal_bytes=self._journal.length,
            disk_free_bytes=disk.f_bavail * disk.f_frsize,
            scanners=[scanner_health(one, self._kinds.get(name, name)) for name, one in self._scanners.items()],
        )

    async def _execute(self, command: str) -> str:
        if command == HEALTH_COMMAND:
            return msgspec.json.encode(self.now()).decode()
        return await self._till.execute(command)

    @asynccontextmanager
    async def _scraped(self, listen: str) -> AsyncIterator[None]:
        app = web.Application()
        app.router.add_get("/metrics", self._scrape)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        try:
            host, _, port = listen.rpartition(":")
            await web.TCPSite(runner, host.strip("[]"), int(port)).start()
            yield
        finally:
            await runner.cleanup()

    async def _scrape(self, request: web.Request) -> web.Response:
        return web.Response(body=exposition(self.now()).encode(), headers={"Content-Type": CONTENT_TYPE})


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
