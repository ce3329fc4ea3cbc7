"""A till on the bench: a state directory, a configuration, ptys for its scanners, and the daemon itself."""

import asyncio
import os
import pty
import select
import subprocess
import sys
import time
import tty
from collections.abc import Callable
from pathlib import Path
from typing import Self

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from devices.enrol import DEVICE_KEY_NAME
from devices.journal import JOURNAL_NAME, read_journal
from devices.keys import device_key, read_or_create_secret
from devices.records import Record

ROOT = Path(__file__).parent.parent
DEADLINE_S = float(os.environ.get("TILLGATE_TEST_DEADLINE_S", "20"))  # emulated machines need more


class PtyScanner:
    """The scanner's end of a serial line. `path` is a stable name, like a by-id link, that survives a replug."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._master = -1
        self.plug()

    def plug(self) -> None:
        self._master, slave = pty.openpty()
        tty.setraw(slave)
        self.path.unlink(missing_ok=True)
        self.path.symlink_to(os.ttyname(slave))
        os.close(slave)

    def write(self, octets: bytes) -> None:
        assert os.write(self._master, octets) == len(octets)

    def read(self) -> bytes:
        """What the till has sent until now; nothing when it sent nothing, or has the port not open."""
        ready, _, _ = select.select([self._master], [], [], 0)
        try:
            return os.read(self._master, 4096) if ready else b""
        except OSError:
            return b""

    def unplug(self) -> None:
        os.close(self._master)
        self._master = -1

    def close(self) -> None:
        if self._master >= 0:
            self.unplug()


class TillBench:
    """Files of one till; `start` runs `python -m devices.terminal` on them, output in `screen`."""

    def __init__(self, directory: Path) -> None:
        self.state = directory / "state"
        self.state.mkdir(mode=0o700)
        self.config = directory / "terminal.toml"
        self.screen_path = directory / "screen.txt"
        key = device_key(read_or_create_secret(self.state / DEVICE_KEY_NAME))
        self.public_key = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        self.scanner = PtyScanner(directory / "lane1")
        self.daemon: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        if self.daemon and self.daemon.poll() is None:
            self.kill()
        self._close_stdin()
        self.scanner.close()

    def configure(
        self, *gateways: str, suffix: str = "cr", language: str = "en", framing: str = "raw", more: str = ""
    ) -> None:
        urls = ", ".join(f'"{url}"' for url in gateways)
        self.config.write_text(
            f'gateways = [{urls}]\nterminal = 7\nstate_directory = "state"\nlanguage = "{language}"\n{more}\n'
            f'[[scanners]]\nname = "lane1"\npath = "{self.scanner.path}"\n'
            f'suffix = "{suffix}"\nframing = "{framing}"\n',
            "utf-8",
        )

    def start(self, stdin: int = subprocess.PIPE) -> None:
        command = [sys.executable, "-m", "devices.terminal", "--config", str(self.config)]
        with open(self.screen_path, "ab") as screen:
            self.daemon = subprocess.Popen(command, cwd=ROOT, stdin=stdin, stdout=screen, stderr=screen, bufsize=0)

    def kill(self) -> None:
        """kill -9, and wait for it to be gone."""
        assert self.daemon
        self.daemon.kill()
        self.daemon.wait()
        self._close_stdin()

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        assert self.daemon
        self.daemon.terminate()
        code = self.daemon.wait(DEADLINE_S)
        self._close_stdin()
        return code

    def type(self, command: str) -> None:
        assert self.daemon
        assert self.daemon.stdin
        self.daemon.stdin.write(command.encode() + b"\n")

    def screen(self) -> str:
        return self.screen_path.read_text("utf-8") if self.screen_path.exists() else ""

    def journal(self) -> list[Record]:
        return read_journal(self.state / JOURNAL_NAME)

    async def until_shown(self, text: str, times: int = 1) -> None:
        await until(lambda: self.screen().count(text) >= times, lambda: f"{text!r} in:\n{self.screen()}")

    def _close_stdin(self) -> None:
        if self.daemon and self.daemon.stdin:
            self.daemon.stdin.close()


async def until(condition: Callable[[], bool], wanted: Callable[[], str] = lambda: "the condition") -> None:
    """Poll something only a file shows. Fails after DEADLINE_S, saying what was wanted."""
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, f"timed out waiting for {wanted()}"
        await asyncio.sleep(0.01)
