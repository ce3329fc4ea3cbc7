"""`make bench-postgres`: the bench's rows with the log in SQLite and in a private PostgreSQL, in one table."""

import subprocess
import sys

import pytest
from private_postgres import postgres_server


def main() -> int:
    """The bench's exit code; 77, as test programs say it, where PostgreSQL is absent."""
    try:
        # Not the tiny memory of the tests; its durability is PostgreSQL's own default, and is checked by the gateway.
        with postgres_server("shared_buffers=256MB", "max_wal_size=4GB") as postgres:
            command = [sys.executable, "-m", "gateway.cli", "bench", "--log-url", postgres.url(), *sys.argv[1:]]
            return subprocess.run(command, check=False).returncode
    except pytest.skip.Exception as reason:
        print(f"skipped: {reason}")
        return 77


if __name__ == "__main__":
    sys.exit(main())
