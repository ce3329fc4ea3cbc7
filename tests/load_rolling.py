"""`make load-rolling`: rolling-restart with two workers on a private PostgreSQL and a Valkey; then verified."""

import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from private_postgres import postgres_server
from private_valkey import server_in


def main() -> int:
    """The first exit code that is not 0; 77, as test programs say it, where PostgreSQL is absent."""
    tillgate = [sys.executable, "-m", "gateway.cli", "load"]
    try:
        with (
            postgres_server() as postgres,
            tempfile.TemporaryDirectory(prefix="tillgate-") as name,
            server_in(Path(name)) as url,
        ):
            where = ("--log-url", postgres.url(), "--valkey-url", url, "--workers", "2")
            run = Path(name) / "run"
            made = subprocess.run(
                [*tillgate, "run", "rolling-restart", *where, "--directory", str(run), *sys.argv[1:]], check=False
            )
            return subprocess.run([*tillgate, "verify", str(run)], check=False).returncode or made.returncode
    except pytest.skip.Exception as reason:
        print(f"skipped: {reason}")
        return 77


if __name__ == "__main__":
    sys.exit(main())
