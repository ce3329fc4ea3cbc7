"""The servers of a chaos run: a gateway and a Valkey, processes of their own, each on a disk that can fail.

Both are started with the project's own command and configuration; the gateway is told of this Valkey by `valkey.url`,
so that either can be killed, paused or restarted without the other.
"""

import asyncio
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec
from chaos_disk import Disk
from redis.asyncio import Redis
from redis.exceptions import RedisError

from gateway.main import GATEWAY_FILE, Served
from gateway.valkey_server import Endpoint, config_text, find_server, log_tail, packaged_server

ROOT = Path(__file__).resolve().parent.parent.parent
START_S = 30.0  # it takes one; more on a machine that also loads itself
POLL_S = 0.01


class Failed(Exception):
    """A server did not do what it must; says what it said."""


class Process:
    """One server. `must_live`: whether its end would be a fault of its own."""

    name = "server"

    def __init__(self, disk: Disk, home: Path) -> None:
        self.disk, self.home = disk, home
        self.log = home.parent / f"{self.name}.log"
        self.must_live = False
        self.child: subprocess.Popen[bytes] | None = None

    @property
    def runs(self) -> bool:
        return self.child is not None and self.child.poll() is None

    def _spawn(self, command: list[str], environment: dict[str, str], cwd: Path) -> None:
        assert not self.runs, f"{self.name} runs"
        with self.log.open("ab") as log:
            self.child = subprocess.Popen(command, env=environment, cwd=cwd, stdout=log, stderr=log)

    def signal(self, number: signal.Signals) -> None:
        if self.runs:
            assert self.child is not None
            self.child.send_signal(number)

    def kill(self) -> None:
        """SIGKILL, and gone when this returns."""
        self.must_live = False
        self.signal(signal.SIGKILL)
        if self.child is not None:
            self.child.wait()

    async def ended(self, seconds: float) -> int:
        """Its exit code. Raises Failed when it has not ended by then."""
        assert self.child is not None
        until_s = time.monotonic() + seconds
        while (code := self.child.poll()) is None:
            if time.monotonic() > until_s:
                raise Failed(f"{self.name} did not end within {seconds:g} s")
            await asyncio.sleep(POLL_S)
        return code

    def tail(self) -> str:
        """The last it said."""
        return self.log.read_text(errors="replace")[-1500:] if self.log.exists() else ""


OWN_SETTINGS = b"appendonly yes\nappendfsync everysec\naof-load-truncated no\n"
TORN = "Unexpected end of file reading the append only file"  # what it says then, Redis 7 and Valkey 8 alike


def set_torn_file_aside(home: Path) -> Path | None:
    """Where a server that would not load what a power failure left of its append-only file now finds none."""
    files, aside = home / "appendonlydir", home / "appendonlydir.torn"
    if TORN not in log_tail(home) or not files.is_dir():
        return None
    shutil.rmtree(aside, ignore_errors=True)
    files.rename(aside)
    return aside


class Valkey(Process):
    name = "valkey"

    def __init__(self, disk: Disk, home: Path, program: Path) -> None:
        super().__init__(disk, home)
        self._program = program
        self.socket = home / "valkey.sock"
        self.files = home / "appendonlydir"
        self.set_aside = 0
        home.mkdir(exist_ok=True)
        # As an operator would run one of his own: the private one of a gateway keeps no file that could be torn.
        (home / "valkey.conf").write_bytes(config_text(home, Endpoint(unix_path=str(self.socket))) + OWN_SETTINGS)

    @classmethod
    async def make(cls, disk: Disk, home: Path) -> "Valkey":
        return cls(disk, home, await find_server(os.environ.get("PATH", os.defpath), packaged_server()))

    def client(self) -> Redis:
        return Redis(unix_socket_path=str(self.socket), socket_timeout=5.0)

    async def start(self) -> None:
        """Returns once it has loaded; what it will not load is set aside, as an operator would. Raises Failed."""
        try:
            await self._start()
        except Failed:
            if set_torn_file_aside(self.home) is None:
                raise
            self.set_aside += 1
            self.disk.forget()
            await self._start()

    async def _start(self) -> None:
        environment = os.environ | {"LC_ALL": "C"} | self.disk.environment()
        self._spawn([str(self._program), str(self.home / "valkey.conf")], environment, self.home)
        until_s = time.monotonic() + START_S
        while not await self._answers():
            if not self.runs or time.monotonic() > until_s:
                raise Failed(f"valkey did not start: {self.tail()}{self._own_log()}")
            await asyncio.sleep(POLL_S)
        self.must_live = True

    def _own_log(self) -> str:
        own = self.home / "valkey.log"
        return own.read_text(errors="replace")[-1500:] if own.exists() else ""

    async def _answers(self) -> bool:
        client = self.client()
        try:
            return bool(await client.ping())
        except (RedisError, OSError):
            return False
        finally:
            await client.aclose()


class Gateway(Process):
    name = "gateway"

    def __init__(self, disk: Disk, home: Path, valkey: Valkey, source: Path) -> None:
        """`source`: the checkout it is run from."""
        super().__init__(disk, home)
        self._valkey, self._source = valkey, source
        self.url = ""
        self.lives = 0

    def _environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("TILLGATE_")}
        return (
            kept
            | self.disk.environment()
            | {
                "PYTHONPATH": str(self._source),
                "TILLGATE_DATA": str(self.home),
                "TILLGATE_SERVER__PORT": "0",
                "TILLGATE_METRICS__PORT": "0",
                "TILLGATE_DRAIN_SECONDS": "0",
                "TILLGATE_VALKEY__URL": f"unix://{self._valkey.socket}",
            }
        )

    async def start(self) -> None:
        """Returns once it listens (it may not be ready yet). Raises Failed."""
        file = self.home / GATEWAY_FILE
        file.unlink(missing_ok=True)
        self._spawn([sys.executable, "-m", "gateway.cli", "serve"], self._environment(), self._source)
        until_s = time.monotonic() + START_S
        while not file.exists():
            if not self.runs or time.monotonic() > until_s:
                raise Failed(f"the gateway did not start: {self.tail()}")
            await asyncio.sleep(POLL_S)
        self.url = msgspec.json.decode(file.read_bytes(), type=Served).url
        self.must_live = True
        self.lives += 1

    @property
    def port(self) -> int:
        """Where it listens, or did."""
        return int(self.url.rpartition(":")[2]) if self.url else 0

    def halted(self) -> list[str]:
        """What it said of partitions that only an operator can open again."""
        return re.findall(r"partition \d+ (?:is )?halted[^\n]*", self.log.read_text(errors="replace"))


def copied_source(target: Path) -> Path:
    """The product's packages, copied to where they may be broken on purpose."""
    for package in ("gateway", "eventstore", "devices"):
        shutil.copytree(ROOT / package, target / package, ignore=shutil.ignore_patterns("__pycache__"))
    return target
