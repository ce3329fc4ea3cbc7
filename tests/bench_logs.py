"""`make bench-logs`: the bench's rows with the log in SQLite and on private servers, each server in a table of its own.

PostgreSQL, one NATS server, and three that agree; all on this machine, so the three share its cores and its disk.
"""

import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest
from private_nats import NatsServers, nats_servers
from private_postgres import PostgresServer, postgres_server


def postgres() -> AbstractContextManager[PostgresServer]:
    """Not the tiny memory of the tests; its durability is PostgreSQL's own default, and is checked by the gateway."""
    return postgres_server("shared_buffers=256MB", "max_wal_size=4GB")


KINDS: dict[str, Callable[[], AbstractContextManager[PostgresServer | NatsServers]]] = {
    "PostgreSQL": postgres,
    "NATS JetStream, one server": nats_servers,
    "NATS JetStream, three servers": lambda: nats_servers(3),
}


def main() -> int:
    """The worst exit code of the benches; what is absent is skipped and said so."""
    worst = 0
    for name, servers in KINDS.items():
        print(f"\n=== {name}", flush=True)
        try:
            with servers() as running:
                command = [sys.executable, "-m", "gateway.cli", "bench", "--log-url", running.url(), *sys.argv[1:]]
                worst = max(worst, subprocess.run(command, check=False).returncode)
        except pytest.skip.Exception as reason:
            print(f"skipped: {reason}")
    return worst


if __name__ == "__main__":
    sys.exit(main())
