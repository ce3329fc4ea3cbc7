"""A private PostgreSQL for tests: in a temporary directory, on a Unix socket, run by another user where we are root."""

import contextlib
import glob
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

asyncpg = pytest.importorskip("asyncpg", reason="the package asyncpg is not installed (extra `postgres`)")

START_S = 20.0  # initdb takes one second, a start a tenth
UNPRIVILEGED = ("postgres", "nobody")  # the server refuses to run as root


def _programs() -> Path:
    """Where initdb and postgres are: on PATH, else where Debian puts them (newest first). Skips where absent."""
    found = shutil.which("initdb")
    places = sorted(glob.glob("/usr/lib/postgresql/*/bin/initdb"), key=lambda path: -float(path.split("/")[4]))
    for place in (found, *places):
        if place is not None:
            return Path(place).resolve().parent
    pytest.skip("PostgreSQL is not installed (Debian: apt-get install postgresql)")


def _somebody_else() -> dict[str, object]:
    """For subprocess: whom to run the server as."""
    if os.geteuid() != 0:
        return {}
    for name in UNPRIVILEGED:
        with contextlib.suppress(KeyError):
            user = pwd.getpwnam(name)
            return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
    pytest.skip("PostgreSQL refuses to run as root, and there is no user postgres or nobody")


class PostgresServer:
    """One server; `url` names its maintenance database."""

    def __init__(self, directory: Path, bin_directory: Path, options: dict[str, object]) -> None:
        self.directory, self._bin, self._options = directory, bin_directory, options
        self._process: subprocess.Popen[bytes] | None = None

    def url(self) -> str:
        return f"postgresql://till@/postgres?host={self.directory}"

    def start(self, *settings: str) -> None:
        """`settings`: more of them, as `name=value`."""
        with (self.directory / "server.out").open("ab") as output:
            self._process = subprocess.Popen(
                [
                    *(self._bin / "postgres", "-D", self.directory / "data", "-k", self.directory),
                    *("-c", "listen_addresses=", "-c", "max_connections=60", "-c", "shared_buffers=32MB"),
                    *(part for setting in settings for part in ("-c", setting)),
                ],
                stdout=output,
                stderr=output,
                cwd=self.directory,
                **self._options,  # type: ignore[call-overload]
            )
        deadline = time.monotonic() + START_S
        while not self._answers():
            assert self._process.poll() is None, (self.directory / "server.out").read_text()
            assert time.monotonic() < deadline, "PostgreSQL does not answer"
            time.sleep(0.02)

    def _answers(self) -> bool:
        asked = [self._bin / "pg_isready", "-q", "-h", self.directory, "-U", "till", "-d", "postgres"]
        return subprocess.run(asked, check=False).returncode == 0

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def stop(self, number: signal.Signals = signal.SIGINT) -> None:
        """SIGINT: at once and clean; SIGQUIT: as after a crash."""
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(START_S)
        self._process = None

    async def run(self, statement: str) -> list[tuple[object, ...]]:
        connection = await asyncpg.connect(self.url())
        try:
            return [tuple(row) for row in await connection.fetch(statement)]
        finally:
            await connection.close()

    async def emptied(self) -> str:
        """The URL of a database without a log and without connections: what the test before left is gone."""
        await self.run("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")
        await self.run("DROP SCHEMA IF EXISTS tillgate CASCADE")
        return self.url()


@contextlib.contextmanager
def postgres_server(*settings: str) -> Iterator[PostgresServer]:
    """A running server with nothing in it. Skips where PostgreSQL is absent."""
    bin_directory, options = _programs(), _somebody_else()
    with tempfile.TemporaryDirectory(prefix="tillgate-pg-", ignore_cleanup_errors=True) as name:
        directory = Path(name)
        if options:
            os.chown(directory, options["user"], options["group"])  # type: ignore[arg-type]
        subprocess.run(
            [
                bin_directory / "initdb",
                "-D",
                directory / "data",
                "-U",
                "till",
                "-A",
                "trust",
                "-N",
                "--no-instructions",
            ],
            check=True,
            capture_output=True,
            cwd=directory,
            **options,  # type: ignore[call-overload]
        )
        server = PostgresServer(directory, bin_directory, options)
        try:
            server.start(*settings)
            yield server
        finally:
            server.stop(signal.SIGQUIT)
