"""`tillgate serve` on a data directory of our own: started, killed, and started again at the same address."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import msgspec

START_SECONDS_MAX = 60.0  # it takes one; a rebuild after a fault, or a cold disk, several
STOP_SECONDS_MAX = 30.0  # drain, then Valkey's own clean end
POLL_SECONDS = 0.02
LOG_TAIL_BYTES = 2000
NO_VARIABLES: Mapping[str, str] = {}
_COMMAND = (sys.executable, "-m", "gateway.cli")


class GatewayFailed(Exception):
    """The gateway did not start, or refused what it must allow; says what it said."""


class Served(msgspec.Struct):
    """gateway.json, as far as it matters here."""

    pid: int
    url: str
    metrics_url: str = ""


class Server:
    """The process, whichever it is at the moment."""

    def __init__(
        self, directory: Path, settings: Mapping[str, str], environment: Mapping[str, str] = NO_VARIABLES
    ) -> None:
        """`settings`: variables without their TILLGATE_, none of which the caller's own environment lends."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("TILLGATE_")}
        chosen = {"DATA": str(directory), "SERVER__PORT": "0", "METRICS__PORT": "0", **settings}
        self._environment = kept | dict(environment) | {f"TILLGATE_{name}": value for name, value in chosen.items()}
        self.directory = directory
        self._process: subprocess.Popen[bytes] | None = None

    def init(self, *options: str) -> None:
        """`tillgate init`. Raises GatewayFailed."""
        self.command("init", *options)

    def command(self, *words: str) -> str:
        """Another command of `tillgate` on this directory, and what it prints. Raises GatewayFailed."""
        made = subprocess.run([*_COMMAND, *words], env=self._environment, capture_output=True, text=True, check=False)
        if made.returncode:
            raise GatewayFailed(f"tillgate {words[0]}: {made.stderr.strip()}")
        return made.stdout

    def start(self) -> Served:
        """Serve, and wait until it does; the address is the same each time. Raises GatewayFailed."""
        with self._log.open("ab") as output:
            self._process = subprocess.Popen([*_COMMAND, "serve"], env=self._environment, stdout=output, stderr=output)
        served = self._waited_for(self._process)
        self._environment["TILLGATE_SERVER__PORT"] = served.url.rpartition(":")[2]
        if served.metrics_url:
            self._environment["TILLGATE_METRICS__PORT"] = served.metrics_url.split(":")[2].partition("/")[0]
        return served

    def _waited_for(self, process: subprocess.Popen[bytes]) -> Served:
        until_s, told = time.monotonic() + START_SECONDS_MAX, self.directory / "gateway.json"
        while True:
            if told.exists() and (served := msgspec.json.decode(told.read_bytes(), type=Served)).pid == process.pid:
                return served
            if process.poll() is not None or time.monotonic() > until_s:
                raise GatewayFailed(f"the gateway did not start:\n{self._said()}")
            time.sleep(POLL_SECONDS)

    @property
    def _log(self) -> Path:
        return self.directory / "serve.log"

    def _said(self) -> str:
        return self._log.read_text(errors="replace")[-LOG_TAIL_BYTES:]

    @property
    def pid(self) -> int:
        """Of the process that was started last."""
        assert self._process is not None, "it was never started"
        return self._process.pid

    @property
    def has_ended(self) -> bool:
        """Whether it did so by itself."""
        assert self._process is not None, "it was never started"
        return self._process.poll() is not None

    @property
    def workers(self) -> int:
        """Processes that share the address."""
        return int(self._environment.get("TILLGATE_WORKERS", "1"))

    def workers_replaced(self) -> int:
        """How often all of them were, since the start."""
        return self._log.read_text(errors="replace").count("workers were replaced")

    def kill(self) -> None:
        """SIGKILL, and until it is gone."""
        assert self._process is not None, "it was never started"
        self._process.kill()
        self._process.wait()

    def leave(self) -> None:
        """SIGTERM: it drains. Killed if it takes longer than STOP_SECONDS_MAX."""
        if self._process is None or self._process.poll() is not None:
            return
        self._process.send_signal(signal.SIGCONT)  # a frozen one cannot leave
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(STOP_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            self.kill()
